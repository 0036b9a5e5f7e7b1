//! SCTP associations, whose packets have other ports at the backend, and so another `CRC32c`.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context as _, Result, ensure};
use lb_common::Counter;
use lb_tests::answer::Answer;
use lb_tests::cluster::{Cluster, ClusterLayout};
use lb_tests::family::Family;
use lb_tests::manifests::{Condition, DIAMETER, Service};
use lb_tests::need_root;
use lb_tests::sctp::Association;
use lb_tests::topology::{CLIENT, Fabric, FabricLayout, Host, Layout, NODE1, Node};
use lb_tests::world::{World, web};

use super::{askers, front_ends, on, vip};

const LOCAL: usize = 0;
const OTHER_LOCAL: usize = 1;
const REMOTE: usize = 2;

/// The node that balances, and the one that has the pod.
const BALANCER: Node = 1;
const BACKEND: Node = 3;

const PODS: &str = "--cluster-cidr=10.244.0.0/16,fd00:244::/32";
/// `--snat-ports`, below the ports of the clients.
const SNAT_PORTS: RangeInclusive<u16> = 10_000..=29_999;
const FIRST_PORT: u16 = 40_000;

/// What connection tracking makes nothing of is dropped.
const GUARD: &str = "table inet guard {
    chain forward { type filter hook forward priority 0; ct state invalid counter drop; }
    chain input { type filter hook input priority 0; ct state invalid counter drop; }
}";

/// The usual service has SCTP, too, and these endpoints.
fn world(endpoints: &[usize]) -> World {
    let world = World::with_options(Layout::default(), &[], &[PODS]).unwrap();
    let endpoints: Vec<_> = endpoints.iter().map(|&pod| (pod, Condition::Ready)).collect();
    world.add_service(&service(), &endpoints).unwrap();
    world
}

fn service() -> Service {
    let mut service = web();
    service.ports.push(DIAMETER);
    service
}

/// Opens an association from a port of its own: raw sockets know of none that are in use.
fn open(to: SocketAddr) -> Result<Association> {
    static NEXT_PORT: AtomicU16 = AtomicU16::new(FIRST_PORT);
    Association::open(to, NEXT_PORT.fetch_add(1, Ordering::Relaxed))
}

/// Of what [`talk`] says: it has to fit into a tunnel, too.
const LENGTHS: [usize; 6] = [1, 2, 3, 4, 100, 1300];

/// Opens an association, says something of several lengths, and tells who has heard it, and the client's own end.
fn talk(to: SocketAddr) -> Result<(Answer, SocketAddr)> {
    let mut association = open(to)?;
    for length in LENGTHS {
        association.say(&vec![0xc3; length])?;
    }
    Ok((association.answer().clone(), association.local()?))
}

#[test]
fn an_association_stays_with_its_backend() {
    need_root!();
    let world = world(&[LOCAL, OTHER_LOCAL]);
    for from in askers(&world) {
        for family in Family::BOTH {
            let mut backends = BTreeSet::new();
            on(from, || {
                for to in front_ends(family, DIAMETER) {
                    for _ in 0..8 {
                        let (answer, local) = talk(to).with_context(|| from.name.clone())?;
                        assert_eq!(answer.client, local, "{} to {to}", from.name);
                        backends.insert(answer.backend);
                    }
                }
                Ok(())
            });
            assert_eq!(backends, BTreeSet::from(["web-1".into(), "web-2".into()]));
        }
    }
}

#[test]
fn a_remote_backend_sees_the_node() {
    need_root!();
    let world = world(&[REMOTE]);
    for family in Family::BOTH {
        on(&world.topology.client, || {
            for to in front_ends(family, DIAMETER) {
                let (answer, local) = talk(to)?;
                assert_eq!(local.ip(), CLIENT.of(family));
                assert_eq!(answer.client.ip(), NODE1.of(family), "{to}");
                assert!(SNAT_PORTS.contains(&answer.client.port()), "{answer:?}");
            }
            Ok(())
        });
    }
}

#[test]
fn a_pod_reaches_itself() {
    need_root!();
    let world = world(&[LOCAL]);
    let pod = &world.topology.web[LOCAL];
    for family in Family::BOTH {
        on(pod, || {
            for to in front_ends(family, DIAMETER) {
                let (answer, local) = talk(to)?;
                assert_eq!(answer.backend, pod.name, "{to}");
                assert_ne!(answer.client.ip(), local.ip(), "{to}");
            }
            Ok(())
        });
    }
}

/// XDP alone sends associations to the pod of another node, which sees this host as the client.
fn sent_by_xdp(forwarding: &str, seen: fn(&Fabric) -> &Host) {
    let cluster = Cluster::new(ClusterLayout {
        fabric: FabricLayout {
            native_xdp: true,
            ..FabricLayout::default()
        },
        agents: &[BALANCER, BACKEND],
        options: &["--xdp=native"],
    })
    .unwrap();
    let service = service().annotated("sluice.dev/forwarding", forwarding);
    cluster
        .set_service(&service, &[(BACKEND, Condition::Ready)])
        .unwrap();
    let fabric = cluster.fabric();
    fabric.announce(&[BALANCER]).unwrap();
    let maps = cluster.agent(BALANCER).maps();
    let count = |counter| maps.counter(counter).unwrap();
    for family in Family::BOTH {
        let to = vip(family, DIAMETER);
        // The neighbours are known from now on: of that XDP leaves to TC what waits for one.
        on(fabric.client(), || talk(to));
        let before = [Counter::XdpSent, Counter::TcSent].map(count);
        let (answer, _) = on(fabric.client(), || talk(to));
        assert_eq!(answer.client.ip(), seen(fabric).addresses.of(family));
        assert!(count(Counter::XdpSent) - before[0] > LENGTHS.len() as u64);
        assert_eq!(count(Counter::TcSent), before[1]);
    }
}

#[test]
fn associations_are_masqueraded_by_xdp() {
    need_root!();
    sent_by_xdp("snat", |fabric| fabric.node(BALANCER));
}

#[test]
fn associations_with_direct_server_return_are_sent_by_xdp() {
    need_root!();
    sent_by_xdp("dsr", Fabric::client);
}

/// Connection tracking follows the association's states, tags and checksums.
#[test]
fn associations_pass_connection_tracking() {
    need_root!();
    let world = world(&[LOCAL, REMOTE]);
    let node = &world.topology.node1.netns;
    node.nft(GUARD).unwrap();
    for from in askers(&world) {
        for family in Family::BOTH {
            on(from, || {
                for to in front_ends(family, DIAMETER) {
                    for _ in 0..4 {
                        talk(to).with_context(|| from.name.clone())?;
                    }
                }
                Ok(())
            });
        }
    }
    let rules = node.command("nft", &["list", "ruleset"]).unwrap();
    assert_eq!(rules.matches("counter packets 0 ").count(), 2, "{rules}");
}

#[test]
fn without_endpoints_associations_are_refused() {
    need_root!();
    let world = world(&[]);
    for from in askers(&world) {
        for family in Family::BOTH {
            on(from, || {
                for to in front_ends(family, DIAMETER) {
                    let error = open(to).err().context("somebody has answered")?;
                    let kind = error.downcast_ref().map(io::Error::kind);
                    ensure!(
                        kind == Some(io::ErrorKind::ConnectionRefused),
                        "{} to {to}: {error:#}",
                        from.name
                    );
                }
                Ok(())
            });
        }
    }
    // Three askers, two families, three front ends.
    let answered = world.agent.maps().counter(Counter::AnsweredUnreachable).unwrap();
    assert_eq!(answered, 18);
}
