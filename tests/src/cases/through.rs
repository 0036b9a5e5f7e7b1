//! Masquerade on the way through the stack: pre puts the destination in, post the source, and on the way back likewise.

use std::net::SocketAddr;

use lb_common::{Counter, DropReason, FlowFlags, ServiceFlags, Stage, TcpState};

use super::masquerade::{ALL, is_reset, other, ports, set};
use super::{answer, cases, client, destination, source, vip};
use crate::engine::{Bed, TestFamily, UPLINK, WEB, backend, end};
use crate::packet::{PacketBuilder, flag};

cases! {
    ALL:
        both_ways,
        a_live_flow_keeps_its_port,
        a_flow_begins_anew,
        entries_restore_each_other,
        what_a_flow_left_is_not_for_another,
        what_a_flow_left_is_not_for_a_direct_connection,
        what_a_flow_left_is_not_for_one_that_is_no_longer_masqueraded,
        next_to_a_live_flow_others_keep_their_address;
    TCP:
        the_same_port_or_none;
}

/// A packet of a client to service 2 under masquerade-all, through both stages; the source that it gets.
#[track_caller]
fn through<F: TestFamily>(bed: &mut Bed<'_, F>, packet: &PacketBuilder) -> SocketAddr {
    let pod = backend::<F>(0);
    bed.device = UPLINK;
    let step = bed.pre(packet);
    let between = packet.clone().from(source(&step.view())).to(pod);
    step.becomes(&between);
    bed.device = WEB;
    let step = bed.post(&between);
    let source = source(&step.view());
    step.becomes(&between.clone().from(source));
    bed.device = UPLINK;
    source
}

/// A packet of the backend to `source` that reaches `client` as from the service.
#[track_caller]
fn back<F: TestFamily>(bed: &mut Bed<'_, F>, source: SocketAddr, client: SocketAddr, flags: u8) {
    let pod = backend::<F>(0);
    let mut packet = bed.data(pod, source);
    if bed.is_tcp() {
        packet = packet.flags(flags);
    }
    bed.device = WEB;
    let step = bed.pre(&packet);
    let between = packet.clone().to(destination(&step.view()));
    assert_eq!(destination(&step.view()).ip(), client.ip());
    step.becomes(&between);
    bed.device = UPLINK;
    bed.post(&between)
        .becomes(&packet.clone().from(vip::<F>(2)).to(client));
}

/// An open flow through the stack.
#[track_caller]
fn open_through<F: TestFamily>(bed: &mut Bed<'_, F>, client: SocketAddr) -> SocketAddr {
    let opening = bed.opening(client, vip::<F>(2));
    let source = through(bed, &opening);
    back(bed, source, client, flag::SYN | flag::ACK);
    if bed.is_tcp() {
        let data = bed.data(client, vip::<F>(2));
        assert_eq!(through(bed, &data), source);
        back(bed, source, client, flag::ACK | flag::PSH);
    }
    source
}

fn both_ways<F: TestFamily>(bed: &mut Bed<'_, F>) {
    set(bed, ALL);
    let source = open_through(bed, client::<F>());
    assert_eq!(source.ip(), end::<F>([2, 1], 0).ip());
    assert!((50_000..=50_999).contains(&source.port()));
    assert_eq!(bed.flow_count(), 4);
    // The address of the device that it leaves by.
    bed.update(|rows| _ = rows.snat.insert(WEB, F::addr([8, 0, 2, 2])));
    assert_eq!(open_through(bed, other::<F>(0)).ip(), end::<F>([2, 2], 0).ip());
    assert_eq!(open_through_again(bed), source);
}

/// One more packet of the first flow.
#[track_caller]
fn open_through_again<F: TestFamily>(bed: &mut Bed<'_, F>) -> SocketAddr {
    let data = bed.data(client::<F>(), vip::<F>(2));
    through(bed, &data)
}

fn a_live_flow_keeps_its_port<F: TestFamily>(bed: &mut Bed<'_, F>) {
    set(bed, ALL);
    ports(bed, 50_000, 50_000);
    let source = open_through(bed, client::<F>());
    let opening = bed.opening(other::<F>(0), vip::<F>(2));
    bed.pre(&opening).becomes(&opening.clone().to(backend::<F>(0)));
    bed.device = WEB;
    let between = opening.clone().to(backend::<F>(0));
    bed.post(&between).dropped(DropReason::NoSnatPort);
    // The first one is untouched.
    assert_eq!(open_through_again(bed), source);
    back(bed, source, client::<F>(), flag::ACK);
    // Once it is over, the other gets its port.
    if bed.is_tcp() {
        let reset = bed.data(client::<F>(), vip::<F>(2)).flags(flag::RST);
        through(bed, &reset);
    } else {
        bed.wait(11);
    }
    assert_eq!(through(bed, &opening), source);
    back(bed, source, other::<F>(0), flag::SYN | flag::ACK);
}

/// Ends the flow of [`client`] that has this source.
#[track_caller]
fn finish<F: TestFamily>(bed: &mut Bed<'_, F>, source: SocketAddr) {
    if bed.is_tcp() {
        let fin = bed.data(client::<F>(), vip::<F>(2)).flags(flag::FIN | flag::ACK);
        assert_eq!(through(bed, &fin), source);
        back(bed, source, client::<F>(), flag::FIN | flag::ACK);
    } else {
        bed.wait(11);
    }
}

fn a_flow_begins_anew<F: TestFamily>(bed: &mut Bed<'_, F>) {
    set(bed, ALL);
    let source = open_through(bed, client::<F>());
    finish(bed, source);
    assert_eq!(open_through(bed, client::<F>()), source);
    assert_eq!(bed.flow_count(), 4);
    if bed.is_tcp() {
        let entry = bed.flow(Stage::Post, client::<F>(), backend::<F>(0)).unwrap();
        assert_eq!(entry.tcp, TcpState::ESTABLISHED);
        // Post alone finds that it is over.
        bed.change_flow((Stage::Post, client::<F>(), backend::<F>(0)), |flow| {
            flow.tcp |= TcpState::RST;
        });
        let syn = bed.opening(client::<F>(), vip::<F>(2));
        assert_eq!(through(bed, &syn), source);
    }
}

fn entries_restore_each_other<F: TestFamily>(bed: &mut Bed<'_, F>) {
    set(bed, ALL);
    let (client, pod) = (client::<F>(), backend::<F>(0));
    let source = open_through(bed, client);
    for (stage, from, to) in [
        (Stage::Pre, client, vip::<F>(2)),
        (Stage::Post, pod, client),
        (Stage::Post, client, pod),
        (Stage::Pre, pod, source),
    ] {
        bed.evict(stage, from, to);
        bed.wait(1);
        assert_eq!(open_through_again(bed), source, "without {from} to {to}");
        back(bed, source, client, flag::ACK);
        assert_eq!(bed.flow_count(), 4);
    }
    // A reply, too, knows that it is masqueraded.
    bed.evict(Stage::Pre, client, vip::<F>(2));
    bed.wait(1);
    back(bed, source, client, flag::ACK);
    let restored = bed.flow(Stage::Pre, client, vip::<F>(2)).unwrap();
    assert_eq!(restored.flags, FlowFlags::MASQUERADE);
}

/// How a masqueraded flow ended, or stopped to count.
#[derive(Clone, Copy, Debug)]
enum End {
    /// As both ends know.
    Finished,
    /// By a reset that went no further than pre; by idleness.
    ResetOnTheWay,
    /// Its backend is no longer one of the service.
    BackendGone,
    /// Finished, and its way back was evicted.
    WayBackEvicted,
    /// It never came as far as post.
    NeverLeft,
}

const ENDS: [End; 5] = [
    End::Finished,
    End::ResetOnTheWay,
    End::BackendGone,
    End::WayBackEvicted,
    End::NeverLeft,
];

/// A masqueraded flow to service 2 that ends; service 3, with the same backend, masquerades nobody.
#[track_caller]
fn open_and_end<F: TestFamily>(bed: &mut Bed<'_, F>, end: End) {
    bed.forget();
    one_that_keeps(bed, 3);
    if matches!(end, End::NeverLeft) {
        let opening = bed.opening(client::<F>(), vip::<F>(2));
        bed.pre(&opening).becomes(&opening.clone().to(backend::<F>(0)));
        bed.wait(31);
        return;
    }
    let source = open_through(bed, client::<F>());
    match end {
        End::BackendGone => bed.update(|rows| rows.backend(3).epoch += 1),
        End::ResetOnTheWay if bed.is_tcp() => {
            let reset = bed.data(client::<F>(), vip::<F>(2)).flags(flag::RST);
            bed.pre(&reset).becomes(&reset.clone().to(backend::<F>(0)));
        }
        _ => finish(bed, source),
    }
    if matches!(end, End::WayBackEvicted) {
        bed.evict(Stage::Post, backend::<F>(0), client::<F>());
    }
}

/// All is masqueraded but what is for this service.
fn one_that_keeps<F: TestFamily>(bed: &mut Bed<'_, F>, service: u8) {
    set(bed, ALL);
    bed.update(|rows| rows.set_flags(service.into(), ServiceFlags::OUTSIDE_LOCAL));
}

/// A packet of the client that pre is done with goes to the backend with the source that it has.
#[track_caller]
fn keeps_its_source<F: TestFamily>(bed: &mut Bed<'_, F>, between: &PacketBuilder) {
    bed.device = WEB;
    bed.post(between).untouched();
    bed.device = UPLINK;
}

/// A flow of [`client`] to a service whose backend sees it.
#[track_caller]
fn open_kept<F: TestFamily>(bed: &mut Bed<'_, F>, service: u8) {
    let (client, vip, pod) = (client::<F>(), vip::<F>(service), backend::<F>(0));
    let opening = bed.opening(client, vip);
    bed.pre(&opening).becomes(&opening.clone().to(pod));
    keeps_its_source(bed, &opening.to(pod));
    answer(bed, pod, client, vip);
    let data = bed.data(client, vip);
    bed.pre(&data).becomes(&data.clone().to(pod));
    keeps_its_source(bed, &data.to(pod));
}

fn what_a_flow_left_is_not_for_another<F: TestFamily>(bed: &mut Bed<'_, F>) {
    for end in ENDS {
        eprintln!("{end:?}");
        open_and_end(bed, end);
        open_kept(bed, 3);
        let stray = if matches!(end, End::WayBackEvicted) { 2 } else { 1 };
        assert_eq!(bed.flow_count(), 2 + stray, "{end:?}");
        // Nor is it in the way of the next that is masqueraded.
        if !matches!(end, End::BackendGone) && bed.is_tcp() {
            let reset = bed.data(client::<F>(), vip::<F>(3)).flags(flag::RST);
            bed.pre(&reset).becomes(&reset.clone().to(backend::<F>(0)));
            open_through(bed, client::<F>());
        }
    }
}

fn what_a_flow_left_is_not_for_a_direct_connection<F: TestFamily>(bed: &mut Bed<'_, F>) {
    for end in ENDS {
        eprintln!("{end:?}");
        open_and_end(bed, end);
        let opening = bed.opening(client::<F>(), backend::<F>(0));
        bed.pre(&opening).untouched();
        keeps_its_source(bed, &opening);
        let data = bed.data(client::<F>(), backend::<F>(0));
        bed.pre(&data).untouched();
        keeps_its_source(bed, &data);
        let stray = if matches!(end, End::WayBackEvicted) { 2 } else { 0 };
        assert_eq!(bed.flow_count(), stray, "{end:?}");
    }
}

fn what_a_flow_left_is_not_for_one_that_is_no_longer_masqueraded<F: TestFamily>(bed: &mut Bed<'_, F>) {
    set(bed, ALL);
    let source = open_through(bed, client::<F>());
    finish(bed, source);
    one_that_keeps(bed, 2);
    open_kept(bed, 2);
    assert_eq!(bed.flow_count(), 2);
}

fn next_to_a_live_flow_others_keep_their_address<F: TestFamily>(bed: &mut Bed<'_, F>) {
    one_that_keeps(bed, 3);
    let (client, pod) = (client::<F>(), backend::<F>(0));
    let source = open_through(bed, client);
    // One to another service, and one straight to the pod.
    for to in [vip::<F>(3), pod] {
        let opening = bed.opening(client, to);
        let step = bed.pre(&opening);
        step.counts(&[Counter::PortReplaced, Counter::FlowOpened]);
        let replaced = super::source(&step.view());
        assert_eq!(replaced.ip(), client.ip());
        assert_ne!(replaced, client);
        let between = opening.clone().from(replaced).to(pod);
        step.becomes(&between);
        keeps_its_source(bed, &between);
        let mut reply = bed.data(pod, replaced);
        if bed.is_tcp() {
            reply = reply.flags(flag::SYN | flag::ACK);
        }
        bed.post(&reply).becomes(&reply.clone().from(to).to(client));
        assert_eq!(open_through_again(bed), source);
        back(bed, source, client, flag::ACK);
    }
}

fn the_same_port_or_none<F: TestFamily>(bed: &mut Bed<'_, F>) {
    set(bed, ALL);
    let (client, pod) = (client::<F>(), backend::<F>(0));
    let source = open_through(bed, client);
    let packet = bed.data(client, vip::<F>(2));
    // One of the two that know the port is enough.
    bed.evict(Stage::Pre, client, vip::<F>(2));
    bed.evict(Stage::Post, pod, client);
    bed.evict(Stage::Pre, pod, source);
    bed.wait(1);
    assert_eq!(through(bed, &packet), source);
    assert_eq!(bed.flow_count(), 4);
    // With neither the connection is lost: the packet after this one is reset.
    bed.evict(Stage::Post, client, pod);
    bed.evict(Stage::Pre, pod, source);
    bed.wait(1);
    bed.pre(&packet).becomes(&packet.clone().to(pod));
    bed.device = WEB;
    bed.post(&packet.clone().to(pod)).dropped(DropReason::NoFlow);
    assert_eq!(bed.flow_count(), 0);
    bed.device = UPLINK;
    is_reset(bed, &packet);
}
