//! What becomes of flows when backends come and go.

use lb_common::{BackendState, Counter, DropReason, Port, ServiceKey, Stage};

use super::{DROPPED, both_ways, cases, chosen, client, open, vip};
use crate::engine::{Bed, Rows, TestFamily, UPLINK, backend};

cases! {
    ALL:
        a_backend_that_takes_no_new_flows_keeps_its_own,
        a_backend_that_left_keeps_its_tcp_flows,
        a_backend_that_does_not_serve_keeps_its_tcp_flows,
        a_backend_whose_row_is_anothers_has_lost_its_flows,
        a_service_that_is_gone_ends_its_flows,
        replies_of_a_backend_that_is_gone_are_translated,
        slots_of_another_generation_are_not_used,
        a_backend_that_is_not_usable_is_not_used,
        a_flip_under_a_packet_is_followed,
        a_full_flow_table_drops;
    UDP:
        an_idle_flow_is_opened_anew;
}

const REOPENED: [Counter; 2] = [Counter::FlowReopened, Counter::FlowOpened];

/// Opens a flow to service 1 and takes its backend out of the slots, as the agent does; returns the backend's index.
fn retire<F: TestFamily>(bed: &mut Bed<'_, F>, change: impl FnOnce(&mut Rows<F>, u8)) -> u8 {
    let (client, vip) = (client::<F>(), vip::<F>(1));
    let opening = bed.opening(client, vip);
    let old = chosen::<F>(&bed.pre(&opening), &opening);
    open(bed, client, vip, backend::<F>(old));
    bed.update(|rows| {
        let rest: Vec<u32> = (0..3).filter(|index| *index != u32::from(old)).collect();
        rows.set_scopes(1, &rest, &rest);
        change(rows, old);
    });
    old
}

/// The flow goes on to another backend, both ways.
#[track_caller]
fn moves<F: TestFamily>(bed: &mut Bed<'_, F>, old: u8) {
    let (client, vip) = (client::<F>(), vip::<F>(1));
    let opening = bed.opening(client, vip);
    let step = bed.pre(&opening);
    step.counts(&REOPENED);
    let new = chosen::<F>(&step, &opening);
    assert_ne!(new, old);
    super::answer(bed, backend::<F>(new), client, vip);
    both_ways(bed, client, vip, backend::<F>(new));
}

fn a_backend_that_takes_no_new_flows_keeps_its_own<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let old = retire(bed, |rows, old| rows.set_state(old.into(), BackendState::NoNew));
    both_ways(bed, client::<F>(), vip::<F>(1), backend::<F>(old));
    bed.wait(2);
    both_ways(bed, client::<F>(), vip::<F>(1), backend::<F>(old));
    if bed.is_tcp() {
        moves(bed, old);
    }
}

fn a_backend_that_left_keeps_its_tcp_flows<F: TestFamily>(bed: &mut Bed<'_, F>) {
    keeps_tcp_flows(bed, BackendState::Removed);
}

fn a_backend_that_does_not_serve_keeps_its_tcp_flows<F: TestFamily>(bed: &mut Bed<'_, F>) {
    keeps_tcp_flows(bed, BackendState::NotServing);
}

#[track_caller]
fn keeps_tcp_flows<F: TestFamily>(bed: &mut Bed<'_, F>, state: BackendState) {
    let old = retire(bed, |rows, old| rows.set_state(old.into(), state));
    if bed.is_tcp() {
        both_ways(bed, client::<F>(), vip::<F>(1), backend::<F>(old));
        bed.wait(2);
        both_ways(bed, client::<F>(), vip::<F>(1), backend::<F>(old));
    }
    moves(bed, old);
}

fn a_backend_whose_row_is_anothers_has_lost_its_flows<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let old = retire(bed, |rows, old| rows.backend(old.into()).epoch += 1);
    if bed.is_tcp() {
        is_gone(bed);
    }
    moves(bed, old);
}

fn a_service_that_is_gone_ends_its_flows<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, vip) = (client::<F>(), vip::<F>(1));
    let old = retire(bed, |rows, old| {
        rows.set_state(old.into(), BackendState::Free);
        rows.services.clear();
    });
    if bed.is_tcp() {
        is_gone(bed);
    }
    // A new connection to the same address is no service's.
    let opening = bed.opening(client, vip);
    bed.pre(&opening).untouched().counts(&[Counter::FlowReopened]);
    let data = bed.data(client, vip);
    bed.pre(&data).untouched().counts(&[]);
    assert_eq!(bed.flow(Stage::Pre, client, vip), None, "backend {old}");
}

#[track_caller]
fn is_gone<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let data = bed.data(client::<F>(), vip::<F>(1));
    let step = bed.pre(&data);
    assert!(step.answers(UPLINK).is_like(&data.reset()), "{step:02x?}");
    step.counts(&[Counter::AnsweredReset]).stats(&[(1, DROPPED)]);
}

fn replies_of_a_backend_that_is_gone_are_translated<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let old = retire(bed, |rows, old| rows.backend(old.into()).epoch += 1);
    let reply = bed.data(backend::<F>(old), client::<F>());
    bed.post(&reply)
        .becomes(&reply.clone().from(vip::<F>(1)))
        .counts(&[]);
}

fn slots_of_another_generation_are_not_used<F: TestFamily>(bed: &mut Bed<'_, F>) {
    bed.update(|rows| {
        for slot in rows.slots.values_mut() {
            slot.generation = 99;
        }
    });
    is_changing(bed);
}

fn a_backend_that_is_not_usable_is_not_used<F: TestFamily>(bed: &mut Bed<'_, F>) {
    for state in [
        BackendState::Free,
        BackendState::NoNew,
        BackendState::Removed,
        BackendState::NotServing,
    ] {
        bed.update(|rows| rows.set_state(3, state));
        is_changing(bed);
    }
    bed.update(|rows| {
        rows.set_state(3, BackendState::Active);
        rows.backend(3).service = 1;
    });
    is_changing(bed);
}

#[track_caller]
fn is_changing<F: TestFamily>(bed: &mut Bed<'_, F>) {
    bed.pre(&bed.opening(client::<F>(), vip::<F>(2)))
        .dropped(DropReason::ServiceChanging)
        .counts(&[Counter::SlotRetried])
        .stats(&[(2, DROPPED)]);
}

/// On the host alone: no packet of a test run can be interrupted.
fn a_flip_under_a_packet_is_followed<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, vip, protocol) = (client::<F>(), vip::<F>(2), bed.protocol);
    let old = *bed.rows.front_end(vip, protocol);
    bed.update(|rows| rows.front_end(vip, protocol).outside.generation = 99);
    let opening = bed.opening(client, vip);
    let Some(host) = bed.host_alone() else { return };
    let key = ServiceKey::new(F::addr([8, 0, 96, 2]), Port::new(80), protocol);
    F::of_mut(host).flip = Some((key, old)).into();
    bed.pre(&opening)
        .becomes(&opening.clone().to(backend::<F>(0)))
        .counts(&[Counter::SlotRetried, Counter::FlowOpened]);
}

/// On the host alone: the kernel's table forgets the least recently used instead.
fn a_full_flow_table_drops<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let opening = bed.opening(client::<F>(), vip::<F>(2));
    for limit in [0, 1] {
        let Some(host) = bed.host_alone() else { return };
        F::of_mut(host).flow_limit = limit;
        bed.pre(&opening)
            .dropped(DropReason::FlowTableFull)
            .counts(&[])
            .stats(&[(2, DROPPED)]);
    }
}

fn an_idle_flow_is_opened_anew<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, vip, pod) = (client::<F>(), vip::<F>(2), backend::<F>(0));
    open(bed, client, vip, pod);
    bed.wait(9);
    let request = bed.data(client, vip);
    bed.pre(&request).becomes(&request.clone().to(pod)).counts(&[]);
    bed.wait(11);
    bed.pre(&request)
        .becomes(&request.clone().to(pod))
        .counts(&REOPENED);
    both_ways(bed, client, vip, pod);
}
