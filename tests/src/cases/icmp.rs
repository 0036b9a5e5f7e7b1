//! ICMP errors about translated packets: each direction of each kind of flow, every error, packets quoted in part.

use std::net::SocketAddr;

use lb_common::{Counter, DropReason, FlowFlags, ServiceFlags, SettingsFlags, Stage, protocol};
use lb_ebpf::testkit::Program;

use super::{cases, client, node, open, stranger, vip};
use crate::engine::{Bed, GATEWAY_MAC, MAC, TestFamily, UPLINK, Verdict, WEB, backend, end, far};
use crate::packet::{Extension, IcmpError, PacketBuilder, flag};

cases! {
    ALL:
        an_error_about_a_reply_reaches_the_pod,
        an_error_about_a_request_reaches_the_client,
        every_error_is_translated_and_redirects_are_dropped,
        packets_quoted_in_part,
        headers_of_all_shapes,
        padding_is_no_quoted_checksum,
        a_client_port_that_was_replaced_is_put_back,
        errors_about_a_connection_straight_to_a_pod,
        errors_about_masqueraded_packets_are_sent_on,
        errors_about_packets_masqueraded_in_two_steps,
        errors_about_the_nodes_own_packets,
        an_error_that_may_go_no_further_is_dropped,
        what_is_about_no_flow_is_untouched,
        an_error_about_a_backend_that_is_gone_is_untouched,
        an_echo_request_to_a_service_is_answered,
        an_echo_request_to_an_address_of_no_service_is_dropped;
    UDP:
        a_quoted_packet_without_checksum;
}

/// A router on the way.
fn router<F: TestFamily>() -> SocketAddr {
    end::<F>([0, 254], 0)
}

/// The error about a packet, from the host at one end or from a router.
fn error(about: &PacketBuilder, from: SocketAddr, error: IcmpError) -> PacketBuilder {
    about.error(from.ip(), error)
}

const TOO_BIG: IcmpError = IcmpError::TooBig(1400);

/// An error about `quoted` becomes one about `original`, on the way through the stack: from a router, and from
/// `sender`, who is then known as `known_as`.
#[track_caller]
fn becomes<F: TestFamily>(
    bed: &mut Bed<'_, F>,
    program: Program,
    (quoted, sender): (&PacketBuilder, SocketAddr),
    (original, known_as): (&PacketBuilder, SocketAddr),
) {
    let router = router::<F>();
    for (from, to) in [(router, router), (sender, known_as)] {
        bed.run(program, &error(quoted, from, TOO_BIG).build())
            .becomes(&error(original, to, TOO_BIG))
            .counts(&[Counter::IcmpTranslated])
            .stats(&[]);
    }
}

fn an_error_about_a_reply_reaches_the_pod<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, pod) = (client::<F>(), backend::<F>(0));
    for service in [vip::<F>(2), node::<F>(30_081)] {
        open(bed, client, service, pod);
        let (reply, original) = (bed.data(service, client), bed.data(pod, client));
        for program in [Program::Pre, Program::Xdp] {
            becomes(bed, program, (&reply, client), (&original, client));
        }
        bed.evict(Stage::Pre, client, service);
        bed.evict(Stage::Post, pod, client);
    }
}

fn an_error_about_a_request_reaches_the_client<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, service, pod) = (client::<F>(), vip::<F>(2), backend::<F>(0));
    open(bed, client, service, pod);
    let (request, original) = (bed.data(client, pod), bed.data(client, service));
    becomes(bed, Program::Post, (&request, pod), (&original, service));
    // The node's own kernel may find it too big.
    bed.own = true;
    becomes(bed, Program::Post, (&request, pod), (&original, service));
}

fn every_error_is_translated_and_redirects_are_dropped<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, service, pod) = (client::<F>(), vip::<F>(2), backend::<F>(0));
    open(bed, client, service, pod);
    let (reply, sent_reply) = (bed.data(service, client), bed.data(pod, client));
    let (request, sent_request) = (bed.data(client, pod), bed.data(client, service));
    let from = router::<F>();
    for kind in IcmpError::all(from.ip()) {
        let (back, forth) = (error(&reply, from, kind), error(&request, from, kind));
        if matches!(kind, IcmpError::Redirect(_)) {
            for (program, packet) in [
                (Program::Pre, &back),
                (Program::Xdp, &back),
                (Program::Post, &forth),
            ] {
                bed.run(program, &packet.build())
                    .dropped(DropReason::IcmpRedirect)
                    .counts(&[]);
            }
            // What is not ours.
            let other = bed.data(stranger::<F>(), client);
            bed.pre(&error(&other, from, kind)).untouched();
            bed.post(&error(&other, from, kind)).untouched();
        } else {
            bed.pre(&back).becomes(&error(&sent_reply, from, kind));
            bed.xdp(&back).becomes(&error(&sent_reply, from, kind));
            bed.post(&forth).becomes(&error(&sent_request, from, kind));
        }
    }
}

fn packets_quoted_in_part<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, service, pod) = (client::<F>(), vip::<F>(2), backend::<F>(0));
    open(bed, client, service, pod);
    let (reply, original) = (bed.data(service, client), bed.data(pod, client));
    let (request, asked) = (bed.data(client, pod), bed.data(client, service));
    let header = if F::SUFFIX == '4' { 20 } else { 40 };
    // Where the checksum stands.
    let checksum = match bed.protocol {
        protocol::TCP => 16..18,
        protocol::UDP => 6..8,
        _ => 8..12,
    };
    let whole = reply.network_length() as usize;
    let from = router::<F>();
    for length in 0..=whole {
        let cut = |packet: &PacketBuilder| error(packet, from, TOO_BIG).cut(length);
        let (back, forth) = (cut(&reply), cut(&request));
        if length < header + 4 {
            for (program, packet) in [
                (Program::Pre, &back),
                (Program::Xdp, &back),
                (Program::Post, &forth),
            ] {
                bed.run(program, &packet.build()).untouched().counts(&[]);
            }
        } else if (header + checksum.start + 1..header + checksum.end).contains(&length) {
            // It cannot be made right: the rest is not there.
            let after = bed.pre(&back).view();
            assert_eq!(bed.xdp(&back).view(), after);
            assert_eq!(after.destination, pod.ip());
            assert_eq!(bed.post(&forth).view().destination, client.ip());
        } else {
            bed.pre(&back).becomes(&cut(&original));
            bed.xdp(&back).becomes(&cut(&original));
            bed.post(&forth).becomes(&cut(&asked));
        }
    }
    // The frame ends before the packet does.
    let bytes = error(&reply, from, TOO_BIG).build();
    for length in 14..14 + header + 8 + header + checksum.end {
        bed.run(Program::Pre, &bytes[..length]).untouched();
        bed.run(Program::Xdp, &bytes[..length]).untouched();
    }
}

fn headers_of_all_shapes<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, service, pod) = (client::<F>(), vip::<F>(2), backend::<F>(0));
    open(bed, client, service, pod);
    let from = router::<F>();
    let (reply, original) = (bed.data(service, client), bed.data(pod, client));
    let mut shapes: Vec<fn(PacketBuilder) -> PacketBuilder> =
        vec![|packet| packet, |packet| packet.fragment(0, true)];
    if F::SUFFIX == '4' {
        shapes.extend([
            (|packet| packet.options(4)) as fn(PacketBuilder) -> PacketBuilder,
            |packet| packet.options(40),
        ]);
    } else {
        shapes.extend([
            (|packet| packet.extension(Extension::HopByHop(1))) as fn(PacketBuilder) -> PacketBuilder,
            |packet| {
                packet
                    .extension(Extension::Routing(0))
                    .extension(Extension::DestinationOptions(2))
            },
        ]);
    }
    let mut translated = |reply: &PacketBuilder, original: &PacketBuilder| {
        for program in [Program::Pre, Program::Xdp] {
            bed.run(program, &reply.build())
                .becomes(original)
                .counts(&[Counter::IcmpTranslated]);
        }
    };
    for shape in shapes {
        let quoting = |packet: &PacketBuilder| error(&shape(packet.clone()), from, TOO_BIG);
        let (back, becomes) = (quoting(&reply), quoting(&original));
        translated(&back, &becomes);
        translated(&back.clone().vlan(7).vlan(8), &becomes.clone().vlan(7).vlan(8));
        // The error's own header.
        if F::SUFFIX == '4' {
            translated(&back.options(20), &becomes.options(20));
        } else {
            let longer = Extension::DestinationOptions(3);
            translated(&back.extension(longer), &becomes.extension(longer));
        }
    }
    // A later fragment has no ports, and nobody looks further than so many headers.
    let later = error(&reply.clone().fragment(1, false), from, TOO_BIG);
    bed.pre(&later).untouched().counts(&[]);
    if F::SUFFIX == '6' {
        let far = reply.extension(Extension::HopByHop(22));
        bed.pre(&error(&far, from, TOO_BIG)).untouched().counts(&[]);
    }
    let bare = error(&bed.data(service, client), from, TOO_BIG).without_link();
    bed.run(Program::PreL3, &bare.build())
        .becomes(&error(&original, from, TOO_BIG).without_link());
}

fn padding_is_no_quoted_checksum<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, service, pod) = (client::<F>(), vip::<F>(2), backend::<F>(0));
    open(bed, client, service, pod);
    let header = if F::SUFFIX == '4' { 20 } else { 40 };
    let cut = |packet: PacketBuilder| {
        let mut bytes = error(&packet, router::<F>(), TOO_BIG).cut(header + 4).build();
        bytes.extend([0xa5; 30]);
        bytes
    };
    let expected = cut(bed.data(pod, client));
    let bytes = cut(bed.data(service, client));
    for program in [Program::Pre, Program::Xdp] {
        let step = bed.run(program, &bytes);
        assert_eq!(step.verdict, Verdict::On);
        assert_eq!(step.after, expected, "{step:02x?}");
    }
}

fn a_client_port_that_was_replaced_is_put_back<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, pod) = (client::<F>(), backend::<F>(0));
    open(bed, client, vip::<F>(2), pod);
    let service = vip::<F>(3);
    bed.pre(&bed.opening(client, service));
    let port = bed.flow(Stage::Pre, client, service).unwrap().peer_port;
    let replaced = SocketAddr::new(client.ip(), port.number());
    assert_ne!(replaced, client);
    let (reply, original) = (bed.data(service, client), bed.data(pod, replaced));
    becomes(bed, Program::Pre, (&reply, client), (&original, client));
    let (request, asked) = (bed.data(replaced, pod), bed.data(client, service));
    becomes(bed, Program::Post, (&request, pod), (&asked, service));
}

fn errors_about_a_connection_straight_to_a_pod<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, pod) = (client::<F>(), backend::<F>(0));
    open(bed, client, vip::<F>(2), pod);
    bed.pre(&bed.opening(client, pod))
        .counts(&[Counter::FlowOpened, Counter::PortReplaced]);
    let entry = bed.flow(Stage::Pre, client, pod).unwrap();
    assert_eq!(entry.flags, FlowFlags::DIRECT);
    let replaced = SocketAddr::new(client.ip(), entry.peer_port.number());
    let (reply, original) = (bed.data(pod, client), bed.data(pod, replaced));
    becomes(bed, Program::Pre, (&reply, client), (&original, client));
    let (request, asked) = (bed.data(replaced, pod), bed.data(client, pod));
    becomes(bed, Program::Post, (&request, pod), (&asked, pod));
}

/// The node's end of a masqueraded flow, as its entry in pre has it.
#[track_caller]
fn source_of<F: TestFamily>(bed: &mut Bed<'_, F>, client: SocketAddr, service: SocketAddr) -> SocketAddr {
    node::<F>(bed.flow(Stage::Pre, client, service).unwrap().peer_port.number())
}

fn errors_about_masqueraded_packets_are_sent_on<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, service, pod) = (client::<F>(), vip::<F>(5), far::<F>(0));
    for program in [Program::Xdp, Program::Pre] {
        bed.run(program, &bed.opening(client, service).build());
        let source = source_of(bed, client, service);
        bed.run(program, &bed.data(pod, source).build());
        let to_client = (bed.data(source, pod), pod, bed.data(client, service), service);
        let to_pod = (bed.data(service, client), client, bed.data(pod, source), source);
        let counter = if program == Program::Xdp {
            Counter::XdpSent
        } else {
            Counter::TcSent
        };
        let router = router::<F>();
        for (quoted, sender, original, known_as) in [to_client, to_pod] {
            // A router would take no packet from itself.
            for from in [router, sender] {
                for kind in [TOO_BIG, IcmpError::port_unreachable(F::SUFFIX == '4')] {
                    let mut sent = error(&original, known_as, kind).hop_limit(63);
                    if program == Program::Xdp {
                        sent = sent.macs(GATEWAY_MAC, MAC);
                    }
                    bed.run(program, &error(&quoted, from, kind).build())
                        .leaves(UPLINK, &sent)
                        .counts(&[Counter::IcmpTranslated, counter])
                        .stats(&[]);
                }
            }
        }
        assert_eq!(bed.flow_count(), 2);
    }
}

fn errors_about_packets_masqueraded_in_two_steps<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, service, pod) = (client::<F>(), vip::<F>(2), backend::<F>(0));
    bed.update(|rows| rows.settings.flags |= SettingsFlags::MASQUERADE_ALL);
    let opening = bed.opening(client, service);
    bed.pre(&opening).becomes(&opening.clone().to(pod));
    // Post has yet to give it a source: no packet has left that an error could be about.
    let early = error(&bed.data(pod, client), router::<F>(), TOO_BIG);
    bed.post(&early).untouched().counts(&[]);
    bed.post(&opening.clone().to(pod));
    let port = bed.flow(Stage::Post, client, pod).unwrap().port.number();
    let source = node::<F>(port);
    // About what has reached the pod.
    let (sent, between, asked) = (
        bed.data(source, pod),
        bed.data(client, pod),
        bed.data(client, service),
    );
    becomes(bed, Program::Pre, (&sent, pod), (&between, pod));
    becomes(bed, Program::Post, (&between, pod), (&asked, service));
    // About what has reached the client.
    let (reply, between, answered) = (
        bed.data(service, client),
        bed.data(pod, client),
        bed.data(pod, source),
    );
    becomes(bed, Program::Pre, (&reply, client), (&between, client));
    becomes(bed, Program::Post, (&between, client), (&answered, source));
}

fn errors_about_the_nodes_own_packets<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (process, service, pod) = (node::<F>(45_000), vip::<F>(2), backend::<F>(0));
    bed.own(&bed.opening(process, service));
    bed.device = WEB;
    let mut answer = bed.data(pod, process);
    if bed.is_tcp() {
        answer = answer.flags(flag::SYN | flag::ACK);
    }
    bed.pre(&answer);
    // From the pod, or a router before it: it comes in as if from the service.
    let router = router::<F>();
    let entry = bed.flow(Stage::Pre, pod, process).unwrap();
    for (from, to) in [(router, router), (pod, service)] {
        let sent = error(&bed.data(process, pod), from, TOO_BIG);
        let original = error(&bed.data(process, service), to, TOO_BIG);
        let step = bed.pre(&sent);
        step.counts(&[Counter::IcmpTranslated]);
        if entry.arrival == WEB {
            step.becomes(&original);
        } else {
            step.leaves(entry.arrival, &original);
        }
        bed.xdp(&sent).untouched();
    }
    // From the node itself: it goes the way of the process's packets.
    bed.device = UPLINK;
    let unreachable = IcmpError::port_unreachable(F::SUFFIX == '4');
    let sent = error(&bed.data(service, process), process, unreachable);
    let step = bed.own(&sent);
    let original = error(&bed.data(pod, process), process, unreachable);
    step.leaves(WEB, &original);
}

fn an_error_that_may_go_no_further_is_dropped<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, service, pod) = (client::<F>(), vip::<F>(5), far::<F>(0));
    bed.pre(&bed.opening(client, service));
    let source = source_of(bed, client, service);
    bed.pre(&bed.data(pod, source));
    let late = error(&bed.data(source, pod), router::<F>(), TOO_BIG).hop_limit(1);
    bed.pre(&late).dropped(DropReason::TimeExceeded);
    let quoted = vec![0; 1500];
    let long = bed.data(source, pod).clone().payload(&quoted);
    let bytes = long.clone().without_link().build();
    let long = long.error_quoting(router::<F>().ip(), TOO_BIG, &bytes);
    bed.pre(&long).dropped(DropReason::NotAnswerable);
    // XDP leaves both to TC.
    bed.xdp(&late).untouched().counts(&[Counter::XdpPassed]);
    bed.xdp(&long).untouched().counts(&[Counter::XdpPassed]);
}

fn what_is_about_no_flow_is_untouched<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, service, pod) = (client::<F>(), vip::<F>(2), backend::<F>(0));
    open(bed, client, service, pod);
    let from = router::<F>();
    let reply = bed.data(service, client);
    let (other_port, other_client) = (end::<F>([0, 10], 40_001), end::<F>([0, 11], 40_000));
    let mut packets = vec![
        error(&bed.data(stranger::<F>(), client), from, TOO_BIG),
        error(&bed.data(service, other_port), from, TOO_BIG),
        error(&bed.data(service, other_client), from, TOO_BIG),
        error(&bed.data(service, client).reversed(), from, TOO_BIG),
        error(&PacketBuilder::icmp(client, service).reversed(), from, TOO_BIG),
        PacketBuilder::icmp(client, service).reversed(),
        PacketBuilder::icmp(service, client),
        // Sent to somebody else than the quoted packet's source.
        error(&reply, from, TOO_BIG).to(stranger::<F>()),
    ];
    let other_protocol = if bed.protocol == protocol::TCP {
        PacketBuilder::udp(service, client)
    } else {
        PacketBuilder::tcp(service, client)
    };
    packets.push(error(&other_protocol, from, TOO_BIG));
    for packet in &packets {
        for program in [Program::Pre, Program::Xdp, Program::Post] {
            bed.run(program, &packet.build())
                .untouched()
                .counts(&[])
                .stats(&[]);
        }
    }
    assert_eq!(bed.flow_count(), 2);
}

fn an_error_about_a_backend_that_is_gone_is_untouched<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, service, pod) = (client::<F>(), vip::<F>(2), backend::<F>(0));
    open(bed, client, service, pod);
    bed.update(|rows| rows.backend(3).epoch += 1);
    let about_reply = error(&bed.data(service, client), router::<F>(), TOO_BIG);
    bed.pre(&about_reply).untouched().counts(&[]);
    // What the client has sent, it may be told of.
    let (request, asked) = (bed.data(client, pod), bed.data(client, service));
    becomes(bed, Program::Post, (&request, pod), (&asked, service));
}

fn a_quoted_packet_without_checksum<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, service, pod) = (client::<F>(), vip::<F>(2), backend::<F>(0));
    open(bed, client, service, pod);
    let reply = bed.data(service, client).without_checksum();
    let original = bed.data(pod, client).without_checksum();
    becomes(bed, Program::Pre, (&reply, client), (&original, client));
    let (request, asked) = (
        bed.data(client, pod).without_checksum(),
        bed.data(client, service).without_checksum(),
    );
    becomes(bed, Program::Post, (&request, pod), (&asked, service));
}

fn an_echo_request_to_a_service_is_answered<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, service) = (client::<F>(), vip::<F>(2));
    let request = PacketBuilder::icmp(client, service)
        .icmp_rest([0x12, 0x34, 0, 7])
        .hop_limit(3);
    bed.pre(&request).untouched().counts(&[]);
    bed.update(|rows| rows.add_address(service.ip(), ServiceFlags::REJECT | ServiceFlags::ECHO));
    let reply = request.clone().reversed().swapped_macs().hop_limit(64);
    bed.pre(&request)
        .leaves(UPLINK, &reply)
        .counts(&[Counter::AnsweredEcho]);
    bed.xdp(&request).untouched().counts(&[Counter::XdpPassed]);
    // The node itself may ask, too.
    let own = PacketBuilder::icmp(node::<F>(0), service);
    let step = bed.own(&own);
    let answer = step.answers(UPLINK);
    assert_eq!(
        (answer.source, answer.destination),
        (service.ip(), node::<F>(0).ip())
    );
    // Replies are nobody's request, and what the node forwards has been asked on its way in.
    bed.pre(&request.clone().reversed()).untouched();
    bed.post(&request).untouched().counts(&[]);
    for to in [node::<F>(0), stranger::<F>(), backend::<F>(0)] {
        bed.pre(&PacketBuilder::icmp(client, to)).untouched().counts(&[]);
    }
}

fn an_echo_request_to_an_address_of_no_service_is_dropped<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let unused = end::<F>([96, 200], 0);
    let request = PacketBuilder::icmp(client::<F>(), unused);
    bed.pre(&request).untouched();
    bed.update(|rows| {
        let bits = if F::SUFFIX == '4' { 24 } else { 120 };
        rows.add_service_cidr(end::<F>([96, 0], 0).ip(), bits);
        rows.settings.flags |= SettingsFlags::SERVICE_CIDRS;
    });
    bed.pre(&request).dropped(DropReason::UnusedServiceAddress);
}
