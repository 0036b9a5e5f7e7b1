//! A connection straight to a pod that meets the reverse entry of a service flow.

use std::net::SocketAddr;

use lb_common::{Counter, FlowFlags, Stage};

use super::{both_ways, cases, client, finish, open, vip};
use crate::engine::{BRIDGE, Bed, POD, TestFamily, backend};
use crate::packet::flag;

cases! {
    ALL:
        a_dead_entry_is_deleted,
        a_live_entry_makes_it_change_its_port,
        on_a_stacked_device_it_is_left_alone,
        when_it_is_over_nothing_is_left_of_it,
        a_forged_source_makes_no_entry;
    TCP:
        packets_in_mid_connection_are_left_alone,
        a_flow_that_turned_to_another_port_of_the_pod_is_kept;
}

/// Opens a service flow and a direct one from the same client port; returns the client as the pod sees the latter.
#[track_caller]
fn collide<F: TestFamily>(bed: &mut Bed<'_, F>) -> SocketAddr {
    let (client, pod) = (client::<F>(), backend::<F>(0));
    open(bed, client, vip::<F>(2), pod);
    let opening = bed.opening(client, pod);
    let step = bed.pre(&opening);
    step.counts(&[Counter::PortReplaced, Counter::FlowOpened]);
    let entry = bed.flow(Stage::Pre, client, pod).unwrap();
    assert_eq!((entry.flags, entry.service), (FlowFlags::DIRECT, 0));
    let replaced = SocketAddr::new(client.ip(), entry.peer_port.number());
    assert_ne!(replaced, client);
    step.becomes(&opening.from(replaced));
    replaced
}

fn a_dead_entry_is_deleted<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, pod) = (client::<F>(), backend::<F>(0));
    open(bed, client, vip::<F>(2), pod);
    finish(bed, client, vip::<F>(2), pod);
    bed.pre(&bed.opening(client, pod))
        .untouched()
        .counts(&[Counter::DeadReverseDeleted])
        .stats(&[]);
    assert_eq!(bed.flow_count(), 0);
    let mut reply = bed.data(pod, client);
    if bed.is_tcp() {
        reply = reply.flags(flag::SYN | flag::ACK);
    }
    bed.post(&reply).untouched().counts(&[]);
}

fn a_live_entry_makes_it_change_its_port<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, pod) = (client::<F>(), backend::<F>(0));
    let replaced = collide(bed);
    let mut reply = bed.data(pod, replaced);
    if bed.is_tcp() {
        reply = reply.flags(flag::SYN | flag::ACK);
    }
    bed.post(&reply).becomes(&reply.clone().to(client));
    for _round in 0..2 {
        let request = bed.data(client, pod);
        bed.pre(&request).becomes(&request.clone().from(replaced));
        let reply = bed.data(pod, replaced);
        bed.post(&reply).becomes(&reply.clone().to(client));
        both_ways(bed, client, vip::<F>(2), pod);
        bed.wait(1);
    }
    assert_eq!(bed.flow_count(), 4);
}

fn on_a_stacked_device_it_is_left_alone<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, pod) = (client::<F>(), backend::<F>(0));
    open(bed, client, vip::<F>(2), pod);
    bed.device = BRIDGE;
    bed.pre(&bed.opening(client, pod)).untouched().counts(&[]);
    assert_eq!(bed.flow_count(), 2);
}

fn when_it_is_over_nothing_is_left_of_it<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, pod) = (client::<F>(), backend::<F>(0));
    let replaced = collide(bed);
    if bed.is_tcp() {
        let fin = bed.data(client, pod).flags(flag::FIN | flag::ACK);
        bed.pre(&fin).becomes(&fin.clone().from(replaced));
        let fin = bed.data(pod, replaced).flags(flag::FIN | flag::ACK);
        bed.post(&fin).becomes(&fin.clone().to(client));
    }
    finish(bed, client, vip::<F>(2), pod);
    let opening = bed.opening(client, pod);
    bed.pre(&opening)
        .untouched()
        .counts(&[Counter::FlowReopened, Counter::DeadReverseDeleted]);
    // What follows must go the same way.
    bed.pre(&bed.data(client, pod)).untouched().counts(&[]);
    bed.post(&bed.data(pod, client)).untouched().counts(&[]);
    assert_eq!(bed.flow(Stage::Pre, client, pod), None);
}

fn a_forged_source_makes_no_entry<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, pod) = (client::<F>(), backend::<F>(0));
    open(bed, client, vip::<F>(2), pod);
    bed.device = POD;
    bed.pre(&bed.opening(client, pod)).untouched().counts(&[]);
    assert_eq!(bed.flow_count(), 2);
}

fn packets_in_mid_connection_are_left_alone<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, pod) = (client::<F>(), backend::<F>(0));
    open(bed, client, vip::<F>(2), pod);
    bed.pre(&bed.data(client, pod)).untouched().counts(&[]);
    assert_eq!(bed.flow_count(), 2);
}

fn a_flow_that_turned_to_another_port_of_the_pod_is_kept<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, vip, pod) = (client::<F>(), vip::<F>(2), backend::<F>(0));
    open(bed, client, vip, pod);
    finish(bed, client, vip, pod);
    // The service's target port changes, and the client's next connection goes there.
    let other_port = SocketAddr::new(pod.ip(), 9090);
    bed.update(|rows| {
        let row = rows.backend(3);
        row.port = lb_common::Port::new(9090);
        row.epoch += 1;
    });
    open(bed, client, vip, other_port);
    bed.pre(&bed.opening(client, pod))
        .untouched()
        .counts(&[Counter::DeadReverseDeleted]);
    assert!(bed.flow(Stage::Pre, client, vip).is_some());
    both_ways(bed, client, vip, other_port);
    assert_eq!(bed.flow_count(), 2);
}
