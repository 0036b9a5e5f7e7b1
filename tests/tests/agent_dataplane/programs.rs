//! Programs come into their places and stay there.

use std::thread;

use aya::programs::tc::TcAttachOptions;
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType};
use lb_tests::agent::Agent;
use lb_tests::need_root;

use crate::{LINKS, Node, eventually, foreign, links, pins};

#[test]
fn a_restart_replaces_programs_in_place_and_loses_no_packet() {
    need_root!();
    let node = Node::new();
    let mut agent = Agent::new().unwrap();
    node.start(&mut agent);
    let before = links(&agent);
    assert_eq!(before.len(), LINKS, "{before:?}");

    let pings = thread::scope(|scope| {
        let ping = scope.spawn(|| {
            node.peer
                .command("ping", &["-i", "0.002", "-c", "1000", "-q", "192.0.2.1"])
        });
        for _ in 0..3 {
            agent.stop().unwrap();
            node.start(&mut agent);
        }
        ping.join().unwrap().unwrap()
    });
    assert!(pings.contains(" 0% packet loss"), "{pings}");

    let after = links(&agent);
    let ids = |links: &[(String, u32, u32)]| {
        links
            .iter()
            .map(|(name, id, _)| (name.clone(), *id))
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(&after), ids(&before), "links were made anew");
    assert!(
        after
            .iter()
            .zip(&before)
            .all(|(after, before)| after.2 != before.2),
        "old programs still run"
    );
}

#[test]
fn devices_are_picked_up_and_dropped_as_they_come_and_go() {
    need_root!();
    let node = Node::new();
    let mut agent = Agent::new().unwrap();
    node.start(&mut agent);
    node.host
        .netns
        .ip("link add pod0 type veth peer name pod0p")
        .unwrap();
    eventually("both ends have programs", || links(&agent).len() == LINKS + 4);
    assert!(node.status(&agent).contains("pod0"));
    node.host.netns.ip("link del pod0").unwrap();
    eventually("pins of the device are gone", || links(&agent).len() == LINKS);
    assert!(!node.status(&agent).contains("pod0"));
}

#[test]
fn ours_stays_last_on_ingress_and_first_on_egress() {
    need_root!();
    let node = Node::new();
    let mut agent = Agent::new().unwrap();
    node.start(&mut agent);
    let mut foreign = foreign();
    let program: &mut SchedClassifier = foreign.program_mut("lb_jiffies").unwrap().try_into().unwrap();
    program.load().unwrap();
    for (hook, order) in [
        (TcAttachType::Ingress, LinkOrder::last()),
        (TcAttachType::Egress, LinkOrder::first()),
    ] {
        let attach = || Ok(program.attach_with_options("up0", hook, TcAttachOptions::TcxOrder(order))?);
        node.host.netns.run(attach).unwrap();
    }
    assert!(
        node.status(&agent).contains("another program"),
        "{}",
        node.status(&agent)
    );
    node.nudge();
    eventually("ours moves", || {
        node.chain(TcAttachType::Ingress) == ["lb_jiffies", "lb_pre"]
    });
    eventually("ours moves", || {
        node.chain(TcAttachType::Egress) == ["lb_post", "lb_jiffies"]
    });
}

#[test]
fn a_link_that_somebody_removed_comes_back() {
    need_root!();
    let node = Node::new();
    let mut agent = Agent::new().unwrap();
    node.start(&mut agent);
    for (name, ..) in links(&agent) {
        std::fs::remove_file(pins(&agent).join("links").join(name)).unwrap();
    }
    eventually("the links are gone", || {
        node.chain(TcAttachType::Ingress).is_empty()
    });
    node.nudge();
    eventually("they are back", || {
        node.chain(TcAttachType::Ingress) == ["lb_pre"]
    });
    eventually("they are back", || {
        node.chain(TcAttachType::Egress) == ["lb_post"]
    });
}

#[test]
fn behind_filters_of_others_ours_is_a_filter_too() {
    need_root!();
    let node = Node::new();
    let mut agent = Agent::new().unwrap();
    node.start(&mut agent);
    let tc = |arguments: &str| {
        let arguments: Vec<&str> = arguments.split(' ').collect();
        node.host.netns.command("tc", &arguments).unwrap()
    };
    tc("qdisc add dev up0 clsact");
    tc("filter add dev up0 ingress prio 60000 protocol ip u32 match u32 0 0 flowid 1:1");
    eventually("ours is the last filter", || {
        let filters = tc("filter show dev up0 ingress");
        filters.contains("pref 60001 bpf chain 0 handle 0x1 lb_pre")
            && node.chain(TcAttachType::Ingress).is_empty()
    });
    assert!(node.status(&agent).contains("clsact"));
    tc("filter del dev up0 ingress prio 60000");
    eventually("ours is back at TCX", || {
        node.chain(TcAttachType::Ingress) == ["lb_pre"]
            && !tc("filter show dev up0 ingress").contains("lb_pre")
    });
}

#[test]
fn loopback_has_a_program_at_egress_alone() {
    need_root!();
    let node = Node::new();
    let mut agent = Agent::new().unwrap();
    node.start(&mut agent);
    assert_eq!(node.chain_at("lo", TcAttachType::Egress), ["lb_post"]);
    assert!(node.chain_at("lo", TcAttachType::Ingress).is_empty());
    let status = node.status(&agent);
    let line = status.lines().find(|line| line.starts_with("lo ")).unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(words, ["lo", "1", "loopback", "-", "-", "tcx"]);
    agent.stop().unwrap();
    agent.command(&node.host, &["cleanup"]).unwrap();
    assert!(node.chain_at("lo", TcAttachType::Egress).is_empty());
}
