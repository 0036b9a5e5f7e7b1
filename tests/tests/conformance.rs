//! Packets as kube-proxy treats them: its own tables, and the same in the other family and protocol.

#![expect(clippy::unwrap_used, reason = "tests panic")]

use std::fs;
use std::path::Path;

use lb_tests::conformance::{self, Flows, Mirror, Snat};
use lb_tests::need_root;

/// The packets of the file.
const PACKETS: usize = 170;
/// Those of IPv4.
const PACKETS_OF_IPV4: usize = 166;

/// Tries the file, turned like this; all packets must go as they should.
#[track_caller]
fn check(snat: Snat, mirror: Mirror) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/flows/kube-proxy.json");
    let flows = Flows::parse(&fs::read_to_string(path).unwrap()).unwrap();
    let report = conformance::run(&flows, snat, mirror).unwrap();
    assert_eq!(report.failed, 0, "{report}");
    assert_eq!(report.passed, if mirror.ipv6 { PACKETS_OF_IPV4 } else { PACKETS });
}

#[test]
fn conformance_with_snat_always() {
    need_root!();
    check(Snat::Always, Mirror::PLAIN);
}

#[test]
fn conformance_with_snat_needed() {
    need_root!();
    check(Snat::Needed, Mirror::PLAIN);
}

#[test]
fn conformance_of_mirrors_with_snat_always() {
    need_root!();
    Mirror::ALL
        .into_iter()
        .for_each(|mirror| check(Snat::Always, mirror));
}

#[test]
fn conformance_of_mirrors_with_snat_needed() {
    need_root!();
    Mirror::ALL
        .into_iter()
        .for_each(|mirror| check(Snat::Needed, mirror));
}
