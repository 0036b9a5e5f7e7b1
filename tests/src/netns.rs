//! Network namespaces: made, configured, entered, removed.

use std::fs::{self, File};
use std::io::Write as _;
use std::panic;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Result, bail};
use nix::sched::{CloneFlags, setns};

use crate::scratch::unique_name;

/// Where `ip netns` keeps the names.
pub(crate) const FOLDER: &str = "/run/netns";

/// A network namespace, removed on drop.
#[derive(Debug)]
pub struct Netns {
    name: String,
    file: File,
}

impl Netns {
    /// Makes a namespace whose loopback is up; `role` ends its name.
    pub fn new(role: &str) -> Result<Self> {
        let name = unique_name(role);
        finished("ip", Command::new("ip").args(["netns", "add", &name]))?;
        let file =
            File::open(Path::new(FOLDER).join(&name)).with_context(|| format!("cannot open {name}"))?;
        let namespace = Self { name, file };
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Its name for `ip -n`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `work` inside, on a thread of its own, and waits for it. Sockets and processes that it makes stay inside.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                self.enter()?;
                work()
            });
            inside
                .join()
                .unwrap_or_else(|panicked| panic::resume_unwind(panicked))
        })
    }

    /// Starts `work` inside, on a thread of its own.
    pub fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<JoinHandle<Result<T>>> {
        let file = self.file.try_clone().context("cannot share a namespace")?;
        let inside = move || {
            setns(file, CloneFlags::CLONE_NEWNET).context("cannot enter a namespace")?;
            work()
        };
        thread::Builder::new()
            .name(self.name.clone())
            .spawn(inside)
            .context("cannot start a thread")
    }

    /// Runs a command inside and returns what it printed; an error when it failed.
    pub fn command(&self, program: &str, args: &[&str]) -> Result<String> {
        self.run(|| finished(program, Command::new(program).args(args)))
            .with_context(|| format!("in {}", self.name))
    }

    /// Runs a command inside with this input; what it printed, and how it ended.
    pub fn output(&self, program: &str, args: &[&str], input: &[u8]) -> Result<Output> {
        self.run(|| {
            let mut child = Command::new(program)
                .args(args)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .with_context(|| format!("cannot run {program}"))?;
            if let Some(mut stdin) = child.stdin.take() {
                // A program need not read all of it.
                let _unread = stdin.write_all(input);
            }
            child
                .wait_with_output()
                .with_context(|| format!("cannot wait for {program}"))
        })
        .with_context(|| format!("in {}", self.name))
    }

    /// Runs lines of `ip` commands.
    pub fn ip(&self, lines: &str) -> Result<()> {
        batch(Command::new("ip").args(["-n", &self.name, "-batch", "-"]), lines)
            .with_context(|| format!("cannot configure {}:\n{lines}", self.name))
    }

    /// Loads lines of nftables rules.
    pub fn nft(&self, lines: &str) -> Result<()> {
        self.run(|| batch(Command::new("nft").args(["-f", "-"]), lines))
            .with_context(|| format!("in {}", self.name))
    }

    /// Sets a value under /proc/sys/net, e.g. `ipv4/ip_forward`.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        self.sysctls(&[(key, value)])
    }

    /// Sets several values under /proc/sys/net.
    pub fn sysctls(&self, values: &[(&str, &str)]) -> Result<()> {
        self.run(|| {
            for (key, value) in values {
                fs::write(Path::new("/proc/sys/net").join(key), value)
                    .with_context(|| format!("cannot set {key}"))?;
            }
            Ok(())
        })
    }

    fn enter(&self) -> Result<()> {
        setns(&self.file, CloneFlags::CLONE_NEWNET).with_context(|| format!("cannot enter {}", self.name))
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

/// Makes a veth pair between two namespaces, one end in each.
pub fn veth((a, a_device): (&Netns, &str), (b, b_device): (&Netns, &str)) -> Result<()> {
    a.ip(&format!(
        "link add {a_device} type veth peer name {b_device} netns {}\nlink set {a_device} up",
        b.name
    ))?;
    b.ip(&format!("link set {b_device} up"))
}

/// Removes a namespace by name, whether it is there or not.
pub(crate) fn remove(name: &str) {
    let _absent = Command::new("ip")
        .args(["netns", "del", name])
        .stderr(Stdio::null())
        .status();
}

fn batch(command: &mut Command, lines: &str) -> Result<()> {
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(lines.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

fn finished(program: &str, command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        bail!(
            "{command:?}: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
