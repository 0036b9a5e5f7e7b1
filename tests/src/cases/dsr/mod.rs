//! Direct server return, at the node that the client reaches and at that of the pod.

mod first_node;
mod pod_node;

use std::net::{IpAddr, SocketAddr};

use lb_common::RangeList;

use super::{ALL, Case, TCP, UDP, answer, cases, client, stranger, vip};
use crate::engine::{Bed, TestFamily, end};

/// All of them.
pub(super) fn all<F: TestFamily>() -> Vec<Case<F>> {
    first_node::cases().into_iter().chain(pod_node::cases()).collect()
}

/// The address that other nodes know this one by.
fn here<F: TestFamily>() -> IpAddr {
    end::<F>([2, 1], 0).ip()
}

/// Another node.
fn other_node<F: TestFamily>() -> IpAddr {
    end::<F>([10, 1], 0).ip()
}

/// Makes another node known.
fn know<F: TestFamily>(bed: &mut Bed<'_, F>, node: IpAddr) {
    let bits = if node.is_ipv4() { 32 } else { 128 };
    bed.update(|rows| rows.add_range(RangeList::NODES, node, bits));
}

/// A VIP of a service whose backend is on another node.
fn far_vip<F: TestFamily>() -> SocketAddr {
    vip::<F>(8)
}

/// A VIP of a service whose backend is on this node.
fn near_vip<F: TestFamily>() -> SocketAddr {
    vip::<F>(9)
}
