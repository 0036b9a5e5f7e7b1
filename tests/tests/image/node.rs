//! A container of the image on a node that it serves.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use lb_tests::netns::{self, Netns};
use lb_tests::scratch::{self, Folder};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, chroot};

use super::{config, words};

const TIMEOUT: Duration = Duration::from_secs(20);
/// What the agent logs when packets are served.
const READY: &str = "data plane ready";
/// The load balancer's address in the example.
const ADDRESS: &str = "203.0.113.20";

#[test]
fn a_container_of_it_serves_a_node_and_leaves_it_clean() {
    scratch::sweep_dead();
    let node = Node::new();
    let client = Netns::new("client").unwrap();
    netns::veth((&client, "net0"), (&node.netns, "uplink")).unwrap();
    client
        .ip(&format!(
            "address add 198.51.100.10/24 dev net0\nroute add {ADDRESS} via 198.51.100.1"
        ))
        .unwrap();
    node.netns.ip("address add 198.51.100.1/24 dev uplink").unwrap();
    let ping = || client.command("ping", &["-n", "-c", "1", "-W", "1", ADDRESS]);
    assert!(ping().is_err(), "{ADDRESS} is somebody's without the agent");

    let mut agent = node.agent();
    node.wait_until_ready(&mut agent.0);
    ping().unwrap();
    let services = node.answer(&["services"]);
    assert!(services.contains("default/hello:http/tcp"), "{services}");
    let status = node.answer(&["status"]);
    assert!(
        status.contains("uplink") && !status.contains("missing"),
        "{status}"
    );

    kill(Pid::from_raw(agent.0.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    let ended = agent.0.wait().unwrap();
    assert!(ended.success(), "{ended}: {}", node.log());
    // As while a DaemonSet's Pod is replaced.
    ping().unwrap();
    let removed = node.answer(&["cleanup"]);
    assert!(removed.contains("removed "), "{removed}");
    assert!(ping().is_err(), "{ADDRESS} is somebody's after the cleanup");
    assert!(!node.folder.pins().join("sluice").exists());
}

/// An agent that does not outlive a test that fails.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.0.kill();
        let _status = self.0.wait();
    }
}

/// A node: its network, its bpffs, and manifests.
struct Node {
    netns: Netns,
    folder: Folder,
}

impl Node {
    fn new() -> Self {
        let node = Self {
            netns: Netns::new("node").unwrap(),
            folder: Folder::new("node").unwrap(),
        };
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples/minimal/hello.yaml");
        fs::create_dir(node.manifests()).unwrap();
        fs::copy(example, node.manifests().join("hello.yaml")).unwrap();
        let pins = node.folder.pins();
        fs::create_dir(&pins).unwrap();
        mount(Some("bpf"), &pins, Some("bpf"), MsFlags::empty(), None::<&str>).unwrap();
        // Where a container gets something from the node there has to be a folder for it.
        for place in ["proc", "sys", "dev"] {
            fs::create_dir_all(node.places().join(place)).unwrap();
        }
        fs::create_dir_all(below(&node.places(), &node.manifests())).unwrap();
        fs::create_dir(node.root()).unwrap();
        node
    }

    /// Starts the agent as the image says it is started.
    fn agent(&self) -> Agent {
        let command = words(&config(), "Cmd");
        let manifests = self.manifests().display().to_string();
        let flags = [
            "--manifests",
            &manifests,
            "--node-name",
            "node",
            "--uplinks",
            "uplink",
        ];
        let words = command
            .iter()
            .map(String::as_str)
            .chain(flags)
            .collect::<Vec<_>>();
        let log = File::create(self.log_file()).unwrap();
        let agent = Agent(self.container(&words, log.into()).unwrap());
        // The folder of manifests among its words tells a sweep that it is this one.
        self.folder.note_process(agent.0.id()).unwrap();
        agent
    }

    /// What another command of the agent prints, in a container of its own.
    fn answer(&self, words: &[&str]) -> String {
        let child = self.container(words, Stdio::piped()).unwrap();
        let Output {
            status,
            stdout,
            stderr,
        } = child.wait_with_output().unwrap();
        assert!(
            status.success(),
            "{words:?}: {}",
            String::from_utf8_lossy(&stderr)
        );
        String::from_utf8(stdout).unwrap()
    }

    /// Starts the image's program as a privileged container in the node's network, whose root is read-only.
    fn container(&self, words: &[&str], errors: Stdio) -> Result<Child> {
        let entry = super::words(&config(), "Entrypoint");
        let (program, first) = entry.split_first().context("the image has no entry point")?;
        self.netns.run(|| {
            self.enter().context("cannot make a container")?;
            Command::new(program)
                .args(first)
                .args(words)
                .env_clear()
                .stdout(Stdio::piped())
                .stderr(errors)
                .spawn()
                .with_context(|| format!("cannot start {program}"))
        })
    }

    /// Gives this thread the container's view of files.
    fn enter(&self) -> Result<()> {
        const NONE: Option<&str> = None;
        unshare(CloneFlags::CLONE_NEWNS)?;
        let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
        mount(NONE, "/", NONE, private, NONE).context("/")?;

        let root = self.root();
        let layers = format!("lowerdir={}:{}", self.places().display(), super::root().display());
        let read_only = MsFlags::MS_RDONLY;
        mount(
            Some("overlay"),
            &root,
            Some("overlay"),
            read_only,
            Some(layers.as_str()),
        )
        .context("root")?;
        for (kind, place) in [("proc", "proc"), ("sysfs", "sys")] {
            mount(Some(kind), &root.join(place), Some(kind), MsFlags::empty(), NONE).context(place)?;
        }
        let binds = [
            (PathBuf::from("/dev"), root.join("dev")),
            (self.folder.pins(), root.join("sys/fs/bpf")),
            (self.manifests(), below(&root, &self.manifests())),
        ];
        for (from, to) in binds {
            mount(Some(&from), &to, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)
                .with_context(|| from.display().to_string())?;
        }
        chroot(&root)?;
        Ok(env::set_current_dir("/")?)
    }

    fn wait_until_ready(&self, agent: &mut Child) {
        let begin = Instant::now();
        while !self.log().contains(READY) {
            let ended = agent.try_wait().unwrap();
            assert!(ended.is_none(), "{ended:?}: {}", self.log());
            assert!(begin.elapsed() < TIMEOUT, "not ready: {}", self.log());
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap()
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("agent.log")
    }

    /// In the container by the same name.
    fn manifests(&self) -> PathBuf {
        self.folder.path().join("manifests")
    }

    /// Folders for what a container gets of the node, as the image has none.
    fn places(&self) -> PathBuf {
        self.folder.path().join("places")
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }
}

/// Where an absolute path is below another root.
fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap())
}
