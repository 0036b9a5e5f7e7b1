//! A node with two uplinks to a network that takes from each only what belongs there, as clouds do.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use lb_tests::dns;
use lb_tests::family::{Family, Pair};
use lb_tests::http::{self, Connection, Received};
use lb_tests::manifests::{DNS, HTTP};
use lb_tests::need_root;
use lb_tests::netns::veth;
use lb_tests::topology::{Host, NODE1, RpFilter, Topology};
use lb_tests::world::World;

use super::{on, vip};

/// In which the agent takes up a new device.
const NOTICED: Duration = Duration::from_secs(5);
/// More than a window.
const SIZE: u64 = 1_000_000;

/// A client behind the router, by way of which both uplinks go.
const GUEST: Pair = Pair::new(
    Ipv4Addr::new(192, 0, 2, 10),
    Ipv6Addr::new(0x2001, 0xdb8, 0xe, 0, 0, 0, 0, 0x10),
);

/// Node 1 has a second uplink, `up-cloud`, which load-balancer addresses belong to; rules route what is from them there. All
/// else takes the default route by `up-fabric`, and the router drops what comes by the wrong one.
fn connect(topology: &Topology) -> Host {
    let (node, router) = (&topology.node1.netns, &topology.router.netns);
    let guest = Host::new("guest", GUEST, RpFilter::Loose).unwrap();
    veth((node, "up-cloud"), (router, "cloud")).unwrap();
    veth((&guest.netns, "eth0"), (router, "guest")).unwrap();
    guest
        .netns
        .ip("addr add 192.0.2.10/24 dev eth0\n\
             addr add 2001:db8:e::10/64 dev eth0 nodad\n\
             route add default via 192.0.2.1\n\
             route add default via 2001:db8:e::1")
        .unwrap();
    router
        .ip("addr add 192.0.2.1/24 dev guest\n\
             addr add 2001:db8:e::1/64 dev guest nodad\n\
             addr add 10.10.9.254/24 dev cloud\n\
             addr add fd00:10:9::fe/64 dev cloud nodad\n\
             route add 203.0.113.0/24 via 10.10.9.1\n\
             route add 2001:db8:cb::/64 via fd00:10:9::1")
        .unwrap();
    node.ip("addr add 10.10.9.1/24 dev up-cloud\n\
             addr add fd00:10:9::1/64 dev up-cloud nodad\n\
             route add default via 10.10.9.254 dev up-cloud table 9\n\
             route add default via fd00:10:9::fe dev up-cloud table 9")
        .unwrap();
    for (family, from) in [("-4", "203.0.113.0/24"), ("-6", "2001:db8:cb::/64")] {
        node.command("ip", &[family, "rule", "add", "from", from, "lookup", "9"])
            .unwrap();
    }
    router
        .nft(&format!(
            "table inet cloud {{
                chain forward {{
                    type filter hook forward priority 0;
                    iifname \"node1\" ip saddr 203.0.113.0/24 counter drop
                    iifname \"node1\" ip6 saddr 2001:db8:cb::/64 counter drop
                    iifname \"cloud\" ip saddr {} counter drop
                    iifname \"cloud\" ip6 saddr {} counter drop
                }}
            }}",
            NODE1.v4, NODE1.v6
        ))
        .unwrap();
    guest
}

/// The world, once the agent has taken the second uplink up.
fn world() -> (World, Host) {
    let world = World::new(&[0, 1]).unwrap();
    let guest = connect(&world.topology);
    let begin = Instant::now();
    for family in Family::BOTH {
        while let Err(error) = guest.netns.run(|| http::ask(vip(family, HTTP))) {
            let drops = world
                .topology
                .router
                .netns
                .command("nft", &["list", "ruleset"])
                .unwrap();
            assert!(begin.elapsed() < NOTICED, "{family:?}: {error:#}\n{drops}");
            thread::sleep(Duration::from_millis(20));
        }
    }
    (world, guest)
}

/// By TCP, more than a window each way, and by UDP.
fn serves(guest: &Host, http: SocketAddr, dns: SocketAddr) {
    on(guest, || {
        let mut connection = Connection::open(http)?;
        assert_eq!(connection.ask()?.client, connection.local());
        assert_eq!(connection.download(SIZE)?, Received::bulk(SIZE));
        assert_eq!(connection.upload(SIZE)?, Received::bulk(SIZE));
        for _ in 0..10 {
            dns::ask(dns)?;
        }
        Ok(())
    });
}

#[test]
fn a_reply_leaves_by_the_uplink_that_its_address_belongs_to() {
    need_root!();
    let (world, guest) = world();
    for family in Family::BOTH {
        serves(&guest, vip(family, HTTP), vip(family, DNS));
    }
    drop(world);
}

/// Where the rules send what is from pods by the second uplink, what came in by the first one is answered there.
#[test]
fn rules_for_pods_do_not_lead_replies_astray() {
    need_root!();
    let (world, guest) = world();
    let node = &world.topology.node1.netns;
    for (family, pods, guests) in [
        ("-4", "10.244.1.0/24", "192.0.2.0/24"),
        ("-6", "fd00:244:1::/64", "2001:db8:e::/64"),
    ] {
        let rule = [family, "rule", "add", "from", pods, "to", guests, "lookup", "9"];
        node.command("ip", &rule).unwrap();
    }
    for family in Family::BOTH {
        let [http, dns] = [HTTP, DNS].map(|port| SocketAddr::new(NODE1.of(family), port.node_port.unwrap()));
        serves(&guest, http, dns);
        serves(&guest, vip(family, HTTP), vip(family, DNS));
    }
}
