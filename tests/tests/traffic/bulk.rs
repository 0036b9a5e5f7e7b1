//! A hundred megabytes each way, whole and in order.

use lb_tests::family::Family;
use lb_tests::http::{Connection, Received};
use lb_tests::manifests::{Condition, HTTP};
use lb_tests::need_root;
use lb_tests::world::World;

use super::{on, vip};

const SIZE: u64 = 100_000_000;
const LOCAL: usize = 0;
const REMOTE: usize = 2;

#[test]
fn bulk_arrives_whole_with_offloads() {
    need_root!();
    check("on");
}

#[test]
fn bulk_arrives_whole_without_offloads() {
    need_root!();
    check("off");
}

fn check(offloads: &str) {
    let world = World::new(&[LOCAL]).unwrap();
    world.topology.set_offloads(offloads).unwrap();
    let whole = Received::bulk(SIZE);
    for backend in [LOCAL, REMOTE] {
        world.set_endpoints(&[(backend, Condition::Ready)]).unwrap();
        for family in Family::BOTH {
            let to = vip(family, HTTP);
            on(&world.topology.client, || {
                assert_eq!(
                    Connection::open(to)?.download(SIZE)?,
                    whole,
                    "download from {to}, backend {backend}"
                );
                assert_eq!(
                    Connection::open(to)?.upload(SIZE)?,
                    whole,
                    "upload to {to}, backend {backend}"
                );
                Ok(())
            });
        }
    }
}
