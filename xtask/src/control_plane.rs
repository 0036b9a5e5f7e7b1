//! The programs of a Kubernetes control plane, for `cargo xtask e2e`: found in `$KUBEBUILDER_ASSETS`, or built from
//! the Go module in tests/control-plane into a cache folder outside the checkout.

use std::{
    env,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};

use crate::{
    not_here::NotHere,
    steps::Steps,
    workspace::{Workspace, find_program},
};

/// Where the programs are, for the tests and for us: the variable that others who test against Kubernetes use, too.
pub(crate) const VARIABLE: &str = "KUBEBUILDER_ASSETS";

/// The programs, and the packages they are built from. The small ones first, so that what is wrong shows soon.
const PROGRAMS: [(&str, &str); 5] = [
    ("etcd", "go.etcd.io/etcd/server/v3"),
    ("kubectl", "k8s.io/kubernetes/cmd/kubectl"),
    ("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
    (
        "kube-controller-manager",
        "k8s.io/kubernetes/cmd/kube-controller-manager",
    ),
    ("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy"),
];

/// The number of steps that [`find_or_build`] takes.
pub(crate) const STEPS: usize = PROGRAMS.len();

const MODULE: &str = "tests/control-plane";
/// The linker writes the version into this variable, as Kubernetes' own build does.
const VERSION: &str = "k8s.io/component-base/version.gitVersion";

/// The folder with all programs. An error [`NotHere`] when there is no Go, or nothing to download modules from.
pub(crate) fn find_or_build(workspace: &Workspace, steps: &mut Steps) -> Result<PathBuf> {
    if let Some(folder) = env::var_os(VARIABLE) {
        let folder = PathBuf::from(folder);
        let missing = missing(&folder);
        if !missing.is_empty() {
            bail!(
                "${VARIABLE} is {}, where {} is missing: add it, or unset the variable to have all built",
                folder.display(),
                missing.join(", ")
            );
        }
        steps.tell(&format!("control plane: ${VARIABLE}"));
        steps.advance_by(STEPS);
        return Ok(folder);
    }
    let folder = cache_folder(workspace)?;
    if missing(&folder).is_empty() {
        steps.advance_by(STEPS);
        steps.tell("control plane: built before");
        return Ok(folder);
    }
    build(&Module::open(workspace)?, &folder, steps)?;
    Ok(folder)
}

/// The folder with all programs, if they are there already.
pub(crate) fn found(workspace: &Workspace) -> Option<PathBuf> {
    let folder = match env::var_os(VARIABLE) {
        Some(folder) => folder.into(),
        None => cache_folder(workspace).ok()?,
    };
    missing(&folder).is_empty().then_some(folder)
}

fn build(module: &Module, folder: &Path, steps: &mut Steps) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    steps.tell(&format!(
        "control plane: Kubernetes {} is built once, which takes about ten minutes",
        module.version
    ));
    for (name, package) in PROGRAMS {
        steps.advance();
        if folder.join(name).is_file() {
            continue;
        }
        // Renamed when it is whole: another build may be under way, and this one may be ended.
        let draft = folder.join(format!("{name}.{}", std::process::id()));
        let mut go = module.go("build");
        go.args(["-trimpath", "-ldflags"])
            .arg(format!("-s -w -X {VERSION}={}", module.version))
            .arg("-o")
            .arg(&draft)
            .arg(package);
        steps.run(&format!("{name}: building"), &format!("build-{name}"), &mut go)?;
        fs::rename(&draft, folder.join(name)).with_context(|| format!("cannot name {}", draft.display()))?;
    }
    Ok(())
}

/// The Go module that says which versions.
struct Module {
    go: PathBuf,
    folder: PathBuf,
    version: String,
}

impl Module {
    fn open(workspace: &Workspace) -> Result<Self> {
        let go = find_go().ok_or_else(|| {
            NotHere(format!(
                "there is no Go here to build a Kubernetes control plane with (install it from https://go.dev/dl, or \
                 set ${VARIABLE})"
            ))
        })?;
        let folder = workspace.path(MODULE);
        let mut module = Self {
            go,
            folder,
            version: String::new(),
        };
        module.version = module.kubernetes_version()?;
        Ok(module)
    }

    fn go(&self, subcommand: &str) -> Command {
        let mut command = Command::new(&self.go);
        command
            .current_dir(&self.folder)
            .env("CGO_ENABLED", "0")
            .arg(subcommand);
        command
    }

    /// Also finds out whether modules can be had.
    fn kubernetes_version(&self) -> Result<String> {
        let kubernetes = "k8s.io/kubernetes";
        let output = self
            .go("mod")
            .args(["download", "-json", kubernetes])
            .output()
            .context("cannot start go")?;
        if !output.status.success() {
            let reason = String::from_utf8_lossy(&output.stderr);
            return Err(NotHere(format!(
                "Go cannot get {kubernetes}: {}{}",
                reason.trim(),
                String::from_utf8_lossy(&output.stdout).trim()
            ))
            .into());
        }
        let about: serde_json::Value =
            serde_json::from_slice(&output.stdout).context("go does not answer in JSON")?;
        about["Version"]
            .as_str()
            .map(str::to_owned)
            .with_context(|| format!("go does not tell the version of {kubernetes}"))
    }
}

/// Also where its own installer puts it.
fn find_go() -> Option<PathBuf> {
    find_program("go").or_else(|| {
        let usual = PathBuf::from("/usr/local/go/bin/go");
        usual.is_file().then_some(usual)
    })
}

fn missing(folder: &Path) -> Vec<&'static str> {
    let names = PROGRAMS.map(|(name, _)| name);
    names
        .into_iter()
        .filter(|name| !folder.join(name).is_file())
        .collect()
}

/// Outside the checkout, so that another clone does not build it all again.
fn cache_folder(workspace: &Workspace) -> Result<PathBuf> {
    let sums = workspace.path(MODULE).join("go.sum");
    let sums = fs::read(&sums).with_context(|| format!("cannot read {}", sums.display()))?;
    let caches = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| env::home_dir().map(|home| home.join(".cache")))
        .context("neither XDG_CACHE_HOME nor HOME says where a cache may be")?;
    Ok(caches.join("sluice/control-plane").join(key(&sums)))
}

/// Enough of a hash to tell versions apart.
fn key(sums: &[u8]) -> String {
    let hash = Sha256::digest(sums);
    hash.iter().take(8).fold(String::new(), |mut key, byte| {
        // Writing to a string never fails.
        let _ = write!(key, "{byte:02x}");
        key
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_sums_have_another_folder() {
        assert_eq!(key(b""), "e3b0c44298fc1c14");
        assert_ne!(key(b"a"), key(b"b"));
    }

    #[test]
    fn an_empty_folder_misses_everything() {
        assert_eq!(missing(Path::new("/nonexistent")).len(), PROGRAMS.len());
    }
}
