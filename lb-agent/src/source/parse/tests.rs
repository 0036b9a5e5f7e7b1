use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::*;
use crate::model::{Conditions, Protocol, TrafficPolicy};

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
fn load_balancer_addresses_are_vips_of_load_balancers() {
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
    assert_eq!(service_of(value).load_balancer_ips.len(), 0);
}

#[test]
fn fields_of_services_that_cannot_be_used_are_named() {
    let ports = |ports: Value| with_spec(json!({"ports": ports}));
    let error = |value, expected| check_error("Service", value, expected);
    error(json!({"metadata": {}}), "metadata.name is missing");
    error(
        ports(json!([{"port": 0}])),
        "spec.ports[0].port: 0 is no port; use 1 to 65535",
    );
    error(
        ports(json!([{"port": 70000}])),
        "spec.ports[0].port: 70000 is no port; use 1 to 65535",
    );
    error(
        ports(json!([{"port": -1}])),
        "spec.ports[0].port: -1 is no port; use 1 to 65535",
    );
    error(
        ports(json!([{"name": "a", "port": 1}, {"name": "b", "port": 2, "nodePort": 65536}])),
        "spec.ports[1].nodePort: 65536 is no port; use 1 to 65535",
    );
    error(
        ports(json!([{"name": "a", "port": 1}, {"name": "b", "port": 1}])),
        "spec.ports[1].port: 1/tcp is there twice",
    );
    error(
        ports(json!([{"port": 1}, {"port": 2}])),
        "spec.ports[1].name: \"\" is there twice",
    );
    error(
        ports(json!([{"port": 1, "protocol": "ICMP"}])),
        "spec.ports[0].protocol: \"ICMP\" is unknown; use TCP or UDP",
    );
    error(
        ports(json!([{"port": 1, "name": "a-name-that-is-too-long"}])),
        "spec.ports[0].name: \"a-name-that-is-too-long\" is no valid name: at most 15 letters, digits, dashes and dots",
    );
    error(
        with_spec(json!({"clusterIP": "10.96.0.300"})),
        "spec.clusterIP[0]: \"10.96.0.300\" is no IP address",
    );
    error(
        with_spec(json!({"clusterIPs": ["10.96.0.1", "10.96.0.2"]})),
        "spec.clusterIPs[1]: family IPv4 is there twice",
    );
    error(
        with_spec(json!({"type": "Foo"})),
        "spec.type: \"Foo\" is unknown; use ClusterIP, NodePort, LoadBalancer or ExternalName",
    );
    error(
        with_spec(json!({"externalTrafficPolicy": "Remote"})),
        "spec.externalTrafficPolicy: \"Remote\" is unknown; use Cluster or Local",
    );
}

#[test]
fn addresses_that_can_be_nobodys_are_refused() {
    let nobodys = [
        ("0.0.0.0", "the unspecified address"),
        ("::", "the unspecified address"),
        ("127.0.0.1", "a loopback address"),
        ("127.9.9.9", "a loopback address"),
        ("::1", "a loopback address"),
        ("224.0.0.1", "a multicast address"),
        ("ff02::1", "a multicast address"),
        ("255.255.255.255", "the broadcast address"),
        ("::ffff:10.0.0.1", "an IPv4-mapped address"),
    ];
    let link_local = [
        ("169.254.1.1", "a link-local address"),
        ("fe80::1", "a link-local address"),
    ];
    let text =
        |field: &str, ip: &str, what: &str| format!("{field}: {ip} is {what}, which cannot be used here");
    for (ip, what) in nobodys.into_iter().chain(link_local) {
        let service = |spec, field| check_error("Service", with_spec(spec), &text(field, ip, what));
        service(json!({"clusterIP": ip}), "spec.clusterIP[0]");
        service(json!({"clusterIPs": [ip]}), "spec.clusterIPs[0]");
        service(json!({"externalIPs": [ip]}), "spec.externalIPs");
        let mut value = with_spec(json!({"type": "LoadBalancer"}));
        value["status"] = json!({"loadBalancer": {"ingress": [{"ip": ip}]}});
        check_error("Service", value, &text("status.loadBalancer.ingress", ip, what));
    }
    let slice = |ip: &str| {
        let mut value = with_endpoints(json!([{"addresses": [ip]}]));
        value["addressType"] = json!(if ip.contains(':') { "IPv6" } else { "IPv4" });
        value
    };
    for (ip, what) in nobodys {
        let text = text("endpoints[0].addresses[0]", ip, what);
        check_error("EndpointSlice", slice(ip), &text);
    }
    for (ip, _) in link_local {
        assert_eq!(slice_of(slice(ip)).endpoints[0].address.to_string(), ip);
    }
}

#[test]
fn sctp_ports_are_left_out() {
    let ports =
        json!([{"name": "a", "port": 1, "protocol": "SCTP"}, {"name": "b", "port": 2, "protocol": "UDP"}]);
    let value = with_spec(json!({"ports": ports}));
    assert_eq!(service_of(value.clone()).ports.len(), 1);
    check_notice(
        value,
        &["spec.ports[0].protocol: SCTP is not supported yet; this port is left out"],
    );
}

#[test]
fn source_ranges_are_those_of_load_balancers_that_can_be_read() {
    let check = |kind: &str, ranges: Value, expected: &[&str], told: &[&str]| {
        let value = with_spec(json!({"type": kind, "loadBalancerSourceRanges": ranges}));
        let found = service_of(value.clone()).source_ranges;
        let found: Vec<_> = found.iter().map(ToString::to_string).collect();
        assert_eq!(found, expected);
        check_notice(value, told);
    };
    let ranges = json!(["192.0.2.7/24", " 2001:db8::/32 ", "198.51.100.0"]);
    let bad =
        "spec.loadBalancerSourceRanges[2]: \"198.51.100.0\" is no prefix such as 10.244.0.0/16; left out";
    check(
        "LoadBalancer",
        ranges.clone(),
        &["192.0.2.0/24", "2001:db8::/32"],
        &[bad],
    );
    check("LoadBalancer", json!([]), &[], &[]);
    check("ClusterIP", ranges, &[], &[]);
    check(
        "LoadBalancer",
        json!(["all"]),
        &[],
        &[
            "spec.loadBalancerSourceRanges[0]: \"all\" is no prefix such as 10.244.0.0/16; left out",
            "spec.loadBalancerSourceRanges: none of them can be used: every source is let through",
        ],
    );
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
fn fields_of_slices_that_cannot_be_used_are_named() {
    let error = |value, expected| check_error("EndpointSlice", value, expected);
    error(
        with_endpoints(json!([{"addresses": ["10.0.0.1"]}, {"addresses": ["fd00::1"]}])),
        "endpoints[1].addresses[0]: fd00::1 is no IPv4 address",
    );
    error(
        with_endpoints(json!([{"addresses": []}])),
        "endpoints[0].addresses[0] is missing",
    );
    error(
        with_endpoints(json!([{"addresses": ["pod"]}])),
        "endpoints[0].addresses[0]: \"pod\" is no IP address",
    );
    error(
        json!({"metadata": {"name": "a"}, "addressType": "IPv4", "endpoints": []}),
        "metadata.labels[kubernetes.io/service-name] is missing",
    );
    error(
        json!({"metadata": {"name": "a"}, "addressType": "IPX", "endpoints": []}),
        "addressType: \"IPX\" is unknown; use IPv4 or IPv6",
    );
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
fn leading_zeros_are_decimal() {
    let slice = slice_of(with_endpoints(json!([{"addresses": ["010.000.0.09"]}])));
    assert_eq!(slice.endpoints[0].address.to_string(), "10.0.0.9");
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
    let value =
        json!({"metadata": {"name": "a"}, "status": {"addresses": [{"type": "InternalIP", "address": "?"}]}});
    check_error(
        "Node",
        value,
        "status.addresses[0].address: \"?\" is no IP address",
    );
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
