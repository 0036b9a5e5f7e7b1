//! Who is masqueraded, and as whom.

use std::net::SocketAddr;

use lb_common::{
    BackendState, Counter, DropReason, FlowFlags, RangeList, ServiceFlags, SettingsFlags, Stage,
};

use super::{DROPPED, cases, client, node, source, vip};
use crate::engine::{
    BRIDGE_PORT, Bed, OTHER_UPLINK, POD, TestFamily, UPLINK, Verdict, WEB, backend, end, far, other_far,
};
use crate::packet::{PacketBuilder, flag};

cases! {
    ALL:
        who_is_masqueraded,
        the_address_is_that_of_the_device,
        the_port_is_of_the_range,
        without_an_address_packets_are_dropped,
        a_range_without_ports_is_no_range,
        a_live_flow_keeps_its_port,
        a_dead_flow_loses_its_port,
        the_search_ends,
        a_flow_goes_back_to_its_own_port,
        two_services_with_one_backend,
        a_pod_that_is_its_own_backend,
        processes_of_the_node_do_not_share_a_port;
    BOTH:
        the_port_of_a_socket_is_not_taken;
    TCP:
        a_stray_packet_is_reset_and_leaves_nothing,
        in_mid_connection_the_same_port_or_none;
    UDP:
        a_datagram_finds_its_port_without_any_entry;
}

/// How a new flow is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Treatment {
    /// It keeps its source.
    Kept,
    /// It is masqueraded on its way through the stack.
    Split,
    /// It is masqueraded and sent on at once.
    SentOn,
}
use Treatment::{Kept, SentOn, Split};

/// Where a packet is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    /// A client at the uplink.
    Outside,
    /// A pod of this node, at its device.
    Pod,
    /// A pod's address at the uplink: another node's pod.
    FarPod,
}

const ALWAYS: u32 = SettingsFlags::SNAT_ALWAYS;
pub(super) const ALL: u32 = SettingsFlags::MASQUERADE_ALL;
const DETECTS: u32 = SettingsFlags::DETECTS_PODS;
/// No ClusterIP, the policy Cluster.
const CLUSTER: u32 = 0;
const CLUSTER_IP: u32 = ServiceFlags::CLUSTER_IP;
const LOCAL: u32 = ServiceFlags::OUTSIDE_LOCAL;

/// Settings, front end, where from, and the treatment for a backend on this node and for one elsewhere. For clients from
/// outside the policy Local has no backends elsewhere.
type Row = (u32, u32, From, Treatment, Option<Treatment>);

#[rustfmt::skip]
const ROWS: &[Row] = &[
    // Only when the reply would not come back.
    (0, CLUSTER, From::Outside, Kept, Some(SentOn)),
    (0, CLUSTER, From::FarPod, Kept, Some(SentOn)),
    (0, CLUSTER, From::Pod, Kept, Some(Kept)),
    (0, CLUSTER_IP, From::Outside, Kept, Some(SentOn)),
    (0, CLUSTER_IP, From::Pod, Kept, Some(Kept)),
    (0, LOCAL, From::Outside, Kept, None),
    (0, LOCAL, From::Pod, Kept, Some(Kept)),
    (DETECTS, CLUSTER, From::Outside, Kept, Some(SentOn)),
    (DETECTS, CLUSTER, From::Pod, Kept, Some(Kept)),
    (DETECTS, LOCAL, From::FarPod, Kept, Some(SentOn)),
    (ALL, CLUSTER, From::Outside, Split, Some(SentOn)),
    (ALL, CLUSTER, From::Pod, Split, Some(Split)),
    (ALL, CLUSTER_IP, From::Outside, Split, Some(SentOn)),
    (ALL, CLUSTER_IP, From::Pod, Split, Some(Split)),
    (ALL, LOCAL, From::Outside, Kept, None),
    (ALL, LOCAL, From::Pod, Kept, Some(Kept)),
    // As kube-proxy does, without a detector …
    (ALWAYS, CLUSTER, From::Outside, Split, Some(SentOn)),
    (ALWAYS, CLUSTER, From::Pod, Split, Some(Split)),
    (ALWAYS, CLUSTER_IP, From::Outside, Kept, Some(Kept)),
    (ALWAYS, CLUSTER_IP, From::Pod, Kept, Some(Kept)),
    (ALWAYS, LOCAL, From::Outside, Kept, None),
    // … where pods are clients from outside.
    (ALWAYS, LOCAL, From::Pod, Kept, None),
    (ALWAYS | ALL, CLUSTER_IP, From::Outside, Split, Some(SentOn)),
    (ALWAYS | ALL, CLUSTER_IP, From::Pod, Split, Some(Split)),
    (ALWAYS | ALL, LOCAL, From::Outside, Kept, None),
    // … and with one.
    (ALWAYS | DETECTS, CLUSTER, From::Outside, Split, Some(SentOn)),
    (ALWAYS | DETECTS, CLUSTER, From::Pod, Split, Some(Split)),
    (ALWAYS | DETECTS, CLUSTER, From::FarPod, Split, Some(SentOn)),
    (ALWAYS | DETECTS, CLUSTER_IP, From::Outside, Split, Some(SentOn)),
    (ALWAYS | DETECTS, CLUSTER_IP, From::Pod, Kept, Some(Kept)),
    (ALWAYS | DETECTS, CLUSTER_IP, From::FarPod, Kept, Some(Kept)),
    (ALWAYS | DETECTS, LOCAL, From::Outside, Kept, None),
    (ALWAYS | DETECTS, LOCAL, From::Pod, Kept, Some(Kept)),
    (ALWAYS | DETECTS, LOCAL, From::FarPod, Kept, Some(Kept)),
    (ALWAYS | DETECTS | ALL, CLUSTER_IP, From::Pod, Split, Some(Split)),
    (ALWAYS | DETECTS | ALL, LOCAL, From::Pod, Kept, Some(Kept)),
];

/// The settings' flags, and the list of pods that goes with them.
pub(super) fn set<F: TestFamily>(bed: &mut Bed<'_, F>, flags: u32) {
    bed.update(|rows| {
        rows.settings.flags = flags;
        rows.ranges.clear();
        if flags & DETECTS != 0 {
            let bits = size_of::<F::Addr>() as u32 * 8 - 8;
            rows.add_range(RangeList::PODS, end::<F>([1, 0], 0).ip(), bits);
        }
    });
}

fn who_is_masqueraded<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let protocol = bed.protocol;
    for (row, (settings, front_end, from, near, elsewhere)) in ROWS.iter().enumerate() {
        set(bed, *settings);
        let (source, device) = match from {
            From::Outside => (client::<F>(), UPLINK),
            From::Pod => (end::<F>([1, 50], 40_000), POD),
            From::FarPod => (end::<F>([1, 77], 40_000), UPLINK),
        };
        for (service, is_far, expected) in [(2, false, Some(*near)), (5, true, *elsewhere)] {
            bed.forget();
            bed.device = device;
            bed.update(|rows| {
                rows.front_end(vip::<F>(service), protocol).flags = *front_end;
                // As the agent has it.
                let all = [if is_far { 5 } else { 3 }];
                let outside: &[u32] = if is_far && *front_end == LOCAL { &[] } else { &all };
                rows.set_scopes(service.into(), outside, &all);
            });
            let opening = bed.opening(source, vip::<F>(service));
            bed.pre(&opening);
            let treatment = bed.flow(Stage::Pre, source, vip::<F>(service)).map(|entry| {
                if entry.flags & FlowFlags::BOTH != 0 {
                    SentOn
                } else if entry.flags & FlowFlags::MASQUERADE != 0 {
                    Split
                } else {
                    Kept
                }
            });
            assert_eq!(treatment, expected, "row {row}: {:?}, far: {is_far}", ROWS[row]);
        }
    }
}

/// A packet to service `service` that is sent on to `pod`; the source that it gets.
#[track_caller]
fn sent<F: TestFamily>(bed: &mut Bed<'_, F>, packet: &PacketBuilder, pod: SocketAddr) -> SocketAddr {
    let step = bed.pre(packet);
    assert_eq!(step.verdict, Verdict::Redirected, "{step:02x?}");
    let source = source(&step.view());
    let device = step.device.unwrap();
    step.leaves(device, &packet.clone().hop_limit(63).from(source).to(pod));
    source
}

/// A flow to service 5 that is sent on; the source that it gets.
#[track_caller]
fn open_far<F: TestFamily>(bed: &mut Bed<'_, F>, client: SocketAddr) -> SocketAddr {
    let opening = bed.opening(client, vip::<F>(5));
    sent(bed, &opening, far::<F>(0))
}

pub(super) fn other<F: TestFamily>(number: u16) -> SocketAddr {
    end::<F>([0, 11], 40_000 + number)
}

/// Only these ports, both inclusive.
pub(super) fn ports<F: TestFamily>(bed: &mut Bed<'_, F>, lowest: u16, highest: u16) {
    bed.update(|rows| (rows.settings.snat_port_min, rows.settings.snat_port_max) = (lowest, highest));
}

fn the_address_is_that_of_the_device<F: TestFamily>(bed: &mut Bed<'_, F>) {
    assert_eq!(open_far(bed, client::<F>()).ip(), end::<F>([2, 1], 0).ip());
    let opening = bed.opening(client::<F>(), vip::<F>(7));
    assert_eq!(
        sent(bed, &opening, other_far::<F>(0)).ip(),
        end::<F>([5, 1], 0).ip()
    );
    // One without an address of its own: the node's.
    bed.update(|rows| {
        rows.snat.remove(&OTHER_UPLINK);
        rows.family.node_addr = F::addr([8, 0, 2, 2]);
    });
    let opening = bed.opening(other::<F>(0), vip::<F>(7));
    assert_eq!(
        sent(bed, &opening, other_far::<F>(0)).ip(),
        end::<F>([2, 2], 0).ip()
    );
}

fn the_port_is_of_the_range<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let mut seen = std::collections::BTreeSet::new();
    for number in 0..40 {
        seen.insert(open_far(bed, other::<F>(number)).port());
    }
    assert!(
        seen.iter().all(|port| (50_000..=50_999).contains(port)),
        "{seen:?}"
    );
    // No two share one.
    assert_eq!(seen.len(), 40);
    ports(bed, 1, 1);
    assert_eq!(open_far(bed, client::<F>()).port(), 1);
    ports(bed, 65_535, 65_535);
    assert_eq!(open_far(bed, end::<F>([0, 12], 40_000)).port(), 65_535);
}

#[track_caller]
fn is_dropped<F: TestFamily>(bed: &mut Bed<'_, F>, client: SocketAddr, reason: DropReason) {
    let (packet, flows) = (bed.opening(client, vip::<F>(5)), bed.flow_count());
    let step = bed.pre(&packet);
    step.dropped(reason).stats(&[(5, DROPPED)]);
    assert_eq!(bed.flow_count(), flows);
}

fn without_an_address_packets_are_dropped<F: TestFamily>(bed: &mut Bed<'_, F>) {
    bed.update(|rows| {
        rows.snat.clear();
        rows.family.node_addr = F::Addr::default();
    });
    is_dropped(bed, client::<F>(), DropReason::NoSnatAddress);
    set(bed, ALL);
    let opening = bed.opening(client::<F>(), vip::<F>(2));
    bed.pre(&opening);
    bed.device = WEB;
    bed.post(&opening.to(backend::<F>(0)))
        .dropped(DropReason::NoSnatAddress);
}

fn a_range_without_ports_is_no_range<F: TestFamily>(bed: &mut Bed<'_, F>) {
    for (lowest, highest) in [(0, 0), (50_001, 50_000)] {
        ports(bed, lowest, highest);
        is_dropped(bed, client::<F>(), DropReason::NoSnatPort);
    }
}

fn a_live_flow_keeps_its_port<F: TestFamily>(bed: &mut Bed<'_, F>) {
    ports(bed, 50_000, 50_000);
    let first = open_far(bed, client::<F>());
    is_dropped(bed, other::<F>(0), DropReason::NoSnatPort);
    // With another backend the same port is another.
    bed.update(|rows| rows.set_backend(9, 7, far::<F>(1)));
    let opening = bed.opening(other::<F>(0), vip::<F>(7));
    assert_eq!(sent(bed, &opening, far::<F>(1)), first);
    // One of two ports.
    ports(bed, 50_000, 50_001);
    for number in 0..20 {
        let opening = bed.opening(other::<F>(number), vip::<F>(5));
        let step = bed.pre(&opening);
        if step.verdict == Verdict::Redirected {
            assert_eq!(source(&step.view()).port(), 50_001);
            is_dropped(bed, end::<F>([0, 12], 40_000), DropReason::NoSnatPort);
            return;
        }
    }
    panic!("a free port was never found");
}

fn a_dead_flow_loses_its_port<F: TestFamily>(bed: &mut Bed<'_, F>) {
    ports(bed, 50_000, 50_000);
    let first = open_far(bed, client::<F>());
    bed.wait(if bed.is_tcp() { 31 } else { 11 });
    assert_eq!(open_far(bed, other::<F>(0)), first);
    // Its backend's row is another's.
    bed.update(|rows| rows.backend(5).epoch += 1);
    assert_eq!(open_far(bed, other::<F>(1)), first);
    if bed.is_tcp() {
        let reset = bed.data(other::<F>(1), vip::<F>(5)).flags(flag::RST);
        sent(bed, &reset, far::<F>(0));
        assert_eq!(open_far(bed, other::<F>(2)), first);
    }
    // The way there leads elsewhere by now.
    bed.change_flow((Stage::Pre, last::<F>(bed), vip::<F>(5)), |flow| {
        flow.peer_port = lb_common::Port::new(50_007);
    });
    assert_eq!(open_far(bed, other::<F>(3)), first);
}

/// The client whose flow was opened last by [`a_dead_flow_loses_its_port`].
fn last<F: TestFamily>(bed: &Bed<'_, F>) -> SocketAddr {
    other::<F>(if bed.is_tcp() { 2 } else { 1 })
}

fn the_port_of_a_socket_is_not_taken<F: TestFamily>(bed: &mut Bed<'_, F>) {
    ports(bed, 50_000, 50_000);
    bed.listen(node::<F>(50_000));
    is_dropped(bed, client::<F>(), DropReason::NoSnatPort);
    ports(bed, 50_001, 50_001);
    open_far(bed, client::<F>());
}

fn the_search_ends<F: TestFamily>(bed: &mut Bed<'_, F>) {
    ports(bed, 50_000, 50_003);
    let mut opened = 0;
    for number in 0..40 {
        let opening = bed.opening(other::<F>(number), vip::<F>(5));
        let step = bed.pre(&opening);
        if step.verdict == Verdict::Redirected {
            opened += 1;
        } else {
            step.dropped(DropReason::NoSnatPort);
        }
    }
    assert_eq!(opened, 4);
}

fn a_flow_goes_back_to_its_own_port<F: TestFamily>(bed: &mut Bed<'_, F>) {
    ports(bed, 50_000, 50_001);
    // A flow that had to give way, and the one that it gave way to.
    let first = open_far(bed, client::<F>());
    let second = (0..20)
        .map(other::<F>)
        .find(|client| {
            let opening = bed.opening(*client, vip::<F>(5));
            let step = bed.pre(&opening);
            let had_to_give_way = step.counts.counters.contains_key(&Counter::SnatRetried);
            if !had_to_give_way {
                let taken = source(&step.view());
                bed.evict(Stage::Pre, *client, vip::<F>(5));
                bed.evict(Stage::Pre, far::<F>(0), taken);
            }
            had_to_give_way
        })
        .unwrap();
    let taken = bed
        .flow(Stage::Pre, second, vip::<F>(5))
        .unwrap()
        .peer_port
        .number();
    assert_ne!(taken, first.port());
    // That one is over by now.
    bed.change_flow((Stage::Pre, client::<F>(), vip::<F>(5)), |flow| {
        flow.last_seen = flow.last_seen.wrapping_sub(1 << 30);
    });
    bed.change_flow((Stage::Pre, far::<F>(0), first), |flow| {
        flow.last_seen = flow.last_seen.wrapping_sub(1 << 30);
    });
    bed.evict(Stage::Pre, second, vip::<F>(5));
    let packet = bed.data(second, vip::<F>(5));
    assert_eq!(sent(bed, &packet, far::<F>(0)).port(), taken);
}

fn two_services_with_one_backend<F: TestFamily>(bed: &mut Bed<'_, F>) {
    bed.update(|rows| rows.set_backend(9, 7, far::<F>(0)));
    let first = open_far(bed, client::<F>());
    let opening = bed.opening(client::<F>(), vip::<F>(7));
    let second = sent(bed, &opening, far::<F>(0));
    assert_ne!(first, second);
    for (service, source) in [(5, first), (7, second)] {
        let reply = bed.data(far::<F>(0), source);
        bed.pre(&reply).leaves(
            UPLINK,
            &reply
                .clone()
                .hop_limit(63)
                .from(vip::<F>(service))
                .to(client::<F>()),
        );
    }
}

fn a_pod_that_is_its_own_backend<F: TestFamily>(bed: &mut Bed<'_, F>) {
    for (number, device, leaves_by) in [(50, POD, POD), (60, BRIDGE_PORT, crate::engine::BRIDGE)] {
        for settings in [0, ALWAYS, ALWAYS | DETECTS] {
            bed.forget();
            let pod = end::<F>([1, number], 8080);
            bed.update(|rows| rows.set_backend(3, 2, pod));
            set(bed, settings);
            bed.device = device;
            let client = end::<F>([1, number], 40_000);
            let opening = bed.opening(client, vip::<F>(2));
            let step = bed.pre(&opening);
            let masqueraded = source(&step.view());
            assert_eq!(masqueraded.ip(), end::<F>([2, 1], 0).ip());
            step.leaves(
                leaves_by,
                &opening.clone().hop_limit(63).from(masqueraded).to(pod),
            );
            let reply = bed.data(pod, masqueraded);
            bed.pre(&reply).leaves(
                leaves_by,
                &reply.clone().hop_limit(63).from(vip::<F>(2)).to(client),
            );
            assert_eq!(bed.flow_count(), 2);
        }
    }
}

fn processes_of_the_node_do_not_share_a_port<F: TestFamily>(bed: &mut Bed<'_, F>) {
    bed.update(|rows| rows.set_backend(9, 7, far::<F>(0)));
    let process = node::<F>(40_000);
    let mut sources = Vec::new();
    for service in [5, 7] {
        let opening = bed.opening(process, vip::<F>(service));
        let step = bed.own(&opening);
        assert_eq!(step.verdict, Verdict::Redirected);
        sources.push(source(&step.view()));
    }
    // The first keeps its own.
    assert_eq!(sources[0], process);
    assert_eq!(sources[1].ip(), process.ip());
    assert!((50_000..=50_999).contains(&sources[1].port()));
    for (service, source) in [(5, sources[0]), (7, sources[1])] {
        let mut reply = bed.data(far::<F>(0), source);
        if bed.is_tcp() {
            reply = reply.flags(flag::SYN | flag::ACK);
        }
        bed.pre(&reply)
            .becomes(&reply.clone().from(vip::<F>(service)).to(process));
    }
    // The same again after eviction.
    bed.evict(Stage::Pre, process, vip::<F>(7));
    let packet = bed.data(process, vip::<F>(7));
    assert_eq!(source(&bed.own(&packet).view()), sources[1]);
}

#[track_caller]
pub(super) fn is_reset<F: TestFamily>(bed: &mut Bed<'_, F>, packet: &PacketBuilder) {
    let flows = bed.flow_count();
    // XDP leaves it to TC.
    bed.xdp(packet).untouched().stats(&[]);
    let step = bed.pre(packet);
    assert!(step.answers(bed.device).is_like(&packet.reset()), "{step:02x?}");
    assert_eq!(step.counts.counters.get(&Counter::AnsweredReset), Some(&1));
    assert_eq!(bed.flow_count(), flows);
}

fn a_stray_packet_is_reset_and_leaves_nothing<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let packet = bed.data(client::<F>(), vip::<F>(5));
    is_reset(bed, &packet);
    set(bed, ALL);
    let packet = bed.data(client::<F>(), vip::<F>(2));
    is_reset(bed, &packet);
    assert_eq!(bed.flow_count(), 0);
}

fn in_mid_connection_the_same_port_or_none<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let source = open_far(bed, client::<F>());
    let packet = bed.data(client::<F>(), vip::<F>(5));
    assert_eq!(sent(bed, &packet, far::<F>(0)), source);
    bed.evict(Stage::Pre, client::<F>(), vip::<F>(5));
    let step = bed.pre(&packet);
    assert_eq!(super::source(&step.view()), source);
    assert_eq!(step.counts.counters.get(&Counter::FlowAdopted), Some(&1));
    bed.evict(Stage::Pre, client::<F>(), vip::<F>(5));
    bed.evict(Stage::Pre, far::<F>(0), source);
    is_reset(bed, &packet);
}

fn a_datagram_finds_its_port_without_any_entry<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let source = open_far(bed, client::<F>());
    bed.evict(Stage::Pre, client::<F>(), vip::<F>(5));
    bed.evict(Stage::Pre, far::<F>(0), source);
    assert_eq!(open_far(bed, client::<F>()), source);
    // Nor when it was idle, or its backend left and came back.
    bed.wait(11);
    assert_eq!(open_far(bed, client::<F>()), source);
    bed.update(|rows| rows.set_state(5, BackendState::Removed));
    bed.update(|rows| rows.set_state(5, BackendState::Active));
    assert_eq!(open_far(bed, client::<F>()), source);
}
