//! Session affinity: a client stays with its backend.

use std::net::SocketAddr;

use lb_common::{BackendFlags, BackendState, Counter, ServiceFlags, Stage};

use super::{cases, chosen, client, node, vip};
use crate::engine::{Bed, POD, Step, TestFamily, UNIT, UPLINK, backend, end, far};
use crate::packet::{PacketBuilder, flag};

cases! {
    ALL:
        a_client_stays,
        clients_are_spread,
        every_front_end_of_a_port_shares_it,
        first_packets_at_once_go_to_one_backend,
        each_new_connection_extends_the_time,
        packets_do_not_extend_the_time,
        a_client_does_not_stay_for_ever,
        a_backend_that_takes_no_new_flows_is_left,
        a_backend_whose_row_is_anothers_is_left,
        only_local_backends_where_the_policy_says_so,
        a_cluster_ip_with_the_policy_local,
        what_only_local_leads_to_is_left_by_others,
        xdp_remembers_nothing_that_it_leaves_to_tc;
    TCP:
        a_flow_in_mid_connection_goes_where_its_client_is;
}

/// Seconds.
const TIME: u32 = 60;

fn affine<F: TestFamily>(bed: &mut Bed<'_, F>, service: u32) {
    bed.update(|rows| {
        rows.set_flags(service, ServiceFlags::AFFINITY);
        // Between two seconds.
        rows.policy(service).affinity = TIME * UNIT + UNIT / 2;
    });
}

/// The client with another port.
fn again(client: SocketAddr, port: u16) -> SocketAddr {
    SocketAddr::new(client.ip(), port)
}

/// A new connection to service 1: its backend, and whether the client stayed.
#[track_caller]
fn connect<F: TestFamily>(bed: &mut Bed<'_, F>, client: SocketAddr) -> (u8, bool) {
    let opening = bed.opening(client, vip::<F>(1));
    let step = bed.pre(&opening);
    (chosen::<F>(&step, &opening), has_stayed(&step))
}

fn has_stayed(step: &Step) -> bool {
    step.counts.counters.contains_key(&Counter::AffinityHit)
}

fn a_client_stays<F: TestFamily>(bed: &mut Bed<'_, F>) {
    affine(bed, 1);
    let opening = bed.opening(client::<F>(), vip::<F>(1));
    let step = bed.pre(&opening);
    step.counts(&[Counter::FlowOpened]);
    let first = chosen::<F>(&step, &opening);
    // A packet sent twice is no new connection.
    bed.pre(&opening).counts(&[]);
    for port in 41_000..41_010 {
        let opening = bed.opening(again(client::<F>(), port), vip::<F>(1));
        let step = bed.pre(&opening);
        step.counts(&[Counter::FlowOpened, Counter::AffinityHit]);
        assert_eq!(chosen::<F>(&step, &opening), first);
    }
    let affinity = bed.written().affinity;
    assert_eq!(affinity.len(), 1);
    let kept = affinity.into_values().next().unwrap();
    assert_eq!((kept.backend, kept.epoch), (first.into(), 1));
}

fn clients_are_spread<F: TestFamily>(bed: &mut Bed<'_, F>) {
    affine(bed, 1);
    let mut shares = [0; 3];
    for last in 100..160 {
        let (number, stayed) = connect(bed, end::<F>([0, last], 40_000));
        assert!(!stayed);
        shares[usize::from(number)] += 1;
    }
    // A mean of 20, and a standard deviation of 3.7.
    assert!(shares.iter().all(|share| (8..=32).contains(share)), "{shares:?}");
}

fn every_front_end_of_a_port_shares_it<F: TestFamily>(bed: &mut Bed<'_, F>) {
    affine(bed, 1);
    affine(bed, 2);
    for last in 100..106 {
        let client = end::<F>([0, last], 40_000);
        let (first, _) = connect(bed, client);
        let opening = bed.opening(again(client, 40_001), node::<F>(30_080));
        let step = bed.pre(&opening);
        assert_eq!((chosen::<F>(&step, &opening), has_stayed(&step)), (first, true));
        // But other ports do not.
        let opening = bed.opening(again(client, 40_002), vip::<F>(2));
        assert!(!has_stayed(&bed.pre(&opening)));
    }
}

fn first_packets_at_once_go_to_one_backend<F: TestFamily>(bed: &mut Bed<'_, F>) {
    affine(bed, 1);
    for last in 100..104 {
        let client = end::<F>([0, last], 40_000);
        let (first, _) = connect(bed, client);
        for port in 41_000..41_006 {
            // As if it had not been written yet.
            bed.rewrite(|written| written.affinity.clear());
            assert_eq!(connect(bed, again(client, port)), (first, false));
        }
    }
}

fn each_new_connection_extends_the_time<F: TestFamily>(bed: &mut Bed<'_, F>) {
    affine(bed, 1);
    let (first, _) = connect(bed, client::<F>());
    for port in 41_000..41_005 {
        bed.wait(TIME - 10);
        assert_eq!(connect(bed, again(client::<F>(), port)), (first, true));
    }
    bed.wait(TIME + 1);
    let (_, stayed) = connect(bed, again(client::<F>(), 42_000));
    assert!(!stayed);
}

fn packets_do_not_extend_the_time<F: TestFamily>(bed: &mut Bed<'_, F>) {
    affine(bed, 1);
    let (first, _) = connect(bed, client::<F>());
    for _second in 0..=TIME / 5 {
        bed.wait(5);
        super::both_ways(bed, client::<F>(), vip::<F>(1), backend::<F>(first));
    }
    let (_, stayed) = connect(bed, again(client::<F>(), 42_000));
    assert!(!stayed);
}

fn a_client_does_not_stay_for_ever<F: TestFamily>(bed: &mut Bed<'_, F>) {
    affine(bed, 1);
    let (first, _) = connect(bed, client::<F>());
    let mut seen = [false; 3];
    seen[usize::from(first)] = true;
    for port in 42_000..42_020 {
        bed.wait(TIME + 1);
        let before = bed.written();
        let (number, stayed) = connect(bed, again(client::<F>(), port));
        assert!(!stayed);
        seen[usize::from(number)] = true;
        // Those that come at the same time do not part.
        let affinity = before.affinity;
        bed.rewrite(|written| {
            for (client, kept) in &mut written.affinity {
                kept.term = affinity[client].term;
                kept.last_used = kept.last_used.wrapping_sub((TIME + 1) * UNIT);
            }
        });
        assert_eq!(connect(bed, again(client::<F>(), port + 1000)), (number, false));
    }
    assert_eq!(seen, [true; 3]);
}

/// Takes the client's backend out of service 1 and lets the client connect again.
fn is_left<F: TestFamily>(bed: &mut Bed<'_, F>, change: impl Fn(&mut Bed<'_, F>, u32)) {
    affine(bed, 1);
    let (old, _) = connect(bed, client::<F>());
    let rest: Vec<u32> = (0..3).filter(|index| *index != u32::from(old)).collect();
    bed.update(|rows| rows.set_scopes(1, &rest, &rest));
    change(bed, old.into());
    let (new, stayed) = connect(bed, again(client::<F>(), 41_000));
    assert!(new != old && !stayed, "{old} {new}");
    assert_eq!(connect(bed, again(client::<F>(), 41_001)), (new, true));
}

fn a_backend_that_takes_no_new_flows_is_left<F: TestFamily>(bed: &mut Bed<'_, F>) {
    for state in [BackendState::NoNew, BackendState::Removed, BackendState::Free] {
        bed.forget();
        is_left(bed, |bed, old| bed.update(|rows| rows.set_state(old, state)));
        bed.update(|rows| {
            (0..3).for_each(|index| rows.set_state(index, BackendState::Active));
            rows.set_scopes(1, &[0, 1, 2], &[0, 1, 2]);
        });
    }
}

fn a_backend_whose_row_is_anothers_is_left<F: TestFamily>(bed: &mut Bed<'_, F>) {
    is_left(bed, |bed, old| bed.update(|rows| rows.backend(old).epoch += 1));
}

/// Opens a flow to service 6 for a client that was last given the backend `last`; the index of its backend, and whether
/// it stayed.
#[track_caller]
fn connect_after<F: TestFamily>(bed: &mut Bed<'_, F>, packet: &PacketBuilder, last: u32) -> (u32, bool) {
    // From the table, so that it has the client's row.
    bed.rewrite(|written| written.affinity.values_mut().for_each(|kept| kept.backend = last));
    let step = bed.pre(packet);
    let index = [(6, far::<F>(0)), (7, far::<F>(1)), (8, backend::<F>(3))]
        .into_iter()
        .find(|(_, endpoint)| step.view().destination == endpoint.ip())
        .map(|(index, _)| index);
    (index.unwrap(), has_stayed(&step))
}

/// Service 6 for a pod, which has been there once.
fn of_a_pod<F: TestFamily>(bed: &mut Bed<'_, F>) -> SocketAddr {
    affine(bed, 6);
    let pod = end::<F>([1, 50], 40_000);
    bed.device = POD;
    bed.pre(&bed.opening(pod, node::<F>(30_083)));
    assert_eq!(bed.written().affinity.len(), 1);
    pod
}

fn only_local_backends_where_the_policy_says_so<F: TestFamily>(bed: &mut Bed<'_, F>) {
    bed.update(|rows| {
        rows.set_flags(6, ServiceFlags::OUTSIDE_LOCAL);
        rows.set_scopes(6, &[8], &[6, 7, 8]);
    });
    let pod = of_a_pod(bed);
    let packet = |bed: &Bed<'_, F>, port| bed.opening(again(pod, port), node::<F>(30_083));
    // As a pod it may stay with any.
    let opening = packet(bed, 41_000);
    assert_eq!(connect_after(bed, &opening, 7), (7, true));
    // The same address from outside.
    bed.device = UPLINK;
    let opening = packet(bed, 41_001);
    assert_eq!(connect_after(bed, &opening, 7), (8, false));
    let opening = packet(bed, 41_002);
    assert_eq!(connect_after(bed, &opening, 8), (8, true));
}

fn a_cluster_ip_with_the_policy_local<F: TestFamily>(bed: &mut Bed<'_, F>) {
    bed.update(|rows| {
        rows.set_flags(6, ServiceFlags::INSIDE_LOCAL);
        rows.set_scopes(6, &[8], &[8]);
    });
    let pod = of_a_pod(bed);
    for device in [POD, UPLINK] {
        bed.device = device;
        let port = 41_000 + device as u16;
        let opening = bed.opening(again(pod, port), vip::<F>(6));
        assert_eq!(connect_after(bed, &opening, 6), (8, false));
    }
}

fn what_only_local_leads_to_is_left_by_others<F: TestFamily>(bed: &mut Bed<'_, F>) {
    bed.update(|rows| {
        rows.set_flags(6, ServiceFlags::OUTSIDE_LOCAL);
        rows.set_scopes(6, &[8], &[6, 7]);
        rows.backend(8).flags |= BackendFlags::LOCAL_ONLY;
    });
    let pod = of_a_pod(bed);
    let opening = bed.opening(again(pod, 41_000), node::<F>(30_083));
    let (index, stayed) = connect_after(bed, &opening, 8);
    assert!(index != 8 && !stayed);
    bed.device = UPLINK;
    let opening = bed.opening(again(pod, 41_001), node::<F>(30_083));
    assert_eq!(connect_after(bed, &opening, 8), (8, true));
}

fn xdp_remembers_nothing_that_it_leaves_to_tc<F: TestFamily>(bed: &mut Bed<'_, F>) {
    // Behind a gateway whose hardware address is not known.
    let silent = end::<F>([8, 10], 8080);
    bed.update(|rows| rows.set_backend(5, 5, silent));
    affine(bed, 5);
    let opening = bed.opening(client::<F>(), vip::<F>(5));
    bed.xdp(&opening)
        .untouched()
        .counts(&[Counter::HopLooked, Counter::XdpPassed])
        .stats(&[]);
    assert!(bed.written().affinity.is_empty());
    assert_eq!(bed.flow_count(), 0);
    bed.pre(&opening);
    assert_eq!(bed.written().affinity.len(), 1);
    assert_eq!(bed.flow_count(), 2);
}

fn a_flow_in_mid_connection_goes_where_its_client_is<F: TestFamily>(bed: &mut Bed<'_, F>) {
    affine(bed, 1);
    let client = client::<F>();
    let (first, _) = connect(bed, client);
    for other in (0..3).filter(|number| *number != first) {
        bed.rewrite(|written| {
            written.flows.clear();
            written
                .affinity
                .values_mut()
                .for_each(|kept| kept.backend = other.into());
        });
        // However long ago.
        bed.wait(TIME + 5);
        let packet = bed.data(client, vip::<F>(1)).flags(flag::ACK);
        let step = bed.pre(&packet);
        assert_eq!(chosen::<F>(&step, &packet), other);
        step.counts(&[Counter::FlowOpened, Counter::FlowAdopted, Counter::AffinityHit]);
        // It does not count as a new one.
        let affinity = bed.written().affinity;
        assert!(affinity.values().all(|kept| kept.last_used >= TIME));
        assert!(bed.flow(Stage::Pre, client, vip::<F>(1)).is_some());
    }
}
