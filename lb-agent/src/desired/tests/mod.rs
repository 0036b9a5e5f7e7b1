//! The rules as tables. Services and slices have one port; endpoints are written as `ADDRESS[ MARKS]`, where the marks
//! are letters: `n` not ready, `t` terminating, `s` not serving, `l` on this node.

mod split;

use std::net::IpAddr;

use lb_common::Ip4;

use super::*;
use crate::model::{
    Algorithm, Conditions, Endpoint, EndpointSlice, Node, Object, ObjectName, Origin, Protocol,
    ServiceOptions, SlicePort,
};

fn service(policies: (TrafficPolicy, TrafficPolicy)) -> Service {
    let port = ServicePort {
        name: "http".into(),
        port: 80,
        node_port: Some(30_080),
        protocol: Protocol::Tcp,
    };
    Service {
        name: ObjectName::new("default", "web"),
        cluster_ips: vec![IpAddr::from([10, 96, 0, 1])],
        external_ips: vec![IpAddr::from([203, 0, 113, 9]), "2001:db8::9".parse().unwrap()],
        load_balancer_ips: vec![IpAddr::from([203, 0, 113, 10])],
        source_ranges: Vec::new(),
        ports: vec![port],
        internal_policy: policies.0,
        external_policy: policies.1,
        affinity_seconds: None,
        health_check_port: None,
        options: ServiceOptions::default(),
    }
}

fn slice(port: (&str, u16, Protocol), endpoints: &[&str]) -> EndpointSlice {
    let (name, port, protocol) = port;
    EndpointSlice {
        name: ObjectName::new("default", "web-1"),
        service: ObjectName::new("default", "web"),
        family: IpFamily::V4,
        weight: 1,
        ports: vec![SlicePort {
            name: name.into(),
            port,
            protocol,
        }],
        endpoints: endpoints.iter().map(|text| endpoint(text)).collect(),
        changed_at: None,
    }
}

fn endpoint(text: &str) -> Endpoint {
    let (address, marks) = text.split_once(' ').unwrap_or((text, ""));
    let [not_ready, terminating, not_serving, local] = ['n', 't', 's', 'l'].map(|mark| marks.contains(mark));
    Endpoint {
        address: address.parse().unwrap(),
        conditions: Conditions {
            ready: !not_ready && !terminating,
            serving: !not_serving,
            terminating,
        },
        node: local.then(|| "node-a".into()),
        pod: None,
        pod_name: None,
        hints: None,
    }
}

fn half(service: &Service, slices: &[EndpointSlice]) -> Half<V4> {
    let named = |(number, slice): (usize, &EndpointSlice)| EndpointSlice {
        name: ObjectName::new("default", &format!("web-{number}")),
        ..slice.clone()
    };
    let slices = slices.iter().enumerate().map(named);
    half_in(service, slices.map(Object::EndpointSlice), &[])
}

/// The IPv4 half of the one port of `service` in a world of these objects.
fn half_in(service: &Service, objects: impl IntoIterator<Item = Object>, own_addresses: &[&str]) -> Half<V4> {
    let mut world = World::default();
    for object in objects {
        world.apply(object, Origin::default());
    }
    let mut claims = Claims::default();
    claims.update(&service.name, claims_of(service));
    let own_addresses = own_addresses.iter().map(|ip| ip.parse().unwrap()).collect();
    let around = Surroundings {
        node_name: "node-a",
        world: &world,
        claims: &claims,
        own_addresses: &own_addresses,
        forwarding: Forwarding::Snat,
        jiffies_per_second: 250,
        ipv4: true,
        ipv6: true,
    };
    let [port] = &desired(service, around)[..] else {
        panic!("one port")
    };
    assert!(
        port.v6.frontends.is_empty(),
        "without a ClusterIP of the family there are no front ends"
    );
    port.v4.clone()
}

/// The targets, with weights where they are not 1.
fn words(targets: &[(Target<Ip4>, u32)]) -> String {
    let words: Vec<_> = targets
        .iter()
        .map(|(target, weight)| match weight {
            1 => format!("{}:{}", target.addr, target.port),
            weight => format!("{}:{}*{weight}", target.addr, target.port),
        })
        .collect();
    words.join(" ")
}

/// The names of flags, in order of their bits.
fn flag_words(flags: u32) -> String {
    let names = [
        "node-port",
        "cluster-ip",
        "local",
        "outside-drops",
        "inside-drops",
        "affinity",
        "ranges",
        "limited",
        "dsr",
        "round-robin",
        "least",
        "address",
        "reject",
        "echo",
        "from-uplink",
    ];
    let set = names
        .iter()
        .enumerate()
        .filter(|(bit, _)| flags & (1 << bit) != 0);
    set.map(|(_, name)| *name).collect::<Vec<_>>().join(" ")
}

/// The flags of each front end.
fn flags(half: &Half<V4>) -> Vec<String> {
    let words = |(key, frontend): (&ServiceKey<Ip4>, &Frontend)| {
        format!("{}:{} {}", key.addr, key.port, flag_words(frontend.flags))
    };
    half.frontends.iter().map(words).collect()
}

const BOTH: (TrafficPolicy, TrafficPolicy) = (TrafficPolicy::Cluster, TrafficPolicy::Local);
const HTTP: (&str, u16, Protocol) = ("http", 8080, Protocol::Tcp);

/// Compares where the policies Cluster and Local lead.
#[track_caller]
fn check(slices: &[EndpointSlice], cluster: &str, local: &str) {
    let half = half(&service(BOTH), slices);
    assert_eq!(
        (words(&half.cluster).as_str(), words(&half.local).as_str()),
        (cluster, local)
    );
    for (target, member) in &half.backends {
        assert_eq!(
            member.state == BackendState::Active,
            [&half.cluster, &half.local]
                .iter()
                .any(|set| set.iter().any(|(other, _)| other == target)),
            "{target:?}"
        );
        let has = |set: &[(Target<Ip4>, u32)]| set.iter().any(|(other, _)| other == target);
        assert_eq!(
            member.local_only,
            has(&half.local) && !has(&half.cluster),
            "{target:?}"
        );
    }
}

#[test]
fn ready_endpoints_get_new_flows() {
    check(
        &[slice(HTTP, &["10.0.0.2", "10.0.0.1 l", "10.0.0.3 n"])],
        "10.0.0.1:8080 10.0.0.2:8080",
        "10.0.0.1:8080",
    );
}

#[test]
fn without_ready_ones_those_that_serve_while_they_terminate_get_them() {
    check(
        &[slice(HTTP, &["10.0.0.1 t", "10.0.0.2 ts", "10.0.0.3 n"])],
        "10.0.0.1:8080",
        "",
    );
    check(
        &[slice(HTTP, &["10.0.0.1 tl", "10.0.0.2"])],
        "10.0.0.2:8080",
        "10.0.0.1:8080",
    );
    check(&[slice(HTTP, &["10.0.0.1 n", "10.0.0.2 ns"])], "", "");
}

#[test]
fn endpoints_that_do_not_serve_lose_their_datagrams_to_those_that_do() {
    let check = |endpoints: &[&str], keeping: &[u8]| {
        let half = half(&service(BOTH), &[slice(HTTP, endpoints)]);
        let kept = half
            .backends
            .iter()
            .filter(|(_, member)| BackendState::keeps_datagrams(member.state as u8));
        let kept: Vec<_> = kept.map(|(target, _)| target.addr.octets[3]).collect();
        assert_eq!(kept, keeping);
    };
    check(&["10.0.0.1", "10.0.0.2 ns", "10.0.0.3 t", "10.0.0.4 ts"], &[1, 3]);
    check(&["10.0.0.1 ns", "10.0.0.2 ts"], &[1, 2]);
}

#[test]
fn the_slice_gives_the_target_port() {
    let other = slice(("http", 9090, Protocol::Tcp), &["10.0.0.2"]);
    check(
        &[slice(HTTP, &["10.0.0.1"]), other],
        "10.0.0.1:8080 10.0.0.2:9090",
        "",
    );
    check(&[slice(("other", 8080, Protocol::Tcp), &["10.0.0.1"])], "", "");
    check(&[slice(("http", 8080, Protocol::Udp), &["10.0.0.1"])], "", "");
}

#[test]
fn of_two_entries_the_one_that_is_not_terminating_wins() {
    for slices in [["10.0.0.1", "10.0.0.1 t"], ["10.0.0.1 t", "10.0.0.1"]] {
        check(
            &slices.map(|endpoint| slice(HTTP, &[endpoint])),
            "10.0.0.1:8080",
            "",
        );
    }
    check(
        &["10.0.0.1", "10.0.0.1 l"].map(|endpoint| slice(HTTP, &[endpoint])),
        "10.0.0.1:8080",
        "10.0.0.1:8080",
    );
}

/// Compares where each front end leads clients from outside, and pods and the node itself.
#[track_caller]
fn check_policies(policies: (TrafficPolicy, TrafficPolicy), lines: [&str; 4]) {
    let half = half(&service(policies), &[]);
    let words = half.frontends.iter().map(|(key, frontend)| {
        let (outside, inside) = (frontend.outside.policy, frontend.inside.policy);
        format!("{}:{} {outside:?} {inside:?}", key.addr, key.port)
    });
    assert_eq!(words.collect::<Vec<_>>(), lines);
}

#[test]
fn the_cluster_ip_obeys_the_internal_policy_and_all_else_the_external_one_for_clients_from_outside() {
    check_policies(
        BOTH,
        [
            "0.0.0.0:30080 Local Cluster",
            "10.96.0.1:80 Cluster Cluster",
            "203.0.113.9:80 Local Cluster",
            "203.0.113.10:80 Local Cluster",
        ],
    );
    check_policies(
        (BOTH.1, BOTH.0),
        [
            "0.0.0.0:30080 Cluster Cluster",
            "10.96.0.1:80 Local Local",
            "203.0.113.9:80 Cluster Cluster",
            "203.0.113.10:80 Cluster Cluster",
        ],
    );
}

#[test]
fn where_endpoints_are_elsewhere_a_local_policy_drops() {
    let local = (TrafficPolicy::Local, TrafficPolicy::Local);
    let check = |endpoints: &[&str], cluster_ip: &str, others: &str| {
        let flags = flags(&half(&service(local), &[slice(HTTP, endpoints)]));
        assert_eq!(flags[0], format!("0.0.0.0:30080 node-port local{others}"));
        assert_eq!(flags[1], format!("10.96.0.1:80 cluster-ip{cluster_ip}"));
        assert_eq!(flags[2], format!("203.0.113.9:80 local{others}"));
    };
    let drops = (" outside-drops inside-drops", " outside-drops");
    check(&["10.0.0.1"], drops.0, drops.1);
    check(&["10.0.0.1 t"], drops.0, drops.1);
    check(&["10.0.0.1 n"], "", "");
    check(&["10.0.0.1 ts"], "", "");
    check(&["10.0.0.1", "10.0.0.2 l"], "", "");
    check(&[], "", "");
    let cluster = (TrafficPolicy::Cluster, TrafficPolicy::Cluster);
    let half = half(&service(cluster), &[slice(HTTP, &["10.0.0.1 n"])]);
    assert_eq!(flags(&half)[1..3], ["10.96.0.1:80 cluster-ip", "203.0.113.9:80 "]);
}

#[test]
fn options_become_flags_of_the_front_ends_that_they_matter_to() {
    let mut service = service((TrafficPolicy::Cluster, TrafficPolicy::Cluster));
    service.affinity_seconds = Some(60);
    service.source_ranges = vec!["192.0.2.0/24".parse().unwrap()];
    service.options = ServiceOptions {
        algorithm: Some(Algorithm::RoundRobin),
        forwarding: Some(Forwarding::Dsr),
        limit: Some(5),
        ..ServiceOptions::default()
    };
    let half = half(&service, &[]);
    let lines = [
        "0.0.0.0:30080 node-port affinity limited dsr round-robin",
        "10.96.0.1:80 cluster-ip affinity limited round-robin",
        "203.0.113.9:80 affinity limited dsr round-robin",
        "203.0.113.10:80 affinity ranges limited dsr round-robin",
    ];
    assert_eq!(flags(&half), lines);
}

#[test]
fn ranges_of_the_other_family_alone_are_none() {
    let mut service = service(BOTH);
    service.source_ranges = vec!["2001:db8::/32".parse().unwrap()];
    let half = half(&service, &[]);
    assert_eq!(half.ranges.len(), 0);
    assert_eq!(flags(&half)[3], "203.0.113.10:80 local");
}

#[test]
fn where_the_node_may_its_vips_may() {
    let node = |ip: &str| {
        Object::Node(Node {
            name: "node-a".into(),
            internal_ips: vec![ip.parse().unwrap()],
            pod_cidrs: Vec::new(),
            leaving: false,
            zone: None,
        })
    };
    let mut service = service(BOTH);
    service.source_ranges = vec!["192.0.2.0/24".parse().unwrap()];
    let ranges = |node| {
        let half = half_in(&service, [node], &[]);
        half.ranges.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(ranges(node("198.51.100.1")), ["192.0.2.0/24"]);
    assert_eq!(ranges(node("192.0.2.1")), ["192.0.2.0/24", "203.0.113.10/32"]);
}

#[test]
fn algorithms_decide_how_slots_are_laid_out() {
    let mut service = service(BOTH);
    let mut spreads = |algorithm| {
        service.options.algorithm = algorithm;
        let half = half(&service, &[]);
        let spread = |frontend: &Frontend| (frontend.outside.spread, frontend.inside.spread);
        half.frontends.values().map(spread).collect::<Vec<_>>()
    };
    let (slots, maglev) = (Spread::Slots, Spread::Maglev);
    assert_eq!(
        spreads(None),
        [(maglev, slots), (slots, slots), (maglev, slots), (maglev, slots)]
    );
    assert_eq!(spreads(Some(Algorithm::Maglev)), [(maglev, maglev); 4]);
    for algorithm in [
        Algorithm::Hash,
        Algorithm::RoundRobin,
        Algorithm::LeastConnections,
    ] {
        assert_eq!(spreads(Some(algorithm)), [(slots, slots); 4]);
    }
}

#[test]
fn addresses_of_services_are_hosts_but_for_those_of_the_node() {
    let check = |own: &[&str], expected: [&str; 4]| {
        let half = half_in(&service(BOTH), [], own);
        let flags = half
            .frontends
            .values()
            .map(|frontend| flag_words(frontend.address_flags));
        assert_eq!(flags.collect::<Vec<_>>(), expected);
    };
    let (cluster_ip, vip) = ("address reject echo", "address reject echo from-uplink");
    check(&[], ["", cluster_ip, "", vip]);
    check(&["203.0.113.10", "203.0.113.9"], ["", cluster_ip, "", ""]);
    check(&["10.96.0.1"], ["", "", "", vip]);
}

#[test]
fn endpoints_have_the_weight_of_their_slice() {
    let weighted = |weight, endpoints: &[&str]| EndpointSlice {
        weight,
        ..slice(HTTP, endpoints)
    };
    let check = |slices: &[(u32, &[&str])], cluster: &str| {
        let slices: Vec<_> = slices
            .iter()
            .map(|(weight, endpoints)| weighted(*weight, endpoints))
            .collect();
        let half = half(&service(BOTH), &slices);
        assert_eq!(words(&half.cluster), cluster);
    };
    check(
        &[(10, &["10.0.0.1"]), (4, &["10.0.0.2"])],
        "10.0.0.1:8080*5 10.0.0.2:8080*2",
    );
    check(&[(10, &["10.0.0.1", "10.0.0.2"])], "10.0.0.1:8080 10.0.0.2:8080");
    check(&[(0, &["10.0.0.1"]), (1, &["10.0.0.2"])], "10.0.0.2:8080");
    check(&[(0, &["10.0.0.1"]), (1, &["10.0.0.2 t"])], "10.0.0.2:8080");
    check(&[(0, &["10.0.0.1"])], "");
}

#[test]
fn a_set_that_no_front_end_leads_to_is_empty() {
    let mut service = service(BOTH);
    service.ports[0].node_port = None;
    service.external_ips.clear();
    service.load_balancer_ips.clear();
    let half = half(&service, &[slice(HTTP, &["10.0.0.1 l"])]);
    assert_eq!(
        (words(&half.cluster), words(&half.local)),
        ("10.0.0.1:8080".into(), String::new())
    );
}
