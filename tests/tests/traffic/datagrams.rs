//! UDP of every size, with and without checksum.

use anyhow::Context as _;
use lb_tests::family::Family;
use lb_tests::manifests::{Condition, ECHO_UDP};
use lb_tests::world::World;
use lb_tests::{echo, need_root, socket};

use super::{front_ends, on};

const MTU: usize = 1500;

#[test]
fn datagrams_of_every_size_come_back() {
    need_root!();
    let world = World::new(&[0, 2]).unwrap();
    for offloads in ["on", "off"] {
        world.topology.set_offloads(offloads).unwrap();
        for family in Family::BOTH {
            let largest = MTU - family.udp_overhead();
            for to in front_ends(family, ECHO_UDP) {
                on(&world.topology.client, || {
                    // Several sockets, so that both backends get some.
                    for _ in 0..8 {
                        let socket = socket::udp(to, None)?;
                        for size in [0, 1, 17, largest - 1, largest] {
                            echo::exchange(&socket, &vec![0xa5; size])?;
                        }
                    }
                    Ok(())
                });
            }
        }
    }
}

#[test]
fn datagrams_without_checksum_come_back() {
    need_root!();
    let world = World::new(&[0, 2]).unwrap();
    for to in front_ends(Family::V4, ECHO_UDP) {
        on(&world.topology.client, || {
            for _ in 0..8 {
                let socket = socket::udp(to, None)?;
                socket::without_checksum(&socket)?;
                echo::exchange(&socket, b"no checksum")?;
            }
            Ok(())
        });
    }
}

/// Too large for one packet.
const FRAGMENTED: usize = 4000;

/// Fragments, which only the first of has ports, to a backend of this node and to one of the other.
fn fragments_come_back(guard: &str) {
    let world = World::new(&[0]).unwrap();
    let node = &world.topology.node1.netns;
    node.nft(guard).unwrap();
    for backend in [0, 2] {
        world.set_endpoints(&[(backend, Condition::Ready)]).unwrap();
        for from in [&world.topology.client, &world.topology.toolbox] {
            for family in Family::BOTH {
                on(from, || {
                    for to in front_ends(family, ECHO_UDP) {
                        let socket = socket::udp(to, None)?;
                        for _ in 0..3 {
                            echo::exchange(&socket, &[0x5a; FRAGMENTED])
                                .with_context(|| format!("{} to {to}, web-{}", from.name, backend + 1))?;
                        }
                    }
                    Ok(())
                });
            }
        }
    }
    let rules = node.command("nft", &["list", "ruleset"]).unwrap();
    assert_eq!(
        rules.matches("counter packets 0 ").count(),
        guard.matches("counter").count(),
        "{rules}"
    );
}

#[test]
fn fragments_find_the_backend_of_their_first() {
    need_root!();
    fragments_come_back("");
}

/// Connection tracking puts fragments together, and takes them apart again, on the way through the node.
#[test]
fn fragments_pass_connection_tracking() {
    need_root!();
    fragments_come_back(
        "table inet guard {
            chain forward { type filter hook forward priority 0; ct state invalid counter drop; }
            chain input { type filter hook input priority 0; ct state invalid counter drop; }
        }",
    );
}
