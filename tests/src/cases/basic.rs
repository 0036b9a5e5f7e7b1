//! Translation there and back, and what is counted.

use lb_common::{Counter, FlowFlags, ServiceStats, Stage};

use super::{answer, both_ways, cases, chosen, client, node, open, stranger, vip};
use crate::engine::{Bed, TestFamily, backend, end};
use crate::packet::PacketBuilder;

cases! {
    ALL:
        a_flow_is_translated_there_and_back,
        clients_are_spread_and_each_comes_back_to_its_backend,
        a_node_port_is_reached_at_the_right_addresses_only,
        a_large_packet_counts_as_those_on_the_wire,
        what_is_for_no_service_is_untouched,
        icmp_is_untouched;
}

fn a_flow_is_translated_there_and_back<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, vip, pod) = (client::<F>(), vip::<F>(2), backend::<F>(0));
    let request = bed.opening(client, vip);
    let forward = ServiceStats {
        packets: 1,
        bytes: request.network_length(),
        ..ServiceStats::default()
    };
    let opened = ServiceStats {
        connections: 1,
        ..forward
    };
    bed.pre(&request)
        .becomes(&request.clone().to(pod))
        .counts(&[Counter::FlowOpened])
        .stats(&[(2, opened)]);
    answer(bed, pod, client, vip);
    let entry = bed.flow(Stage::Pre, client, vip).unwrap();
    assert_eq!((entry.service, entry.backend, entry.epoch), (2, 3, 1));
    assert_eq!((entry.port.number(), entry.peer_port.number()), (8080, 40_000));
    assert_eq!((entry.flags & FlowFlags::DIRECT, entry.last_seen), (0, 0));
    let entry = bed.flow(Stage::Post, pod, client).unwrap();
    assert_eq!((entry.port.number(), entry.peer_port.number()), (80, 40_000));
    assert_eq!(bed.flow_count(), 2);

    let request = bed.data(client, vip);
    let forward = ServiceStats {
        bytes: request.network_length(),
        ..forward
    };
    bed.pre(&request)
        .becomes(&request.clone().to(pod))
        .counts(&[])
        .stats(&[(2, forward)]);
    let reply = bed.data(pod, client).payload(b"an answer");
    let back = ServiceStats {
        reply_packets: 1,
        reply_bytes: reply.network_length(),
        ..ServiceStats::default()
    };
    bed.post(&reply)
        .becomes(&reply.clone().from(vip))
        .counts(&[])
        .stats(&[(2, back)]);
    both_ways(bed, client, vip, pod);
    assert_eq!(bed.flow_count(), 2);
}

fn clients_are_spread_and_each_comes_back_to_its_backend<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let vip = vip::<F>(1);
    let mut shares = [0; 3];
    for port in 0..60 {
        let packet = bed.opening(end::<F>([0, 10], 50_000 + port), vip);
        let first = chosen::<F>(&bed.pre(&packet), &packet);
        shares[usize::from(first)] += 1;
        // Evicted, and opened once more.
        bed.evict(Stage::Pre, end::<F>([0, 10], 50_000 + port), vip);
        let again = bed.pre(&packet);
        assert_eq!(chosen::<F>(&again, &packet), first);
        again.counts(&[Counter::FlowOpened]);
    }
    assert!(shares.iter().all(|share| *share > 5), "{shares:?}");
}

fn a_node_port_is_reached_at_the_right_addresses_only<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, pod) = (client::<F>(), backend::<F>(0));
    open(bed, client, node::<F>(30_081), pod);
    both_ways(bed, client, node::<F>(30_081), pod);
    for elsewhere in [
        // The node's, but not for NodePorts; somebody else's; ports that no service has, in the range and around it.
        end::<F>([2, 2], 30_081),
        end::<F>([3, 3], 30_081),
        node::<F>(30_085),
        node::<F>(30_079),
        node::<F>(30_091),
        node::<F>(80),
    ] {
        let packet = bed.opening(client, elsewhere);
        bed.pre(&packet).untouched().counts(&[]).stats(&[]);
    }
    assert_eq!(bed.flow_count(), 2);
}

fn a_large_packet_counts_as_those_on_the_wire<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, vip, pod) = (client::<F>(), vip::<F>(2), backend::<F>(0));
    open(bed, client, vip, pod);
    bed.segments = 5;
    let request = bed.data(client, vip);
    let forward = ServiceStats {
        packets: 5,
        bytes: request.network_length(),
        ..ServiceStats::default()
    };
    bed.pre(&request).stats(&[(2, forward)]);
    let reply = bed.data(pod, client);
    let back = ServiceStats {
        reply_packets: 5,
        reply_bytes: reply.network_length(),
        ..ServiceStats::default()
    };
    bed.post(&reply).stats(&[(2, back)]);
}

fn what_is_for_no_service_is_untouched<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let client = client::<F>();
    let pod = backend::<F>(0);
    let other_port = end::<F>([96, 2], 81);
    for to in [stranger::<F>(), pod, other_port] {
        for packet in [bed.opening(client, to), bed.data(client, to)] {
            bed.pre(&packet).untouched().counts(&[]).stats(&[]);
            bed.post(&packet).untouched().counts(&[]).stats(&[]);
            let back = packet.reversed();
            bed.pre(&back).untouched().counts(&[]);
            bed.post(&back).untouched().counts(&[]);
        }
    }
    // Another protocol on the same port.
    let packet = if bed.is_tcp() {
        PacketBuilder::udp(client, vip::<F>(2))
    } else {
        PacketBuilder::tcp(client, vip::<F>(2))
    };
    bed.pre(&packet).untouched().counts(&[]);
    assert_eq!(bed.flow_count(), 0);
}

fn icmp_is_untouched<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let packet = PacketBuilder::icmp(client::<F>(), vip::<F>(2));
    bed.pre(&packet).untouched().counts(&[]);
    bed.post(&packet.reversed()).untouched().counts(&[]);
}
