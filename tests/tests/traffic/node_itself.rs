//! Processes of the node itself reach every service, without any socket program.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result};
use lb_tests::dns::{self, Resolver};
use lb_tests::echo::Echo;
use lb_tests::family::{Family, Pair};
use lb_tests::http::{Connection, Received};
use lb_tests::manifests::{Condition, DNS, ECHO_TCP, ECHO_UDP, Endpoint, HTTP, Port};
use lb_tests::maps::Protocol;
use lb_tests::need_root;
use lb_tests::server::{ECHO_PORT, Server};
use lb_tests::topology::{Host, Layout, NODE1, PodNetwork, RpFilter, pod_address};
use lb_tests::world::{CLUSTER_IP, OTHER_CLUSTER_IP, OTHER_VIP, VIP, World, web};
use lb_tests::{manifests, socket};

use super::on;

const LOCAL: usize = 0;
const REMOTE: usize = 2;
const SIZE: u64 = 1_000_000;

const LOCALHOST: Pair = Pair::new(Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST);
/// An external IP that no host has, behind the client: the process gets the address that node 1 has on that side.
const EXTERNAL: Pair = Pair::new(
    Ipv4Addr::new(198, 18, 0, 10),
    Ipv6Addr::new(0x2001, 0xdb8, 0xe, 0, 0, 0, 0, 0x10),
);

/// What is dropped, whatever is on the node: packets that connection tracking makes nothing of. And what many a node has:
/// a rule that masquerades all that leaves it.
const GUARD: &str = "table inet guard {
    chain input { type filter hook input priority 0; ct state invalid counter drop; }
    chain forward { type filter hook forward priority 0; ct state invalid counter drop; }
    chain output { type filter hook output priority 0; ct state invalid counter drop; }
    chain leave { type nat hook postrouting priority 100; oifname \"up-*\" masquerade fully-random; }
}";

/// Every address under which a port is reached: ClusterIP, load balancer, external IPs, of which one is the node's own,
/// and NodePorts at the node's address and at localhost.
fn front_ends(family: Family, port: Port) -> [SocketAddr; 6] {
    let at = |pair: Pair, port| SocketAddr::new(pair.of(family), port);
    let node_port = port.node_port.unwrap();
    [
        at(CLUSTER_IP, port.port),
        at(VIP, port.port),
        at(EXTERNAL, port.port),
        at(NODE1, port.port),
        at(NODE1, node_port),
        at(LOCALHOST, node_port),
    ]
}

/// Gives the usual service external IPs, and these endpoints.
fn serve(world: &World, endpoints: &[Endpoint]) {
    let external: Vec<IpAddr> = [EXTERNAL, NODE1].iter().flat_map(|pair| pair.both()).collect();
    let service = web().with_spec("externalIPs", serde_json::json!(external));
    let [v4, v6] = service.slices_of(endpoints);
    world
        .agent
        .manifests()
        .write("web.yaml", &[service.object(), v4, v6])
        .unwrap();
    for family in Family::BOTH {
        let to = |endpoint: &Endpoint| SocketAddr::new(endpoint.addresses.of(family), HTTP.target);
        let expected = endpoints.iter().map(to).collect();
        for pair in [EXTERNAL, NODE1] {
            let front_end = SocketAddr::new(pair.of(family), HTTP.port);
            world.wait_for(front_end, Protocol::Tcp, &expected).unwrap();
        }
    }
}

fn endpoint(host: &Host, node: &str) -> Endpoint {
    Endpoint {
        addresses: host.addresses,
        node: node.to_owned(),
        condition: Condition::Ready,
    }
}

/// Asks under every address, by every kind of socket; it must be this backend that answers, and the service that the
/// process sees.
fn check(node: &Host, backend: &str) -> Result<()> {
    for family in Family::BOTH {
        for to in front_ends(family, HTTP) {
            let what = || format!("{backend} at {to} over TCP");
            assert_eq!(socket::tcp(to, None).with_context(what)?.peer_addr()?, to);
            let mut connection = Connection::open(to).with_context(what)?;
            let answer = connection.ask().with_context(what)?;
            assert_eq!(answer.backend, backend, "{to}");
            let (seen, bridge) = (answer.client.ip(), pod_address(1, 1));
            if to.ip() == LOCALHOST.of(family) {
                // Masqueraded, by an address of the device that it leaves by.
                let own = [node.addresses, bridge].map(|pair| pair.of(family));
                assert!(own.contains(&seen), "{to}: {seen}");
            } else if to.ip() != EXTERNAL.of(family) {
                assert_eq!(seen, node.addresses.of(family), "{to}");
            }
            let whole = Received::bulk(SIZE);
            assert_eq!(connection.upload(SIZE).with_context(what)?, whole, "{to}");
            assert_eq!(connection.download(SIZE).with_context(what)?, whole, "{to}");
        }
        for to in front_ends(family, DNS) {
            let what = || format!("{backend} at {to} over UDP");
            assert_eq!(dns::ask(to).with_context(what)?.backend, backend, "{to}");
        }
        for to in front_ends(family, ECHO_UDP) {
            unconnected(to).with_context(|| format!("{backend} at {to}, socket not connected"))?;
        }
    }
    Ok(())
}

/// A datagram by a socket that is bound to no address, and its echo, which must come from where it was sent to.
fn unconnected(to: SocketAddr) -> Result<()> {
    let any: IpAddr = if to.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_read_timeout(Some(Duration::from_secs(4)))?;
    let (payload, mut buffer) = ([7; 1400], [0; 2000]);
    socket.send_to(&payload, to)?;
    let (length, from) = socket.recv_from(&mut buffer)?;
    assert_eq!((from.ip(), from.port()), (to.ip(), to.port()));
    assert_eq!(buffer[..length], payload);
    Ok(())
}

/// Every kind of backend behind this filter, with pods on veths and on a bridge.
fn every_backend(rp_filter: RpFilter) {
    for pods in [PodNetwork::Routed, PodNetwork::Bridge] {
        let world = World::with(Layout { pods, rp_filter }, &[LOCAL]).unwrap();
        let topology = &world.topology;
        let node = &topology.node1;
        node.netns.nft(GUARD).unwrap();
        let _server = Server::start(node).unwrap();
        for (backend, home) in [
            (&topology.web[LOCAL], "node1"),
            (&topology.web[REMOTE], "node2"),
            (node, "node1"),
        ] {
            serve(&world, &[endpoint(backend, home)]);
            on(node, || check(node, &backend.name));
        }
        let rules = node.netns.command("nft", &["list", "ruleset"]).unwrap();
        assert_eq!(rules.matches("counter packets 0 ").count(), 3, "{rules}");
    }
}

#[test]
fn the_node_reaches_every_service_behind_a_strict_filter() {
    need_root!();
    every_backend(RpFilter::Strict);
}

#[test]
fn the_node_reaches_every_service_behind_a_loose_filter() {
    need_root!();
    every_backend(RpFilter::Loose);
}

#[test]
fn the_node_reaches_every_service_behind_no_filter() {
    need_root!();
    every_backend(RpFilter::Off);
}

#[test]
fn the_node_is_told_what_a_backend_refuses() {
    need_root!();
    let world = World::new(&[LOCAL]).unwrap();
    let (node, toolbox) = (&world.topology.node1, &world.topology.toolbox);
    // Nothing serves there.
    for backend in [toolbox, node] {
        serve(&world, &[endpoint(backend, "node1")]);
        for family in Family::BOTH {
            on(node, || {
                for to in front_ends(family, HTTP) {
                    let refused = TcpStream::connect_timeout(&to, Duration::from_secs(4));
                    assert_eq!(refused.unwrap_err().kind(), ErrorKind::ConnectionRefused, "{to}");
                }
                for to in front_ends(family, DNS) {
                    let socket = socket::udp(to, None)?;
                    socket.set_read_timeout(Some(Duration::from_secs(4)))?;
                    socket.send(b"anybody there?")?;
                    let refused = socket.recv(&mut [0; 1]);
                    assert_eq!(refused.unwrap_err().kind(), ErrorKind::ConnectionRefused, "{to}");
                }
                Ok(())
            });
        }
    }
}

#[test]
fn one_port_serves_two_services_and_the_pod_itself() {
    need_root!();
    let world = World::new(&[LOCAL]).unwrap();
    let other = manifests::Service::new("other", OTHER_CLUSTER_IP, OTHER_VIP, &[ECHO_TCP_ALONE]);
    world.add_service(&other, &[(LOCAL, Condition::Ready)]).unwrap();
    let (node, pod) = (&world.topology.node1, &world.topology.web[LOCAL]);
    for family in Family::BOTH {
        let service = SocketAddr::new(CLUSTER_IP.of(family), ECHO_TCP.port);
        let other = SocketAddr::new(OTHER_VIP.of(family), ECHO_TCP.port);
        let pod = SocketAddr::new(pod.addresses.of(family), ECHO_PORT);
        let orders = [
            [service, other, pod],
            [pod, service, other],
            [service, pod, other],
        ];
        for (own, order) in (23_000..).zip(orders) {
            let from = SocketAddr::new(NODE1.of(family), own);
            on(node, || {
                let mut open = Vec::new();
                for to in order {
                    open.push(Echo::open(to, Some(from))?);
                    for connection in &mut open {
                        connection.say("still mine")?;
                    }
                }
                Ok(())
            });
        }
    }
}

/// Echo without a NodePort, which another service has.
const ECHO_TCP_ALONE: Port = Port {
    node_port: None,
    ..ECHO_TCP
};

#[test]
fn connections_live_on_when_the_route_to_the_service_changes() {
    need_root!();
    let layout = Layout {
        rp_filter: RpFilter::Strict,
        ..Layout::default()
    };
    let world = World::with(layout, &[LOCAL]).unwrap();
    let node = &world.topology.node1;
    let to = SocketAddr::new(VIP.v4.into(), ECHO_TCP.port);
    on(node, || {
        let mut connection = Echo::open(to, None)?;
        connection.say("by one uplink")?;
        let mut resolver = Resolver::open(SocketAddr::new(VIP.v4.into(), DNS.port), None)?;
        resolver.ask()?;
        node.netns.ip(&format!(
            "route add {} via {} dev up-client",
            VIP.v4, world.topology.client.addresses.v4
        ))?;
        connection.say("by the other")?;
        resolver.ask()?;
        Ok(())
    });
}
