//! Processes of the node itself: their packets are met where they leave, the replies where they arrive.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use lb_common::addr::Address as _;
use lb_common::{
    Counter, DeviceRole, DropReason, FlowFlags, NodeAddress, ServiceFlags, SettingsFlags, Stage,
};
use lb_ebpf::testkit::Program;

use super::{cases, node, stranger, vip};
use crate::engine::{
    Bed, GATEWAY_MAC, LOOPBACK, MAC, OTHER_MAC, OTHER_UPLINK, POD_MAC, TestFamily, UPLINK, WEB, backend, end,
    far, other_far,
};
use crate::packet::{PacketBuilder, flag};

cases! {
    ALL:
        a_near_backend_and_its_reply,
        a_far_backend_and_its_reply,
        xdp_leaves_replies_to_the_stack,
        a_node_port_of_its_own_is_met_at_loopback,
        localhost_is_met_at_loopback,
        localhost_is_nobodys_but_the_nodes,
        a_server_of_the_node_is_reached_by_loopback,
        a_server_of_the_node_answers_from_where_it_was_asked,
        devices_without_link_layer,
        the_policy_of_clients_outside_does_not_count,
        what_is_for_no_service_is_left_alone,
        packets_that_are_not_its_own_are_left_alone,
        replies_come_in_where_the_last_request_left,
        a_connection_straight_to_the_pod_gets_another_port,
        a_dead_way_back_is_deleted,
        two_services_of_one_pod_get_two_ports,
        it_is_masqueraded_when_asked_for,
        a_stranger_to_the_address_sees_the_devices;
    UDP:
        a_connected_socket_keeps_its_port,
        answers_to_a_connected_socket_are_no_requests;
    TCP:
        a_listening_port_is_not_taken;
}

/// The process.
fn process<F: TestFamily>() -> SocketAddr {
    node::<F>(40_000)
}

/// An answer of the backend, as it arrives.
fn answer<F: TestFamily>(bed: &Bed<'_, F>, backend: SocketAddr, process: SocketAddr) -> PacketBuilder {
    let answer = bed.data(backend, process).macs(MAC, POD_MAC);
    if bed.is_tcp() {
        answer.flags(flag::SYN | flag::ACK)
    } else {
        answer
    }
}

/// The process as the backend sees it: a masqueraded one.
#[track_caller]
fn masqueraded<F: TestFamily>(bed: &mut Bed<'_, F>, process: SocketAddr, service: SocketAddr) -> SocketAddr {
    let entry = bed.flow(Stage::Pre, process, service).unwrap();
    assert!((50_000..=50_999).contains(&entry.peer_port.number()), "{entry:?}");
    SocketAddr::new(entry.peer_addr.ip(), entry.peer_port.number())
}

fn localhost<F: TestFamily>(port: u16) -> SocketAddr {
    let ip: IpAddr = if F::SUFFIX == '4' {
        Ipv4Addr::LOCALHOST.into()
    } else {
        Ipv6Addr::LOCALHOST.into()
    };
    SocketAddr::new(ip, port)
}

/// A packet that comes in by loopback.
fn by_loopback(packet: &PacketBuilder) -> PacketBuilder {
    packet.clone().macs([0; 6], POD_MAC)
}

fn a_near_backend_and_its_reply<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (process, service, pod) = (process::<F>(), vip::<F>(2), backend::<F>(0));
    let opening = bed.opening(process, service);
    // As it was sent, it has come no hop further.
    bed.own(&opening).leaves(WEB, &opening.clone().to(pod)).counts(&[
        Counter::FlowOpened,
        Counter::HopLooked,
        Counter::TcSent,
    ]);
    let entry = bed.flow(Stage::Pre, process, service).unwrap();
    assert_eq!(entry.flags, FlowFlags::BOTH | FlowFlags::NODE);
    assert_eq!(entry.arrival, UPLINK);
    // The kernel expects the service there.
    bed.device = WEB;
    let reply = answer(bed, pod, process);
    bed.pre(&reply)
        .leaves(UPLINK, &reply.clone().from(service))
        .counts(&[]);
    bed.device = UPLINK;
    let request = bed.data(process, service);
    bed.own(&request)
        .leaves(WEB, &request.clone().to(pod))
        .counts(&[Counter::TcSent]);
    assert_eq!(bed.flow_count(), 2);
}

fn a_far_backend_and_its_reply<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (process, service, pod) = (process::<F>(), vip::<F>(5), far::<F>(0));
    let opening = bed.opening(process, service);
    bed.own(&opening)
        .leaves(UPLINK, &opening.clone().to(pod))
        .counts(&[Counter::FlowOpened, Counter::HopLooked, Counter::TcSent]);
    let reply = answer(bed, pod, process);
    bed.pre(&reply).becomes(&reply.clone().from(service)).counts(&[]);
}

fn xdp_leaves_replies_to_the_stack<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (process, service, pod) = (process::<F>(), vip::<F>(5), far::<F>(0));
    bed.own(&bed.opening(process, service));
    let reply = answer(bed, pod, process);
    bed.xdp(&reply)
        .untouched()
        .counts(&[Counter::XdpPassed])
        .stats(&[]);
    bed.pre(&reply).becomes(&reply.clone().from(service));
}

fn a_node_port_of_its_own_is_met_at_loopback<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (process, service, pod) = (process::<F>(), node::<F>(30_081), backend::<F>(0));
    bed.device = LOOPBACK;
    let opening = bed.opening(process, service);
    bed.own(&opening).leaves(WEB, &opening.clone().to(pod));
    bed.device = WEB;
    let reply = answer(bed, pod, process);
    bed.pre(&reply)
        .leaves(LOOPBACK, &by_loopback(&reply).from(service));
}

fn localhost_is_met_at_loopback<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (process, service) = (localhost::<F>(40_000), localhost::<F>(30_081));
    allow_localhost(bed);
    bed.device = LOOPBACK;
    let opening = bed.opening(process, service);
    let step = bed.own(&opening);
    let source = masqueraded(bed, process, service);
    assert_eq!(source.ip(), node::<F>(0).ip());
    step.leaves(WEB, &opening.clone().from(source).to(backend::<F>(0)))
        .counts(&[
            Counter::FlowOpened,
            Counter::HopLooked,
            Counter::SnatOpened,
            Counter::TcSent,
        ]);
    bed.device = WEB;
    let reply = answer(bed, backend::<F>(0), source);
    bed.pre(&reply)
        .leaves(LOOPBACK, &by_loopback(&reply).from(service).to(process));
}

fn allow_localhost<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let addr = F::Addr::from_ip(localhost::<F>(0).ip()).unwrap();
    bed.update(|rows| _ = rows.node_addresses.insert(addr, NodeAddress { node_ports: 1 }));
}

fn localhost_is_nobodys_but_the_nodes<F: TestFamily>(bed: &mut Bed<'_, F>) {
    allow_localhost(bed);
    for source in [end::<F>([0, 10], 40_000), localhost::<F>(40_000)] {
        let opening = bed.opening(source, localhost::<F>(30_081));
        bed.pre(&opening).untouched().stats(&[]);
        bed.xdp(&opening).untouched().stats(&[]);
    }
    assert_eq!(bed.flow_count(), 0);
}

/// Makes a server of the node's own the backend of service 2.
fn serve<F: TestFamily>(bed: &mut Bed<'_, F>) -> SocketAddr {
    let server = node::<F>(8080);
    bed.update(|rows| rows.set_backend(3, 2, server));
    server
}

fn a_server_of_the_node_is_reached_by_loopback<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (process, server) = (process::<F>(), serve(bed));
    for (device, service) in [(UPLINK, vip::<F>(2)), (LOOPBACK, node::<F>(30_081))] {
        bed.device = device;
        let opening = bed.opening(process, service);
        bed.own(&opening)
            .leaves(LOOPBACK, &opening.clone().to(server).macs([0; 6], GATEWAY_MAC));
        bed.device = LOOPBACK;
        let reply = answer(bed, server, process);
        let mac = if device == LOOPBACK { [0; 6] } else { MAC };
        bed.own(&reply)
            .leaves(device, &reply.clone().from(service).macs(mac, POD_MAC))
            .counts(&[]);
        bed.rewrite(|written| written.flows.clear());
    }
}

fn a_server_of_the_node_answers_from_where_it_was_asked<F: TestFamily>(bed: &mut Bed<'_, F>) {
    // It is asked by another address of the node, and would answer from that.
    let (process, service, server) = (end::<F>([5, 1], 40_000), vip::<F>(2), serve(bed));
    bed.device = OTHER_UPLINK;
    let opening = bed.opening(process, service);
    let step = bed.own(&opening);
    let source = masqueraded(bed, process, service);
    assert_eq!(source.ip(), server.ip());
    step.leaves(
        LOOPBACK,
        &opening.clone().from(source).to(server).macs([0; 6], GATEWAY_MAC),
    );
}

fn devices_without_link_layer<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (process, service, pod) = (process::<F>(), vip::<F>(2), backend::<F>(0));
    let opening = bed.opening(process, service);
    bed.own(&opening).leaves(WEB, &opening.clone().to(pod));
    bed.device = WEB;
    let reply = answer(bed, pod, process);
    bed.run(Program::PreL3, &reply.clone().without_link().build())
        .leaves(UPLINK, &reply.clone().from(service).macs(MAC, [0; 6]));
}

fn the_policy_of_clients_outside_does_not_count<F: TestFamily>(bed: &mut Bed<'_, F>) {
    bed.update(|rows| {
        rows.set_scopes(5, &[], &[5]);
        rows.set_flags(5, ServiceFlags::OUTSIDE_LOCAL | ServiceFlags::OUTSIDE_DROPS);
    });
    let opening = bed.opening(process::<F>(), vip::<F>(5));
    bed.pre(&opening).dropped(DropReason::NoLocalBackend);
    bed.own(&opening).leaves(UPLINK, &opening.clone().to(far::<F>(0)));
}

fn what_is_for_no_service_is_left_alone<F: TestFamily>(bed: &mut Bed<'_, F>) {
    for to in [stranger::<F>(), backend::<F>(0), node::<F>(8080)] {
        for packet in [bed.opening(process::<F>(), to), bed.data(process::<F>(), to)] {
            bed.own(&packet).untouched().counts(&[]).stats(&[]);
        }
    }
    assert_eq!(bed.flow_count(), 0);
}

fn packets_that_are_not_its_own_are_left_alone<F: TestFamily>(bed: &mut Bed<'_, F>) {
    bed.post(&bed.opening(process::<F>(), vip::<F>(2)))
        .untouched()
        .counts(&[])
        .stats(&[]);
    assert_eq!(bed.flow_count(), 0);
}

fn replies_come_in_where_the_last_request_left<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (process, service, pod) = (process::<F>(), vip::<F>(2), backend::<F>(0));
    bed.own(&bed.opening(process, service));
    bed.device = OTHER_UPLINK;
    let request = bed.data(process, service);
    bed.own(&request).leaves(WEB, &request.clone().to(pod));
    bed.device = WEB;
    let reply = bed.data(pod, process).macs(MAC, POD_MAC);
    bed.pre(&reply).leaves(
        OTHER_UPLINK,
        &reply.clone().from(service).macs(OTHER_MAC, POD_MAC),
    );
    assert_eq!(bed.flow_count(), 2);
}

fn a_connection_straight_to_the_pod_gets_another_port<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (process, service, pod) = (process::<F>(), vip::<F>(2), backend::<F>(0));
    bed.own(&bed.opening(process, service));
    bed.device = WEB;
    bed.pre(&answer(bed, pod, process));
    let opening = bed.opening(process, pod);
    let step = bed.own(&opening);
    let source = masqueraded(bed, process, pod);
    assert_eq!(source.ip(), process.ip());
    step.leaves(WEB, &opening.clone().from(source));
    let reply = answer(bed, pod, source);
    bed.pre(&reply).becomes(&reply.clone().to(process));
    // The service's own replies are what they were.
    let reply = answer(bed, pod, process);
    bed.pre(&reply).leaves(UPLINK, &reply.clone().from(service));
}

fn a_dead_way_back_is_deleted<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (process, pod) = (process::<F>(), backend::<F>(0));
    bed.own(&bed.opening(process, vip::<F>(2)));
    bed.wait(31);
    bed.device = WEB;
    bed.own(&bed.opening(process, pod))
        .untouched()
        .counts(&[Counter::DeadReverseDeleted]);
    assert_eq!(bed.flow_count(), 0);
    bed.pre(&answer(bed, pod, process)).untouched();
}

fn two_services_of_one_pod_get_two_ports<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (process, pod) = (process::<F>(), backend::<F>(0));
    bed.own(&bed.opening(process, vip::<F>(2)));
    let opening = bed.opening(process, vip::<F>(3));
    let step = bed.own(&opening);
    let source = masqueraded(bed, process, vip::<F>(3));
    step.leaves(WEB, &opening.clone().from(source).to(pod));
    bed.device = WEB;
    for (source, service) in [(process, vip::<F>(2)), (source, vip::<F>(3))] {
        let reply = answer(bed, pod, source);
        bed.pre(&reply)
            .leaves(UPLINK, &reply.clone().from(service).to(process));
    }
}

fn it_is_masqueraded_when_asked_for<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (process, service) = (process::<F>(), vip::<F>(2));
    let always = SettingsFlags::SNAT_ALWAYS;
    let detects = SettingsFlags::DETECTS_PODS;
    let all = SettingsFlags::MASQUERADE_ALL;
    let (cluster_ip, local) = (ServiceFlags::CLUSTER_IP, ServiceFlags::OUTSIDE_LOCAL);
    for (settings, flags, expected) in [
        (0, 0, false),
        (all, 0, true),
        (always, 0, true),
        (always, local, true),
        (always, cluster_ip, false),
        (always | detects, cluster_ip, true),
        (always | all, cluster_ip, true),
    ] {
        let protocol = bed.protocol;
        bed.update(|rows| {
            rows.settings.flags = settings;
            rows.front_end(service, protocol).flags = flags;
        });
        let opening = bed.opening(process, service);
        let step = bed.own(&opening);
        let source = if expected {
            masqueraded(bed, process, service)
        } else {
            process
        };
        step.leaves(WEB, &opening.clone().from(source).to(backend::<F>(0)));
        bed.rewrite(|written| written.flows.clear());
    }
}

fn a_stranger_to_the_address_sees_the_devices<F: TestFamily>(bed: &mut Bed<'_, F>) {
    // It has the address of one uplink, or of none, and leaves by another.
    let service = vip::<F>(7);
    for (process, device) in [(process::<F>(), UPLINK), (process::<F>(), LOOPBACK)] {
        bed.device = device;
        let opening = bed.opening(process, service);
        let step = bed.own(&opening);
        let source = masqueraded(bed, process, service);
        assert_eq!(source.ip(), end::<F>([5, 1], 0).ip());
        step.leaves(OTHER_UPLINK, &opening.clone().from(source).to(other_far::<F>(0)));
        bed.rewrite(|written| written.flows.clear());
    }
    // So it does in front of a tunnel.
    bed.device = UPLINK;
    bed.update(|rows| {
        rows.devices.get_mut(&WEB).unwrap().role = DeviceRole::Tunnel as u8;
        rows.snat.insert(WEB, F::addr([8, 0, 1, 1]));
    });
    let process = process::<F>();
    bed.own(&bed.opening(process, vip::<F>(2)));
    let source = masqueraded(bed, process, vip::<F>(2));
    assert_eq!(source.ip(), end::<F>([1, 1], 0).ip());
}

fn a_connected_socket_keeps_its_port<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (process, service, pod) = (process::<F>(), vip::<F>(2), backend::<F>(0));
    bed.connect(process, pod);
    let opening = bed.opening(process, service);
    let step = bed.own(&opening);
    let source = masqueraded(bed, process, service);
    step.leaves(WEB, &opening.clone().from(source).to(pod));
    bed.device = WEB;
    bed.pre(&bed.data(pod, process)).untouched();
}

fn answers_to_a_connected_socket_are_no_requests<F: TestFamily>(bed: &mut Bed<'_, F>) {
    // The client has a port that is a NodePort, too.
    let (server, client) = (node::<F>(53), node::<F>(30_081));
    bed.connect(client, server);
    bed.device = LOOPBACK;
    bed.own(&bed.data(server, client))
        .untouched()
        .counts(&[Counter::NotOpening]);
    assert_eq!(bed.flow_count(), 0);
}

fn a_listening_port_is_not_taken<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (process, service) = (process::<F>(), vip::<F>(2));
    bed.listen(process);
    let opening = bed.opening(process, service);
    let step = bed.own(&opening);
    let source = masqueraded(bed, process, service);
    step.leaves(WEB, &opening.clone().from(source).to(backend::<F>(0)));
}
