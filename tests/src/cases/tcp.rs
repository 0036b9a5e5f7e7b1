//! What TCP flags do to a flow.

use lb_common::{Counter, Stage, TcpState};

use super::{answer, both_ways, cases, chosen, client, finish, node, open, vip};
use crate::engine::{Bed, TestFamily, backend, end};
use crate::packet::flag;

cases! {
    TCP:
        each_direction_shows_its_state,
        a_syn_sent_twice_keeps_the_backend,
        a_syn_after_fin_both_ways_opens_anew,
        a_syn_after_a_reset_opens_anew,
        a_packet_after_a_reset_takes_it_back,
        a_syn_after_a_long_time_opens_anew_and_data_does_not,
        a_syn_ack_that_answers_no_translated_syn_passes,
        a_client_that_forgot_its_connection_gets_its_syn_ack,
        a_flow_that_moved_here_is_taken_up,
        only_a_syn_opens_at_the_node;
}

fn each_direction_shows_its_state<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, vip, pod) = (client::<F>(), vip::<F>(2), backend::<F>(0));
    let request = bed.opening(client, vip);
    bed.pre(&request);
    answer(bed, pod, client, vip);
    let states = |bed: &mut Bed<'_, F>| {
        (
            bed.flow(Stage::Pre, client, vip).unwrap().tcp,
            bed.flow(Stage::Post, pod, client).unwrap().tcp,
        )
    };
    assert_eq!(states(bed), (0, 0));
    bed.pre(&bed.data(client, vip));
    assert_eq!(states(bed), (TcpState::ESTABLISHED, 0));
    bed.post(&bed.data(pod, client));
    assert_eq!(states(bed), (TcpState::ESTABLISHED, TcpState::ESTABLISHED));
    bed.post(&bed.data(pod, client).flags(flag::FIN | flag::ACK));
    bed.pre(&bed.data(client, vip).flags(flag::RST));
    assert_eq!(
        states(bed),
        (
            TcpState::ESTABLISHED | TcpState::RST,
            TcpState::ESTABLISHED | TcpState::FIN
        )
    );
}

fn a_syn_sent_twice_keeps_the_backend<F: TestFamily>(bed: &mut Bed<'_, F>) {
    for port in 0..10 {
        let packet = bed.opening(end::<F>([0, 10], 41_000 + port), vip::<F>(1));
        let first = chosen::<F>(&bed.pre(&packet), &packet);
        let second = bed.pre(&packet);
        second.counts(&[]);
        assert_eq!(chosen::<F>(&second, &packet), first);
    }
}

fn a_syn_after_fin_both_ways_opens_anew<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, vip, pod) = (client::<F>(), vip::<F>(2), backend::<F>(0));
    open(bed, client, vip, pod);
    finish(bed, client, vip, pod);
    let last = bed.data(client, vip).flags(flag::ACK);
    bed.pre(&last).becomes(&last.clone().to(pod));
    let syn = bed.opening(client, vip);
    bed.pre(&syn)
        .becomes(&syn.clone().to(pod))
        .counts(&[Counter::FlowReopened, Counter::FlowOpened]);
    assert_eq!(bed.flow(Stage::Pre, client, vip).unwrap().tcp, 0);
    assert_eq!(bed.flow(Stage::Post, pod, client).unwrap().tcp, 0);
    answer(bed, pod, client, vip);
    both_ways(bed, client, vip, pod);
}

fn a_syn_after_a_reset_opens_anew<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, vip, pod) = (client::<F>(), vip::<F>(2), backend::<F>(0));
    open(bed, client, vip, pod);
    let reset = bed.data(pod, client).flags(flag::RST);
    bed.post(&reset).becomes(&reset.clone().from(vip));
    let syn = bed.opening(client, vip);
    bed.pre(&syn)
        .becomes(&syn.clone().to(pod))
        .counts(&[Counter::FlowReopened, Counter::FlowOpened]);
    answer(bed, pod, client, vip);
}

fn a_packet_after_a_reset_takes_it_back<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, vip, pod) = (client::<F>(), vip::<F>(2), backend::<F>(0));
    open(bed, client, vip, pod);
    let reset = bed.data(client, vip).flags(flag::RST);
    bed.pre(&reset).becomes(&reset.clone().to(pod));
    assert_ne!(bed.flow(Stage::Pre, client, vip).unwrap().tcp & TcpState::RST, 0);
    both_ways(bed, client, vip, pod);
    assert_eq!(
        bed.flow(Stage::Pre, client, vip).unwrap().tcp,
        TcpState::ESTABLISHED
    );
    bed.pre(&bed.opening(client, vip)).counts(&[]);
}

fn a_syn_after_a_long_time_opens_anew_and_data_does_not<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, vip, pod) = (client::<F>(), vip::<F>(2), backend::<F>(0));
    open(bed, client, vip, pod);
    bed.wait(101);
    let request = bed.data(client, vip);
    bed.pre(&request).becomes(&request.clone().to(pod)).counts(&[]);
    assert_eq!(bed.flow(Stage::Pre, client, vip).unwrap().last_seen, 0);
    assert_eq!(bed.flow(Stage::Post, pod, client).unwrap().last_seen, 101);
    bed.wait(101);
    bed.pre(&bed.opening(client, vip))
        .counts(&[Counter::FlowReopened, Counter::FlowOpened]);
}

fn a_syn_ack_that_answers_no_translated_syn_passes<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, vip, pod) = (client::<F>(), vip::<F>(2), backend::<F>(0));
    open(bed, client, vip, pod);
    let foreign = bed.data(pod, client).flags(flag::SYN | flag::ACK);
    bed.post(&foreign)
        .untouched()
        .counts(&[Counter::ForeignSynAck])
        .stats(&[]);
    both_ways(bed, client, vip, pod);
}

fn a_client_that_forgot_its_connection_gets_its_syn_ack<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, vip, pod) = (client::<F>(), vip::<F>(2), backend::<F>(0));
    open(bed, client, vip, pod);
    // Both ends have lost the connection without a word; the client takes the same port again.
    let syn = bed.opening(client, vip);
    bed.pre(&syn).becomes(&syn.clone().to(pod)).counts(&[]);
    answer(bed, pod, client, vip);
    both_ways(bed, client, vip, pod);
}

fn a_flow_that_moved_here_is_taken_up<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, vip, pod) = (client::<F>(), vip::<F>(2), backend::<F>(0));
    let request = bed.data(client, vip);
    bed.pre(&request)
        .becomes(&request.clone().to(pod))
        .counts(&[Counter::FlowOpened, Counter::FlowAdopted]);
    both_ways(bed, client, vip, pod);
}

fn only_a_syn_opens_at_the_node<F: TestFamily>(bed: &mut Bed<'_, F>) {
    // A service whose external address is the node's own.
    let (client, external) = (client::<F>(), end::<F>([2, 2], 80));
    bed.update(|rows| {
        let value = *rows.front_end(vip::<F>(2), lb_common::protocol::TCP);
        let key = lb_common::ServiceKey::new(
            F::addr([8, 0, 2, 2]),
            lb_common::Port::new(80),
            lb_common::protocol::TCP,
        );
        rows.services.insert(key, value);
    });
    for service in [node::<F>(30_081), external] {
        for flags in [flag::ACK, flag::SYN | flag::ACK, flag::RST, flag::FIN | flag::ACK] {
            let packet = bed.data(client, service).flags(flags);
            bed.pre(&packet)
                .untouched()
                .counts(&[Counter::NotOpening])
                .stats(&[]);
        }
    }
    assert_eq!(bed.flow_count(), 0);
    open(bed, client, external, backend::<F>(0));
}
