//! Services, devices and the agent itself come, go and come again.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use lb_common::Counter;
use lb_tests::dns::{self, Resolver};
use lb_tests::echo::Echo;
use lb_tests::family::Family;
use lb_tests::http;
use lb_tests::manifests::{Condition, DNS, ECHO_TCP, HTTP};
use lb_tests::maps::Protocol;
use lb_tests::need_root;
use lb_tests::topology::CLIENT;
use lb_tests::world::{World, web};

use super::{Loads, on, vip};

const READY: Condition = Condition::Ready;

/// The file of the usual service.
const FILE: &str = "web.yaml";

#[test]
fn an_agent_that_is_killed_leaves_nothing_half_done() {
    need_root!();
    let mut world = World::new(&[0, 1, 2]).unwrap();
    let loads = Loads::start(&world.topology.client);
    for round in 0..4 {
        let endpoints = [[(0, READY), (1, READY)], [(0, READY), (2, READY)]][round % 2];
        let [v4, v6] = web().slices(&endpoints);
        world
            .agent
            .manifests()
            .write(FILE, &[web().object(), v4, v6])
            .unwrap();
        // Somewhere between "has not noticed" and "is done".
        thread::sleep(Duration::from_millis(3 * round as u64 + 8));
        world.agent.kill().unwrap();
        thread::sleep(Duration::from_millis(50));
        world.agent.start(&world.topology.node1, &[]).unwrap();
    }
    loads.stop();
    world.set_endpoints(&[(3, READY)]).unwrap();
    for family in Family::BOTH {
        let answer = on(&world.topology.client, || http::ask(vip(family, HTTP)));
        assert_eq!(answer.backend, "web-4");
    }
}

#[test]
fn a_service_that_is_deleted_ends_and_comes_back() {
    need_root!();
    let world = World::new(&[0]).unwrap();
    let client = &world.topology.client;
    let mut resolvers: Vec<_> = on(client, || {
        Family::BOTH
            .into_iter()
            .map(|family| {
                let mut resolver = Resolver::open(vip(family, DNS), None)?;
                resolver.ask()?;
                Ok(resolver)
            })
            .collect()
    });
    world.agent.manifests().remove(FILE).unwrap();
    wait_until_gone(&world);
    // The rows of its backends go after its front ends.
    thread::sleep(Duration::from_millis(50));
    for resolver in &mut resolvers {
        assert!(resolver.ask().is_err(), "a UDP flow outlives its service");
    }
    world.set_endpoints(&[(1, READY)]).unwrap();
    for (family, resolver) in Family::BOTH.into_iter().zip(&mut resolvers) {
        assert_eq!(on(client, || http::ask(vip(family, HTTP))).backend, "web-2");
        assert_eq!(resolver.ask().unwrap().backend, "web-2");
    }
}

fn wait_until_gone(world: &World) {
    let begin = Instant::now();
    let is_there = |family| {
        world
            .agent
            .maps()
            .eligible(vip(family, DNS), Protocol::Udp)
            .unwrap()
            .is_some()
    };
    while Family::BOTH.into_iter().any(is_there) {
        assert!(
            begin.elapsed() < Duration::from_secs(3),
            "the service is still in the maps"
        );
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_service_without_endpoints_refuses_and_recovers() {
    need_root!();
    let world = World::new(&[0]).unwrap();
    let client = &world.topology.client;
    world.set_endpoints(&[]).unwrap();
    for family in Family::BOTH {
        assert!(
            client.netns.run(|| dns::ask(vip(family, DNS))).is_err(),
            "somebody answers"
        );
    }
    assert_eq!(
        world.agent.maps().counter(Counter::AnsweredUnreachable).unwrap(),
        2
    );
    world.set_endpoints(&[(2, READY)]).unwrap();
    for family in Family::BOTH {
        assert_eq!(on(client, || dns::ask(vip(family, DNS))).backend, "web-3");
    }
}

#[test]
fn a_pod_that_comes_later_reaches_services_at_once() {
    need_root!();
    let world = World::new(&[0, 2]).unwrap();
    for number in 0..3 {
        // A name of its own: the kernel takes its time to remove the devices of the pod before.
        let pod = world
            .topology
            .add_pod(&format!("late-{number}"), 200 + number)
            .unwrap();
        // As long as a pod takes to start its first process.
        thread::sleep(Duration::from_millis(100));
        for family in Family::BOTH {
            let answer = on(&pod, || http::ask(vip(family, HTTP)));
            assert_eq!(answer.client.ip(), pod.addresses.of(family));
        }
    }
}

#[test]
fn a_pod_that_comes_while_there_is_no_api_server_reaches_services() {
    need_root!();
    let mut world = World::new(&[0, 2]).unwrap();
    world.agent.kill().unwrap();
    let before = world.topology.add_pod("before", 200).unwrap();
    world.agent.lose_api_server().unwrap();
    world.agent.start(&world.topology.node1, &[]).unwrap();
    let after = world.topology.add_pod("after", 201).unwrap();
    thread::sleep(Duration::from_millis(100));
    for host in [&before, &after, &world.topology.client] {
        for family in Family::BOTH {
            let answer = on(host, || http::ask(vip(family, HTTP)));
            assert!(
                ["web-1", "web-3"].contains(&answer.backend.as_str()),
                "{answer:?}"
            );
        }
    }
    // It takes up again what there is to do.
    world.agent.stop().unwrap();
    world.agent.find_manifests();
    world.agent.start(&world.topology.node1, &[]).unwrap();
    world.set_endpoints(&[(1, READY)]).unwrap();
    assert_eq!(on(&after, || http::ask(vip(Family::V4, HTTP))).backend, "web-2");
}

#[test]
fn connections_survive_a_flood_of_other_flows() {
    need_root!();
    // Backends of this node: the port of a masqueraded connection is lost together with its entries.
    let mut world = World::new(&[0, 1]).unwrap();
    world.agent.stop().unwrap();
    world.agent.command(&world.topology.node1, &["cleanup"]).unwrap();
    world
        .agent
        .start(&world.topology.node1, &["--max-flows", "1024"])
        .unwrap();
    for family in Family::BOTH {
        on(&world.topology.client, || {
            let open = || Echo::open(vip(family, ECHO_TCP), None);
            let mut connections: Vec<_> = (0..50).map(|_| open()).collect::<Result<_>>()?;
            for port in 10_000..13_000 {
                let own = SocketAddr::new(CLIENT.of(family), port);
                Resolver::open(vip(family, DNS), Some(own))?.ask()?;
            }
            // Halves of flows are made whole when they are a second old.
            thread::sleep(Duration::from_millis(1100));
            connections
                .iter_mut()
                .try_for_each(|connection| connection.say("still here"))
        });
    }
    // Of each family there is room for 3072 entries, and a flow has two: the flood pushed out its own, and no connection had
    // to be opened anew.
    let opened = world.agent.maps().counter(Counter::FlowOpened).unwrap();
    assert_eq!(opened, 2 * (50 + 3000));
}

#[test]
fn nothing_is_left_after_detaching_on_exit() {
    need_root!();
    let mut world = World::new(&[0]).unwrap();
    world.agent.stop().unwrap();
    world
        .agent
        .start(&world.topology.node1, &["--detach-on-exit"])
        .unwrap();
    on(&world.topology.client, || http::ask(vip(Family::V4, HTTP)));
    world.agent.stop().unwrap();
    check_traces(&world);
}

#[test]
fn nothing_is_left_after_a_cleanup() {
    need_root!();
    let mut world = World::new(&[0]).unwrap();
    world.agent.stop().unwrap();
    on(&world.topology.client, || {
        Echo::open(vip(Family::V6, ECHO_TCP), None)?.say("the data plane works on")
    });
    world.agent.command(&world.topology.node1, &["cleanup"]).unwrap();
    check_traces(&world);
    // A second time there is nothing to do, which is no failure.
    world.agent.command(&world.topology.node1, &["cleanup"]).unwrap();
}

/// No program is attached, nothing is pinned, no service is reached, and pods are.
fn check_traces(world: &World) {
    let attached = world
        .topology
        .node1
        .netns
        .command("bpftool", &["net", "show"])
        .unwrap();
    assert!(!attached.contains("lb_"), "{attached}");
    let pins: Vec<_> = world.agent.pin_root().read_dir().unwrap().collect();
    assert!(pins.is_empty(), "{pins:?}");
    let client = &world.topology.client;
    assert!(
        client.netns.run(|| dns::ask(vip(Family::V4, DNS))).is_err(),
        "the service is still reached"
    );
    let pod = SocketAddr::new(world.topology.web[0].addresses.v4.into(), HTTP.target);
    on(client, || http::ask(pod));
}
