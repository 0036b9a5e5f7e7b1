//! A pod that is its own backend.

use std::net::SocketAddr;

use anyhow::Result;
use lb_tests::echo::Echo;
use lb_tests::family::Family;
use lb_tests::http::{Connection, Received};
use lb_tests::manifests::{DNS, ECHO_TCP, ECHO_UDP, HTTP};
use lb_tests::topology::{Layout, PodNetwork, RpFilter};
use lb_tests::world::World;
use lb_tests::{dns, echo, need_root, socket};

use super::{front_ends, on};

const SIZE: u64 = 1_000_000;

/// The only backend asks for itself, over TCP and UDP, by every front end.
fn check(pods: PodNetwork, rp_filter: RpFilter) {
    let layout = Layout { pods, rp_filter };
    let world = World::with(layout, &[0]).unwrap();
    let pod = &world.topology.web[0];
    let whole = Received::bulk(SIZE);
    for family in Family::BOTH {
        on(pod, || {
            for to in front_ends(family, HTTP) {
                let mut connection = Connection::open(to)?;
                let answer = connection.ask()?;
                assert_eq!(answer.backend, pod.name, "{to}");
                // It would otherwise answer itself, past the node.
                assert_ne!(answer.client.ip(), pod.addresses.of(family), "{to}");
                assert_eq!(connection.upload(SIZE)?, whole, "upload to {to}");
                assert_eq!(connection.download(SIZE)?, whole, "download from {to}");
            }
            for to in front_ends(family, DNS) {
                let answer = dns::ask(to)?;
                assert_eq!(answer.backend, pod.name, "{to}");
                assert_ne!(answer.client.ip(), pod.addresses.of(family), "{to}");
            }
            for to in front_ends(family, ECHO_UDP) {
                echo::exchange(&socket::udp(to, None)?, &[7; 1200])?;
            }
            Ok(())
        });
    }
}

#[test]
fn a_pod_on_a_veth_reaches_itself() {
    need_root!();
    check(PodNetwork::Routed, RpFilter::Loose);
    check(PodNetwork::Routed, RpFilter::Strict);
}

#[test]
fn a_pod_on_a_bridge_reaches_itself() {
    need_root!();
    check(PodNetwork::Bridge, RpFilter::Loose);
    check(PodNetwork::Bridge, RpFilter::Strict);
}

#[test]
fn a_pod_on_a_bridge_that_netfilter_sees_reaches_itself() {
    need_root!();
    check(PodNetwork::FilteredBridge, RpFilter::Loose);
}

/// One port of the pod, to all front ends, which lead to itself, at the same time.
#[test]
fn one_port_reaches_the_pod_itself_in_several_ways() {
    need_root!();
    let world = World::new(&[0]).unwrap();
    let pod = &world.topology.web[0];
    for family in Family::BOTH {
        on(pod, || {
            let own = Some(SocketAddr::new(pod.addresses.of(family), 40_000));
            let ways = front_ends(family, ECHO_TCP).into_iter();
            let mut connections: Vec<_> = ways.map(|to| Echo::open(to, own)).collect::<Result<_>>()?;
            for connection in &mut connections {
                connection.say("hello")?;
            }
            Ok(())
        });
    }
}
