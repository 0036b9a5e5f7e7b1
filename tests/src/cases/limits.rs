//! Limits on new connections, of a service and of each source.

use std::net::SocketAddr;

use lb_common::{Counter, DropReason, ServiceFlags};

use super::{DROPPED, cases, client, node, vip};
use crate::engine::{Bed, TestFamily, UNIT, backend, end};

cases! {
    ALL:
        a_service_takes_so_many_in_a_second,
        a_source_may_open_so_many_in_a_second,
        what_a_source_is_refused_is_not_taken_of_the_service,
        what_a_service_refuses_is_not_taken_of_the_source,
        each_service_has_its_own_limits,
        what_is_open_goes_on,
        xdp_takes_nothing_that_it_leaves_to_tc,
        a_flag_without_intervals_is_no_limit;
    TCP:
        a_packet_in_mid_connection_is_not_limited;
}

/// Connections in a second.
const RATE: u32 = 20;
/// In 1/65536 of a jiffy.
const INTERVAL: u32 = (UNIT / RATE) << 16;

fn limit<F: TestFamily>(bed: &mut Bed<'_, F>, service: u32, interval: u32, source_interval: u32) {
    bed.update(|rows| {
        rows.set_flags(service, ServiceFlags::LIMITED);
        let policy = rows.policy(service);
        (policy.interval, policy.source_interval) = (interval, source_interval);
    });
}

/// A client by number, each with another address.
fn one<F: TestFamily>(number: u32) -> SocketAddr {
    end::<F>([0, 100 + number as u8], 40_000)
}

/// A connection of the same client by number.
fn same<F: TestFamily>(number: u32) -> SocketAddr {
    end::<F>([0, 10], 41_000 + number as u16)
}

#[track_caller]
fn passes<F: TestFamily>(bed: &mut Bed<'_, F>, client: SocketAddr, service: SocketAddr) {
    let packet = bed.opening(client, service);
    bed.pre(&packet)
        .becomes(&packet.clone().to(backend::<F>(0)))
        .counts(&[Counter::FlowOpened]);
}

#[track_caller]
fn is_dropped<F: TestFamily>(bed: &mut Bed<'_, F>, client: SocketAddr, service: u8, reason: DropReason) {
    let (packet, flows) = (bed.opening(client, vip::<F>(service)), bed.flow_count());
    bed.pre(&packet)
        .dropped(reason)
        .counts(&[])
        .stats(&[(service.into(), DROPPED)]);
    assert_eq!(bed.flow_count(), flows);
}

fn a_service_takes_so_many_in_a_second<F: TestFamily>(bed: &mut Bed<'_, F>) {
    limit(bed, 2, INTERVAL, 0);
    for number in 0..RATE {
        // Through whichever front end.
        let service = if number % 2 == 0 {
            vip::<F>(2)
        } else {
            node::<F>(30_081)
        };
        passes(bed, one::<F>(number), service);
    }
    is_dropped(bed, one::<F>(RATE), 2, DropReason::ServiceLimited);
    let packet = bed.opening(one::<F>(RATE), vip::<F>(2));
    bed.xdp(&packet).dropped(DropReason::ServiceLimited);
    bed.wait(1);
    for number in RATE..2 * RATE {
        passes(bed, one::<F>(number), vip::<F>(2));
    }
    is_dropped(bed, one::<F>(2 * RATE), 2, DropReason::ServiceLimited);
    assert!(bed.written().sources.is_empty());
}

fn a_source_may_open_so_many_in_a_second<F: TestFamily>(bed: &mut Bed<'_, F>) {
    limit(bed, 2, 0, INTERVAL);
    for number in 0..RATE {
        passes(bed, same::<F>(number), vip::<F>(2));
    }
    is_dropped(bed, same::<F>(RATE), 2, DropReason::SourceLimited);
    for number in 0..3 {
        passes(bed, one::<F>(number), vip::<F>(2));
    }
    bed.wait(1);
    passes(bed, same::<F>(RATE), vip::<F>(2));
    assert!(bed.written().limits.is_empty());
}

fn what_a_source_is_refused_is_not_taken_of_the_service<F: TestFamily>(bed: &mut Bed<'_, F>) {
    // Twice as many for the service.
    limit(bed, 2, INTERVAL / 2, INTERVAL);
    for number in 0..RATE {
        passes(bed, same::<F>(number), vip::<F>(2));
    }
    for number in RATE..3 * RATE {
        is_dropped(bed, same::<F>(number), 2, DropReason::SourceLimited);
    }
    for number in 0..RATE {
        passes(bed, one::<F>(number), vip::<F>(2));
    }
    is_dropped(bed, one::<F>(RATE), 2, DropReason::ServiceLimited);
}

fn what_a_service_refuses_is_not_taken_of_the_source<F: TestFamily>(bed: &mut Bed<'_, F>) {
    limit(bed, 2, INTERVAL, INTERVAL);
    for number in 0..RATE {
        passes(bed, one::<F>(number), vip::<F>(2));
    }
    is_dropped(bed, same::<F>(0), 2, DropReason::ServiceLimited);
    assert_eq!(bed.written().sources.len(), RATE as usize);
}

fn each_service_has_its_own_limits<F: TestFamily>(bed: &mut Bed<'_, F>) {
    limit(bed, 2, INTERVAL, INTERVAL);
    limit(bed, 3, INTERVAL, INTERVAL);
    for number in 0..RATE {
        passes(bed, same::<F>(number), vip::<F>(2));
    }
    is_dropped(bed, same::<F>(RATE), 2, DropReason::SourceLimited);
    for number in 0..RATE {
        passes(bed, one::<F>(number), vip::<F>(3));
    }
    is_dropped(bed, same::<F>(RATE), 3, DropReason::ServiceLimited);
}

fn what_is_open_goes_on<F: TestFamily>(bed: &mut Bed<'_, F>) {
    limit(bed, 2, INTERVAL, INTERVAL);
    for number in 0..RATE {
        passes(bed, same::<F>(number), vip::<F>(2));
    }
    // A packet sent twice, and those that follow.
    let packet = bed.opening(same::<F>(0), vip::<F>(2));
    bed.pre(&packet)
        .becomes(&packet.clone().to(backend::<F>(0)))
        .counts(&[]);
    super::both_ways(bed, same::<F>(0), vip::<F>(2), backend::<F>(0));
    is_dropped(bed, same::<F>(RATE), 2, DropReason::SourceLimited);
}

fn xdp_takes_nothing_that_it_leaves_to_tc<F: TestFamily>(bed: &mut Bed<'_, F>) {
    limit(bed, 5, INTERVAL, INTERVAL);
    // Behind a gateway whose hardware address is not known.
    let silent = end::<F>([8, 10], 8080);
    bed.update(|rows| rows.set_backend(5, 5, silent));
    for number in 0..RATE {
        let packet = bed.opening(same::<F>(number), vip::<F>(5));
        bed.xdp(&packet).untouched().stats(&[]);
        let written = bed.written();
        assert_eq!(written.limits.len(), usize::from(number > 0));
        assert_eq!(
            bed.pre(&packet).counts.counters.get(&Counter::FlowOpened),
            Some(&1)
        );
    }
    is_dropped(bed, same::<F>(RATE), 5, DropReason::SourceLimited);
}

fn a_flag_without_intervals_is_no_limit<F: TestFamily>(bed: &mut Bed<'_, F>) {
    limit(bed, 2, 0, 0);
    for number in 0..2 * RATE {
        passes(bed, same::<F>(number), vip::<F>(2));
    }
    let written = bed.written();
    assert!(written.limits.is_empty() && written.sources.is_empty());
    super::open(bed, client::<F>(), vip::<F>(2), backend::<F>(0));
}

fn a_packet_in_mid_connection_is_not_limited<F: TestFamily>(bed: &mut Bed<'_, F>) {
    limit(bed, 2, INTERVAL, INTERVAL);
    for number in 0..RATE {
        passes(bed, same::<F>(number), vip::<F>(2));
    }
    for number in RATE..2 * RATE {
        let packet = bed.data(same::<F>(number), vip::<F>(2));
        bed.pre(&packet)
            .becomes(&packet.clone().to(backend::<F>(0)))
            .counts(&[Counter::FlowOpened, Counter::FlowAdopted]);
    }
}
