//! The agent's process in a node's namespace.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::manifests::Manifests;
use crate::maps::Maps;
use crate::scratch::Folder;
use crate::topology::{Host, UPLINKS};

/// What the agent logs when programs are attached and the first manifests are in the maps.
const READY: &str = "data plane ready";
const START_TIMEOUT: Duration = Duration::from_secs(20);
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// A kubeconfig that leads nowhere.
const NOBODY: &str = r#"{
    "apiVersion": "v1", "kind": "Config", "current-context": "nobody",
    "clusters": [{"name": "nobody", "cluster": {"server": "http://127.0.0.1:1"}}],
    "users": [{"name": "nobody", "user": {}}],
    "contexts": [{"name": "nobody", "context": {"cluster": "nobody", "user": "nobody"}}]
}"#;
const LINES_OF_LOG: usize = 60;

/// The agent with its manifests and pins, which outlive its process.
#[derive(Debug)]
pub struct Agent {
    folder: Folder,
    manifests: Manifests,
    /// Where it gets objects from instead of the manifests.
    kubeconfig: Option<PathBuf>,
    process: Option<Child>,
}

impl Agent {
    /// Makes the folders; starts nothing yet.
    pub fn new() -> Result<Self> {
        let folder = Folder::new("agent")?;
        let manifests = Manifests::new(&folder.path().join("manifests"))?;
        fs::create_dir(folder.pins()).context("cannot make the folder of pins")?;
        Ok(Self {
            folder,
            manifests,
            kubeconfig: None,
            process: None,
        })
    }

    /// One that asks a cluster's API server.
    pub fn of_cluster(kubeconfig: &Path) -> Result<Self> {
        let mut agent = Self::new()?;
        agent.kubeconfig = Some(kubeconfig.to_owned());
        Ok(agent)
    }

    /// From its next start on it asks an API server that nobody reaches.
    pub fn lose_api_server(&mut self) -> Result<()> {
        let kubeconfig = self.folder.path().join("nobody.kubeconfig");
        fs::write(&kubeconfig, NOBODY).context("cannot write a kubeconfig")?;
        self.kubeconfig = Some(kubeconfig);
        Ok(())
    }

    /// From its next start on it watches the manifests.
    pub fn find_manifests(&mut self) {
        self.kubeconfig = None;
    }

    /// The manifests that it watches.
    pub fn manifests(&self) -> &Manifests {
        &self.manifests
    }

    /// Where it pins maps and links.
    pub fn pin_root(&self) -> PathBuf {
        self.folder.pins()
    }

    /// The maps that it pinned.
    pub fn maps(&self) -> Maps {
        Maps::new(&self.pin_root())
    }

    /// Starts it on a node and waits until the data plane is ready; how long that took.
    pub fn start(&mut self, node: &Host, options: &[&str]) -> Result<Duration> {
        let begin = Instant::now();
        self.launch(node, options)?;
        self.wait_until_ready()
            .with_context(|| format!("the agent's log:\n{}", self.log()))?;
        Ok(begin.elapsed())
    }

    /// Starts it on a node, and does not wait.
    pub fn launch(&mut self, node: &Host, options: &[&str]) -> Result<()> {
        ensure!(self.process.is_none(), "the agent runs already");
        let log = File::create(self.log_file()).context("cannot make the agent's log")?;
        let mut command = Command::new(program()?);
        command
            .args(["run", "--node-name", &node.name, "--uplinks", UPLINKS])
            .args(self.source())
            .args(["--pin-root".as_ref(), self.pin_root().as_path()])
            .args(options)
            .stderr(log);
        let process = node.netns.run(|| {
            command
                .spawn()
                .with_context(|| format!("cannot start {command:?}"))
        })?;
        self.folder.note_process(process.id())?;
        self.process = Some(process);
        Ok(())
    }

    /// Ends it by SIGTERM, which must leave it time to end well.
    pub fn stop(&mut self) -> Result<()> {
        let mut process = self.process.take().context("the agent does not run")?;
        kill(Pid::from_raw(process.id().try_into()?), Signal::SIGTERM).context("cannot signal the agent")?;
        let status = wait(&mut process)?;
        ensure!(
            status.success(),
            "the agent ended with {status}, its log:\n{}",
            self.log()
        );
        Ok(())
    }

    /// Ends it by SIGKILL, which leaves it time for nothing.
    pub fn kill(&mut self) -> Result<()> {
        let mut process = self.process.take().context("the agent does not run")?;
        process.kill().context("cannot kill the agent")?;
        process.wait().context("cannot wait for the agent")?;
        Ok(())
    }

    /// Runs another of its subcommands on a node, over the same pins; what it printed.
    pub fn command(&self, node: &Host, arguments: &[&str]) -> Result<String> {
        let pin_root = self.pin_root().display().to_string();
        let arguments = [arguments, &["--pin-root", &pin_root]].concat();
        node.netns.command(&program()?.to_string_lossy(), &arguments)
    }

    /// The id of its process, while it runs.
    pub fn process(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// A number that it logged as `name=number`, the last one.
    pub fn number_in_log(&self, name: &str) -> Option<f64> {
        let log = fs::read_to_string(self.log_file()).ok()?;
        let mut words = log.split_whitespace().rev();
        words.find_map(|word| word.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
    }

    /// The last lines that it logged.
    pub fn log(&self) -> String {
        let text = fs::read_to_string(self.log_file()).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(LINES_OF_LOG)..].join("\n")
    }

    fn source(&self) -> [&Path; 2] {
        match &self.kubeconfig {
            Some(kubeconfig) => ["--kubeconfig".as_ref(), kubeconfig],
            None => ["--manifests".as_ref(), self.manifests.folder()],
        }
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("agent.log")
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let (begin, log) = (Instant::now(), self.log_file());
        let process = self.process.as_mut().context("the agent does not run")?;
        while !fs::read_to_string(&log)?.contains(READY) {
            if let Some(status) = process.try_wait()? {
                bail!("the agent ended with {status}");
            }
            ensure!(
                begin.elapsed() < START_TIMEOUT,
                "not ready within {START_TIMEOUT:?}"
            );
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // It may have ended by itself.
            let _ended = process.kill();
            let _status = process.wait();
        }
        if thread::panicking() {
            eprintln!("the agent's log:\n{}", self.log());
        }
    }
}

/// The agent's binary.
pub fn program() -> Result<PathBuf> {
    let path = env::var_os("SLUICE_AGENT").context("SLUICE_AGENT is not set; `cargo xtask` sets it")?;
    Ok(path.into())
}

fn wait(process: &mut Child) -> Result<ExitStatus> {
    let begin = Instant::now();
    loop {
        if let Some(status) = process.try_wait()? {
            return Ok(status);
        }
        if begin.elapsed() > STOP_TIMEOUT {
            process.kill()?;
            bail!("the agent did not end within {STOP_TIMEOUT:?}");
        }
        thread::sleep(Duration::from_millis(2));
    }
}
