//! The real kubectl.

use std::ffi::OsString;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use super::{ControlPlane, programs};

const PATIENCE: Duration = Duration::from_secs(20);

impl ControlPlane {
    /// Runs kubectl as the administrator; what it printed.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.kubectl_with(arguments, &[])
    }

    /// Applies objects on the server's side, as they are.
    pub fn apply(&self, objects: &[Value]) -> Result<()> {
        self.apply_with(&[], objects)
    }

    /// Applies a kustomization of the checkout, as a user would.
    pub fn apply_kustomization(&self, folder: &Path) -> Result<String> {
        self.kubectl(&["apply", "-k", &folder.to_string_lossy()])
    }

    /// Creates objects as they are, with their status where the API server takes one then, which is so for Nodes.
    pub fn create(&self, objects: &[Value]) -> Result<()> {
        self.kubectl_with(&["create", "-f", "-"], &list(objects))
            .map(drop)
    }

    /// Writes the status of objects that are there.
    pub fn apply_status(&self, objects: &[Value]) -> Result<()> {
        self.apply_with(&["--subresource=status"], objects)
    }

    /// Deletes objects, and does not wait until they are gone.
    pub fn delete(&self, kind: &str, names: &[&str]) -> Result<()> {
        let arguments = [&["delete", kind, "--wait=false"], names].concat();
        self.kubectl(&arguments).map(drop)
    }

    /// An object, as the API server has it.
    pub fn get(&self, kind: &str, name: &str) -> Result<Value> {
        let text = self.kubectl(&["get", kind, name, "--output=json"])?;
        serde_json::from_str(&text).context("kubectl does not answer in JSON")
    }

    /// Whether a service account may do this: verb, resource, and more arguments of `kubectl auth can-i`.
    pub fn may(&self, account: &str, arguments: &[&str]) -> Result<bool> {
        let user = format!("--as=system:serviceaccount:{account}");
        let arguments = [&["auth", "can-i", &user], arguments].concat();
        let output = self.run_kubectl(&arguments, &[])?;
        match String::from_utf8_lossy(&output.stdout).trim() {
            "yes" => Ok(true),
            // With the reason behind it, if there is one.
            answer if answer.starts_with("no") => Ok(false),
            answer => bail!(
                "{arguments:?}: {answer} {}",
                String::from_utf8_lossy(&output.stderr)
            ),
        }
    }

    /// A token of a service account, `namespace` and `name`.
    pub fn token(&self, namespace: &str, name: &str) -> Result<String> {
        let token = self.kubectl(&["create", "token", name, "--namespace", namespace, "--duration=1h"])?;
        Ok(token.trim().to_owned())
    }

    /// Waits until an object is as it should be.
    pub fn wait_for(&self, kind: &str, name: &str, is_so: impl Fn(&Value) -> bool) -> Result<Value> {
        let begin = Instant::now();
        loop {
            let object = self.get(kind, name);
            match object {
                Ok(object) if is_so(&object) => return Ok(object),
                _ if begin.elapsed() < PATIENCE => thread::sleep(Duration::from_millis(100)),
                object => bail!("{kind} {name} is not as expected after {PATIENCE:?}: {object:#?}"),
            }
        }
    }

    fn apply_with(&self, options: &[&str], objects: &[Value]) -> Result<()> {
        if objects.is_empty() {
            return Ok(());
        }
        let arguments = [
            &["apply", "--server-side", "--force-conflicts", "-f", "-"],
            options,
        ]
        .concat();
        self.kubectl_with(&arguments, &list(objects)).map(drop)
    }

    fn kubectl_with(&self, arguments: &[&str], input: &[u8]) -> Result<String> {
        let output = self.run_kubectl(arguments, input)?;
        ensure!(
            output.status.success(),
            "kubectl {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn run_kubectl(&self, arguments: &[&str], input: &[u8]) -> Result<std::process::Output> {
        let option = |name: &str, path: &Path| {
            let mut option = OsString::from(name);
            option.push(path);
            option.to_string_lossy().into_owned()
        };
        let own = [
            option("--kubeconfig=", &self.admin),
            option("--cache-dir=", &self.folder.path().join("kubectl")),
        ];
        let own = own.each_ref().map(String::as_str);
        let program = programs::path("kubectl")?;
        self.host
            .netns
            .output(&program.to_string_lossy(), &[&own[..], arguments].concat(), input)
    }
}

fn list(objects: &[Value]) -> Vec<u8> {
    json!({ "apiVersion": "v1", "kind": "List", "items": objects })
        .to_string()
        .into_bytes()
}
