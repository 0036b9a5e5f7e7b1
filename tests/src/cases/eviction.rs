//! The flow table forgets one entry of two.

use std::net::SocketAddr;

use lb_common::{Counter, Stage};

use super::{both_ways, cases, client, open, vip};
use crate::engine::{Bed, TestFamily, backend};

cases! {
    ALL:
        the_way_back_is_made_again_by_the_way_there,
        the_way_there_is_made_again_by_the_way_back,
        a_replaced_port_is_made_again_both_ways;
}

fn the_way_back_is_made_again_by_the_way_there<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, vip, pod) = (client::<F>(), vip::<F>(2), backend::<F>(0));
    open(bed, client, vip, pod);
    // Of a flow that lives longer than a second, each entry says so.
    bed.wait(1);
    both_ways(bed, client, vip, pod);
    let (pre, post) = (
        bed.flow(Stage::Pre, client, vip),
        bed.flow(Stage::Post, pod, client),
    );
    bed.wait(1);
    bed.evict(Stage::Post, pod, client);
    let request = bed.data(client, vip);
    bed.pre(&request)
        .becomes(&request.clone().to(pod))
        .counts(&[Counter::FlowRestored]);
    both_ways(bed, client, vip, pod);
    assert_eq!(bed.flow(Stage::Pre, client, vip), pre);
    assert_eq!(bed.flow(Stage::Post, pod, client), post);
}

fn the_way_there_is_made_again_by_the_way_back<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, vip, pod) = (client::<F>(), vip::<F>(2), backend::<F>(0));
    open(bed, client, vip, pod);
    // Of a flow that lives longer than a second, each entry says so.
    bed.wait(1);
    both_ways(bed, client, vip, pod);
    let (pre, post) = (
        bed.flow(Stage::Pre, client, vip),
        bed.flow(Stage::Post, pod, client),
    );
    bed.wait(1);
    bed.evict(Stage::Pre, client, vip);
    let reply = bed.data(pod, client);
    bed.post(&reply)
        .becomes(&reply.clone().from(vip))
        .counts(&[Counter::FlowRestored]);
    both_ways(bed, client, vip, pod);
    assert_eq!(bed.flow(Stage::Pre, client, vip), pre);
    assert_eq!(bed.flow(Stage::Post, pod, client), post);
}

fn a_replaced_port_is_made_again_both_ways<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, vip, pod) = (client::<F>(), vip::<F>(3), backend::<F>(0));
    open(bed, client, super::vip::<F>(2), pod);
    bed.pre(&bed.opening(client, vip));
    bed.pre(&bed.data(client, vip));
    let entry = bed.flow(Stage::Pre, client, vip).unwrap();
    let replaced = SocketAddr::new(client.ip(), entry.peer_port.number());
    assert_ne!(replaced, client);
    let (request, reply) = (bed.data(client, vip), bed.data(pod, replaced));
    for (stage, source, destination) in [(Stage::Pre, client, vip), (Stage::Post, pod, replaced)] {
        bed.wait(1);
        bed.evict(stage, source, destination);
        let there = if stage == Stage::Pre {
            bed.post(&reply)
        } else {
            bed.pre(&request)
        };
        there.counts(&[Counter::FlowRestored]);
        bed.pre(&request).becomes(&request.clone().from(replaced).to(pod));
        bed.post(&reply).becomes(&reply.clone().from(vip).to(client));
    }
}
