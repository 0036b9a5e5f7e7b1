//! Which backend a new flow gets.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use lb_common::{Counter, FlowFlags, ServiceFlags, Stage};

use super::{cases, chosen, client, vip};
use crate::engine::{Bed, POD, TestFamily, backend, end};
use crate::packet::flag;

cases! {
    ALL:
        an_evicted_flow_finds_its_backend,
        both_halves_of_the_seed_count,
        a_backend_has_as_many_flows_as_slots,
        pods_have_backends_of_their_own,
        turns_go_round,
        the_less_loaded_of_two_gets_the_flow,
        a_backend_that_takes_no_new_flows_is_not_compared,
        open_connections_are_counted,
        other_services_are_not_counted;
    TCP:
        a_connection_is_counted_until_its_first_end,
        a_reset_ends_the_counting,
        in_mid_connection_only_the_hash_counts;
    UDP:
        a_datagram_after_a_pause_is_no_second_connection;
}

/// Clients with a port each.
fn clients<F: TestFamily>(count: u16) -> impl Iterator<Item = SocketAddr> {
    (0..count).map(|number| end::<F>([0, 10], 41_000 + number))
}

/// The backend of service 1 that a new flow gets.
#[track_caller]
fn connect<F: TestFamily>(bed: &mut Bed<'_, F>, client: SocketAddr) -> u8 {
    let opening = bed.opening(client, vip::<F>(1));
    chosen::<F>(&bed.pre(&opening), &opening)
}

/// How many flows each backend of service 1 gets.
fn shares<F: TestFamily>(
    bed: &mut Bed<'_, F>,
    clients: impl Iterator<Item = SocketAddr>,
) -> BTreeMap<u8, u32> {
    let mut shares = BTreeMap::new();
    for client in clients {
        *shares.entry(connect(bed, client)).or_default() += 1;
    }
    shares
}

/// The counted connections of each backend.
fn loads<F: TestFamily>(bed: &mut Bed<'_, F>) -> BTreeMap<u32, u32> {
    bed.written().loads
}

fn an_evicted_flow_finds_its_backend<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let mut seen = [false; 3];
    for client in clients::<F>(12) {
        let number = connect(bed, client);
        seen[usize::from(number)] = true;
        bed.evict(Stage::Pre, client, vip::<F>(1));
        bed.evict(Stage::Post, backend::<F>(number), client);
        let packet = bed.data(client, vip::<F>(1));
        let step = bed.pre(&packet);
        assert_eq!(chosen::<F>(&step, &packet), number);
        if bed.is_tcp() {
            step.counts(&[Counter::FlowOpened, Counter::FlowAdopted]);
        } else {
            step.counts(&[Counter::FlowOpened]);
        }
    }
    assert_eq!(seen, [true; 3]);
}

fn both_halves_of_the_seed_count<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let mut choices = Vec::new();
    for seed in [[4711, 0], [4711, 1], [4712, 0], [4711, 0]] {
        bed.forget();
        bed.update(|rows| rows.settings.hash_seed = seed);
        let of_seed: Vec<u8> = clients::<F>(16).map(|client| connect(bed, client)).collect();
        choices.push(of_seed);
    }
    assert_eq!(choices[0], choices[3]);
    assert_ne!(choices[0], choices[1]);
    assert_ne!(choices[0], choices[2]);
    assert_ne!(choices[1], choices[2]);
}

fn a_backend_has_as_many_flows_as_slots<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let slots = [0, 0, 0, 0, 0, 0, 1, 1, 1];
    bed.update(|rows| rows.set_scopes(1, &slots, &slots));
    let shares = shares(bed, clients::<F>(180));
    // Of 180 with 1/3: a mean of 60, and a standard deviation of 6.3.
    assert_eq!(shares.keys().copied().collect::<Vec<_>>(), [0, 1]);
    assert!((41..=79).contains(&shares[&1]), "{shares:?}");
}

fn pods_have_backends_of_their_own<F: TestFamily>(bed: &mut Bed<'_, F>) {
    bed.update(|rows| rows.set_scopes(1, &[0], &[1, 2]));
    assert_eq!(shares(bed, clients::<F>(8)).into_keys().collect::<Vec<_>>(), [0]);
    bed.device = POD;
    let pods = (0..16).map(|number| end::<F>([1, 50], 41_000 + number));
    assert_eq!(shares(bed, pods).into_keys().collect::<Vec<_>>(), [1, 2]);
}

/// On the host alone: each CPU of the kernel begins at another place.
fn turns_go_round<F: TestFamily>(bed: &mut Bed<'_, F>) {
    bed.update(|rows| rows.set_flags(1, ServiceFlags::ROUND_ROBIN));
    if bed.host_alone().is_none() {
        return;
    }
    let numbers: Vec<u8> = clients::<F>(9).map(|client| connect(bed, client)).collect();
    for round in numbers.windows(3) {
        let (one, two, three) = (round[0], round[1], round[2]);
        assert!(one != two && two != three && one != three, "{numbers:?}");
    }
    // A packet sent twice takes no turn.
    let next = (numbers[8] + 1) % 3;
    let first = end::<F>([0, 10], 41_000);
    assert_eq!(connect(bed, first), numbers[0]);
    assert_eq!(connect(bed, end::<F>([0, 11], 41_000)), next);
}

fn the_less_loaded_of_two_gets_the_flow<F: TestFamily>(bed: &mut Bed<'_, F>) {
    bed.update(|rows| rows.set_flags(1, ServiceFlags::LEAST_CONNECTIONS));
    // So many that the flows to come do not matter.
    bed.rewrite(|written| written.loads = [(0, 2000), (1, 1000)].into());
    let shares = shares(bed, clients::<F>(90));
    // The fullest only where both slots are its own: 1 of 9; the emptiest in 5 of 9.
    assert!(shares[&0] < shares[&1] && shares[&1] < shares[&2], "{shares:?}");
    assert!((2..=20).contains(&shares[&0]), "{shares:?}");
    assert!((36..=64).contains(&shares[&2]), "{shares:?}");
}

fn a_backend_that_takes_no_new_flows_is_not_compared<F: TestFamily>(bed: &mut Bed<'_, F>) {
    bed.update(|rows| {
        rows.set_flags(1, ServiceFlags::LEAST_CONNECTIONS);
        rows.set_scopes(1, &[0, 1], &[0, 1]);
    });
    bed.rewrite(|written| written.loads = [(0, 1000), (1, 1000)].into());
    let shares = shares(bed, clients::<F>(40));
    assert_eq!(shares.into_keys().collect::<Vec<_>>(), [0, 1]);
    assert_eq!(loads(bed).keys().copied().collect::<Vec<_>>(), [0, 1]);
}

fn open_connections_are_counted<F: TestFamily>(bed: &mut Bed<'_, F>) {
    bed.update(|rows| rows.set_flags(1, ServiceFlags::LEAST_CONNECTIONS));
    let shares = shares(bed, clients::<F>(12));
    let expected = shares.iter().map(|(number, count)| (u32::from(*number), *count));
    assert_eq!(loads(bed), expected.collect());
    // Nor does a packet sent twice count twice.
    connect(bed, end::<F>([0, 10], 41_000));
    assert_eq!(loads(bed).values().sum::<u32>(), 12);
    let first = end::<F>([0, 10], 41_000);
    let entry = bed.flow(Stage::Pre, first, vip::<F>(1)).unwrap();
    assert_ne!(entry.flags & FlowFlags::COUNTED, 0);
    let back = bed.flow(Stage::Post, backend::<F>(entry.backend as u8), first);
    assert_eq!(back.unwrap().flags & FlowFlags::COUNTED, 0);
}

fn other_services_are_not_counted<F: TestFamily>(bed: &mut Bed<'_, F>) {
    super::open(bed, client::<F>(), vip::<F>(2), backend::<F>(0));
    assert!(loads(bed).is_empty());
}

/// A connection to service 2, whose connections are counted.
fn counted<F: TestFamily>(bed: &mut Bed<'_, F>) {
    bed.update(|rows| rows.set_flags(2, ServiceFlags::LEAST_CONNECTIONS));
    super::open(bed, client::<F>(), vip::<F>(2), backend::<F>(0));
    assert_eq!(loads(bed), [(3, 1)].into());
}

fn a_connection_is_counted_until_its_first_end<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, vip, pod) = (client::<F>(), vip::<F>(2), backend::<F>(0));
    for server_first in [true, false] {
        counted(bed);
        let fin = bed.data(client, vip).flags(flag::FIN | flag::ACK);
        let other = bed.data(pod, client).flags(flag::FIN | flag::ACK);
        for turn in [server_first, !server_first] {
            if turn {
                bed.post(&other).becomes(&other.clone().from(vip));
            } else {
                bed.pre(&fin).becomes(&fin.clone().to(pod));
            }
            assert!(loads(bed).is_empty());
        }
        // One more connection does not go below.
        super::open(bed, client, vip, pod);
        assert_eq!(loads(bed), [(3, 1)].into());
        bed.forget();
    }
}

fn a_reset_ends_the_counting<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, vip, pod) = (client::<F>(), vip::<F>(2), backend::<F>(0));
    counted(bed);
    let reset = bed.data(pod, client).flags(flag::RST);
    bed.post(&reset).becomes(&reset.clone().from(vip));
    assert!(loads(bed).is_empty());
    // A flow that a SYN opens anew before it has shown an end.
    super::open(bed, client, vip, pod);
    bed.wait(101);
    super::open(bed, client, vip, pod);
    assert_eq!(loads(bed), [(3, 1)].into());
}

fn in_mid_connection_only_the_hash_counts<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let mut by_hash = Vec::new();
    for flags in [0, ServiceFlags::LEAST_CONNECTIONS, ServiceFlags::ROUND_ROBIN] {
        bed.update(|rows| rows.set_flags(1, flags));
        bed.forget();
        bed.rewrite(|written| written.loads = [(0, 2000), (1, 1000)].into());
        for client in clients::<F>(8) {
            let packet = bed.data(client, vip::<F>(1));
            by_hash.push(chosen::<F>(&bed.pre(&packet), &packet));
        }
    }
    assert_eq!(by_hash[..8], by_hash[8..16]);
    assert_eq!(by_hash[..8], by_hash[16..]);
}

fn a_datagram_after_a_pause_is_no_second_connection<F: TestFamily>(bed: &mut Bed<'_, F>) {
    counted(bed);
    bed.wait(11);
    let packet = bed.data(client::<F>(), vip::<F>(2));
    bed.pre(&packet).becomes(&packet.clone().to(backend::<F>(0)));
    assert_eq!(loads(bed), [(3, 1)].into());
}
