//! Changes of routes reach the programs, which remember next hops, within milliseconds.

use std::thread;
use std::time::{Duration, Instant};

use lb_tests::agent::Agent;
use lb_tests::need_root;

use crate::{Node, eventually};

/// What a change may take to reach the programs.
const LIMIT: Duration = Duration::from_millis(50);
/// How long the node is watched for changes that are none.
const QUIET: Duration = Duration::from_millis(150);

fn epoch(agent: &Agent) -> u32 {
    agent.maps().settings().unwrap().route_epoch
}

/// The epoch when nothing has happened for a while.
fn settled(agent: &Agent) -> u32 {
    let begin = Instant::now();
    let mut seen = epoch(agent);
    let mut since = Instant::now();
    while since.elapsed() < QUIET {
        assert!(
            begin.elapsed() < Duration::from_secs(10),
            "the epoch does not settle"
        );
        thread::sleep(Duration::from_millis(5));
        let now = epoch(agent);
        if now != seen {
            (seen, since) = (now, Instant::now());
        }
    }
    seen
}

/// Runs lines of `ip` commands in the node, and sees the epoch rise: how long after that.
#[track_caller]
fn raised_after(node: &Node, agent: &Agent, line: &str) -> Duration {
    let before = settled(agent);
    node.host.netns.ip(line).unwrap();
    let begin = Instant::now();
    eventually(line, || epoch(agent) != before);
    begin.elapsed()
}

#[test]
fn every_change_that_can_move_a_next_hop_raises_the_epoch_in_time() {
    need_root!();
    let node = Node::new();
    node.host
        .netns
        .ip("link add down0 type veth peer name down1\naddr add 2001:db8::1/64 dev up0 nodad")
        .unwrap();
    let mut agent = Agent::new().unwrap();
    node.start(&mut agent);
    let lines = [
        "route add 203.0.113.0/24 via 192.0.2.2",
        "route del 203.0.113.0/24",
        "route add 2001:db8:1::/48 via 2001:db8::2",
        "route del 2001:db8:1::/48",
        "rule add from 203.0.113.9 table 100",
        "rule del from 203.0.113.9 table 100",
        "nexthop add id 7 via 192.0.2.2 dev up0",
        "nexthop replace id 7 via 192.0.2.3 dev up0",
        "neigh replace 192.0.2.7 lladdr 02:00:00:00:00:07 dev up0",
        "neigh replace 192.0.2.7 lladdr 02:00:00:00:00:08 dev up0",
        "neigh del 192.0.2.7 dev up0",
        "neigh replace 2001:db8::7 lladdr 02:00:00:00:00:07 dev up0",
        "link set down0 up",
        "link set down0 down",
        "link set up0 mtu 1400",
        "addr add 192.0.2.9/24 dev up0",
        "addr del 192.0.2.9/24 dev up0",
        "link del down0",
    ];
    let mut delays = lines.map(|line| (raised_after(&node, &agent, line), line));
    delays.sort();
    // A machine that is busy with other tests may be late for some.
    let (median, _) = delays[delays.len() / 2];
    assert!(median < LIMIT, "{delays:?}");
    let ip6 = || {
        node.host
            .netns
            .command("ip", &["-6", "rule", "add", "from", "2001:db8::9"])
    };
    let before = settled(&agent);
    ip6().unwrap();
    eventually("a rule of IPv6", || epoch(&agent) != before);
}

#[test]
fn a_neighbour_that_is_only_asked_after_does_not_raise_it() {
    need_root!();
    let node = Node::new();
    let mut agent = Agent::new().unwrap();
    node.start(&mut agent);
    let state = |state: &str| {
        let line = format!("neigh replace 192.0.2.7 lladdr 02:00:00:00:00:07 dev up0 nud {state}");
        node.host.netns.ip(&line).unwrap();
    };
    state("reachable");
    let before = settled(&agent);
    for each in ["stale", "reachable", "delay", "stale"] {
        state(each);
    }
    assert_eq!(settled(&agent), before);
}

#[test]
fn an_agent_that_starts_again_raises_it_for_what_it_has_not_seen() {
    need_root!();
    let node = Node::new();
    let mut agent = Agent::new().unwrap();
    node.start(&mut agent);
    let before = settled(&agent);
    agent.stop().unwrap();
    node.start(&mut agent);
    assert!(settled(&agent) > before);
}

#[test]
fn many_changes_at_once_are_told_and_end_in_quiet() {
    need_root!();
    let node = Node::new();
    let mut agent = Agent::new().unwrap();
    node.start(&mut agent);
    let before = settled(&agent);
    let lines = |verb: &str| {
        let line = |n: u32| format!("route {verb} 10.{}.{}.0/24 via 192.0.2.2\n", n / 250, n % 250);
        (0..10_000).map(line).collect::<String>()
    };
    let begin = Instant::now();
    node.host.netns.ip(&lines("add")).unwrap();
    node.host.netns.ip(&lines("del")).unwrap();
    let took = begin.elapsed();
    let raised = settled(&agent) - before;
    let most = took.as_millis() / 5 + 20;
    assert!(
        raised > 1 && u128::from(raised) <= most,
        "{raised} times in {took:?}"
    );
    raised_after(&node, &agent, "route add 203.0.113.0/24 via 192.0.2.2");
}
