//! Two services, one backend, one client port: both flows would share one reverse entry.

use std::net::SocketAddr;

use lb_common::{BackendState, Counter, DropReason, Stage};

use super::{DROPPED, answer, both_ways, cases, client, finish, open, vip};
use crate::engine::{Bed, TestFamily, backend, end};
use crate::packet::flag;

cases! {
    ALL:
        a_live_flow_makes_the_later_one_change_its_port,
        a_finished_flow_is_taken_over,
        a_flow_whose_backend_is_gone_is_taken_over,
        a_flow_that_was_taken_over_begins_anew,
        the_same_port_comes_back_after_eviction,
        reopening_takes_no_more_ports,
        a_client_without_free_ports_is_dropped;
}

const COLLISION: [Counter; 2] = [Counter::PortReplaced, Counter::FlowOpened];

/// Opens a flow to service 3 next to one to service 2; returns the client as the backend sees it.
#[track_caller]
fn collide<F: TestFamily>(bed: &mut Bed<'_, F>) -> SocketAddr {
    let (client, pod) = (client::<F>(), backend::<F>(0));
    open(bed, client, vip::<F>(2), pod);
    let opening = bed.opening(client, vip::<F>(3));
    let step = bed.pre(&opening);
    step.counts(&COLLISION);
    let entry = bed.flow(Stage::Pre, client, vip::<F>(3)).unwrap();
    let replaced = SocketAddr::new(client.ip(), entry.peer_port.number());
    assert_ne!(replaced, client);
    step.becomes(&opening.from(replaced).to(pod));
    replaced
}

/// A packet of the second flow each way.
#[track_caller]
fn second_both_ways<F: TestFamily>(bed: &mut Bed<'_, F>, replaced: SocketAddr) {
    let (client, vip, pod) = (client::<F>(), vip::<F>(3), backend::<F>(0));
    let request = bed.data(client, vip);
    bed.pre(&request).becomes(&request.clone().from(replaced).to(pod));
    let reply = bed.data(pod, replaced);
    bed.post(&reply).becomes(&reply.clone().from(vip).to(client));
}

fn a_live_flow_makes_the_later_one_change_its_port<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, vip, pod) = (client::<F>(), vip::<F>(2), backend::<F>(0));
    let replaced = collide(bed);
    if bed.is_tcp() {
        let back = bed.data(pod, replaced).flags(flag::SYN | flag::ACK);
        bed.post(&back)
            .becomes(&back.clone().from(super::vip::<F>(3)).to(client));
    }
    for _round in 0..2 {
        second_both_ways(bed, replaced);
        both_ways(bed, client, vip, pod);
        bed.wait(1);
    }
    assert_eq!(bed.flow_count(), 4);
}

fn a_finished_flow_is_taken_over<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, pod) = (client::<F>(), backend::<F>(0));
    open(bed, client, vip::<F>(2), pod);
    finish(bed, client, vip::<F>(2), pod);
    let opening = bed.opening(client, vip::<F>(3));
    bed.pre(&opening)
        .becomes(&opening.clone().to(pod))
        .counts(&[Counter::FlowOpened]);
    answer(bed, pod, client, vip::<F>(3));
    both_ways(bed, client, vip::<F>(3), pod);
}

fn a_flow_whose_backend_is_gone_is_taken_over<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, pod) = (client::<F>(), backend::<F>(0));
    open(bed, client, vip::<F>(2), pod);
    bed.update(|rows| rows.backend(3).epoch += 1);
    open(bed, client, vip::<F>(3), pod);
    assert_eq!(bed.flow_count(), 3);
    // Or nobody's.
    bed.update(|rows| rows.set_state(4, BackendState::Free));
    open(bed, client, vip::<F>(2), pod);
    assert_eq!(bed.flow_count(), 3);
}

fn a_flow_that_was_taken_over_begins_anew<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, pod) = (client::<F>(), backend::<F>(0));
    // Over by idleness; or, as only the way back has shown, by a reset.
    for is_reset in [false, true] {
        bed.forget();
        let opening = bed.opening(client, vip::<F>(2));
        bed.pre(&opening).becomes(&opening.clone().to(pod));
        if is_reset && bed.is_tcp() {
            let reset = bed.data(pod, client).flags(flag::RST | flag::ACK);
            bed.post(&reset).becomes(&reset.clone().from(vip::<F>(2)));
        } else {
            bed.wait(31);
        }
        open(bed, client, vip::<F>(3), pod);
        // The one that took its place is alive.
        let step = bed.pre(&opening);
        step.counts(&[Counter::FlowReopened, Counter::PortReplaced, Counter::FlowOpened]);
        let replaced = super::source(&step.view());
        assert_ne!(replaced, client);
        step.becomes(&opening.clone().from(replaced).to(pod));
        both_ways(bed, client, vip::<F>(3), pod);
        assert_eq!(bed.flow_count(), 4);
    }
}

fn the_same_port_comes_back_after_eviction<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, vip) = (client::<F>(), vip::<F>(3));
    let replaced = collide(bed);
    second_both_ways(bed, replaced);
    bed.evict(Stage::Pre, client, vip);
    let request = bed.data(client, vip);
    let mut counters = COLLISION.to_vec();
    if bed.is_tcp() {
        counters.push(Counter::FlowAdopted);
    }
    bed.pre(&request)
        .becomes(&request.clone().from(replaced).to(backend::<F>(0)))
        .counts(&counters);
    second_both_ways(bed, replaced);
    assert_eq!(bed.flow_count(), 4);
}

fn reopening_takes_no_more_ports<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, pod) = (client::<F>(), backend::<F>(0));
    let replaced = collide(bed);
    for _round in 0..6 {
        if bed.is_tcp() {
            let fin = bed.data(client, vip::<F>(3)).flags(flag::RST);
            bed.pre(&fin).becomes(&fin.clone().from(replaced).to(pod));
        } else {
            bed.wait(11);
            // The first flow stays alive.
            both_ways_and_reopen(bed);
        }
        let opening = bed.opening(client, vip::<F>(3));
        bed.pre(&opening)
            .becomes(&opening.clone().from(replaced).to(pod))
            .counts(&[Counter::FlowReopened, Counter::PortReplaced, Counter::FlowOpened]);
        assert_eq!(bed.flow_count(), 4);
    }
}

/// A UDP flow to service 2 that was idle, too, goes on.
#[track_caller]
fn both_ways_and_reopen<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, pod) = (client::<F>(), backend::<F>(0));
    both_ways(bed, client, vip::<F>(2), pod);
}

fn a_client_without_free_ports_is_dropped<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, pod) = (client::<F>(), backend::<F>(0));
    let mut taken = vec![collide(bed)];
    let opening = bed.opening(client, vip::<F>(3));
    // Each port that is found is given to a flow to service 2, and found taken.
    for _other_port in 0..3 {
        let last = *taken.last().unwrap();
        bed.evict(Stage::Pre, client, vip::<F>(3));
        bed.evict(Stage::Post, pod, last);
        open(bed, last, vip::<F>(2), pod);
        let step = bed.pre(&opening);
        step.counts(&COLLISION);
        let entry = bed.flow(Stage::Pre, client, vip::<F>(3)).unwrap();
        taken.push(end::<F>([0, 10], entry.peer_port.number()));
    }
    let last = *taken.last().unwrap();
    bed.evict(Stage::Pre, client, vip::<F>(3));
    bed.evict(Stage::Post, pod, last);
    open(bed, last, vip::<F>(2), pod);
    bed.pre(&opening)
        .dropped(DropReason::NoClientPort)
        .counts(&[])
        .stats(&[(3, DROPPED)]);
    assert_eq!(bed.flow(Stage::Pre, client, vip::<F>(3)), None);
}
