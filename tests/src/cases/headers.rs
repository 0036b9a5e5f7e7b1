//! Packets of all shapes: tags, options, extension headers, fragments, packets cut short.

use lb_common::Counter;
use lb_ebpf::testkit::Program;

use super::{both_ways, cases, client, open, vip};
use crate::engine::{Bed, TestFamily, Verdict, backend};
use crate::packet::{Extension, PacketBuilder};

cases! {
    ALL:
        vlan_tags_are_looked_through,
        ipv4_options_are_looked_through,
        ipv6_extension_headers_are_looked_through,
        too_many_headers_are_not_looked_through,
        a_packet_that_is_still_on_its_route_is_untouched,
        an_atomic_fragment_is_a_whole_packet,
        a_packet_cut_short_is_untouched,
        devices_without_link_layer;
}

/// A packet of this shape is translated there and back.
#[track_caller]
fn is_translated<F: TestFamily>(bed: &mut Bed<'_, F>, shape: impl Fn(PacketBuilder) -> PacketBuilder) {
    let (client, vip, pod) = (client::<F>(), vip::<F>(2), backend::<F>(0));
    let request = shape(bed.data(client, vip));
    bed.pre(&request).becomes(&request.clone().to(pod));
    let reply = shape(bed.data(pod, client));
    bed.post(&reply).becomes(&reply.clone().from(vip));
}

/// A packet of this shape passes both stages as it is, although there is a flow.
#[track_caller]
fn is_untouched<F: TestFamily>(
    bed: &mut Bed<'_, F>,
    counters: &[Counter],
    shape: impl Fn(PacketBuilder) -> PacketBuilder,
) {
    let (client, vip, pod) = (client::<F>(), vip::<F>(2), backend::<F>(0));
    open(bed, client, vip, pod);
    let request = shape(bed.data(client, vip));
    bed.pre(&request).untouched().counts(counters).stats(&[]);
    let reply = shape(bed.data(pod, client));
    bed.post(&reply).untouched().counts(counters).stats(&[]);
}

fn vlan_tags_are_looked_through<F: TestFamily>(bed: &mut Bed<'_, F>) {
    is_translated(bed, |packet| packet.vlan(100));
    is_translated(bed, |packet| packet.vlan(100).vlan(4094));
    is_untouched(bed, &[], |packet| packet.vlan(100).vlan(200).vlan(300));
}

fn ipv4_options_are_looked_through<F: TestFamily>(bed: &mut Bed<'_, F>) {
    if F::SUFFIX != '4' {
        return;
    }
    for length in (4..=40).step_by(4) {
        is_translated(bed, |packet| packet.options(length));
        is_translated(bed, |packet| packet.options(length).vlan(1).vlan(2));
    }
}

fn ipv6_extension_headers_are_looked_through<F: TestFamily>(bed: &mut Bed<'_, F>) {
    use Extension::{Authentication, DestinationOptions, HopByHop, Routing};
    if F::SUFFIX != '6' {
        return;
    }
    for extensions in [
        [HopByHop(1)].as_slice(),
        &[HopByHop(3)],
        &[Routing(0)],
        &[DestinationOptions(2)],
        &[Authentication],
        &[HopByHop(1), DestinationOptions(1), Routing(0), Authentication],
        // The most.
        &[
            HopByHop(1),
            DestinationOptions(1),
            Routing(0),
            Authentication,
            Routing(0),
            DestinationOptions(1),
        ],
        // The longest: TCP at 254.
        &[HopByHop(25)],
    ] {
        is_translated(bed, |packet| {
            extensions
                .iter()
                .fold(packet, |packet, one| packet.extension(*one))
        });
    }
}

fn too_many_headers_are_not_looked_through<F: TestFamily>(bed: &mut Bed<'_, F>) {
    use Extension::{DestinationOptions, HopByHop, Routing, Unknown};
    if F::SUFFIX != '6' {
        return;
    }
    for extensions in [
        [Routing(0); 7].as_slice(),
        &[HopByHop(26)],
        &[HopByHop(24), DestinationOptions(2)],
        &[Unknown],
    ] {
        is_untouched(bed, &[], |packet| {
            extensions
                .iter()
                .fold(packet, |packet, one| packet.extension(*one))
        });
    }
}

/// Its checksum is made for the last destination, which is not the one in the header.
fn a_packet_that_is_still_on_its_route_is_untouched<F: TestFamily>(bed: &mut Bed<'_, F>) {
    if F::SUFFIX == '6' {
        is_untouched(bed, &[], |packet| packet.extension(Extension::Routing(1)));
    }
}

fn an_atomic_fragment_is_a_whole_packet<F: TestFamily>(bed: &mut Bed<'_, F>) {
    is_translated(bed, |packet| packet.fragment(0, false));
}

fn a_packet_cut_short_is_untouched<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, vip, pod) = (client::<F>(), vip::<F>(2), backend::<F>(0));
    let plain = bed.data(client, vip).payload(b"");
    let shapes = [
        plain.clone(),
        plain.clone().vlan(1).vlan(2),
        plain.clone().options(8).extension(Extension::HopByHop(2)),
        plain
            .extension(Extension::Fragment(0, false))
            .extension(Extension::Authentication),
    ];
    for shape in shapes {
        let whole = shape.build();
        for length in 0..whole.len() {
            let step = bed.run(Program::Pre, &whole[..length]);
            step.untouched().counts(&[]).stats(&[]);
            assert!(step.counts.drops.is_empty(), "of {length} bytes");
            assert_eq!(bed.flow_count(), 0, "of {length} bytes");
        }
    }
    open(bed, client, vip, pod);
    let whole = bed.data(pod, client).payload(b"").build();
    for length in 0..whole.len() {
        bed.run(Program::Post, &whole[..length]).untouched().stats(&[]);
    }
    // What is cut off of the data is the receiver's business.
    let whole = bed.data(client, vip).payload(b"1234").build();
    for length in whole.len() - 4..whole.len() {
        assert_eq!(bed.run(Program::Pre, &whole[..length]).verdict, Verdict::On);
    }
}

fn devices_without_link_layer<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, vip, pod) = (client::<F>(), vip::<F>(2), backend::<F>(0));
    let request = bed.opening(client, vip).without_link();
    bed.run(Program::PreL3, &request.build())
        .becomes(&request.clone().to(pod))
        .counts(&[Counter::FlowOpened]);
    let reply = bed.data(pod, client).without_link();
    bed.run(Program::PostL3, &reply.build())
        .becomes(&reply.clone().from(vip));
    // The same flow by a device with Ethernet headers.
    both_ways(bed, client, vip, pod);
}
