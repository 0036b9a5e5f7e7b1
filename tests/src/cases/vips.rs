//! Addresses of services as hosts: what is for no front end is refused there, and unused addresses are dropped.

use std::net::SocketAddr;

use lb_common::{Counter, DropReason, NodeAddress, ServiceFlags};
use lb_ebpf::testkit::Program;

use super::{cases, client, node, open, vip};
use crate::engine::{BRIDGE, Bed, OTHER_UPLINK, POD, TestFamily, UPLINK, Verdict, WEB, backend, end};
use crate::packet::PacketBuilder;

cases! {
    ALL:
        a_port_that_no_service_has_is_refused,
        an_address_may_answer_at_uplinks_alone,
        the_address_of_the_node_is_never_refused,
        an_address_without_the_flag_is_left_alone,
        other_protocols_are_refused,
        an_unused_address_of_services_is_dropped,
        xdp_leaves_refusals_to_tc_and_drops_unused_addresses;
}

/// An address of services that has no port but 80.
fn closed<F: TestFamily>(bed: &mut Bed<'_, F>, flags: u32) -> SocketAddr {
    let closed = end::<F>([96, 2], 81);
    bed.update(|rows| rows.add_address(closed.ip(), flags));
    closed
}

/// The packet has become a refusal by its destination.
#[track_caller]
fn is_refused<F: TestFamily>(bed: &mut Bed<'_, F>, program: Program, packet: &PacketBuilder) {
    let step = bed.run(program, &packet.build());
    let view = step.answers(bed.device);
    let counter = if view.is_reset() {
        assert!(view.is_like(&packet.reset()), "{view:02x?}");
        Counter::AnsweredReset
    } else {
        assert!(view.error().is_some(), "{view:02x?}");
        Counter::AnsweredUnreachable
    };
    step.counts(&[counter]).stats(&[]);
}

fn a_port_that_no_service_has_is_refused<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let closed = closed(bed, ServiceFlags::REJECT);
    for (device, from) in [(UPLINK, client::<F>()), (POD, end::<F>([1, 50], 40_000))] {
        bed.device = device;
        for packet in [bed.opening(from, closed), bed.data(from, closed)] {
            is_refused(bed, Program::Pre, &packet);
        }
    }
    bed.device = UPLINK;
    bed.own = true;
    let own = bed.opening(node::<F>(40_000), closed);
    is_refused(bed, Program::Post, &own);
    // What the node forwards has been looked at where it came in.
    bed.own = false;
    bed.post(&own).untouched().counts(&[]);
    // The port that there is.
    open(bed, client::<F>(), vip::<F>(2), backend::<F>(0));
    assert_eq!(bed.flow_count(), 2);
}

fn an_address_may_answer_at_uplinks_alone<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let closed = closed(bed, ServiceFlags::REJECT | ServiceFlags::FROM_UPLINK);
    let packet = bed.opening(client::<F>(), closed);
    is_refused(bed, Program::Pre, &packet);
    bed.device = OTHER_UPLINK;
    is_refused(
        bed,
        Program::Pre,
        &packet.macs([2, 0, 0, 0, 0, 20], [2, 0, 0, 0, 0, 21]),
    );
    for (device, pod) in [(POD, [1, 50]), (BRIDGE, [1, 60]), (WEB, [1, 10])] {
        bed.device = device;
        let packet = bed.opening(end::<F>(pod, 40_000), closed);
        bed.pre(&packet).untouched().counts(&[]);
    }
    bed.device = UPLINK;
    let own = bed.opening(node::<F>(40_000), closed);
    bed.own(&own).untouched().counts(&[]);
    bed.update(|rows| rows.devices.clear());
    let packet = bed.opening(client::<F>(), closed);
    bed.pre(&packet).untouched().counts(&[]);
}

fn the_address_of_the_node_is_never_refused<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let closed = closed(bed, ServiceFlags::REJECT);
    bed.update(|rows| {
        let addr = *rows.services.keys().map(|key| &key.addr).max().unwrap();
        assert_eq!(F::addr([8, 0, 96, 9]), addr);
        rows.node_addresses
            .insert(F::addr([8, 0, 96, 2]), NodeAddress { node_ports: 0 });
        rows.add_service_cidr(closed.ip(), 16);
    });
    let packet = bed.opening(client::<F>(), closed);
    bed.pre(&packet).untouched().counts(&[]);
}

fn an_address_without_the_flag_is_left_alone<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let closed = closed(bed, ServiceFlags::ECHO);
    let packet = bed.opening(client::<F>(), closed);
    bed.pre(&packet).untouched().counts(&[]);
}

fn other_protocols_are_refused<F: TestFamily>(bed: &mut Bed<'_, F>) {
    const UDP_LITE: u8 = 136;
    let closed = closed(bed, ServiceFlags::REJECT);
    let packet = PacketBuilder::other(client::<F>(), closed, UDP_LITE).payload(b"\x00\x01\x00\x02 and so on");
    is_refused(bed, Program::Pre, &packet);
    bed.own = true;
    is_refused(bed, Program::Post, &packet.clone().from(node::<F>(1)));
    bed.own = false;
    for to in [super::stranger::<F>(), vip::<F>(3)] {
        let packet = packet.clone().to(to);
        bed.pre(&packet).untouched().counts(&[]);
        bed.own(&packet).untouched().counts(&[]);
        bed.post(&packet).untouched().counts(&[]);
    }
}

fn an_unused_address_of_services_is_dropped<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let used = closed(bed, 0);
    let bits = if F::SUFFIX == '4' { 24 } else { 120 };
    bed.update(|rows| {
        rows.settings.flags |= lb_common::SettingsFlags::SERVICE_CIDRS;
        rows.add_service_cidr(end::<F>([77, 0], 0).ip(), bits);
        rows.add_service_cidr(used.ip(), bits);
    });
    for unused in [end::<F>([77, 200], 80), end::<F>([96, 200], 443)] {
        let packet = bed.opening(client::<F>(), unused);
        bed.pre(&packet)
            .dropped(DropReason::UnusedServiceAddress)
            .counts(&[]);
        let own = bed.opening(node::<F>(40_000), unused);
        bed.own(&own)
            .dropped(DropReason::UnusedServiceAddress)
            .counts(&[]);
        let other = PacketBuilder::other(client::<F>(), unused, 136);
        bed.pre(&other).dropped(DropReason::UnusedServiceAddress);
        // In mid-connection it may be anybody's, and a connection to such an address cannot have been opened.
        let data = bed.data(client::<F>(), unused);
        let step = bed.pre(&data);
        assert_eq!(step.verdict == Verdict::On, bed.is_tcp(), "{step:?}");
    }
    for free in [used, end::<F>([78, 1], 80), client::<F>()] {
        let packet = bed.opening(client::<F>(), free);
        bed.pre(&packet).untouched().counts(&[]);
    }
    bed.update(|rows| rows.settings.flags = 0);
    let packet = bed.opening(client::<F>(), end::<F>([77, 200], 80));
    bed.pre(&packet).untouched().counts(&[]);
}

fn xdp_leaves_refusals_to_tc_and_drops_unused_addresses<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let closed = closed(bed, ServiceFlags::REJECT);
    let bits = if F::SUFFIX == '4' { 24 } else { 120 };
    bed.update(|rows| {
        rows.settings.flags |= lb_common::SettingsFlags::SERVICE_CIDRS;
        rows.add_service_cidr(closed.ip(), bits);
    });
    let packet = bed.opening(client::<F>(), closed);
    bed.xdp(&packet).untouched().counts(&[Counter::XdpPassed]);
    is_refused(bed, Program::Pre, &packet);
    let packet = bed.opening(client::<F>(), end::<F>([96, 200], 80));
    bed.xdp(&packet)
        .dropped(DropReason::UnusedServiceAddress)
        .counts(&[]);
}
