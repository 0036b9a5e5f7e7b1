//! The node that the client reaches: packets leave inside others.

use lb_common::{BackendFlags, Counter, DropReason, FlowFlags, PathMtu, ServiceStats, Stage};
use lb_ebpf::testkit::Program;

use super::{cases, client, far_vip, here, know};
use crate::engine::{
    Bed, GATEWAY_MAC, MAC, OTHER_GATEWAY_MAC, OTHER_MAC, OTHER_UPLINK, POD, TestFamily, UPLINK, Verdict, end,
    far,
};
use crate::packet::{IcmpError, PacketBuilder, flag};

cases! {
    ALL:
        xdp_wraps,
        tc_wraps,
        what_the_sender_has_asked_for_holds_outside_too,
        padding_is_not_counted,
        options_stay_inside,
        a_flow_in_mid_connection_is_taken,
        another_uplink_gets_the_same_source,
        a_pods_packet_is_not_wrapped,
        the_nodes_own_packet_is_not_wrapped,
        a_tagged_frame_is_left_to_tc,
        without_a_neighbour_tc_wraps,
        what_becomes_too_long_is_answered,
        a_router_that_takes_less_is_believed_for_ten_minutes,
        what_a_router_says_is_passed_on_to_the_client,
        what_a_router_says_in_few_words_is_remembered,
        what_others_say_is_untouched,
        what_a_router_says_to_somebody_else_is_untouched,
        a_packet_whose_time_is_over_is_answered,
        a_node_without_an_address_wraps_nothing,
        what_one_node_wraps_another_unwraps;
    TCP:
        a_closed_flow_is_opened_anew;
}

/// The packet as it leaves this node for `far(2)`.
fn wrapped<F: TestFamily>(packet: &PacketBuilder) -> PacketBuilder {
    packet
        .clone()
        .hop_limit(63)
        .wrapped(here::<F>(), far::<F>(2).ip())
}

/// As XDP sends it.
fn sent<F: TestFamily>(packet: &PacketBuilder) -> PacketBuilder {
    wrapped::<F>(packet).macs(GATEWAY_MAC, MAC)
}

fn xdp_wraps<F: TestFamily>(bed: &mut Bed<'_, F>) {
    there(bed, Program::Xdp, Counter::XdpSent, sent::<F>);
}

fn tc_wraps<F: TestFamily>(bed: &mut Bed<'_, F>) {
    there(bed, Program::Pre, Counter::TcSent, wrapped::<F>);
}

/// Packets of one flow: the first looks for the way, the others know it.
fn there<F: TestFamily>(
    bed: &mut Bed<'_, F>,
    program: Program,
    counter: Counter,
    expected: fn(&PacketBuilder) -> PacketBuilder,
) {
    let opening = bed.opening(client::<F>(), far_vip::<F>());
    let forward = |packet: &PacketBuilder, connections| ServiceStats {
        packets: 1,
        bytes: packet.network_length(),
        connections,
        ..ServiceStats::default()
    };
    bed.run(program, &opening.build())
        .leaves(UPLINK, &expected(&opening))
        .counts(&[Counter::FlowOpened, Counter::HopLooked, Counter::Wrapped, counter])
        .stats(&[(8, forward(&opening, 1))]);
    let entry = bed.flow(Stage::Pre, client::<F>(), far_vip::<F>()).unwrap();
    assert_eq!(entry.flags, FlowFlags::WRAPPED | FlowFlags::OUTSIDE);
    assert_eq!(bed.flow_count(), 1);
    let data = bed.data(client::<F>(), far_vip::<F>());
    for _ in 0..2 {
        bed.run(program, &data.build())
            .leaves(UPLINK, &expected(&data))
            .counts(&[Counter::Wrapped, counter])
            .stats(&[(8, forward(&data, 0))]);
    }
    bed.wait(1);
    bed.run(program, &data.build())
        .leaves(UPLINK, &expected(&data))
        .counts(&[Counter::HopLooked, Counter::Wrapped, counter]);
    assert_eq!(bed.flow_count(), 1);
}

fn what_the_sender_has_asked_for_holds_outside_too<F: TestFamily>(bed: &mut Bed<'_, F>) {
    for class in [0x02, 0xb8, 0xff] {
        let packet = bed
            .opening(client::<F>(), far_vip::<F>())
            .traffic_class(class)
            .may_be_fragmented()
            .identification(0x4711)
            .hop_limit(9);
        let expected = packet
            .clone()
            .hop_limit(8)
            .wrapped(here::<F>(), far::<F>(2).ip())
            .traffic_class(class)
            .identification(0x4711);
        bed.pre(&packet).leaves(UPLINK, &expected);
        bed.xdp(&packet).leaves(UPLINK, &expected.macs(GATEWAY_MAC, MAC));
    }
}

fn padding_is_not_counted<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let packet = bed.opening(client::<F>(), far_vip::<F>()).payload(&[]);
    let padded = |packet: &PacketBuilder| [packet.build().as_slice(), &[0; 6]].concat();
    for (program, expected) in [
        (Program::Xdp, padded(&sent::<F>(&packet))),
        (Program::Pre, padded(&wrapped::<F>(&packet))),
    ] {
        assert_eq!(bed.run(program, &padded(&packet)).after, expected);
    }
}

fn options_stay_inside<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let packet = bed.opening(client::<F>(), far_vip::<F>()).options(12);
    bed.pre(&packet).leaves(UPLINK, &wrapped::<F>(&packet));
    bed.xdp(&packet).leaves(UPLINK, &sent::<F>(&packet));
}

fn a_flow_in_mid_connection_is_taken<F: TestFamily>(bed: &mut Bed<'_, F>) {
    // The router has sent it to another node so far.
    let data = bed.data(client::<F>(), far_vip::<F>());
    bed.xdp(&data).leaves(UPLINK, &sent::<F>(&data));
    bed.xdp(&data)
        .leaves(UPLINK, &sent::<F>(&data))
        .counts(&[Counter::Wrapped, Counter::XdpSent]);
}

fn another_uplink_gets_the_same_source<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let pod = end::<F>([6, 12], 8080);
    bed.update(|rows| rows.set_backend(10, 8, pod));
    let packet = bed.opening(client::<F>(), far_vip::<F>());
    bed.xdp(&packet).leaves(
        OTHER_UPLINK,
        &packet
            .clone()
            .hop_limit(63)
            .wrapped(here::<F>(), pod.ip())
            .macs(OTHER_GATEWAY_MAC, OTHER_MAC),
    );
}

fn a_pods_packet_is_not_wrapped<F: TestFamily>(bed: &mut Bed<'_, F>) {
    bed.device = POD;
    let packet = bed.opening(end::<F>([1, 50], 40_000), far_vip::<F>());
    bed.pre(&packet).becomes(&packet.clone().to(far::<F>(2)));
}

fn the_nodes_own_packet_is_not_wrapped<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let source = end::<F>([2, 1], 40_000);
    let step = bed.own(&bed.opening(source, far_vip::<F>()));
    assert_eq!(step.view().ends(), [source, far::<F>(2)]);
}

fn a_tagged_frame_is_left_to_tc<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let packet = bed.opening(client::<F>(), far_vip::<F>());
    bed.xdp(&packet.clone().vlan(7)).untouched();
    // As TC meets it: the tag is beside the packet.
    bed.pre(&packet)
        .leaves(UPLINK, &wrapped::<F>(&packet))
        .counts(&[Counter::Wrapped, Counter::TcSent]);
}

fn without_a_neighbour_tc_wraps<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let pod = end::<F>([8, 12], 8080);
    bed.update(|rows| rows.set_backend(10, 8, pod));
    let packet = bed.opening(client::<F>(), far_vip::<F>());
    bed.xdp(&packet)
        .untouched()
        .counts(&[Counter::HopLooked, Counter::XdpPassed]);
    assert_eq!(bed.flow_count(), 0);
    let expected = packet.clone().hop_limit(63).wrapped(here::<F>(), pod.ip());
    bed.pre(&packet).leaves(UPLINK, &expected);
}

/// A packet of the flow that is so long, from the network header on.
fn of_length<F: TestFamily>(bed: &Bed<'_, F>, length: u64) -> PacketBuilder {
    let packet = bed.data(client::<F>(), far_vip::<F>()).payload(&[]);
    let payload = usize::try_from(length - packet.network_length()).unwrap();
    packet.payload(&vec![b'x'; payload])
}

/// What the outer header takes of the way.
fn overhead<F: TestFamily>() -> u16 {
    if F::SUFFIX == '4' { 20 } else { 40 }
}

#[track_caller]
fn is_too_long<F: TestFamily>(bed: &mut Bed<'_, F>, packet: &PacketBuilder, mtu: u16) {
    bed.xdp(packet).untouched();
    let step = bed.pre(packet);
    let (error, quoted) = step.answers(UPLINK).error().unwrap();
    assert_eq!(error, IcmpError::TooBig(mtu.into()));
    assert_eq!(quoted, Some([client::<F>(), far_vip::<F>()]));
}

fn what_becomes_too_long_is_answered<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let most = 1500 - overhead::<F>();
    let (fits, long) = (of_length(bed, most.into()), of_length(bed, u64::from(most) + 1));
    for state in ["new", "known"] {
        is_too_long(bed, &long, most);
        bed.xdp(&fits).leaves(UPLINK, &sent::<F>(&fits));
        bed.pre(&fits).leaves(UPLINK, &wrapped::<F>(&fits));
        assert_eq!(bed.flow_count(), 1, "{state}");
    }
}

fn a_router_that_takes_less_is_believed_for_ten_minutes<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let pod = far::<F>(2).ip();
    let addr = lb_common::addr::Address::from_ip(pod).unwrap();
    let longest = of_length(bed, (1500 - overhead::<F>()).into());
    bed.xdp(&longest).leaves(UPLINK, &sent::<F>(&longest));
    let learned = bed.flow(Stage::Pre, client::<F>(), far_vip::<F>()).unwrap();
    assert_eq!(learned.hop.mtu, 1500);
    bed.rewrite(|written| {
        let now = written.flows.values().next().unwrap().last_seen;
        let path = PathMtu {
            mtu: 1400,
            learned: now,
        };
        written.paths.insert(addr, path);
    });
    // At the latest after a second.
    bed.wait(1);
    let most = 1400 - overhead::<F>();
    let (fits, long) = (of_length(bed, most.into()), of_length(bed, u64::from(most) + 1));
    is_too_long(bed, &long, most);
    bed.xdp(&fits).leaves(UPLINK, &sent::<F>(&fits));
    bed.wait(601);
    bed.xdp(&longest).leaves(UPLINK, &sent::<F>(&longest));
}

/// A router on the way to the backend says that it takes no more than 1400 bytes.
fn complaint<F: TestFamily>(packet: &PacketBuilder) -> PacketBuilder {
    wrapped::<F>(packet).error(end::<F>([4, 254], 0).ip(), IcmpError::TooBig(1400))
}

fn learned<F: TestFamily>(bed: &mut Bed<'_, F>) -> Option<u32> {
    let addr = lb_common::addr::Address::from_ip(far::<F>(2).ip()).unwrap();
    bed.written().paths.get(&addr).map(|path: &PathMtu| path.mtu)
}

fn what_a_router_says_is_passed_on_to_the_client<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let most = 1400 - overhead::<F>();
    let long = of_length(bed, u64::from(most) + 1);
    bed.xdp(&long).leaves(UPLINK, &sent::<F>(&long));
    bed.xdp(&complaint::<F>(&long))
        .untouched()
        .counts(&[Counter::XdpPassed]);
    assert_eq!(learned(bed), None);
    let told = bed.pre(&complaint::<F>(&long)).answers(UPLINK);
    let (error, quoted) = told.error().unwrap();
    assert_eq!(error, IcmpError::TooBig(most.into()));
    assert_eq!(quoted, Some([client::<F>(), far_vip::<F>()]));
    assert_eq!(told.destination, client::<F>().ip());
    assert_eq!(learned(bed), Some(1400));
    // The flow knows at once.
    is_too_long(bed, &long, most);
}

fn what_a_router_says_in_few_words_is_remembered<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let long = of_length(bed, 1450);
    bed.xdp(&long).leaves(UPLINK, &sent::<F>(&long));
    // The outer header and eight bytes more (RFC 792).
    let outer = usize::from(overhead::<F>());
    bed.pre(&complaint::<F>(&long).cut(outer + 8)).untouched();
    assert_eq!(learned(bed), Some(1400));
    bed.wait(1);
    is_too_long(bed, &long, 1400 - overhead::<F>());
    // Less than anybody has.
    let small = wrapped::<F>(&long).error(end::<F>([4, 254], 0).ip(), IcmpError::TooBig(68));
    bed.pre(&small);
    assert_eq!(learned(bed), Some(if F::SUFFIX == '4' { 552 } else { 1280 }));
}

fn what_others_say_is_untouched<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let packet = of_length(bed, 1450);
    let router = end::<F>([4, 254], 0).ip();
    let foreign = packet.wrapped(end::<F>([10, 1], 0).ip(), far::<F>(2).ip());
    for error in [
        foreign.error(router, IcmpError::TooBig(1400)),
        wrapped::<F>(&packet).error(router, IcmpError::Unreachable(1)),
        wrapped::<F>(&packet).error(router, IcmpError::TimeExceeded(0)),
    ] {
        bed.pre(&error).untouched();
        assert_eq!(learned(bed), None);
    }
}

fn what_a_router_says_to_somebody_else_is_untouched<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let long = of_length(bed, 1450);
    let opening = bed.opening(client::<F>(), far_vip::<F>());
    bed.xdp(&opening).leaves(UPLINK, &sent::<F>(&opening));
    // A frame that passes by this device, which has another hardware address.
    bed.device = OTHER_UPLINK;
    bed.pre(&complaint::<F>(&long)).untouched();
    assert_eq!(learned(bed), None);
}

fn a_packet_whose_time_is_over_is_answered<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let packet = bed.opening(client::<F>(), far_vip::<F>()).hop_limit(1);
    bed.xdp(&packet).untouched();
    let (error, _) = bed.pre(&packet).answers(UPLINK).error().unwrap();
    assert_eq!(error, IcmpError::TimeExceeded(0));
}

fn a_node_without_an_address_wraps_nothing<F: TestFamily>(bed: &mut Bed<'_, F>) {
    bed.update(|rows| rows.family.node_addr = F::Addr::default());
    bed.pre(&bed.opening(client::<F>(), far_vip::<F>()))
        .dropped(DropReason::NoSnatAddress);
    assert_eq!(bed.flow_count(), 0);
}

fn what_one_node_wraps_another_unwraps<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let opening = bed.opening(client::<F>(), far_vip::<F>());
    let data = bed.data(client::<F>(), far_vip::<F>());
    let on_the_wire = [&opening, &data].map(|packet| bed.xdp(packet).after);
    // The other node: the backend is its own, and the flow is not known.
    bed.update(|rows| {
        rows.backend(10).flags |= BackendFlags::LOCAL;
        rows.add_local(10);
    });
    know(bed, here::<F>());
    bed.evict(Stage::Pre, client::<F>(), far_vip::<F>());
    for (bytes, packet) in on_the_wire.iter().zip([&opening, &data]) {
        let step = bed.run(Program::Pre, bytes);
        let arrived = packet.clone().hop_limit(63).macs(GATEWAY_MAC, MAC);
        step.becomes(&arrived.to(far::<F>(2)));
        assert_eq!(step.counts.counters.get(&Counter::Unwrapped), Some(&1));
    }
    let mut answer = bed.data(far::<F>(2), client::<F>());
    if bed.is_tcp() {
        answer = answer.flags(flag::PSH | flag::ACK);
    }
    bed.post(&answer).becomes(&answer.clone().from(far_vip::<F>()));
}

fn a_closed_flow_is_opened_anew<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (opening, data) = (
        bed.opening(client::<F>(), far_vip::<F>()),
        bed.data(client::<F>(), far_vip::<F>()),
    );
    for packet in [&opening, &data, &data.clone().flags(flag::FIN | flag::ACK)] {
        assert_eq!(bed.xdp(packet).verdict, Verdict::Back);
    }
    let step = bed.xdp(&opening);
    step.leaves(UPLINK, &sent::<F>(&opening));
    assert_eq!(step.counts.counters.get(&Counter::FlowReopened), Some(&1));
}
