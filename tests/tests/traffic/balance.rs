//! How connections spread over backends.

use lb_tests::dns::{self, Resolver};
use lb_tests::family::Family;
use lb_tests::http;
use lb_tests::load::{is_even, shares};
use lb_tests::manifests::{DNS, HTTP};
use lb_tests::need_root;
use lb_tests::topology::NODE1;
use lb_tests::world::World;

use super::{front_ends, on, vip};

const BACKENDS: [usize; 3] = [0, 1, 2];
/// The one of them that is on the other node.
const REMOTE: &str = "web-3";

#[test]
fn every_front_end_answers_and_keeps_the_clients_address() {
    need_root!();
    let world = World::new(&BACKENDS).unwrap();
    let (client, toolbox) = (&world.topology.client, &world.topology.toolbox);
    for from in [client, toolbox] {
        for family in Family::BOTH {
            let answers: Vec<_> = on(from, || {
                let http = front_ends(family, HTTP).into_iter().map(http::ask);
                let dns = front_ends(family, DNS).into_iter().map(dns::ask);
                http.chain(dns).collect()
            });
            for answer in answers {
                // The replies of another node's pod would go past this node.
                let is_masqueraded = answer.backend == REMOTE && from.name == client.name;
                let source = if is_masqueraded { NODE1 } else { from.addresses };
                assert_eq!(
                    answer.client.ip(),
                    source.of(family),
                    "{} to {answer:?}",
                    from.name
                );
            }
        }
    }
}

#[test]
fn short_connections_spread_evenly() {
    need_root!();
    let world = World::new(&BACKENDS).unwrap();
    for family in Family::BOTH {
        let answers: Vec<_> = on(&world.topology.client, || {
            (0..2000).map(|_| http::ask(vip(family, HTTP))).collect()
        });
        let shares = shares(&answers);
        assert!(is_even(&shares, BACKENDS.len()), "{family} HTTP: {shares:?}");
    }
}

#[test]
fn short_udp_flows_spread_evenly() {
    need_root!();
    let world = World::new(&BACKENDS).unwrap();
    for family in Family::BOTH {
        let answers: Vec<_> = on(&world.topology.client, || {
            (0..2000).map(|_| dns::ask(vip(family, DNS))).collect()
        });
        let shares = shares(&answers);
        assert!(is_even(&shares, BACKENDS.len()), "{family} DNS: {shares:?}");
    }
}

#[test]
fn a_flow_stays_with_its_backend() {
    need_root!();
    let world = World::new(&BACKENDS).unwrap();
    for family in Family::BOTH {
        on(&world.topology.client, || {
            for _ in 0..10 {
                let mut connection = http::Connection::open(vip(family, HTTP))?;
                let first = connection.ask()?;
                let mut resolver = Resolver::open(vip(family, DNS), None)?;
                let first_resolved = resolver.ask()?;
                for _ in 0..20 {
                    assert_eq!(connection.ask()?, first);
                    assert_eq!(resolver.ask()?, first_resolved);
                }
            }
            Ok(())
        });
    }
}
