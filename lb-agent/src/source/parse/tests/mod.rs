mod bad_input;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::*;
use crate::model::{Conditions, Hints, Protocol, TrafficPolicy};

fn parsed(kind: &str, value: Value) -> Result<Parsed, String> {
    match kind {
        "Service" => service(&serde_json::from_value(value).unwrap()),
        "EndpointSlice" => endpoint_slice(&serde_json::from_value(value).unwrap()),
        _ => node(&serde_json::from_value(value).unwrap()),
    }
    .map_err(|error| error.to_string())
}

/// A Service with this spec beside a ClusterIP and one port; its fields win.
fn with_spec(spec: impl Into<Value>) -> Value {
    let spec = spec.into();
    let mut object = json!({
        "metadata": {"name": "web"},
        "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 80}]},
    });
    for (field, value) in spec.as_object().unwrap() {
        object["spec"][field] = value.clone();
    }
    object
}

fn with_endpoints(endpoints: impl Into<Value>) -> Value {
    let endpoints = endpoints.into();
    json!({
        "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "ports": [{"port": 8080}],
        "endpoints": endpoints,
    })
}

#[track_caller]
fn check_error(kind: &str, value: Value, expected: &str) {
    assert_eq!(parsed(kind, value).unwrap_err(), expected);
}

#[track_caller]
fn check_notice(value: Value, expected: &[&str]) {
    assert_eq!(parsed("Service", value).unwrap().notices, expected);
}

#[track_caller]
fn service_of(value: Value) -> crate::model::Service {
    match parsed("Service", value).unwrap().object {
        Some(Object::Service(service)) => service,
        other => panic!("no Service: {other:?}"),
    }
}

#[track_caller]
fn slice_of(value: Value) -> crate::model::EndpointSlice {
    match parsed("EndpointSlice", value).unwrap().object {
        Some(Object::EndpointSlice(slice)) => slice,
        other => panic!("no EndpointSlice: {other:?}"),
    }
}

#[test]
fn ports_of_every_protocol_are_taken_and_share_a_number() {
    let protocols = [
        ("TCP", Protocol::Tcp),
        ("UDP", Protocol::Udp),
        ("SCTP", Protocol::Sctp),
    ];
    let port =
        |name: &str| json!({"name": name.to_lowercase(), "port": 80, "nodePort": 30_080, "protocol": name});
    let ports = protocols.map(|(name, _)| port(name));
    let service = service_of(with_spec(json!({"type": "NodePort", "ports": ports})));
    let mut slice = with_endpoints(json!([{"addresses": ["10.0.0.1"]}]));
    slice["ports"] = json!(ports);
    let slice = slice_of(slice);
    let expected = protocols.map(|(_, protocol)| protocol);
    let found: Vec<_> = service.ports.iter().map(|port| port.protocol).collect();
    assert_eq!(found, expected);
    let found: Vec<_> = slice.ports.iter().map(|port| port.protocol).collect();
    assert_eq!(found, expected);
}

#[test]
fn absent_fields_have_kubernetes_defaults() {
    let service = service_of(with_spec(json!({})));
    assert_eq!(service.name.to_string(), "default/web");
    assert_eq!(
        (service.internal_policy, service.external_policy),
        Default::default()
    );
    assert_eq!(service.internal_policy, TrafficPolicy::Cluster);
    assert_eq!(
        (service.ports[0].protocol, service.ports[0].node_port),
        (Protocol::Tcp, None)
    );
    assert_eq!(
        service.port_name(&service.ports[0]).to_string(),
        "default/web:80/tcp"
    );

    let slice = slice_of(with_endpoints(json!([{"addresses": ["10.0.0.1", "10.0.0.2"]}])));
    let [endpoint] = &slice.endpoints[..] else {
        panic!("one endpoint")
    };
    assert_eq!(
        endpoint.conditions,
        Conditions {
            ready: true,
            serving: true,
            terminating: false
        }
    );
    assert_eq!(endpoint.address.to_string(), "10.0.0.1");
    assert_eq!(endpoint.node, None);
}

#[test]
fn services_that_are_not_ours_have_no_ports() {
    let foreign = json!({
        "metadata": {"name": "web", "labels": {"service.kubernetes.io/service-proxy-name": ""}},
        "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 80}]},
    });
    for value in [
        with_spec(json!({"clusterIP": "None"})),
        with_spec(json!({"type": "ExternalName"})),
        foreign,
    ] {
        assert_eq!(service_of(value.clone()).ports, []);
        check_notice(value, &[]);
    }
    let missing = "spec.clusterIP is missing, and nothing but an API server assigns one";
    for value in [
        with_spec(json!({"clusterIP": ""})),
        with_spec(json!({"clusterIP": null, "clusterIp": "10.96.0.1"})),
        with_spec(json!({"clusterIP": null, "clusterIPs": [""]})),
        json!({"metadata": {"name": "web"}}),
    ] {
        assert_eq!(service_of(value.clone()).ports, []);
        assert_eq!(parsed("Service", value).unwrap().lacking, Some(missing));
    }
}

#[test]
fn load_balancer_addresses_are_its_vips_whatever_the_type() {
    let ingress = json!([{"ip": "192.0.2.1"}, {"ip": "192.0.2.2", "ipMode": "VIP"}, {"ip": "192.0.2.3", "ipMode":
        "Proxy"}, {"hostname": "lb"}, {"ip": "2001:db8::1"}]);
    let mut value = with_spec(json!({"type": "LoadBalancer"}));
    value["status"] = json!({"loadBalancer": {"ingress": ingress}});
    let ips: Vec<_> = service_of(value.clone())
        .load_balancer_ips
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(ips, ["192.0.2.1", "192.0.2.2"]);
    check_notice(
        value.clone(),
        &["status.loadBalancer.ingress: 2001:db8::1 is left out, because the Service has no IPv6 ClusterIP"],
    );
    value["spec"]["type"] = json!("ClusterIP");
    assert_eq!(service_of(value).load_balancer_ips.len(), 2);
}

#[test]
fn affinity_has_a_timeout() {
    let seconds = |spec: Value| service_of(with_spec(spec)).affinity_seconds;
    assert_eq!(seconds(json!({"sessionAffinity": "None"})), None);
    assert_eq!(seconds(json!({"sessionAffinity": "ClientIP"})), Some(10_800));
    let config = json!({"clientIP": {"timeoutSeconds": 60}});
    let spec = json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": config});
    assert_eq!(seconds(spec), Some(60));
}

#[test]
fn annotations_of_services_that_are_not_ours_are_not_looked_at() {
    let mut value = with_spec(json!({"clusterIP": "None"}));
    value["metadata"]["annotations"] = json!({"sluice.dev/algorithm": "fastest"});
    check_notice(value.clone(), &[]);
    value["spec"]["clusterIP"] = json!("10.96.0.1");
    assert_eq!(parsed("Service", value).unwrap().notices.len(), 1);
}

#[test]
fn only_the_namespace_that_names_the_cluster_counts() {
    let found = |name: &str| {
        let value = json!({"metadata": {"name": name, "uid": "u"}});
        namespace(&serde_json::from_value(value).unwrap()).unwrap().object
    };
    assert_eq!(found("default"), None);
    let Some(Object::Namespace(namespace)) = found("kube-system") else {
        panic!("no Namespace")
    };
    assert_eq!(namespace.uid.as_deref(), Some("u"));
}

#[test]
fn slices_of_names_and_ports_without_number_are_left_alone() {
    let names = json!({"metadata": {"name": "a"}, "addressType": "FQDN", "endpoints": []});
    assert_eq!(parsed("EndpointSlice", names).unwrap(), Parsed::left_alone());
    let mut value = with_endpoints(json!([]));
    value["ports"] = json!([{"name": "any"}, {"name": "http", "port": 80}]);
    assert_eq!(slice_of(value).ports.len(), 1);
}

#[test]
fn hints_say_whose_clients_should_use_an_endpoint() {
    let hints = json!({"forZones": [{"name": "a"}, {"name": "b"}], "forNodes": [{"name": "node-a"}]});
    let slice = slice_of(with_endpoints(json!([
        {"addresses": ["10.0.0.1"], "hints": hints},
        {"addresses": ["10.0.0.2"]},
        {"addresses": ["10.0.0.3"], "hints": {"forZones": []}},
    ])));
    let words = |hints: &Hints| (hints.zones.join(" "), hints.nodes.join(" "));
    let said = slice.endpoints[0].hints.as_deref().map(words);
    assert_eq!(said, Some(("a b".into(), "node-a".into())));
    assert_eq!(
        [&slice.endpoints[1].hints, &slice.endpoints[2].hints],
        [&None, &None]
    );
    let zone = |labels: Value| match parsed("Node", json!({"metadata": {"name": "a", "labels": labels}}))
        .unwrap()
        .object
    {
        Some(Object::Node(node)) => node.zone,
        other => panic!("no Node: {other:?}"),
    };
    assert_eq!(
        zone(json!({"topology.kubernetes.io/zone": "a"})).as_deref(),
        Some("a")
    );
    assert_eq!(zone(json!({"topology.kubernetes.io/zone": ""})), None);
    assert_eq!(zone(json!({})), None);
}

#[test]
fn a_node_has_its_internal_addresses() {
    let addresses = json!([{"type": "InternalIP", "address": "192.0.2.1"}, {"type": "Hostname", "address": "a"},
        {"type": "InternalIP", "address": "2001:db8::1"}]);
    let value = json!({"metadata": {"name": "a"}, "status": {"addresses": addresses}});
    let Some(Object::Node(node)) = parsed("Node", value).unwrap().object else {
        panic!("no Node")
    };
    assert_eq!(node.internal_ips.len(), 2);
    let cidrs = |spec: Value| match parsed("Node", json!({"metadata": {"name": "a"}, "spec": spec}))
        .unwrap()
        .object
    {
        Some(Object::Node(node)) => node.pod_cidrs.iter().map(ToString::to_string).collect::<Vec<_>>(),
        other => panic!("no Node: {other:?}"),
    };
    assert_eq!(cidrs(json!({"podCIDR": "10.244.1.0/24"})), ["10.244.1.0/24"]);
    let both = json!({"podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24", "fd00:244:1::/64"]});
    assert_eq!(cidrs(both), ["10.244.1.0/24", "fd00:244:1::/64"]);
    let value = json!({"metadata": {"name": "a"}, "spec": {"podCIDRs": ["10.244.1.0", "10.244.1.0/24"]},
        "status": {"addresses": [{"type": "InternalIP", "address": "?"}, {"type": "InternalIP", "address": "192.0.2.1"}]}});
    let Parsed { object, notices, .. } = parsed("Node", value).unwrap();
    let told = [
        "status.addresses[0].address: \"?\" is no IP address; left out",
        "spec.podCIDRs: \"10.244.1.0\" is no prefix such as 10.244.0.0/16; left out",
    ];
    assert_eq!(notices, told);
    let Some(Object::Node(node)) = object else {
        panic!("no Node")
    };
    assert_eq!((node.internal_ips.len(), node.pod_cidrs.len()), (1, 1));
}

#[test]
fn a_health_check_port_is_of_load_balancers_with_the_policy_local() {
    let port = |kind: &str, policy: &str, port: i32| {
        let spec = json!({"type": kind, "externalTrafficPolicy": policy, "healthCheckNodePort": port});
        service_of(with_spec(spec)).health_check_port
    };
    assert_eq!(port("LoadBalancer", "Local", 30_200), Some(30_200));
    assert_eq!(port("LoadBalancer", "Local", 0), None);
    assert_eq!(port("LoadBalancer", "Cluster", 30_200), None);
    assert_eq!(port("NodePort", "Local", 30_200), None);
    let spec =
        json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 70_000});
    check_notice(
        with_spec(spec),
        &["spec.healthCheckNodePort: 70000 is no port; use 1 to 65535; left out"],
    );
}

#[test]
fn when_endpoints_changed_is_told_by_their_controller() {
    let slice = |time: &str| {
        let mut object = with_endpoints(json!([]));
        object["metadata"]["annotations"] = json!({"endpoints.kubernetes.io/last-change-trigger-time": time});
        parsed("EndpointSlice", object).unwrap()
    };
    let at = |parsed: &Parsed| match &parsed.object {
        Some(Object::EndpointSlice(slice)) => slice.changed_at,
        other => panic!("no EndpointSlice: {other:?}"),
    };
    let told = slice("2027-01-15T08:00:00.25Z");
    let expected = SystemTime::UNIX_EPOCH + Duration::from_millis(1_800_000_000_250);
    assert_eq!((at(&told), told.notices.len()), (Some(expected), 0));
    let no_time = slice("yesterday");
    assert_eq!((at(&no_time), no_time.notices.len()), (None, 1));
    assert_eq!(slice_of(with_endpoints(json!([]))).changed_at, None);
}

#[test]
fn a_node_that_is_about_to_be_removed_is_leaving() {
    let leaving = |metadata: Value, spec: Value| {
        let object = json!({"metadata": metadata, "spec": spec});
        match parsed("Node", object).unwrap().object {
            Some(Object::Node(node)) => node.leaving,
            other => panic!("no Node: {other:?}"),
        }
    };
    let taint = |key: &str| json!({"taints": [{"key": key, "effect": "NoSchedule"}]});
    assert!(!leaving(json!({"name": "a"}), json!({})));
    assert!(!leaving(json!({"name": "a"}), json!({"unschedulable": true})));
    assert!(!leaving(
        json!({"name": "a"}),
        taint("node.kubernetes.io/not-ready")
    ));
    assert!(leaving(
        json!({"name": "a"}),
        taint("ToBeDeletedByClusterAutoscaler")
    ));
    let deleted = json!({"name": "a", "deletionTimestamp": "2027-01-15T08:00:00Z"});
    assert!(leaving(deleted, json!({})));
}
