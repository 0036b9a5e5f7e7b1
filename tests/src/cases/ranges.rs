//! Services that take only some sources.

use std::net::SocketAddr;

use lb_common::{DropReason, ServiceFlags, ServiceKey, Stage};

use super::{DROPPED, both_ways, cases, client, node, open, stranger, vip};
use crate::engine::{Bed, POD, TestFamily, backend, end};

cases! {
    ALL:
        only_sources_in_the_ranges_open_flows,
        each_service_has_its_own_ranges,
        without_backends_others_are_dropped_all_the_same,
        pods_and_the_node_are_no_exception,
        other_front_ends_of_the_port_take_everybody,
        what_is_open_lives_on,
        whole_addresses_and_everything_are_ranges_too;
}

/// The whole address, or the last 8 bits less.
fn bits<F: TestFamily>(rest: u32) -> u32 {
    size_of::<F::Addr>() as u32 * 8 - rest
}

/// The VIP of a service takes only sources in these prefixes, whose last `rest` bits do not count.
fn limit<F: TestFamily>(bed: &mut Bed<'_, F>, service: u8, prefixes: &[([u8; 2], u32)]) {
    let protocol = bed.protocol;
    bed.update(|rows| {
        let id = u32::from(service);
        rows.ranges.retain(|range| range.list != id);
        rows.front_end(vip::<F>(service), protocol).flags |= ServiceFlags::SOURCE_RANGES;
        for (octets, rest) in prefixes {
            rows.add_range(id, end::<F>(*octets, 0).ip(), bits::<F>(*rest));
        }
    });
}

#[track_caller]
fn is_dropped<F: TestFamily>(bed: &mut Bed<'_, F>, source: SocketAddr, service: u8) {
    let packet = bed.opening(source, vip::<F>(service));
    bed.pre(&packet)
        .dropped(DropReason::SourceNotAllowed)
        .counts(&[])
        .stats(&[(service.into(), DROPPED)]);
}

fn only_sources_in_the_ranges_open_flows<F: TestFamily>(bed: &mut Bed<'_, F>) {
    limit(bed, 2, &[([0, 0], 8), ([7, 7], 0)]);
    is_dropped(bed, stranger::<F>(), 2);
    let packet = bed.opening(stranger::<F>(), vip::<F>(2));
    bed.xdp(&packet).dropped(DropReason::SourceNotAllowed);
    assert_eq!(bed.flow_count(), 0);
    open(bed, client::<F>(), vip::<F>(2), backend::<F>(0));
    open(bed, end::<F>([7, 7], 40_000), vip::<F>(2), backend::<F>(0));
}

fn each_service_has_its_own_ranges<F: TestFamily>(bed: &mut Bed<'_, F>) {
    limit(bed, 2, &[([0, 0], 8)]);
    limit(bed, 3, &[([3, 0], 8)]);
    is_dropped(bed, client::<F>(), 3);
    is_dropped(bed, stranger::<F>(), 2);
    open(bed, client::<F>(), vip::<F>(2), backend::<F>(0));
    open(bed, stranger::<F>(), vip::<F>(3), backend::<F>(0));
}

fn without_backends_others_are_dropped_all_the_same<F: TestFamily>(bed: &mut Bed<'_, F>) {
    limit(bed, 4, &[([0, 0], 8)]);
    is_dropped(bed, stranger::<F>(), 4);
}

fn pods_and_the_node_are_no_exception<F: TestFamily>(bed: &mut Bed<'_, F>) {
    limit(bed, 5, &[([0, 0], 8)]);
    let own = bed.opening(node::<F>(40_000), vip::<F>(5));
    bed.own(&own)
        .dropped(DropReason::SourceNotAllowed)
        .stats(&[(5, DROPPED)]);
    bed.device = POD;
    is_dropped(bed, end::<F>([1, 50], 40_000), 5);
    assert_eq!(bed.flow_count(), 0);
    // What the agent says is what counts.
    limit(bed, 5, &[([1, 50], 0), ([2, 1], 0)]);
    bed.pre(&bed.opening(end::<F>([1, 50], 40_000), vip::<F>(5)));
    assert_eq!(bed.flow_count(), 2);
    bed.device = crate::engine::UPLINK;
    bed.own(&own);
    assert_eq!(bed.flow_count(), 4);
}

fn other_front_ends_of_the_port_take_everybody<F: TestFamily>(bed: &mut Bed<'_, F>) {
    limit(bed, 2, &[([0, 0], 8)]);
    open(bed, stranger::<F>(), node::<F>(30_081), backend::<F>(0));
}

fn what_is_open_lives_on<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, vip, pod) = (client::<F>(), vip::<F>(2), backend::<F>(0));
    limit(bed, 2, &[([0, 0], 8)]);
    open(bed, client, vip, pod);
    limit(bed, 2, &[([7, 7], 0)]);
    both_ways(bed, client, vip, pod);
    bed.wait(2);
    both_ways(bed, client, vip, pod);
    // A flow that begins anew is a new one.
    super::finish(bed, client, vip, pod);
    is_dropped_after_reopening(bed, client);
    assert_eq!(bed.flow(Stage::Pre, client, vip), None);
}

#[track_caller]
fn is_dropped_after_reopening<F: TestFamily>(bed: &mut Bed<'_, F>, client: SocketAddr) {
    let packet = bed.opening(client, vip::<F>(2));
    bed.pre(&packet)
        .dropped(DropReason::SourceNotAllowed)
        .counts(&[lb_common::Counter::FlowReopened]);
}

fn whole_addresses_and_everything_are_ranges_too<F: TestFamily>(bed: &mut Bed<'_, F>) {
    limit(bed, 2, &[([0, 10], 0)]);
    is_dropped(bed, end::<F>([0, 11], 40_000), 2);
    is_dropped(bed, end::<F>([0, 9], 40_000), 2);
    open(bed, client::<F>(), vip::<F>(2), backend::<F>(0));
    let all = bits::<F>(0);
    limit(bed, 2, &[([0, 0], all)]);
    open(bed, stranger::<F>(), vip::<F>(2), backend::<F>(0));
    let key = ServiceKey::new(F::addr([8, 0, 96, 2]), lb_common::Port::new(80), bed.protocol);
    assert_ne!(bed.rows.services[&key].flags & ServiceFlags::SOURCE_RANGES, 0);
}
