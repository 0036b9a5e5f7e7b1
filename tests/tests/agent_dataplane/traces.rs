//! What the agent leaves behind, and what it gives back.

use aya::programs::TcAttachType;
use lb_tests::agent::Agent;
use lb_tests::need_root;

use crate::{Node, SMALL};

const RESERVED_PORTS: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";

#[test]
fn cleanup_leaves_nothing_and_can_be_repeated() {
    need_root!();
    let node = Node::new();
    let mut agent = Agent::new().unwrap();
    node.start(&mut agent);
    agent.stop().unwrap();
    assert_eq!(
        node.chain(TcAttachType::Ingress),
        ["lb_pre"],
        "programs outlive the agent"
    );
    agent.command(&node.host, &["cleanup"]).unwrap();
    assert!(node.chain(TcAttachType::Ingress).is_empty());
    assert!(node.chain(TcAttachType::Egress).is_empty());
    assert_eq!(std::fs::read_dir(agent.pin_root()).unwrap().count(), 0);
    assert_eq!(
        agent.command(&node.host, &["cleanup"]).unwrap(),
        "Nothing to remove.\n"
    );
}

#[test]
fn one_agent_at_a_time_works_on_a_pin_root() {
    need_root!();
    let node = Node::new();
    let mut agent = Agent::new().unwrap();
    node.start(&mut agent);
    let refused = |arguments: &[&str]| {
        let error = agent.command(&node.host, arguments).unwrap_err();
        format!("{error:#}")
    };
    let folder = agent.manifests().folder().display().to_string();
    let second = [
        &["run", "--node-name", "node", "--manifests", &folder],
        &SMALL[..],
    ]
    .concat();
    for arguments in [&second[..], &["cleanup"]] {
        let text = refused(arguments);
        assert!(
            text.contains("another lb-agent runs on") && text.contains("(pid "),
            "{text}"
        );
    }
    assert_eq!(
        node.chain(TcAttachType::Ingress),
        ["lb_pre"],
        "the first one works on"
    );

    agent.kill().unwrap();
    node.start(&mut agent);
    agent.kill().unwrap();
    agent.command(&node.host, &["cleanup"]).unwrap();
    assert!(node.chain(TcAttachType::Ingress).is_empty());
}

#[test]
fn node_ports_are_reserved_beside_the_ports_of_others() {
    need_root!();
    let node = Node::new();
    let reserved = || {
        let read = || Ok(std::fs::read_to_string(RESERVED_PORTS)?);
        node.host.netns.run(read).unwrap().trim().to_owned()
    };
    let mut agent = Agent::new().unwrap();
    node.start(&mut agent);
    assert_eq!(reserved(), "30000-32767");
    agent.stop().unwrap();
    agent.command(&node.host, &["cleanup"]).unwrap();
    assert_eq!(reserved(), "");

    node.host
        .netns
        .sysctl("ipv4/ip_local_reserved_ports", "8080,31000")
        .unwrap();
    node.start(&mut agent);
    assert_eq!(reserved(), "8080,30000-32767");
    agent.stop().unwrap();
    let other = [&SMALL[..], &["--node-port-range", "40000-40010"]].concat();
    agent.start(&node.host, &other).unwrap();
    assert_eq!(reserved(), "8080,31000,40000-40010");
    agent.stop().unwrap();
    let no_ports = [&SMALL[..], &["--node-port-range", "none", "--detach-on-exit"]].concat();
    agent.start(&node.host, &no_ports).unwrap();
    assert_eq!(reserved(), "8080,31000");
    agent.stop().unwrap();
    assert_eq!(reserved(), "8080,31000");
}

#[test]
fn a_setting_of_the_kernel_is_given_back() {
    need_root!();
    let node = Node::new();
    let accept_local = || {
        let read = || {
            Ok(std::fs::read_to_string(
                "/proc/sys/net/ipv4/conf/lo/accept_local",
            )?)
        };
        node.host.netns.run(read).unwrap().trim().to_owned()
    };
    assert_eq!(accept_local(), "0");
    let mut agent = Agent::new().unwrap();
    node.start(&mut agent);
    assert_eq!(accept_local(), "1");
    agent.stop().unwrap();
    node.start(&mut agent);
    agent.stop().unwrap();
    assert_eq!(accept_local(), "1", "it is needed while programs are there");
    let removed = agent.command(&node.host, &["cleanup"]).unwrap();
    assert!(removed.contains("settings of the kernel"), "{removed}");
    assert_eq!(accept_local(), "0");
}
