//! Endpoints and the agent come and go under load.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use lb_tests::answer::Answer;
use lb_tests::dns::Resolver;
use lb_tests::echo::Echo;
use lb_tests::family::Family;
use lb_tests::http;
use lb_tests::load::{Sample, is_even, shares};
use lb_tests::manifests::{Condition, DNS, ECHO_TCP, HTTP};
use lb_tests::need_root;
use lb_tests::topology::Host;
use lb_tests::world::World;

use super::{Loads, on, until_backend, vip};

const READY: Condition = Condition::Ready;
const TERMINATING: Condition = Condition::Terminating;
/// Load goes on for as long before and after a change.
const WHILE: Duration = Duration::from_millis(300);

/// A TCP connection and a UDP socket with the same backend.
struct Flows {
    tcp: Echo,
    udp: Resolver,
}

impl Flows {
    fn open(family: Family, backend: &str) -> Result<Self> {
        let tcp = until_backend(backend, || {
            let connection = Echo::open(vip(family, ECHO_TCP), None)?;
            Ok((connection.answer().clone(), connection))
        })?;
        let udp = until_backend(backend, || {
            let mut resolver = Resolver::open(vip(family, DNS), None)?;
            Ok((resolver.ask()?, resolver))
        })?;
        Ok(Self { tcp, udp })
    }
}

fn flows_to(from: &Host, backend: &str) -> Vec<Flows> {
    on(from, || {
        Family::BOTH
            .into_iter()
            .map(|family| Flows::open(family, backend))
            .collect()
    })
}

fn answers(samples: &[Sample], since: Instant) -> Vec<&Answer> {
    samples
        .iter()
        .filter(|sample| sample.begun > since)
        .filter_map(|sample| sample.result.as_ref().ok())
        .collect()
}

#[test]
fn a_removed_backend_gets_nothing_new_and_keeps_its_connections() {
    need_root!();
    let world = World::new(&[0, 1, 2]).unwrap();
    let client = &world.topology.client;
    let mut flows = flows_to(client, "web-2");
    let loads = Loads::start(client);
    thread::sleep(WHILE);
    world.set_endpoints(&[(0, READY), (2, READY)]).unwrap();
    let changed = Instant::now();
    thread::sleep(WHILE);
    let samples = loads.stop();

    let after = shares(answers(&samples, changed));
    assert_eq!(after.keys().collect::<Vec<_>>(), ["web-1", "web-3"], "{after:?}");
    for Flows { tcp, udp } in &mut flows {
        tcp.say("still here").unwrap();
        assert_ne!(udp.ask().unwrap().backend, "web-2", "UDP must be chosen anew");
    }
}

#[test]
fn an_added_backend_gets_its_share() {
    need_root!();
    let world = World::new(&[0]).unwrap();
    let client = &world.topology.client;
    let mut flows = flows_to(client, "web-1");
    let loads = Loads::start(client);
    thread::sleep(WHILE);
    world
        .set_endpoints(&[(0, READY), (1, READY), (2, READY), (3, READY)])
        .unwrap();
    let changed = Instant::now();
    thread::sleep(WHILE);
    let samples = loads.stop();

    let after = shares(answers(&samples, changed));
    assert!(is_even(&after, 4), "{after:?}");
    for Flows { tcp, udp } in &mut flows {
        tcp.say("still here").unwrap();
        assert_eq!(udp.ask().unwrap().backend, "web-1");
    }
}

#[test]
fn a_terminating_backend_keeps_its_flows_and_gets_no_new_ones() {
    need_root!();
    let world = World::new(&[0, 1]).unwrap();
    let client = &world.topology.client;
    let mut flows = flows_to(client, "web-2");
    let loads = Loads::start(client);
    world.set_endpoints(&[(0, READY), (1, TERMINATING)]).unwrap();
    let changed = Instant::now();
    thread::sleep(WHILE);
    let samples = loads.stop();

    let after = shares(answers(&samples, changed));
    assert_eq!(after.keys().collect::<Vec<_>>(), ["web-1"], "{after:?}");
    for Flows { tcp, udp } in &mut flows {
        tcp.say("still here").unwrap();
        assert_eq!(udp.ask().unwrap().backend, "web-2");
    }
}

#[test]
fn traffic_goes_on_while_the_agent_is_restarted() {
    need_root!();
    let mut world = World::new(&[0, 1, 2]).unwrap();
    let mut flows = flows_to(&world.topology.client, "web-2");
    let loads = Loads::start(&world.topology.client);
    thread::sleep(WHILE);
    world.agent.stop().unwrap();
    thread::sleep(WHILE);
    world.agent.start(&world.topology.node1, &[]).unwrap();
    thread::sleep(WHILE);
    world.set_endpoints(&[(0, READY), (1, READY)]).unwrap();
    let changed = Instant::now();
    thread::sleep(WHILE);
    let samples = loads.stop();

    let after = shares(answers(&samples, changed));
    assert_eq!(
        after.keys().collect::<Vec<_>>(),
        ["web-1", "web-2"],
        "the new agent follows: {after:?}"
    );
    for Flows { tcp, udp } in &mut flows {
        tcp.say("still here").unwrap();
        assert_eq!(udp.ask().unwrap().backend, "web-2");
    }
}

#[test]
fn an_agent_that_was_away_catches_up_without_loss() {
    need_root!();
    let mut world = World::new(&[0, 1]).unwrap();
    world.agent.stop().unwrap();
    let mut flows = flows_to(&world.topology.client, "web-1");
    let [v4, v6] = lb_tests::world::web().slices(&[(1, READY), (2, READY)]);
    let object = lb_tests::world::web().object();
    world
        .agent
        .manifests()
        .write("web.yaml", &[object, v4, v6])
        .unwrap();
    world.agent.start(&world.topology.node1, &[]).unwrap();
    for family in Family::BOTH {
        let to: SocketAddr = vip(family, HTTP);
        let answers: Vec<_> = on(&world.topology.client, || {
            (0..50).map(|_| http::ask(to)).collect()
        });
        assert_eq!(shares(&answers).keys().collect::<Vec<_>>(), ["web-2", "web-3"]);
    }
    for Flows { tcp, .. } in &mut flows {
        tcp.say("still here").unwrap();
    }
}
