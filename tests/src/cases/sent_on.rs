//! Packets that the programs send on by themselves: to backends on other nodes, and back to the client.

use std::net::SocketAddr;

use lb_common::{Counter, Stage};
use lb_ebpf::testkit::Program;

use super::{cases, client, node, vip};
use crate::engine::{
    Bed, GATEWAY_MAC, MAC, OTHER_GATEWAY_MAC, OTHER_MAC, OTHER_UPLINK, TestFamily, UPLINK, Verdict, backend,
    end, far, other_far,
};
use crate::packet::{PacketBuilder, flag};

cases! {
    ALL:
        a_far_backend_is_reached_by_xdp_alone,
        a_far_backend_is_reached_by_tc_alone,
        another_uplink_gets_its_own_addresses,
        a_near_backend_is_left_to_the_stack,
        a_frame_for_somebody_else_is_untouched;
}

/// As it leaves by a device that XDP has sent it out of: one hop further, from the device to its gateway.
fn sent(packet: &PacketBuilder, gateway: [u8; 6], device: [u8; 6]) -> PacketBuilder {
    packet.clone().hop_limit(63).macs(gateway, device)
}

/// The node's end of a masqueraded flow.
#[track_caller]
fn source_of<F: TestFamily>(bed: &mut Bed<'_, F>, client: SocketAddr, service: SocketAddr) -> SocketAddr {
    let entry = bed.flow(Stage::Pre, client, service).unwrap();
    assert!((50_000..=50_999).contains(&entry.peer_port.number()), "{entry:?}");
    let [x, y] = if entry.hop.ifindex == UPLINK {
        [2, 1]
    } else {
        [5, 1]
    };
    end::<F>([x, y], entry.peer_port.number())
}

/// The first packet of a flow, its answer, and one more packet each way.
fn there_and_back<F: TestFamily>(bed: &mut Bed<'_, F>, program: Program, service: SocketAddr) {
    let (client, pod) = (client::<F>(), far::<F>(0));
    // TC leaves the addresses of the next hop to the kernel.
    let sent = |packet: &PacketBuilder| match program {
        Program::Xdp => sent(packet, GATEWAY_MAC, MAC),
        _ => packet.clone().hop_limit(63),
    };
    let counter = match program {
        Program::Xdp => Counter::XdpSent,
        _ => Counter::TcSent,
    };
    let opening = bed.opening(client, service);
    let step = bed.run(program, &opening.build());
    let source = source_of(bed, client, service);
    step.leaves(UPLINK, &sent(&opening.clone().from(source).to(pod)))
        .counts(&[
            Counter::FlowOpened,
            Counter::SnatOpened,
            Counter::HopLooked,
            counter,
        ]);
    let mut answer = bed.data(pod, source);
    if bed.is_tcp() {
        answer = answer.flags(flag::SYN | flag::ACK);
    }
    bed.run(program, &answer.build())
        .leaves(UPLINK, &sent(&answer.clone().from(service).to(client)))
        .counts(&[Counter::HopLooked, counter]);
    let request = bed.data(client, service);
    bed.run(program, &request.build())
        .leaves(UPLINK, &sent(&request.clone().from(source).to(pod)))
        .counts(&[counter]);
    let reply = bed.data(pod, source);
    bed.run(program, &reply.build())
        .leaves(UPLINK, &sent(&reply.clone().from(service).to(client)))
        .counts(&[counter]);
    assert_eq!(bed.flow_count(), 2);
}

fn a_far_backend_is_reached_by_xdp_alone<F: TestFamily>(bed: &mut Bed<'_, F>) {
    there_and_back(bed, Program::Xdp, vip::<F>(5));
}

fn a_far_backend_is_reached_by_tc_alone<F: TestFamily>(bed: &mut Bed<'_, F>) {
    there_and_back(bed, Program::Pre, node::<F>(30_082));
}

fn another_uplink_gets_its_own_addresses<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, service, pod) = (client::<F>(), vip::<F>(7), other_far::<F>(0));
    let opening = bed.opening(client, service);
    let step = bed.xdp(&opening);
    assert_eq!(step.verdict, Verdict::Redirected);
    let source = source_of(bed, client, service);
    assert_eq!(source.ip(), end::<F>([5, 1], 0).ip());
    let there = opening.clone().from(source).to(pod);
    step.leaves(OTHER_UPLINK, &sent(&there, OTHER_GATEWAY_MAC, OTHER_MAC));
    // UPLINK is no target of other devices' XDP: TC finishes the reply.
    bed.device = OTHER_UPLINK;
    let mut answer = bed.data(pod, source).macs(OTHER_MAC, OTHER_GATEWAY_MAC);
    if bed.is_tcp() {
        answer = answer.flags(flag::SYN | flag::ACK);
    }
    bed.xdp(&answer).untouched();
    bed.pre(&answer)
        .leaves(UPLINK, &answer.clone().hop_limit(63).from(service).to(client));
}

fn a_near_backend_is_left_to_the_stack<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, service) = (client::<F>(), vip::<F>(2));
    let opening = bed.opening(client, service);
    bed.xdp(&opening)
        .becomes(&opening.clone().to(backend::<F>(0)))
        .counts(&[Counter::FlowOpened]);
}

fn a_frame_for_somebody_else_is_untouched<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let elsewhere = bed
        .opening(client::<F>(), vip::<F>(5))
        .macs([2, 0, 0, 0, 0, 9], GATEWAY_MAC);
    bed.xdp(&elsewhere).untouched();
}
