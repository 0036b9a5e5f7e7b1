//! Several uplinks: replies leave by the one that the client's packets came in by, if there is a way.

use std::net::SocketAddr;

use lb_common::{Counter, Stage};

use super::{cases, client, vip};
use crate::engine::{Bed, OTHER_UPLINK, POD, Rows, TestFamily, UPLINK, WEB, backend, end};
use crate::packet::{IcmpError, flag};

cases! {
    ALL:
        a_reply_leaves_by_the_uplink_of_arrival,
        by_any_route_out_of_it_where_the_kernel_finds_one,
        a_rule_for_another_uplink_counts_for_ipv6,
        without_a_way_there_it_leaves_as_routed,
        what_is_too_long_for_that_way_leaves_as_routed,
        an_error_about_a_reply_leaves_by_it_too,
        a_lost_reply_entry_comes_back_with_its_uplink,
        with_one_uplink_nothing_is_asked,
        a_pod_asks_by_no_uplink;
}

/// Opens a flow from outside to service 3, whose address has a rule for [`OTHER_UPLINK`], by that device.
#[track_caller]
fn open<F: TestFamily>(bed: &mut Bed<'_, F>) {
    bed.update(Rows::return_by_uplinks);
    bed.device = OTHER_UPLINK;
    let opening = bed.opening(client::<F>(), vip::<F>(3));
    bed.pre(&opening).becomes(&opening.clone().to(backend::<F>(0)));
    bed.device = UPLINK;
}

fn a_reply_leaves_by_the_uplink_of_arrival<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, vip, pod) = (client::<F>(), vip::<F>(3), backend::<F>(0));
    open(bed);
    let mut answer = bed.data(pod, client);
    if bed.is_tcp() {
        answer = answer.flags(flag::SYN | flag::ACK);
    }
    let reply = bed.data(pod, client);
    for packet in [&answer, &reply, &reply] {
        bed.post(packet)
            .leaves(OTHER_UPLINK, &packet.clone().from(vip))
            .counts(&[Counter::TcSent]);
    }
    let entry = bed.flow(Stage::Post, pod, client).unwrap();
    assert_eq!((entry.arrival, entry.hop.ifindex), (OTHER_UPLINK, OTHER_UPLINK));
    // The way is asked for again when routes have changed, and once a second.
    bed.update(|rows| rows.settings.route_epoch += 1);
    bed.post(&reply).leaves(OTHER_UPLINK, &reply.clone().from(vip));
    assert_eq!(bed.flow(Stage::Post, pod, client).unwrap().hop.epoch, 2);
    bed.wait(2);
    bed.post(&reply).leaves(OTHER_UPLINK, &reply.clone().from(vip));
    // Where the kernel chooses the right uplink by itself, it does.
    bed.device = OTHER_UPLINK;
    bed.post(&reply).becomes(&reply.clone().from(vip)).counts(&[]);
}

fn by_any_route_out_of_it_where_the_kernel_finds_one<F: TestFamily>(bed: &mut Bed<'_, F>) {
    // The routes say OTHER_UPLINK, but the client has come by the one with the default route.
    returns_by_the_first_uplink_in_ipv4(bed, end::<F>([6, 200], 40_000), vip::<F>(2));
}

fn a_rule_for_another_uplink_counts_for_ipv6<F: TestFamily>(bed: &mut Bed<'_, F>) {
    // The client has come by the one with the default route, but whatever is from the service belongs to the other.
    returns_by_the_first_uplink_in_ipv4(bed, client::<F>(), vip::<F>(3));
}

/// The kernel has routed the reply of a flow that came by [`UPLINK`] to [`OTHER_UPLINK`]. Of IPv6, it does not say what
/// it would do.
#[track_caller]
fn returns_by_the_first_uplink_in_ipv4<F: TestFamily>(
    bed: &mut Bed<'_, F>,
    client: SocketAddr,
    vip: SocketAddr,
) {
    let pod = backend::<F>(0);
    bed.update(Rows::return_by_uplinks);
    let opening = bed.opening(client, vip);
    bed.pre(&opening).becomes(&opening.clone().to(pod));
    bed.device = OTHER_UPLINK;
    let reply = bed.data(pod, client);
    let step = bed.post(&reply);
    if F::SUFFIX == '4' {
        step.leaves(UPLINK, &reply.clone().from(vip));
    } else {
        step.becomes(&reply.clone().from(vip));
    }
}

fn without_a_way_there_it_leaves_as_routed<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, vip, pod) = (client::<F>(), vip::<F>(2), backend::<F>(0));
    bed.update(Rows::return_by_uplinks);
    bed.device = OTHER_UPLINK;
    let opening = bed.opening(client, vip);
    bed.pre(&opening).becomes(&opening.clone().to(pod));
    bed.device = UPLINK;
    let reply = bed.data(pod, client);
    for _ in 0..2 {
        bed.post(&reply).becomes(&reply.clone().from(vip)).counts(&[]);
    }
    let entry = bed.flow(Stage::Post, pod, client).unwrap();
    assert_eq!((entry.arrival, entry.hop.ifindex), (OTHER_UPLINK, UPLINK));
}

fn what_is_too_long_for_that_way_leaves_as_routed<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, vip, pod) = (client::<F>(), vip::<F>(3), backend::<F>(0));
    bed.update(|rows| rows.devices.get_mut(&OTHER_UPLINK).unwrap().mtu = 1400);
    open(bed);
    for (payload, leaves) in [(1200, true), (1390, false)] {
        let reply = bed.data(pod, client).payload(&vec![7; payload]);
        let step = bed.post(&reply);
        if leaves {
            step.leaves(OTHER_UPLINK, &reply.clone().from(vip));
        } else {
            step.becomes(&reply.clone().from(vip));
        }
    }
}

fn an_error_about_a_reply_leaves_by_it_too<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, vip, pod) = (client::<F>(), vip::<F>(3), backend::<F>(0));
    open(bed);
    let request = bed.data(client, pod);
    let error = request.error(pod.ip(), IcmpError::TooBig(1400));
    let original = bed.data(client, vip);
    bed.post(&error)
        .leaves(OTHER_UPLINK, &original.error(vip.ip(), IcmpError::TooBig(1400)))
        .counts(&[Counter::IcmpTranslated, Counter::TcSent]);
}

fn a_lost_reply_entry_comes_back_with_its_uplink<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, vip, pod) = (client::<F>(), vip::<F>(3), backend::<F>(0));
    open(bed);
    bed.evict(Stage::Post, pod, client);
    bed.wait(2);
    bed.device = OTHER_UPLINK;
    let request = bed.data(client, vip);
    bed.pre(&request).becomes(&request.clone().to(pod));
    bed.device = UPLINK;
    let reply = bed.data(pod, client);
    bed.post(&reply).leaves(OTHER_UPLINK, &reply.clone().from(vip));
}

fn with_one_uplink_nothing_is_asked<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, vip, pod) = (client::<F>(), vip::<F>(3), backend::<F>(0));
    bed.device = OTHER_UPLINK;
    let opening = bed.opening(client, vip);
    bed.pre(&opening).becomes(&opening.clone().to(pod));
    bed.device = UPLINK;
    let reply = bed.data(pod, client);
    bed.post(&reply).becomes(&reply.clone().from(vip)).counts(&[]);
    let entry = bed.flow(Stage::Post, pod, client).unwrap();
    assert_eq!((entry.arrival, entry.hop.ifindex), (0, 0));
}

fn a_pod_asks_by_no_uplink<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, vip, pod) = (end::<F>([1, 50], 40_000), vip::<F>(3), backend::<F>(0));
    bed.update(Rows::return_by_uplinks);
    bed.device = POD;
    let opening = bed.opening(client, vip);
    bed.pre(&opening).becomes(&opening.clone().to(pod));
    bed.device = WEB;
    let reply = bed.data(pod, client);
    bed.post(&reply).becomes(&reply.clone().from(vip)).counts(&[]);
    assert_eq!(bed.flow(Stage::Post, pod, client).unwrap().arrival, 0);
}
