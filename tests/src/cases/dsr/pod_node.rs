//! The pod's node: packets come out of others.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use lb_common::{
    BackendState, Counter, DeviceRole, DropReason, Port, ServiceFlags, ServiceKey, ServiceStats,
};
use lb_ebpf::testkit::Program;

use super::{answer, cases, client, far_vip, know, near_vip, other_node, stranger, vip};
use crate::engine::{Bed, OTHER_UPLINK, POD, Rows, TestFamily, UPLINK, backend, end, far};
use crate::packet::{Extension, IcmpError, PacketBuilder, flag};

cases! {
    ALL:
        xdp_unwraps,
        tc_unwraps,
        the_wrapper_says_which_backend,
        a_reply_leaves_as_routed_whichever_uplink_brought_the_wrapper,
        whoever_is_no_node_is_refused,
        a_pod_wraps_nothing,
        an_unknown_device_brings_nothing,
        a_tunnel_brings_packets,
        what_is_for_no_local_backend_is_dropped,
        other_tunnels_are_untouched,
        a_wrapper_in_a_wrapper_is_untouched,
        what_is_cut_off_is_untouched,
        what_is_longer_than_its_wrapper_is_untouched,
        a_source_that_is_nobodys_leaves_no_state,
        outer_options_go_with_the_wrapper,
        a_mark_of_congestion_goes_inside,
        a_tagged_frame_is_unwrapped_by_tc,
        a_backend_that_takes_no_new_flows_is_still_the_one,
        what_was_wrapped_is_not_wrapped_again,
        a_flow_outlives_the_services_way,
        a_node_port_of_another_node,
        an_address_that_all_nodes_have,
        an_error_about_a_reply_reaches_the_pod,
        an_error_about_something_else_is_untouched;
    UDP:
        fragments_inside_follow_the_first_one;
    TCP:
        in_mid_connection_a_flow_stays_with_its_backend,
        a_connection_that_begins_goes_where_the_wrapper_says;
}

/// The backend of [`near_vip`].
fn pod<F: TestFamily>() -> SocketAddr {
    backend::<F>(4)
}

/// Another endpoint of the same service on this node.
fn other_pod<F: TestFamily>() -> SocketAddr {
    backend::<F>(5)
}

fn add_other_pod<F: TestFamily>(bed: &mut Bed<'_, F>) {
    bed.update(|rows| {
        rows.set_backend(12, 9, other_pod::<F>());
        rows.add_local(12);
        rows.set_scopes(9, &[11, 12], &[11, 12]);
    });
}

/// As another node sends it.
fn wrapped<F: TestFamily>(packet: &PacketBuilder, pod: SocketAddr) -> PacketBuilder {
    packet.wrapped(other_node::<F>(), pod.ip())
}

fn xdp_unwraps<F: TestFamily>(bed: &mut Bed<'_, F>) {
    here(bed, Program::Xdp);
}

fn tc_unwraps<F: TestFamily>(bed: &mut Bed<'_, F>) {
    here(bed, Program::Pre);
}

fn here<F: TestFamily>(bed: &mut Bed<'_, F>, program: Program) {
    know(bed, other_node::<F>());
    let opening = bed.opening(client::<F>(), near_vip::<F>());
    let stats = ServiceStats {
        packets: 1,
        bytes: opening.network_length(),
        connections: 1,
        ..ServiceStats::default()
    };
    bed.run(program, &wrapped::<F>(&opening, pod::<F>()).build())
        .becomes(&opening.clone().to(pod::<F>()))
        .counts(&[Counter::Unwrapped, Counter::FlowOpened])
        .stats(&[(9, stats)]);
    assert_eq!(bed.flow_count(), 2);
    answer(bed, pod::<F>(), client::<F>(), near_vip::<F>());
    let data = bed.data(client::<F>(), near_vip::<F>());
    bed.run(program, &wrapped::<F>(&data, pod::<F>()).build())
        .becomes(&data.clone().to(pod::<F>()))
        .counts(&[Counter::Unwrapped]);
    let reply = bed.data(pod::<F>(), client::<F>());
    bed.post(&reply).becomes(&reply.clone().from(near_vip::<F>()));
}

fn a_reply_leaves_as_routed_whichever_uplink_brought_the_wrapper<F: TestFamily>(bed: &mut Bed<'_, F>) {
    know(bed, other_node::<F>());
    bed.update(Rows::return_by_uplinks);
    let opening = bed.opening(client::<F>(), near_vip::<F>());
    bed.pre(&wrapped::<F>(&opening, pod::<F>()))
        .becomes(&opening.clone().to(pod::<F>()));
    let reply = bed.data(pod::<F>(), client::<F>());
    bed.device = OTHER_UPLINK;
    bed.post(&reply).becomes(&reply.clone().from(near_vip::<F>()));
}

fn the_wrapper_says_which_backend<F: TestFamily>(bed: &mut Bed<'_, F>) {
    know(bed, other_node::<F>());
    add_other_pod(bed);
    for (port, pod) in [
        (1, pod::<F>()),
        (2, other_pod::<F>()),
        (3, pod::<F>()),
        (4, other_pod::<F>()),
    ] {
        let opening = bed.opening(end::<F>([0, 10], port), near_vip::<F>());
        bed.xdp(&wrapped::<F>(&opening, pod))
            .becomes(&opening.clone().to(pod));
    }
}

#[track_caller]
fn refused<F: TestFamily>(bed: &mut Bed<'_, F>, packet: &PacketBuilder, reason: DropReason) {
    let dropped = ServiceStats {
        dropped: 1,
        ..ServiceStats::default()
    };
    for program in [Program::Xdp, Program::Pre] {
        bed.run(program, &packet.build())
            .dropped(reason)
            .counts(&[])
            .stats(&[(9, dropped)]);
    }
    assert_eq!(bed.flow_count(), 0);
}

#[track_caller]
fn passed<F: TestFamily>(bed: &mut Bed<'_, F>, packet: &PacketBuilder) {
    for program in [Program::Xdp, Program::Pre] {
        bed.run(program, &packet.build())
            .untouched()
            .counts(&[])
            .stats(&[]);
    }
    assert_eq!(bed.flow_count(), 0);
}

fn whoever_is_no_node_is_refused<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let opening = bed.opening(client::<F>(), near_vip::<F>());
    refused(
        bed,
        &wrapped::<F>(&opening, pod::<F>()),
        DropReason::ForeignWrapper,
    );
    know(bed, other_node::<F>());
    let foreign = opening.wrapped(client::<F>().ip(), pod::<F>().ip());
    refused(bed, &foreign, DropReason::ForeignWrapper);
}

fn a_pod_wraps_nothing<F: TestFamily>(bed: &mut Bed<'_, F>) {
    bed.device = POD;
    // Even one that has a node's address: the host network's pods have no device of their own.
    know(bed, other_node::<F>());
    let opening = bed.opening(client::<F>(), near_vip::<F>());
    passed(bed, &wrapped::<F>(&opening, pod::<F>()));
}

fn an_unknown_device_brings_nothing<F: TestFamily>(bed: &mut Bed<'_, F>) {
    know(bed, other_node::<F>());
    bed.update(|rows| _ = rows.devices.remove(&UPLINK));
    let opening = bed.opening(client::<F>(), near_vip::<F>());
    passed(bed, &wrapped::<F>(&opening, pod::<F>()));
}

fn a_tunnel_brings_packets<F: TestFamily>(bed: &mut Bed<'_, F>) {
    know(bed, other_node::<F>());
    bed.update(|rows| rows.devices.get_mut(&UPLINK).unwrap().role = DeviceRole::Tunnel as u8);
    let opening = bed.opening(client::<F>(), near_vip::<F>());
    bed.pre(&wrapped::<F>(&opening, pod::<F>()))
        .becomes(&opening.clone().to(pod::<F>()));
}

fn what_is_for_no_local_backend_is_dropped<F: TestFamily>(bed: &mut Bed<'_, F>) {
    know(bed, other_node::<F>());
    let opening = bed.opening(client::<F>(), near_vip::<F>());
    // A pod that the service does not have, a pod on another node, the node.
    for nobody in [backend::<F>(0), far::<F>(2), end::<F>([2, 1], 0)] {
        refused(bed, &wrapped::<F>(&opening, nobody), DropReason::WrappedForNobody);
    }
    // The row is another's by now.
    bed.update(|rows| rows.backend(11).service = 3);
    refused(
        bed,
        &wrapped::<F>(&opening, pod::<F>()),
        DropReason::WrappedForNobody,
    );
    bed.update(|rows| {
        rows.backend(11).service = 9;
        rows.set_state(11, BackendState::Free);
    });
    refused(
        bed,
        &wrapped::<F>(&opening, pod::<F>()),
        DropReason::WrappedForNobody,
    );
}

fn other_tunnels_are_untouched<F: TestFamily>(bed: &mut Bed<'_, F>) {
    know(bed, other_node::<F>());
    for inside in [stranger::<F>(), vip::<F>(2), pod::<F>()] {
        let opening = bed.opening(client::<F>(), inside);
        passed(bed, &wrapped::<F>(&opening, pod::<F>()));
    }
    let other = PacketBuilder::other(client::<F>(), near_vip::<F>(), 47);
    passed(bed, &wrapped::<F>(&other, pod::<F>()));
}

fn a_wrapper_in_a_wrapper_is_untouched<F: TestFamily>(bed: &mut Bed<'_, F>) {
    know(bed, other_node::<F>());
    let opening = bed.opening(client::<F>(), near_vip::<F>());
    let twice = wrapped::<F>(&wrapped::<F>(&opening, pod::<F>()), pod::<F>());
    passed(bed, &twice);
}

fn what_is_cut_off_is_untouched<F: TestFamily>(bed: &mut Bed<'_, F>) {
    know(bed, other_node::<F>());
    let header = if F::SUFFIX == '4' { 20 } else { 40 };
    let transport = if bed.is_tcp() { 20 } else { 8 };
    let opening = wrapped::<F>(&bed.data(client::<F>(), near_vip::<F>()), pod::<F>());
    for length in [
        header,
        header + 1,
        2 * header - 1,
        2 * header,
        2 * header + transport - 1,
    ] {
        passed(bed, &opening.clone().cut_off(length));
    }
}

/// The wrapper says that its last bytes are padding.
fn what_is_longer_than_its_wrapper_is_untouched<F: TestFamily>(bed: &mut Bed<'_, F>) {
    know(bed, other_node::<F>());
    let opening = wrapped::<F>(&bed.opening(client::<F>(), near_vip::<F>()), pod::<F>());
    let mut frame = opening.build();
    let add = |frame: &mut [u8], at: usize, number: i16| {
        let word = i16::from_be_bytes([frame[at], frame[at + 1]]);
        frame[at..at + 2].copy_from_slice(&word.wrapping_add(number).to_be_bytes());
    };
    if F::SUFFIX == '4' {
        add(&mut frame, 14 + 2, -4);
        add(&mut frame, 14 + 10, 4);
    } else {
        add(&mut frame, 14 + 4, -4);
    }
    for program in [Program::Xdp, Program::Pre] {
        bed.run(program, &frame).untouched().counts(&[]);
    }
    assert_eq!(bed.flow_count(), 0);
}

fn a_source_that_is_nobodys_leaves_no_state<F: TestFamily>(bed: &mut Bed<'_, F>) {
    know(bed, other_node::<F>());
    let nobodys: [IpAddr; 3] = if F::SUFFIX == '4' {
        [
            Ipv4Addr::LOCALHOST,
            Ipv4Addr::UNSPECIFIED,
            Ipv4Addr::new(224, 0, 0, 1),
        ]
        .map(Into::into)
    } else {
        [
            Ipv6Addr::LOCALHOST,
            Ipv6Addr::UNSPECIFIED,
            Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1),
        ]
        .map(Into::into)
    };
    for source in nobodys.into_iter().chain([end::<F>([2, 1], 0).ip()]) {
        let opening = bed.opening(SocketAddr::new(source, 40_000), near_vip::<F>());
        bed.pre(&wrapped::<F>(&opening, pod::<F>()))
            .dropped(DropReason::SpoofedSource);
        bed.xdp(&wrapped::<F>(&opening, pod::<F>()))
            .dropped(DropReason::SpoofedSource);
        assert_eq!(bed.flow_count(), 0);
    }
}

fn outer_options_go_with_the_wrapper<F: TestFamily>(bed: &mut Bed<'_, F>) {
    know(bed, other_node::<F>());
    let opening = bed.opening(client::<F>(), near_vip::<F>());
    let outer = wrapped::<F>(&opening, pod::<F>());
    // Linux adds a tunnel encapsulation limit to IPv6 (RFC 2473, section 4.1.1).
    let outer = if F::SUFFIX == '4' {
        outer.options(8)
    } else {
        outer.extension(Extension::DestinationOptions(1))
    };
    for program in [Program::Xdp, Program::Pre] {
        bed.run(program, &outer.build())
            .becomes(&opening.clone().to(pod::<F>()));
    }
}

fn a_mark_of_congestion_goes_inside<F: TestFamily>(bed: &mut Bed<'_, F>) {
    const CONGESTED: u8 = 3;
    know(bed, other_node::<F>());
    for (inside, after) in [(0b00, 0b00), (0b01, 0b11), (0b10, 0b11), (0b11, 0b11)] {
        let packet = bed
            .data(client::<F>(), near_vip::<F>())
            .traffic_class(0xb8 | inside);
        let outer = wrapped::<F>(&packet, pod::<F>());
        for program in [Program::Xdp, Program::Pre] {
            bed.run(program, &outer.clone().traffic_class(0xb8 | CONGESTED).build())
                .becomes(&packet.clone().traffic_class(0xb8 | after).to(pod::<F>()));
            bed.run(program, &outer.clone().traffic_class(0xb8 | inside).build())
                .becomes(&packet.clone().to(pod::<F>()));
        }
    }
}

fn a_tagged_frame_is_unwrapped_by_tc<F: TestFamily>(bed: &mut Bed<'_, F>) {
    know(bed, other_node::<F>());
    let packet = wrapped::<F>(&bed.opening(client::<F>(), near_vip::<F>()), pod::<F>());
    bed.xdp(&packet.vlan(7)).untouched().counts(&[Counter::XdpPassed]);
    assert_eq!(bed.flow_count(), 0);
}

fn a_backend_that_takes_no_new_flows_is_still_the_one<F: TestFamily>(bed: &mut Bed<'_, F>) {
    know(bed, other_node::<F>());
    add_other_pod(bed);
    // Nodes hear of it at different times.
    for (port, state) in [(1, BackendState::NoNew), (2, BackendState::Removed)] {
        bed.update(|rows| rows.set_state(11, state));
        let opening = bed.opening(end::<F>([0, 10], port), near_vip::<F>());
        bed.xdp(&wrapped::<F>(&opening, pod::<F>()))
            .becomes(&opening.clone().to(pod::<F>()));
    }
}

fn what_was_wrapped_is_not_wrapped_again<F: TestFamily>(bed: &mut Bed<'_, F>) {
    know(bed, other_node::<F>());
    // For this node the flow's backend is elsewhere, for the other one it is here.
    bed.update(|rows| {
        rows.set_backend(12, 9, far::<F>(3));
        rows.set_scopes(9, &[12], &[12]);
    });
    let data = bed.data(client::<F>(), near_vip::<F>());
    bed.pre(&data).leaves(
        UPLINK,
        &data
            .clone()
            .hop_limit(63)
            .wrapped(super::here::<F>(), far::<F>(3).ip()),
    );
    for _ in 0..2 {
        bed.pre(&wrapped::<F>(&data, pod::<F>()))
            .becomes(&data.clone().to(pod::<F>()));
    }
}

fn a_flow_outlives_the_services_way<F: TestFamily>(bed: &mut Bed<'_, F>) {
    know(bed, other_node::<F>());
    let opening = bed.opening(client::<F>(), near_vip::<F>());
    bed.pre(&wrapped::<F>(&opening, pod::<F>()))
        .becomes(&opening.clone().to(pod::<F>()));
    let data = bed.data(client::<F>(), near_vip::<F>());
    bed.update(|rows| {
        rows.locals.clear();
        for front_end in rows.front_ends(9) {
            front_end.flags &= !ServiceFlags::DSR;
        }
    });
    for program in [Program::Xdp, Program::Pre] {
        bed.run(program, &wrapped::<F>(&data, pod::<F>()).build())
            .becomes(&data.clone().to(pod::<F>()));
    }
    // Who is no node, or names another backend, has no part in it.
    bed.pre(&data.wrapped(client::<F>().ip(), pod::<F>().ip()))
        .untouched();
    bed.pre(&wrapped::<F>(&data, other_pod::<F>())).untouched();
}

fn a_node_port_of_another_node<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let port = 30_089;
    let protocol = bed.protocol;
    bed.update(|rows| {
        let mut front_end = *rows.front_end(near_vip::<F>(), protocol);
        front_end.flags |= ServiceFlags::NODE_PORT;
        let key = ServiceKey::new(F::Addr::default(), Port::new(port), protocol);
        rows.services.insert(key, front_end);
    });
    let service = SocketAddr::new(other_node::<F>(), port);
    let opening = bed.opening(client::<F>(), service);
    // Nobody knows that this is a node.
    passed(bed, &wrapped::<F>(&opening, pod::<F>()));
    know(bed, other_node::<F>());
    bed.xdp(&wrapped::<F>(&opening, pod::<F>()))
        .becomes(&opening.clone().to(pod::<F>()));
    answer(bed, pod::<F>(), client::<F>(), service);
}

fn an_address_that_all_nodes_have<F: TestFamily>(bed: &mut Bed<'_, F>) {
    know(bed, other_node::<F>());
    // As some have load-balancer addresses on a device of each node.
    bed.update(|rows| {
        let addr = lb_common::addr::Address::from_ip(near_vip::<F>().ip()).unwrap();
        rows.node_addresses
            .insert(addr, lb_common::NodeAddress { node_ports: 0 });
    });
    let data = bed.data(client::<F>(), near_vip::<F>());
    bed.xdp(&wrapped::<F>(&data, pod::<F>()))
        .becomes(&data.clone().to(pod::<F>()));
}

/// What a router near the client says about a reply, as the first node sends it on.
fn an_error_about_a_reply_reaches_the_pod<F: TestFamily>(bed: &mut Bed<'_, F>) {
    know(bed, other_node::<F>());
    let opening = bed.opening(client::<F>(), near_vip::<F>());
    bed.pre(&wrapped::<F>(&opening, pod::<F>()))
        .becomes(&opening.clone().to(pod::<F>()));
    answer(bed, pod::<F>(), client::<F>(), near_vip::<F>());
    let router = end::<F>([3, 254], 0).ip();
    let reply = bed.data(pod::<F>(), client::<F>());
    let seen = reply.clone().from(near_vip::<F>());
    let error = wrapped::<F>(&seen.error(router, IcmpError::TooBig(1300)), pod::<F>());
    bed.xdp(&error).untouched();
    bed.pre(&error)
        .becomes(&reply.error(router, IcmpError::TooBig(1300)))
        .counts(&[Counter::Unwrapped, Counter::IcmpTranslated]);
}

fn an_error_about_something_else_is_untouched<F: TestFamily>(bed: &mut Bed<'_, F>) {
    know(bed, other_node::<F>());
    let router = end::<F>([3, 254], 0).ip();
    let other = bed.data(stranger::<F>(), client::<F>());
    let error = other.error(router, IcmpError::TooBig(1300));
    passed(bed, &wrapped::<F>(&error, pod::<F>()));
    let echo = PacketBuilder::icmp(client::<F>(), near_vip::<F>());
    passed(bed, &wrapped::<F>(&echo, pod::<F>()));
}

fn fragments_inside_follow_the_first_one<F: TestFamily>(bed: &mut Bed<'_, F>) {
    know(bed, other_node::<F>());
    let datagram = bed.data(client::<F>(), near_vip::<F>()).payload(&[7; 200]);
    let parts = datagram.fragments(64);
    let arrived = datagram.clone().to(pod::<F>()).fragments(64);
    for (part, arrived) in parts.iter().zip(&arrived) {
        bed.xdp(&wrapped::<F>(part, pod::<F>())).untouched();
        bed.pre(&wrapped::<F>(part, pod::<F>())).becomes(arrived);
    }
    // What somebody who is no node wraps leaves nothing behind.
    let before = bed.written();
    let foreign = datagram.identification(0x99).fragments(64);
    for part in &foreign {
        bed.pre(&part.wrapped(client::<F>().ip(), pod::<F>().ip()))
            .untouched();
    }
    assert_eq!(bed.written(), before);
}

fn in_mid_connection_a_flow_stays_with_its_backend<F: TestFamily>(bed: &mut Bed<'_, F>) {
    know(bed, other_node::<F>());
    add_other_pod(bed);
    let opening = bed.opening(client::<F>(), near_vip::<F>());
    bed.pre(&wrapped::<F>(&opening, pod::<F>()))
        .becomes(&opening.clone().to(pod::<F>()));
    answer(bed, pod::<F>(), client::<F>(), near_vip::<F>());
    // The other node has lost the flow, and its hash says something else now.
    let data = bed.data(client::<F>(), near_vip::<F>());
    bed.pre(&wrapped::<F>(&data, other_pod::<F>()))
        .becomes(&data.clone().to(pod::<F>()));
}

fn a_connection_that_begins_goes_where_the_wrapper_says<F: TestFamily>(bed: &mut Bed<'_, F>) {
    know(bed, other_node::<F>());
    add_other_pod(bed);
    let opening = bed.opening(client::<F>(), near_vip::<F>());
    for pod in [pod::<F>(), other_pod::<F>()] {
        bed.pre(&wrapped::<F>(&opening, pod))
            .becomes(&opening.clone().to(pod));
        let answer = bed.data(pod, client::<F>()).flags(flag::SYN | flag::ACK);
        bed.post(&answer).becomes(&answer.clone().from(near_vip::<F>()));
    }
    // A service that has no front end with direct server return here is another matter.
    let far = bed.opening(client::<F>(), far_vip::<F>());
    bed.pre(&wrapped::<F>(&far, pod::<F>()))
        .dropped(DropReason::WrappedForNobody);
}
