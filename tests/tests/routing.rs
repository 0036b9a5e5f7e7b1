//! The hosts reach each other by plain routing, before any service comes into play.

use lb_tests::family::Family;
use lb_tests::need_root;
use lb_tests::topology::{Host, Layout, PodNetwork, RpFilter, Topology};

fn ping(from: &Host, to: &Host) {
    for family in Family::BOTH {
        let address = to.addresses.of(family).to_string();
        from.netns.command("ping", &["-c1", "-W2", &address]).unwrap();
    }
}

fn check(layout: Layout) {
    let topology = Topology::with(layout).unwrap();
    for from in [&topology.client, &topology.toolbox, &topology.web[2]] {
        for to in topology.hosts().filter(|to| to.name != from.name) {
            ping(from, to);
        }
    }
}

#[test]
fn every_host_reaches_every_other() {
    need_root!();
    check(Layout::default());
}

#[test]
fn bridged_pods_reach_every_host_with_a_strict_filter() {
    need_root!();
    check(Layout { pods: PodNetwork::Bridge, rp_filter: RpFilter::Strict });
}
