//! Answers of the programs themselves: who gets which, and who gets none.

use std::net::{IpAddr, SocketAddr};

use lb_common::{Counter, DropReason, Stage, protocol};
use lb_ebpf::testkit::Program;

use super::{DROPPED, cases, client, node, open, vip};
use crate::engine::{
    BRIDGE_PORT, Bed, LOOPBACK, NARROW_MTU, POD, Step, TestFamily, UNIT, UPLINK, Verdict, backend, end,
};
use crate::packet::{Extension, IcmpError, PacketBuilder, View, flag};

cases! {
    ALL:
        a_service_without_backends_is_refused,
        it_is_refused_until_it_has_backends,
        a_pod_gets_the_answer_at_its_own_device,
        the_node_itself_gets_the_answer_where_it_came_out,
        a_device_without_link_layer_needs_no_hardware_addresses,
        an_answer_has_no_options,
        an_answer_keeps_the_tag_or_is_not_given,
        nobody_gets_no_answer,
        a_frame_for_somebody_else_is_not_answered,
        xdp_leaves_answers_to_tc,
        a_packet_too_big_for_its_way_is_answered,
        a_packet_that_lives_no_longer_is_answered,
        answers_are_limited;
    TCP:
        a_reset_fits_its_segment,
        a_large_segment_is_answered_by_a_small_reset,
        a_reset_is_not_answered;
    UDP:
        an_error_quotes_what_headers_there_are;
}

/// As many bytes of a packet are quoted.
const QUOTED: usize = 256;

/// The error about `packet` that `from` answers with.
fn error(packet: &PacketBuilder, from: IpAddr, error: IcmpError) -> PacketBuilder {
    let mut quoted = packet.clone().without_link().build();
    quoted.truncate(QUOTED);
    packet.clone().swapped_macs().error_quoting(from, error, &quoted)
}

/// How `packet`, to `service`, is refused.
fn refusal<F: TestFamily>(
    bed: &Bed<'_, F>,
    packet: &PacketBuilder,
    service: SocketAddr,
) -> (PacketBuilder, Counter) {
    if bed.is_tcp() {
        (packet.reset(), Counter::AnsweredReset)
    } else {
        let unreachable = IcmpError::port_unreachable(service.is_ipv4());
        (
            error(packet, service.ip(), unreachable),
            Counter::AnsweredUnreachable,
        )
    }
}

/// The packet has become this answer, which leaves by the device that it came in by.
#[track_caller]
fn is_answered(step: &Step, device: u32, answer: &PacketBuilder, counter: Counter) {
    let view = step.answers(device);
    assert!(view.is_like(answer), "{view:#02x?}\nis not\n{answer:#02x?}");
    assert_eq!(view.hop_limit, 64);
    step.counts(&[counter]);
}

#[track_caller]
fn is_refused<F: TestFamily>(bed: &mut Bed<'_, F>, packet: &PacketBuilder, service: SocketAddr) {
    let (answer, counter) = refusal(bed, packet, service);
    let step = bed.pre(packet);
    is_answered(&step, bed.device, &answer, counter);
}

fn a_service_without_backends_is_refused<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, vip) = (client::<F>(), vip::<F>(4));
    for packet in [bed.opening(client, vip), bed.data(client, vip)] {
        let (answer, counter) = refusal(bed, &packet, vip);
        let step = bed.pre(&packet);
        is_answered(&step, UPLINK, &answer, counter);
        step.stats(&[(4, DROPPED)]);
        assert_eq!(bed.flow_count(), 0);
    }
}

fn it_is_refused_until_it_has_backends<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, vip) = (client::<F>(), vip::<F>(3));
    open(bed, client, vip, backend::<F>(0));
    bed.update(|rows| rows.set_scopes(3, &[], &[]));
    // What is open lives on.
    super::both_ways(bed, client, vip, backend::<F>(0));
    let other = end::<F>([0, 10], 40_001);
    let packet = bed.opening(other, vip);
    is_refused(bed, &packet, vip);
    bed.update(|rows| rows.set_scopes(3, &[4], &[4]));
    open(bed, other, vip, backend::<F>(0));
}

fn a_pod_gets_the_answer_at_its_own_device<F: TestFamily>(bed: &mut Bed<'_, F>) {
    for (device, pod) in [(POD, [1, 50]), (BRIDGE_PORT, [1, 60])] {
        bed.device = device;
        let packet = bed.opening(end::<F>(pod, 40_000), vip::<F>(4));
        is_refused(bed, &packet, vip::<F>(4));
        // At a bridge's port the frame has the bridge's address, not the port's.
        let packet = packet.macs([2, 0, 0, 0, 9, 9], [2, 0, 0, 0, 1, 0]);
        is_refused(bed, &packet, vip::<F>(4));
    }
}

fn the_node_itself_gets_the_answer_where_it_came_out<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let packet = bed.opening(node::<F>(40_000), vip::<F>(4));
    let (answer, counter) = refusal(bed, &packet, vip::<F>(4));
    let step = bed.own(&packet);
    is_answered(&step, UPLINK, &answer, counter);
    step.stats(&[(4, DROPPED)]);

    // What leaves by the loopback device comes in there by itself, whatever its source.
    bed.update(|rows| rows.set_scopes(1, &[], &[]));
    (bed.device, bed.own) = (LOOPBACK, true);
    for from in [node::<F>(40_000), loopback::<F>()] {
        let packet = bed.opening(from, node::<F>(30_080));
        let (answer, counter) = refusal(bed, &packet, node::<F>(30_080));
        let step = bed.run(Program::Post, &packet.build());
        assert_eq!(step.verdict, Verdict::On, "{step:?}");
        assert!(step.view().is_like(&answer), "{step:02x?}");
        step.counts(&[counter]);
    }
}

fn loopback<F: TestFamily>() -> SocketAddr {
    if F::SUFFIX == '4' {
        "127.0.0.1:40000".parse().unwrap()
    } else {
        "[::1]:40000".parse().unwrap()
    }
}

/// In the kernel a test run takes the first bytes for a link layer all the same, so that nothing can be put behind it.
fn a_device_without_link_layer_needs_no_hardware_addresses<F: TestFamily>(bed: &mut Bed<'_, F>) {
    if !bed.is_tcp() && bed.host_alone().is_none() {
        return;
    }
    bed.device = POD;
    let packet = bed.opening(end::<F>([1, 50], 40_000), vip::<F>(4)).without_link();
    let (answer, counter) = refusal(bed, &packet, vip::<F>(4));
    let step = bed.run(Program::PreL3, &packet.build());
    assert_eq!((step.verdict, step.device), (Verdict::Redirected, Some(POD)));
    let view = View::of_network(&step.after).unwrap();
    let expected = View::of_network(&answer.without_link().build()).unwrap();
    assert_eq!(
        (view.ends(), view.content),
        (expected.ends(), expected.content),
        "{:02x?}",
        step.after
    );
    step.counts(&[counter]);
}

fn an_answer_has_no_options<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let plain = bed.opening(client::<F>(), vip::<F>(4));
    let long = if F::SUFFIX == '4' {
        plain.clone().options(40)
    } else {
        plain
            .clone()
            .extension(Extension::HopByHop(3))
            .extension(Extension::DestinationOptions(1))
    };
    let (answer, counter) = refusal(bed, &long, vip::<F>(4));
    let step = bed.pre(&long);
    is_answered(&step, UPLINK, &answer, counter);
    let header = if F::SUFFIX == '4' { 20 } else { 40 };
    if bed.is_tcp() {
        assert_eq!(step.after.len(), 14 + header + 20);
    }
}

/// The kernel takes a tag out of the packet before it comes here; of one that still stands in it, as of a second one,
/// it does not know where the network header begins.
fn an_answer_keeps_the_tag_or_is_not_given<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let packet = bed.opening(client::<F>(), vip::<F>(4)).vlan(7);
    if bed.is_tcp() {
        is_refused(bed, &packet, vip::<F>(4));
    } else {
        bed.pre(&packet)
            .dropped(DropReason::NotAnswerable)
            .counts(&[])
            .stats(&[(4, DROPPED)]);
    }
}

fn nobody_gets_no_answer<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let nobodies: &[&str] = if F::SUFFIX == '4' {
        &["0.0.0.0:9", "127.0.0.1:9", "224.0.0.1:9", "255.255.255.255:9"]
    } else {
        &["[::]:9", "[::1]:9", "[ff02::1]:9"]
    };
    for nobody in nobodies {
        let packet = bed.opening(nobody.parse().unwrap(), vip::<F>(4));
        bed.pre(&packet)
            .dropped(DropReason::NotAnswerable)
            .counts(&[])
            .stats(&[(4, DROPPED)]);
    }
}

fn a_frame_for_somebody_else_is_not_answered<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let packet = bed.opening(client::<F>(), vip::<F>(4));
    for somebody in [[2, 0, 0, 0, 9, 9], [0xff; 6], [1, 0, 0x5e, 0, 0, 1]] {
        let frame = packet.clone().macs(somebody, [2, 0, 0, 0, 0, 2]);
        bed.pre(&frame).untouched().counts(&[]);
    }
}

fn xdp_leaves_answers_to_tc<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, vip) = (client::<F>(), vip::<F>(4));
    let packet = bed.opening(client, vip);
    bed.xdp(&packet)
        .untouched()
        .counts(&[Counter::XdpPassed])
        .stats(&[]);
    is_refused(bed, &packet, vip);
}

/// A backend behind a way that takes packets of [`NARROW_MTU`] bytes.
fn narrow<F: TestFamily>(bed: &mut Bed<'_, F>) -> SocketAddr {
    let narrow = end::<F>([7, 10], 8080);
    bed.update(|rows| {
        rows.set_backend(5, 5, narrow);
    });
    narrow
}

fn a_packet_too_big_for_its_way_is_answered<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, vip) = (client::<F>(), vip::<F>(5));
    narrow(bed);
    let opening = bed.opening(client, vip);
    assert_eq!(bed.pre(&opening).verdict, Verdict::Redirected);
    let packet = bed.data(client, vip).payload(&[7; 1300]);
    let router = node::<F>(0).ip();
    let too_big = IcmpError::TooBig(NARROW_MTU.into());
    let step = bed.pre(&packet);
    is_answered(
        &step,
        UPLINK,
        &error(&packet, router, too_big),
        Counter::AnsweredTooBig,
    );
    // So it is when the flow is not open yet; but the node itself takes nothing from its own address.
    let own = bed.data(node::<F>(40_000), vip).payload(&[7; 1300]);
    let view = bed.own(&own).answers(UPLINK);
    assert!(view.is_like(&error(&own, vip.ip(), too_big)), "{view:02x?}");
    assert_eq!(bed.flow(Stage::Pre, node::<F>(40_000), vip), None);
}

fn a_packet_that_lives_no_longer_is_answered<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, vip) = (client::<F>(), vip::<F>(5));
    let opening = bed.opening(client, vip);
    assert_eq!(bed.pre(&opening).verdict, Verdict::Redirected);
    let packet = bed.data(client, vip).hop_limit(1);
    let step = bed.pre(&packet);
    let answer = error(&packet, node::<F>(0).ip(), IcmpError::TimeExceeded(0));
    is_answered(&step, UPLINK, &answer, Counter::AnsweredTimeExceeded);
}

fn answers_are_limited<F: TestFamily>(bed: &mut Bed<'_, F>) {
    bed.update(|rows| rows.settings.answer_interval = u32::MAX);
    let (client, vip) = (client::<F>(), vip::<F>(4));
    let packet = bed.opening(client, vip);
    // A jiffy has 65536 parts, and a second of answers may be given at once.
    for _answer in 0..UNIT >> 16 {
        is_refused(bed, &packet, vip);
    }
    bed.pre(&packet)
        .dropped(DropReason::AnswerLimited)
        .counts(&[])
        .stats(&[(4, DROPPED)]);
}

fn a_reset_fits_its_segment<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, vip) = (client::<F>(), vip::<F>(4));
    let syn = bed.opening(client, vip).sequence(0xffff_ffff, 0);
    let data = bed.data(client, vip).sequence(0x0102_0304, 0xa0b0_c0d0);
    let without = |flags| PacketBuilder::tcp(client, vip).flags(flags).payload(b"odd");
    for packet in [
        syn.clone(),
        syn.payload(b"fast open"),
        data.clone(),
        data.clone().flags(flag::FIN | flag::ACK).payload(b""),
        data.flags(flag::SYN | flag::ACK),
        without(flag::FIN),
        without(0),
        without(flag::SYN | flag::FIN).payload(b"x"),
    ] {
        is_refused(bed, &packet, vip);
    }
    // A frame is padded to its least length: that is no data.
    let short = without(0).payload(b"");
    for padding in [0, 0xee] {
        let mut bytes = short.build();
        bytes.extend([padding; 6]);
        let step = bed.run(Program::Pre, &bytes);
        is_answered(&step, UPLINK, &short.reset(), Counter::AnsweredReset);
    }
}

fn a_large_segment_is_answered_by_a_small_reset<F: TestFamily>(bed: &mut Bed<'_, F>) {
    bed.segments = 3;
    let packet = bed.data(client::<F>(), vip::<F>(4)).payload(&[3; 3001]);
    is_refused(bed, &packet, vip::<F>(4));
}

fn a_reset_is_not_answered<F: TestFamily>(bed: &mut Bed<'_, F>) {
    for flags in [flag::RST, flag::RST | flag::ACK] {
        let packet = bed.data(client::<F>(), vip::<F>(4)).flags(flags);
        bed.pre(&packet).dropped(DropReason::NotAnswerable).counts(&[]);
    }
}

fn an_error_quotes_what_headers_there_are<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, vip) = (client::<F>(), vip::<F>(4));
    assert_eq!(bed.protocol, protocol::UDP);
    for length in [0, 1, 2, 3, 100, 207, 208, 227, 228, 229, 1472] {
        let packet = PacketBuilder::udp(client, vip).payload(&vec![0xd7; length]);
        is_refused(bed, &packet, vip);
        is_refused(bed, &packet.without_checksum(), vip);
    }
    let short = PacketBuilder::udp(client, vip).payload(b"!");
    let mut bytes = short.build();
    bytes.extend([0xee; 17]);
    let step = bed.run(Program::Pre, &bytes);
    let (answer, counter) = refusal(bed, &short, vip);
    is_answered(&step, UPLINK, &answer, counter);
}
