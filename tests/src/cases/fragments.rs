//! Fragments follow their first one; those that hide something are dropped where they are for a service.

use std::net::SocketAddr;

use lb_common::{Counter, DropReason, ServiceFlags, Stage};
use lb_ebpf::testkit::Program;

use super::{cases, client, node, open, stranger, vip};
use crate::engine::{Bed, TestFamily, UPLINK, WEB, backend, end, far};
use crate::packet::{Extension, PacketBuilder, flag};

cases! {
    BOTH:
        fragments_of_requests_follow_the_first_one,
        fragments_of_replies_follow_the_first_one,
        fragments_of_a_first_packet_open_one_flow,
        fragments_of_two_packets_are_not_mixed,
        fragments_are_sent_on,
        fragments_of_the_nodes_own_packets_are_sent_on,
        fragments_of_a_packet_masqueraded_in_two_steps,
        xdp_leaves_fragments_to_tc,
        a_later_fragment_without_its_first_one,
        a_first_fragment_that_ends_before_its_ports,
        extension_headers_behind_the_fragment_header,
        fragments_that_are_no_business_of_ours_are_untouched;
    TCP:
        a_fragment_over_the_header_is_dropped;
    UDP:
        the_least_of_a_datagram_is_no_tiny_fragment;
}

/// A packet too long for one piece.
fn long<F: TestFamily>(bed: &Bed<'_, F>, from: SocketAddr, to: SocketAddr) -> PacketBuilder {
    let data: Vec<u8> = (0..3001_u32).map(|place| (place * 7) as u8).collect();
    bed.data(from, to).payload(&data).may_be_fragmented()
}

/// The VIPs of services behave like addresses of hosts.
fn add_addresses<F: TestFamily>(bed: &mut Bed<'_, F>) {
    bed.update(|rows| {
        for service in [1, 2, 5] {
            rows.add_address(vip::<F>(service).ip(), ServiceFlags::REJECT | ServiceFlags::ECHO);
        }
    });
}

/// The fragments of `sent` become those of `expected`.
#[track_caller]
fn follow<F: TestFamily>(
    bed: &mut Bed<'_, F>,
    program: Program,
    sent: &PacketBuilder,
    expected: &PacketBuilder,
) {
    for (part, expected) in sent.fragments(1240).iter().zip(expected.fragments(1240)) {
        bed.run(program, &part.build()).becomes(&expected).counts(&[]);
    }
}

fn fragments_of_requests_follow_the_first_one<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, pod) = (client::<F>(), backend::<F>(0));
    for (place, service) in [vip::<F>(2), node::<F>(30_081)].into_iter().enumerate() {
        let client = SocketAddr::new(client.ip(), 40_000 + place as u16);
        open(bed, client, service, pod);
        let request = long(bed, client, service).identification(7 + place as u32);
        follow(bed, Program::Pre, &request, &request.clone().to(pod));
        // The first one again, and the others in another order.
        let (parts, expected) = (request.fragments(1240), request.to(pod).fragments(1240));
        for number in [0, 2, 1] {
            bed.pre(&parts[number]).becomes(&expected[number]);
        }
    }
}

fn fragments_of_replies_follow_the_first_one<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, service, pod) = (client::<F>(), vip::<F>(2), backend::<F>(0));
    open(bed, client, service, pod);
    let reply = long(bed, pod, client);
    follow(bed, Program::Post, &reply, &reply.clone().from(service));
}

fn fragments_of_a_first_packet_open_one_flow<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, service, pod) = (client::<F>(), vip::<F>(2), backend::<F>(0));
    let mut request = long(bed, client, service);
    if bed.is_tcp() {
        let data = vec![3; 3000];
        request = request.flags(flag::SYN).payload(&data);
    }
    let (parts, expected) = (request.fragments(1240), request.to(pod).fragments(1240));
    bed.pre(&parts[0])
        .becomes(&expected[0])
        .counts(&[Counter::FlowOpened]);
    bed.pre(&parts[1]).becomes(&expected[1]);
    bed.pre(&parts[2]).becomes(&expected[2]);
    assert_eq!(bed.flow_count(), 2);
}

fn fragments_of_two_packets_are_not_mixed<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let pod = backend::<F>(0);
    let (one, other) = (client::<F>(), end::<F>([0, 10], 40_001));
    let (first, second) = (vip::<F>(2), node::<F>(30_081));
    open(bed, one, first, pod);
    open(bed, other, second, pod);
    // Also of one client to one address: the identification tells them apart.
    open(bed, end::<F>([0, 10], 40_002), first, pod);
    let packets = [
        long(bed, one, first).identification(1),
        long(bed, other, second).identification(1),
        long(bed, end::<F>([0, 10], 40_002), first).identification(2),
    ];
    for place in 0..3 {
        for packet in &packets {
            let (part, expected) = (
                &packet.fragments(1240)[place],
                &packet.clone().to(pod).fragments(1240)[place],
            );
            bed.pre(part).becomes(expected);
        }
    }
}

fn fragments_are_sent_on<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, service, pod) = (client::<F>(), vip::<F>(5), far::<F>(0));
    add_addresses(bed);
    bed.pre(&bed.opening(client, service));
    let port = bed.flow(Stage::Pre, client, service).unwrap().peer_port.number();
    let source = node::<F>(port);
    bed.pre(&bed.data(pod, source));
    for (sent, expected) in [
        (long(bed, client, service), long(bed, source, pod)),
        (long(bed, pod, source), long(bed, service, client)),
    ] {
        for (part, expected) in sent.fragments(1240).iter().zip(expected.fragments(1240)) {
            bed.xdp(part).untouched();
            bed.pre(part)
                .leaves(UPLINK, &expected.hop_limit(63))
                .counts(&[Counter::TcSent]);
        }
    }
}

fn fragments_of_the_nodes_own_packets_are_sent_on<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (process, service, pod) = (node::<F>(45_000), vip::<F>(2), backend::<F>(0));
    bed.own(&bed.opening(process, service));
    bed.device = WEB;
    bed.pre(&bed.data(pod, process));
    bed.device = UPLINK;
    let (sent, expected) = (long(bed, process, service), long(bed, process, pod));
    for (part, expected) in sent.fragments(1240).iter().zip(expected.fragments(1240)) {
        let step = bed.own(part);
        step.leaves(WEB, &expected);
    }
}

fn fragments_of_a_packet_masqueraded_in_two_steps<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, service, pod) = (client::<F>(), vip::<F>(2), backend::<F>(0));
    bed.update(|rows| rows.settings.flags |= lb_common::SettingsFlags::MASQUERADE_ALL);
    let opening = bed.opening(client, service);
    bed.pre(&opening);
    bed.post(&opening.clone().to(pod));
    let port = bed.flow(Stage::Post, client, pod).unwrap().port.number();
    let source = node::<F>(port);
    bed.pre(&bed.data(pod, source));
    let (asked, between, sent) = (
        long(bed, client, service),
        long(bed, client, pod),
        long(bed, source, pod),
    );
    follow(bed, Program::Pre, &asked, &between);
    follow(bed, Program::Post, &between, &sent);
    let (answered, between, replied) = (
        long(bed, pod, source),
        long(bed, pod, client),
        long(bed, service, client),
    );
    follow(bed, Program::Pre, &answered, &between);
    follow(bed, Program::Post, &between, &replied);
}

fn xdp_leaves_fragments_to_tc<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, service, pod) = (client::<F>(), vip::<F>(2), backend::<F>(0));
    add_addresses(bed);
    open(bed, client, service, pod);
    let parts = long(bed, client, service).fragments(1240);
    let tiny = parts[0].clone().cut_off(if F::SUFFIX == '4' { 28 } else { 56 });
    for part in parts.iter().chain([&tiny]) {
        bed.xdp(part).untouched().counts(&[Counter::XdpPassed]);
    }
    assert!(bed.written().fragments.is_empty());
    for part in long(bed, client, stranger::<F>()).fragments(1240) {
        bed.xdp(&part).untouched().counts(&[]);
    }
}

fn a_later_fragment_without_its_first_one<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, service, pod) = (client::<F>(), vip::<F>(2), backend::<F>(0));
    open(bed, client, service, pod);
    open(bed, end::<F>([0, 10], 40_001), node::<F>(30_081), pod);
    let parts = long(bed, client, service).fragments(1240);
    // Nobody says that the address is one of services alone.
    bed.pre(&parts[1]).untouched().counts(&[Counter::Fragment]);
    add_addresses(bed);
    bed.pre(&parts[1])
        .dropped(DropReason::UnknownFragment)
        .counts(&[]);
    bed.pre(&parts[2]).dropped(DropReason::UnknownFragment);
    // An address of the node has other users.
    let others = long(bed, end::<F>([0, 10], 40_001), node::<F>(30_081)).fragments(1240);
    bed.pre(&others[1]).untouched().counts(&[Counter::Fragment]);
    // And nothing is known of replies, whose source is a pod.
    let replies = long(bed, pod, client).fragments(1240);
    bed.post(&replies[1]).untouched().counts(&[Counter::Fragment]);
    // The first one is remembered for as long as a receiver waits.
    bed.pre(&parts[0]);
    let expected = long(bed, client, pod).fragments(1240);
    for (seconds, is_known) in [(29, true), (2, false)] {
        bed.rewrite(|written| {
            for fragment in written.fragments.values_mut() {
                fragment.first_seen = fragment.first_seen.wrapping_sub(seconds * crate::engine::UNIT);
            }
        });
        if is_known {
            bed.pre(&parts[1]).becomes(&expected[1]);
        } else {
            bed.pre(&parts[2]).dropped(DropReason::UnknownFragment);
        }
    }
    // From pods, the address may be somebody's whom we only stand for outside.
    bed.update(|rows| rows.add_address(service.ip(), ServiceFlags::REJECT | ServiceFlags::FROM_UPLINK));
    bed.pre(&parts[2]).dropped(DropReason::UnknownFragment);
    bed.device = WEB;
    bed.pre(&parts[2]).untouched().counts(&[Counter::Fragment]);
}

fn a_first_fragment_that_ends_before_its_ports<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, service) = (client::<F>(), vip::<F>(2));
    add_addresses(bed);
    let least = if bed.is_tcp() { 20 } else { 8 };
    for length in 0..least {
        let tiny = |to| long(bed, client, to).fragment_of(0, length, true).build();
        let padded = |to| {
            let mut bytes = tiny(to);
            bytes.extend([0; 46]);
            bytes
        };
        let frames = [tiny(service), padded(service)];
        let others = [node::<F>(30_081), stranger::<F>()].map(|to| [tiny(to), padded(to)]);
        for frame in frames {
            bed.run(Program::Pre, &frame)
                .dropped(DropReason::TinyFragment)
                .counts(&[]);
            bed.run(Program::Xdp, &frame)
                .untouched()
                .counts(&[Counter::XdpPassed]);
        }
        for frame in others.as_flattened() {
            bed.run(Program::Pre, frame).untouched().counts(&[]);
            bed.run(Program::Post, frame).untouched().counts(&[]);
        }
    }
    assert_eq!(bed.flow_count(), 0);
    assert!(bed.written().fragments.is_empty());
    let whole = long(bed, client, service);
    bed.pre(&whole.fragment_of(0, 24, true))
        .becomes(&whole.to(backend::<F>(0)).fragment_of(0, 24, true));
}

fn a_fragment_over_the_header_is_dropped<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, service, pod) = (client::<F>(), vip::<F>(2), backend::<F>(0));
    open(bed, client, service, pod);
    let (request, expected) = (long(bed, client, service), long(bed, client, pod));
    let over = |offset| request.fragment_of(offset, 64, false);
    // Unless it is known to be for a service, it is none of our business.
    bed.pre(&over(1)).untouched().counts(&[Counter::Fragment]);
    bed.pre(&request.fragment_of(0, 64, true));
    for offset in [1, 2] {
        bed.pre(&over(offset)).dropped(DropReason::OverlappingFragment);
    }
    bed.pre(&over(3)).becomes(&expected.fragment_of(3, 64, false));
    add_addresses(bed);
    let unknown = |offset| over(offset).identification(99);
    for offset in [1, 2] {
        bed.pre(&unknown(offset)).dropped(DropReason::OverlappingFragment);
    }
    bed.pre(&unknown(3)).dropped(DropReason::UnknownFragment);
}

fn the_least_of_a_datagram_is_no_tiny_fragment<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, service, pod) = (client::<F>(), vip::<F>(2), backend::<F>(0));
    add_addresses(bed);
    let (request, expected) = (long(bed, client, service), long(bed, client, pod));
    for (offset, length, more) in [(0, 8, true), (1, 8, true), (2, 4000, false)] {
        bed.pre(&request.fragment_of(offset, length, more))
            .becomes(&expected.fragment_of(offset, length, more));
    }
}

fn extension_headers_behind_the_fragment_header<F: TestFamily>(bed: &mut Bed<'_, F>) {
    if F::SUFFIX != '6' {
        return;
    }
    let (client, service, pod) = (client::<F>(), vip::<F>(2), backend::<F>(0));
    open(bed, client, service, pod);
    let first = |to| {
        bed.data(client, to)
            .extension(Extension::HopByHop(2))
            .fragment(0, true)
            .extension(Extension::DestinationOptions(2))
    };
    let (part, expected) = (first(service), first(pod));
    bed.pre(&part).becomes(&expected);
    let (whole, expected) = (long(bed, client, service), long(bed, client, pod));
    let later = |packet: &PacketBuilder| {
        let shape = packet.clone().extension(Extension::HopByHop(2));
        shape.fragment_of(100, 400, false)
    };
    bed.pre(&later(&whole)).becomes(&later(&expected));
}

fn fragments_that_are_no_business_of_ours_are_untouched<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, pod) = (client::<F>(), backend::<F>(0));
    add_addresses(bed);
    open(bed, client, vip::<F>(2), pod);
    for to in [stranger::<F>(), pod, node::<F>(22)] {
        let parts = long(bed, end::<F>([0, 10], 40_001), to).fragments(1240);
        for program in [Program::Pre, Program::Post] {
            bed.run(program, &parts[0].build()).untouched().counts(&[]);
            bed.run(program, &parts[1].build())
                .untouched()
                .counts(&[Counter::Fragment]);
        }
    }
    for part in PacketBuilder::icmp(client, vip::<F>(2))
        .payload(&[1; 3000])
        .may_be_fragmented()
        .fragments(1240)
    {
        bed.pre(&part).untouched().counts(&[]);
        bed.xdp(&part).untouched().counts(&[]);
    }
    assert!(bed.written().fragments.is_empty());
}
