//! How long a flow lives, by what it has shown.

use std::net::SocketAddr;

use lb_common::{BackendState, Counter, Stage, TcpState};

use super::{DROPPED, answer, both_ways, cases, client, open, vip};
use crate::engine::{Bed, TestFamily, UPLINK, Verdict, backend, far};
use crate::packet::flag;

cases! {
    TCP:
        a_handshake_that_is_not_finished_gives_way_soon,
        an_open_connection_gives_way_late,
        a_closing_connection_gives_way_soon,
        a_connection_that_is_over_gives_way_at_once,
        data_takes_an_end_back,
        a_syn_after_one_end_opens_anew,
        a_syn_sent_twice_is_no_end,
        a_backend_that_left_and_whose_row_is_needed_resets_its_connections,
        both_entries_show_what_they_have_seen,
        a_sent_on_connection_opens_anew;
    UDP:
        a_datagram_flow_gives_way_when_it_is_idle,
        a_backend_that_left_loses_its_datagrams_at_once;
    ALL:
        the_entries_of_a_sent_on_flow_restore_each_other;
}

/// Another flow of the same client to the same endpoint: whether it gets the client's own port.
#[track_caller]
fn gives_way<F: TestFamily>(bed: &mut Bed<'_, F>) -> bool {
    let opening = bed.opening(client::<F>(), vip::<F>(3));
    let step = bed.pre(&opening);
    assert_eq!(step.verdict, Verdict::On);
    !step.counts.counters.contains_key(&Counter::PortReplaced)
}

/// Whether the flow that `prepare` makes gives way after so many seconds, and not before.
fn after<F: TestFamily>(bed: &mut Bed<'_, F>, seconds: u32, prepare: impl Fn(&mut Bed<'_, F>)) {
    for (wait, expected) in [(seconds - 1, false), (seconds + 1, true)] {
        bed.forget();
        prepare(bed);
        bed.wait(wait);
        assert_eq!(gives_way(bed), expected, "after {wait} s");
    }
}

fn established<F: TestFamily>(bed: &mut Bed<'_, F>) {
    open(bed, client::<F>(), vip::<F>(2), backend::<F>(0));
}

#[track_caller]
fn from_client<F: TestFamily>(bed: &mut Bed<'_, F>, flags: u8) {
    let packet = bed.data(client::<F>(), vip::<F>(2)).flags(flags);
    bed.pre(&packet).becomes(&packet.clone().to(backend::<F>(0)));
}

#[track_caller]
fn from_server<F: TestFamily>(bed: &mut Bed<'_, F>, flags: u8) {
    let packet = bed.data(backend::<F>(0), client::<F>()).flags(flags);
    bed.post(&packet).becomes(&packet.clone().from(vip::<F>(2)));
}

/// What both directions have shown.
fn shown<F: TestFamily>(bed: &mut Bed<'_, F>) -> (u8, u8) {
    let (client, pod) = (client::<F>(), backend::<F>(0));
    (
        bed.flow(Stage::Pre, client, vip::<F>(2)).unwrap().tcp,
        bed.flow(Stage::Post, pod, client).unwrap().tcp,
    )
}

fn a_handshake_that_is_not_finished_gives_way_soon<F: TestFamily>(bed: &mut Bed<'_, F>) {
    after(bed, 30, |bed| from_client(bed, flag::SYN));
    after(bed, 30, |bed| {
        from_client(bed, flag::SYN);
        answer(bed, backend::<F>(0), client::<F>(), vip::<F>(2));
    });
}

fn an_open_connection_gives_way_late<F: TestFamily>(bed: &mut Bed<'_, F>) {
    after(bed, 100, established);
    // From one of its packets on, whichever way.
    after(bed, 100, |bed| {
        established(bed);
        bed.wait(80);
        from_server(bed, flag::ACK);
    });
}

fn a_closing_connection_gives_way_soon<F: TestFamily>(bed: &mut Bed<'_, F>) {
    after(bed, 20, |bed| {
        established(bed);
        from_client(bed, flag::FIN | flag::ACK);
    });
    after(bed, 20, |bed| {
        established(bed);
        from_server(bed, flag::FIN | flag::ACK);
    });
}

fn a_connection_that_is_over_gives_way_at_once<F: TestFamily>(bed: &mut Bed<'_, F>) {
    established(bed);
    from_client(bed, flag::FIN | flag::ACK);
    from_server(bed, flag::FIN | flag::ACK);
    from_client(bed, flag::ACK);
    assert!(gives_way(bed));
    for reset_by_client in [true, false] {
        bed.forget();
        established(bed);
        if reset_by_client {
            from_client(bed, flag::RST);
        } else {
            from_server(bed, flag::RST | flag::ACK);
        }
        assert!(gives_way(bed));
    }
}

fn data_takes_an_end_back<F: TestFamily>(bed: &mut Bed<'_, F>) {
    established(bed);
    // Somebody else may have sent these.
    from_client(bed, flag::FIN | flag::ACK);
    from_server(bed, flag::FIN | flag::ACK);
    let closing = TcpState::ESTABLISHED | TcpState::FIN;
    assert_eq!(shown(bed), (closing, closing));
    from_client(bed, flag::ACK);
    assert_eq!(shown(bed), (closing, closing));
    from_client(bed, flag::ACK | flag::PSH);
    assert_eq!(shown(bed), (TcpState::ESTABLISHED, closing));
    from_server(bed, flag::ACK | flag::PSH);
    assert_eq!(shown(bed), (TcpState::ESTABLISHED, TcpState::ESTABLISHED));
    // The last data may come with the end.
    from_server(bed, flag::FIN | flag::ACK | flag::PSH);
    assert_eq!(shown(bed), (TcpState::ESTABLISHED, closing));
    from_server(bed, flag::RST);
    assert!(gives_way(bed));
}

fn a_syn_after_one_end_opens_anew<F: TestFamily>(bed: &mut Bed<'_, F>) {
    for of_client in [true, false] {
        bed.forget();
        established(bed);
        if of_client {
            from_client(bed, flag::FIN | flag::ACK);
        } else {
            from_server(bed, flag::FIN | flag::ACK);
        }
        let syn = bed.opening(client::<F>(), vip::<F>(2));
        bed.pre(&syn)
            .becomes(&syn.clone().to(backend::<F>(0)))
            .counts(&[Counter::FlowReopened, Counter::FlowOpened]);
        assert_eq!(shown(bed), (0, 0));
    }
}

fn a_syn_sent_twice_is_no_end<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let syn = bed.opening(client::<F>(), vip::<F>(2));
    bed.pre(&syn).counts(&[Counter::FlowOpened]);
    bed.wait(29);
    bed.pre(&syn).counts(&[]);
    bed.wait(29);
    bed.pre(&syn).counts(&[]);
    answer(bed, backend::<F>(0), client::<F>(), vip::<F>(2));
    both_ways(bed, client::<F>(), vip::<F>(2), backend::<F>(0));
    assert_eq!(bed.flow_count(), 2);
}

fn a_backend_that_left_and_whose_row_is_needed_resets_its_connections<F: TestFamily>(bed: &mut Bed<'_, F>) {
    established(bed);
    bed.update(|rows| rows.set_state(3, BackendState::Removed));
    for _second in 0..3 {
        both_ways(bed, client::<F>(), vip::<F>(2), backend::<F>(0));
        bed.wait(1);
    }
    bed.update(|rows| rows.set_state(3, BackendState::Free));
    let packet = bed.data(client::<F>(), vip::<F>(2));
    // XDP leaves the answer to TC, and counts nothing.
    bed.xdp(&packet).untouched().stats(&[]);
    let step = bed.pre(&packet);
    assert!(step.answers(UPLINK).is_like(&packet.reset()));
    step.counts(&[Counter::AnsweredReset]).stats(&[(2, DROPPED)]);
    // What the pod still says reaches the client.
    from_server(bed, flag::ACK | flag::PSH);
}

fn both_entries_show_what_they_have_seen<F: TestFamily>(bed: &mut Bed<'_, F>) {
    established(bed);
    from_client(bed, flag::RST);
    assert_eq!(
        shown(bed),
        (TcpState::ESTABLISHED | TcpState::RST, TcpState::ESTABLISHED)
    );
}

fn a_datagram_flow_gives_way_when_it_is_idle<F: TestFamily>(bed: &mut Bed<'_, F>) {
    after(bed, 10, established);
}

fn a_backend_that_left_loses_its_datagrams_at_once<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, vip) = (client::<F>(), vip::<F>(1));
    let opening = bed.opening(client, vip);
    let old = super::chosen::<F>(&bed.pre(&opening), &opening);
    bed.update(|rows| {
        rows.set_state(old.into(), BackendState::Removed);
        let rest: Vec<u32> = (0..3).filter(|index| *index != u32::from(old)).collect();
        rows.set_scopes(1, &rest, &rest);
    });
    let step = bed.pre(&opening);
    step.counts(&[Counter::FlowReopened, Counter::FlowOpened]);
    assert_ne!(super::chosen::<F>(&step, &opening), old);
}

/// A flow to service 5, which the programs send on by themselves; the node's end of it.
#[track_caller]
fn sent_on<F: TestFamily>(bed: &mut Bed<'_, F>) -> SocketAddr {
    let opening = bed.opening(client::<F>(), vip::<F>(5));
    let source = there(bed, &opening);
    if bed.is_tcp() {
        back(bed, source, flag::SYN | flag::ACK);
        there(bed, &bed.data(client::<F>(), vip::<F>(5)));
    }
    back(bed, source, flag::ACK | flag::PSH);
    source
}

/// A packet of the client; the node's end that it gets.
#[track_caller]
fn there<F: TestFamily>(bed: &mut Bed<'_, F>, packet: &crate::packet::PacketBuilder) -> SocketAddr {
    let step = bed.pre(packet);
    let view = step.view();
    assert_eq!(
        (step.verdict, view.destination),
        (Verdict::Redirected, far::<F>(0).ip())
    );
    let port = bed
        .flow(Stage::Pre, client::<F>(), vip::<F>(5))
        .unwrap()
        .peer_port;
    SocketAddr::new(view.source, port.number())
}

/// A packet of the backend.
#[track_caller]
fn back<F: TestFamily>(bed: &mut Bed<'_, F>, source: SocketAddr, flags: u8) {
    let mut packet = bed.data(far::<F>(0), source);
    if bed.is_tcp() {
        packet = packet.flags(flags);
    }
    bed.pre(&packet).leaves(
        UPLINK,
        &packet.clone().hop_limit(63).from(vip::<F>(5)).to(client::<F>()),
    );
}

fn a_sent_on_connection_opens_anew<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let source = sent_on(bed);
    let syn = bed.opening(client::<F>(), vip::<F>(5));
    back(bed, source, flag::FIN | flag::ACK);
    there(
        bed,
        &bed.data(client::<F>(), vip::<F>(5)).flags(flag::FIN | flag::ACK),
    );
    back(bed, source, flag::ACK);
    assert_eq!(there(bed, &syn), source);
    let entry = |bed: &mut Bed<'_, F>| {
        (
            bed.flow(Stage::Pre, client::<F>(), vip::<F>(5)).unwrap().tcp,
            bed.flow(Stage::Pre, far::<F>(0), source).unwrap().tcp,
        )
    };
    assert_eq!(entry(bed), (0, 0));
    back(bed, source, flag::SYN | flag::ACK);
    assert_eq!(bed.flow_count(), 2);
}

fn the_entries_of_a_sent_on_flow_restore_each_other<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let source = sent_on(bed);
    let request = bed.data(client::<F>(), vip::<F>(5));
    bed.evict(Stage::Pre, far::<F>(0), source);
    bed.wait(1);
    assert_eq!(there(bed, &request), source);
    back(bed, source, flag::ACK);
    bed.evict(Stage::Pre, client::<F>(), vip::<F>(5));
    bed.wait(1);
    back(bed, source, flag::ACK);
    assert_eq!(bed.flow_count(), 2);
    assert_eq!(there(bed, &request), source);
    // Before anything comes back.
    bed.evict(Stage::Pre, client::<F>(), vip::<F>(5));
    assert_eq!(there(bed, &request), source);
    back(bed, source, flag::ACK);
}
