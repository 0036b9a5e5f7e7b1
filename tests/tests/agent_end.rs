//! How the agent ends: by a signal at any moment of its start, and when somebody takes its pins away.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its helpers, too"
)]

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use lb_common::layout::VERSION;
use lb_tests::agent::Agent;
use lb_tests::family::Pair;
use lb_tests::need_root;
use lb_tests::netns::Netns;
use lb_tests::topology::Host;
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Long enough for a machine that is busy with other tests.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Small maps, for a quick start.
const SMALL: [&str; 2] = ["--max-flows", "1024"];

/// A node with two devices.
fn node() -> Host {
    let netns = Netns::new("node").unwrap();
    netns.ip("link add up0 type veth peer name up1").unwrap();
    let addresses = Pair {
        v4: Ipv4Addr::UNSPECIFIED,
        v6: Ipv6Addr::UNSPECIFIED,
    };
    Host {
        name: "node".to_owned(),
        netns,
        addresses,
    }
}

/// Takes pins away from a running agent, sees it end with a word about it, and start anew.
#[track_caller]
fn check_without_pins(gone: &str, remove: impl Fn(&Path)) {
    let node = node();
    let mut agent = Agent::new().unwrap();
    agent.start(&node, &SMALL).unwrap();
    remove(&agent.pin_root());
    // A notification, after which it looks at its programs without waiting for the next round.
    node.netns
        .ip("link add nudge type veth peer name nudged")
        .unwrap();
    let begin = Instant::now();
    while !agent.log().contains("lb-agent: ") {
        assert!(begin.elapsed() < TIMEOUT, "it works on: {}", agent.log());
        thread::sleep(Duration::from_millis(5));
    }
    let text = format!("{:#}", agent.stop().unwrap_err());
    assert!(text.contains("ended with exit status: 1"), "{text}");
    let expected = format!("v{VERSION}/{gone} is gone, or another's");
    assert!(text.contains(&expected), "{text}");

    agent.start(&node, &SMALL).unwrap();
    let status = agent.command(&node, &["status"]).unwrap();
    assert!(
        status.contains("nudge") && !status.contains("missing"),
        "{status}"
    );
}

/// The folder of this layout's pins.
fn version(root: &Path) -> PathBuf {
    root.join(format!("v{VERSION}"))
}

#[test]
fn without_its_pins_it_ends_with_an_error() {
    need_root!();
    check_without_pins("maps/lb_affinity4", |root| {
        fs::remove_dir_all(version(root)).unwrap();
    });
    check_without_pins("maps/lb_settings", |root| {
        fs::remove_file(version(root).join("maps/lb_settings")).unwrap();
    });
    check_without_pins("links", |root| {
        fs::remove_dir_all(version(root).join("links")).unwrap();
    });
}

#[test]
fn without_its_bpffs_it_ends_with_an_error() {
    need_root!();
    check_without_pins("maps/lb_affinity4", |root| {
        umount2(root, MntFlags::MNT_DETACH).unwrap();
    });
}

#[test]
fn a_signal_ends_it_at_any_moment_of_its_start() {
    need_root!();
    let node = node();
    let mut agent = Agent::new().unwrap();
    for after in [0, 1, 5, 20, 50, 70, 90, 110, 130, 150, 200, 400] {
        let mut command = Command::new(std::env::var_os("SLUICE_AGENT").unwrap());
        command
            .args(["run", "--node-name", "node", "--manifests"])
            .arg(agent.manifests().folder())
            .arg("--pin-root")
            .arg(agent.pin_root())
            .args(SMALL);
        let mut process = node.netns.run(|| Ok(command.spawn()?)).unwrap();
        thread::sleep(Duration::from_millis(after));
        let begin = Instant::now();
        let pid = Pid::from_raw(process.id().try_into().unwrap());
        kill(pid, Signal::SIGTERM).unwrap();
        // An impatient person's second one.
        thread::sleep(Duration::from_millis(20));
        kill(pid, Signal::SIGTERM).unwrap();
        let status = loop {
            if let Some(status) = process.try_wait().unwrap() {
                break status;
            }
            if begin.elapsed() > TIMEOUT {
                process.kill().unwrap();
                panic!("after {after} ms: the signal did not end it");
            }
            thread::sleep(Duration::from_millis(1));
        };
        assert!(
            status.success() || status.signal() == Some(Signal::SIGTERM as i32),
            "after {after} ms: {status}"
        );
    }
    agent.start(&node, &SMALL).unwrap();
    agent.stop().unwrap();
    agent.command(&node, &["cleanup"]).unwrap();
    assert_eq!(fs::read_dir(agent.pin_root()).unwrap().count(), 0);
}
