//! The rules as tables. Services and slices have one port; endpoints are written as `ADDRESS[ MARKS]`, where the marks
//! are letters: `n` not ready, `t` terminating, `s` not serving, `l` on this node.

use std::net::IpAddr;

use lb_common::Ip4;

use super::*;
use crate::model::{Conditions, Endpoint, ObjectName, Protocol, ServiceOptions, SlicePort};

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
    }
}

fn half(service: &Service, slices: &[EndpointSlice]) -> Half<V4> {
    let mut claims = Claims::default();
    claims.update(&service.name, claims_of(service));
    let around = Surroundings {
        node_name: "node-a",
        claims: &claims,
        ipv4: true,
        ipv6: true,
    };
    let [port] = &desired(service, &slices.iter(), around)[..] else {
        panic!("one port")
    };
    assert!(
        port.v6.frontends.is_empty(),
        "without a ClusterIP of the family there are no front ends"
    );
    port.v4.clone()
}

fn words(targets: &[Target<Ip4>]) -> String {
    let words: Vec<_> = targets
        .iter()
        .map(|target| format!("{}:{}", target.addr, target.port))
        .collect();
    words.join(" ")
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
            member.active,
            half.cluster.contains(target) || half.local.contains(target),
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
        let Frontend {
            flags: _,
            outside,
            inside,
        } = frontend;
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
