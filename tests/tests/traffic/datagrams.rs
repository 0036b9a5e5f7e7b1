//! UDP of every size, with and without checksum.

use lb_tests::family::Family;
use lb_tests::manifests::ECHO_UDP;
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
