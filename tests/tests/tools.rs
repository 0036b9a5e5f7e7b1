//! The tools that tests try a network with find what is there, by plain routing.

#![expect(clippy::unwrap_used, reason = "tests panic")]

use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::Duration;

use lb_tests::family::Family;
use lb_tests::http::Received;
use lb_tests::packet::{Content, IcmpError, PacketBuilder, View, flag};
use lb_tests::server::{ECHO_PORT, HTTP_PORT, Server};
use lb_tests::tools::{self, Hop, Ping, Probe};
use lb_tests::topology::{Fabric, FabricLayout};
use lb_tests::wire::{Capture, Link, Seen, syn_flood};
use lb_tests::{echo, need_root, socket};

/// Long enough on a busy machine.
const LIMIT: Duration = Duration::from_secs(5);

fn narrow() -> Fabric {
    Fabric::new(FabricLayout {
        client_path: 1400,
        ..FabricLayout::default()
    })
    .unwrap()
}

#[test]
fn ping_counts_answers_and_tells_of_errors() {
    need_root!();
    let fabric = narrow();
    let (client, web) = (fabric.client(), fabric.web(4).addresses);
    for family in Family::BOTH {
        let to = web.of(family);
        let three = Ping {
            count: 3,
            ..Ping::default()
        };
        assert_eq!(three.run(client, to).unwrap().received, 3);
        let large = Ping {
            size: 1450,
            dont_fragment: true,
            ..three
        };
        let report = large.run(client, to).unwrap();
        assert_eq!(report.received, 0);
        assert!(report.text.contains("mtu"), "{report:?}");
        let nobody = match to {
            IpAddr::V4(_) => "203.0.113.77",
            IpAddr::V6(_) => "2001:db8:cb::77",
        };
        assert_eq!(
            Ping::default()
                .run(client, nobody.parse().unwrap())
                .unwrap()
                .received,
            0
        );
    }
}

#[test]
fn traceroute_names_every_router() {
    need_root!();
    let fabric = narrow();
    let _server = Server::start(fabric.web(1)).unwrap();
    for family in Family::BOTH {
        let to = SocketAddr::new(fabric.web(1).addresses.of(family), HTTP_PORT);
        let routers = ["edge", "router", "node1"].map(|router| fabric.network()[router].addresses.of(family));
        for probe in [Probe::Icmp, Probe::Tcp, Probe::Udp] {
            let hops = tools::traceroute(fabric.client(), to, probe).unwrap();
            let found: Vec<Option<IpAddr>> = hops.iter().map(|hop| hop.address).collect();
            // The client's gateway answers with its address on the client's side.
            assert_eq!(found.len(), 4, "{probe:?}: {hops:?}");
            assert_eq!(
                found[1..],
                [Some(routers[1]), Some(routers[2]), Some(to.ip())],
                "{probe:?}"
            );
            assert!(
                matches!(&hops[3], Hop { remark, .. } if remark.is_empty()),
                "{hops:?}"
            );
        }
    }
}

#[test]
fn curl_moves_bulk_both_ways_and_gives_up_in_time() {
    need_root!();
    let fabric = narrow();
    let client = fabric.client();
    let _server = Server::start(fabric.web(2)).unwrap();
    for family in Family::BOTH {
        let to = SocketAddr::new(fabric.web(2).addresses.of(family), HTTP_PORT);
        let bulk = Received::bulk(1_000_000);
        assert_eq!(tools::upload(client, to, 1_000_000, LIMIT).unwrap(), bulk);
        assert_eq!(tools::download(client, to, 1_000_000, LIMIT).unwrap(), bulk);
        let nobody = SocketAddr::new(fabric.web(3).addresses.of(family), HTTP_PORT);
        assert!(tools::download(client, nobody, 1, LIMIT).is_err());
    }
}

#[test]
fn a_capture_sees_whole_packets_and_their_fragments() {
    need_root!();
    let fabric = narrow();
    let _server = Server::start(fabric.web(1)).unwrap();
    for family in Family::BOTH {
        let to = SocketAddr::new(fabric.web(1).addresses.of(family), ECHO_PORT);
        let capture = Capture::start(fabric.node(1), "up-fabric").unwrap();
        let exchange = || {
            // Over IPv6, the first large one is lost, and then its echo; each is answered by an error about its size.
            for _ in 0..2 {
                socket::udp(to, None)?.send(&[1; 3000])?;
                thread::sleep(Duration::from_millis(50));
            }
            let socket = socket::udp(to, None)?;
            echo::exchange(&socket, &[2; 100])?;
            echo::exchange(&socket, &[3; 3000])?;
            Ok(socket.local_addr()?)
        };
        let from = fabric.client().netns.run(exchange).unwrap();
        capture
            .wait_until(LIMIT, |seen| {
                seen.iter().filter(|frame| frame.is_outgoing).count() >= 4
            })
            .unwrap();
        let views = capture.stop_and_view().unwrap();
        let small = views.iter().find(|view| view.ends() == [from, to]).unwrap();
        assert!(matches!(&small.content, Content::Udp { data, .. } if data == &[2; 100]));
        let fragments: Vec<&View> = views.iter().filter(|view| view.fragment.is_some()).collect();
        for ends in [[from, to], [to, from]] {
            let [source, destination] = ends.map(|end| end.ip());
            let one_way = fragments
                .iter()
                .filter(|view| (view.source, view.destination) == (source, destination));
            assert!(one_way.count() >= 3, "{fragments:#?}");
        }
    }
}

#[test]
fn what_is_sent_by_hand_is_answered_by_routers() {
    need_root!();
    let fabric = narrow();
    let client = fabric.client();
    let link = Link::open(client, "eth0").unwrap();
    let gateway = Link::open(&fabric.network()["edge"], "client").unwrap().mac;
    for family in Family::BOTH {
        let from = SocketAddr::new(client.addresses.of(family), 4000);
        let to = SocketAddr::new(fabric.web(1).addresses.of(family), 9);
        let capture = Capture::start(client, "eth0").unwrap();
        let packet = PacketBuilder::udp(from, to).macs(gateway, link.mac);
        link.send(&packet.clone().hop_limit(2).build()).unwrap();
        link.send(&packet.build()).unwrap();
        capture
            .wait_until(LIMIT, |seen| {
                seen.iter().filter(|frame| !frame.is_outgoing).count() >= 2
            })
            .unwrap();
        let views = capture.stop_and_view().unwrap();
        let errors: Vec<_> = views.iter().filter_map(View::error).collect();
        let about = Some([from, to]);
        assert_eq!(
            errors,
            [
                (IcmpError::TimeExceeded(0), about),
                (IcmpError::port_unreachable(from.is_ipv4()), about)
            ]
        );
    }
}

#[test]
fn a_flood_arrives_whole() {
    need_root!();
    let fabric = Fabric::new(FabricLayout::default()).unwrap();
    let network = fabric.network();
    let link = Link::open(fabric.client(), "eth0").unwrap();
    let gateway = Link::open(&network["edge"], "client").unwrap().mac;
    for family in Family::BOTH {
        let to = SocketAddr::new(fabric.node(1).addresses.of(family), 80);
        let capture = Capture::start(fabric.node(1), "up-fabric").unwrap();
        syn_flood(&link, gateway, to, 0, 2000).unwrap();
        let is_tcp = |frame: &&Seen| {
            frame
                .view()
                .is_ok_and(|view| matches!(view.content, Content::Tcp { .. }))
        };
        capture
            .wait_until(LIMIT, |seen| seen.iter().filter(is_tcp).count() >= 4000)
            .unwrap();
        let views = capture.stop_and_view().unwrap();
        let is_syn = |view: &&View| matches!(view.content, Content::Tcp { flags: flag::SYN, .. });
        assert_eq!(views.iter().filter(is_syn).count(), 2000);
        assert_eq!(views.iter().filter(|view| view.is_reset()).count(), 2000);
    }
}
