//! The node around the packet: its sockets, its routes, its devices.

use lb_common::{Counter, DropReason};

use super::{DROPPED, cases, client, node, open, vip};
use crate::engine::{BRIDGE_PORT, Bed, POD, TestFamily, backend, end};

cases! {
    ALL:
        a_pod_with_a_forged_source_opens_nothing,
        a_pod_behind_a_bridge_is_routed_by_the_bridge,
        a_device_that_is_not_known_is_taken_for_an_uplink,
        an_address_of_zeros_is_no_node_port_unless_it_says_so;
    UDP:
        a_connected_socket_of_the_node_gets_its_packets;
}

fn a_pod_with_a_forged_source_opens_nothing<F: TestFamily>(bed: &mut Bed<'_, F>) {
    bed.device = POD;
    // Somebody's outside, another pod's, the node's own.
    for forged in [client::<F>(), end::<F>([1, 60], 40_000), node::<F>(40_000)] {
        bed.pre(&bed.opening(forged, vip::<F>(2)))
            .dropped(DropReason::SpoofedSource)
            .counts(&[])
            .stats(&[(2, DROPPED)]);
        assert_eq!(bed.flow_count(), 0);
        // What is for no service is the kernel's business.
        bed.pre(&bed.opening(forged, super::stranger::<F>())).untouched();
    }
    open(bed, end::<F>([1, 50], 40_000), vip::<F>(2), backend::<F>(0));
}

fn a_pod_behind_a_bridge_is_routed_by_the_bridge<F: TestFamily>(bed: &mut Bed<'_, F>) {
    bed.device = BRIDGE_PORT;
    bed.pre(&bed.opening(end::<F>([1, 50], 40_000), vip::<F>(2)))
        .dropped(DropReason::SpoofedSource);
    open(bed, end::<F>([1, 60], 40_000), vip::<F>(2), backend::<F>(0));
}

fn a_device_that_is_not_known_is_taken_for_an_uplink<F: TestFamily>(bed: &mut Bed<'_, F>) {
    bed.update(|rows| rows.devices.clear());
    open(bed, client::<F>(), vip::<F>(2), backend::<F>(0));
}

fn an_address_of_zeros_is_no_node_port_unless_it_says_so<F: TestFamily>(bed: &mut Bed<'_, F>) {
    bed.update(|rows| {
        for (key, row) in &mut rows.services {
            if key.addr == F::Addr::default() {
                row.flags = 0;
            }
        }
    });
    bed.pre(&bed.opening(client::<F>(), node::<F>(30_081)))
        .untouched();
    assert_eq!(bed.flow_count(), 0);
}

fn a_connected_socket_of_the_node_gets_its_packets<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, other) = (client::<F>(), end::<F>([0, 10], 40_001));
    bed.connect(node::<F>(30_081), client);
    bed.pre(&bed.data(client, node::<F>(30_081)))
        .untouched()
        .counts(&[Counter::NotOpening])
        .stats(&[]);
    assert_eq!(bed.flow_count(), 0);
    open(bed, other, node::<F>(30_081), backend::<F>(0));
}
