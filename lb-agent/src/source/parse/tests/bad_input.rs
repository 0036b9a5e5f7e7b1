//! What of an object cannot be used, and that the rest of it is; addresses as they are written.

use serde_json::{Value, json};

use super::*;

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
        ports(json!([{"port": 1, "name": "a-name-that-is-too-long"}])),
        "spec.ports[0].name: \"a-name-that-is-too-long\" is no valid name: at most 15 letters, digits, dashes and dots",
    );
    error(
        with_spec(json!({"clusterIP": "10.96.0.300"})),
        "spec.clusterIP[0]: \"10.96.0.300\" is no IP address",
    );
}

/// Compares what is told of a Service, and that the rest of it is used: it has its first ClusterIP and port.
#[track_caller]
fn check_rest(value: Value, told: &[&str]) -> crate::model::Service {
    check_notice(value.clone(), told);
    let service = service_of(value);
    assert_eq!(service.cluster_ips[0].to_string(), "10.96.0.1");
    assert_eq!(service.ports[0].port, 80);
    service
}

#[test]
fn words_that_are_unknown_mean_what_kube_proxy_takes_them_for() {
    let check = |spec: Value, told: &str| check_rest(with_spec(spec), &[told]);
    check(
        json!({"type": "Foo"}),
        "spec.type: \"Foo\" is unknown; use ClusterIP, NodePort, LoadBalancer or ExternalName. Its addresses are served as \
         they are",
    );
    let service = check(
        json!({"externalTrafficPolicy": "Remote", "internalTrafficPolicy": "Local"}),
        "spec.externalTrafficPolicy: \"Remote\" is unknown; use Cluster or Local. It is taken for Cluster",
    );
    assert_eq!(
        (service.external_policy, service.internal_policy),
        (TrafficPolicy::Cluster, TrafficPolicy::Local)
    );
    let service = check(
        json!({"sessionAffinity": "Cookie"}),
        "spec.sessionAffinity: \"Cookie\" is unknown; use None or ClientIP. It is taken for None",
    );
    assert_eq!(service.affinity_seconds, None);
    let ports = json!([{"port": 80}, {"port": 1, "name": "a", "protocol": "ICMP"}]);
    let service = check(
        json!({"ports": ports}),
        "spec.ports[1].protocol: \"ICMP\" is unknown; use TCP, UDP or SCTP; this port is left out",
    );
    assert_eq!(service.ports.len(), 1);
}

#[test]
fn of_addresses_the_ones_that_can_be_used_are() {
    let told = [
        "spec.clusterIPs[1]: family IPv4 is there twice; left out",
        "spec.clusterIPs[2]: \"fd00::x\" is no IP address; left out",
    ];
    let service = check_rest(
        with_spec(json!({"clusterIPs": ["10.96.0.1", "10.96.0.2", "fd00::x"]})),
        &told,
    );
    assert_eq!(service.cluster_ips.len(), 1);
    let mut value = with_spec(json!({"externalIPs": ["?", "203.0.113.9", "2001:db8::9"]}));
    value["status"] = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.256"}, {"ip": "192.0.2.1"}]}});
    let told = [
        "spec.externalIPs: \"?\" is no IP address; left out",
        "spec.externalIPs: 2001:db8::9 is left out, because the Service has no IPv6 ClusterIP",
        "status.loadBalancer.ingress: \"192.0.2.256\" is no IP address; left out",
    ];
    let service = check_rest(value, &told);
    assert_eq!(
        (service.external_ips.len(), service.load_balancer_ips.len()),
        (1, 1)
    );
}

#[test]
fn a_service_may_have_no_ports_or_thousands() {
    for ports in [json!(null), json!([])] {
        assert_eq!(service_of(with_spec(json!({"ports": ports}))).ports, []);
    }
    let ports: Vec<_> = (1..=5000)
        .map(|number| json!({"name": format!("p{number}"), "port": number, "nodePort": 30_000 + number % 2700}))
        .collect();
    let value = with_spec(json!({"ports": ports}));
    check_error(
        "Service",
        value,
        "spec.ports[2700].nodePort: 30001 is there twice",
    );
    let ports: Vec<_> = (1..=5000)
        .map(|number| json!({"name": format!("p{number}"), "port": number}))
        .collect();
    assert_eq!(service_of(with_spec(json!({"ports": ports}))).ports.len(), 5000);
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
        let left_out = |field| text(field, ip, what) + "; left out";
        let value = with_spec(json!({"externalIPs": [ip]}));
        check_rest(value, &[&left_out("spec.externalIPs")]);
        let mut value = with_spec(json!({"type": "LoadBalancer"}));
        value["status"] = json!({"loadBalancer": {"ingress": [{"ip": ip}]}});
        check_rest(value, &[&left_out("status.loadBalancer.ingress")]);
    }
    let slice = |ip: &str| {
        let mut value = with_endpoints(json!([{"addresses": [ip]}]));
        value["addressType"] = json!(if ip.contains(':') { "IPv6" } else { "IPv4" });
        value
    };
    for (ip, what) in nobodys {
        let text = text("endpoints[0].addresses[0]", ip, what) + "; left out";
        let found = parsed("EndpointSlice", slice(ip)).unwrap();
        assert_eq!(found.notices, [text]);
    }
    for (ip, _) in link_local {
        assert_eq!(slice_of(slice(ip)).endpoints[0].address.to_string(), ip);
    }
}

#[test]
fn source_ranges_are_those_that_can_be_read() {
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
    check("ClusterIP", ranges, &["192.0.2.0/24", "2001:db8::/32"], &[bad]);
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
fn endpoints_and_ports_of_slices_that_cannot_be_used_are_left_out() {
    let mut value = with_endpoints(
        json!([{"addresses": ["10.0.0.1"]}, {"addresses": ["fd00::1"]}, {"addresses": []},
        {"addresses": ["pod"]}, {"addresses": ["::ffff:10.0.0.2"]}]),
    );
    value["ports"] = json!([{"port": 8080}, {"name": "a", "port": 0}, {"name": "b", "port": 65536},
        {"name": "c", "port": 1, "protocol": "ICMP"}, {"name": "d", "port": 1, "protocol": "sctp"}]);
    let Parsed { object, notices, .. } = parsed("EndpointSlice", value).unwrap();
    let Some(Object::EndpointSlice(slice)) = object else {
        panic!("no EndpointSlice")
    };
    let told = [
        "ports[2].port: 65536 is no port; use 1 to 65535; left out",
        "ports[3].protocol: \"ICMP\" is unknown; use TCP, UDP or SCTP; this port is left out",
        "ports[4].protocol: \"sctp\" is unknown; use TCP, UDP or SCTP; this port is left out",
        "endpoints[1].addresses[0]: fd00::1 is no IPv4 address; left out",
        "endpoints[2].addresses[0] is missing; left out",
        "endpoints[3].addresses[0]: \"pod\" is no IP address; left out",
    ];
    assert_eq!(notices, told);
    let addresses: Vec<_> = slice
        .endpoints
        .iter()
        .map(|endpoint| endpoint.address.to_string())
        .collect();
    assert_eq!(addresses, ["10.0.0.1", "10.0.0.2"]);
    assert_eq!(slice.ports.len(), 1);
}

#[test]
fn slices_that_cannot_be_used_are_named() {
    let error = |value, expected| check_error("EndpointSlice", value, expected);
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
fn leading_zeros_are_decimal() {
    let slice = slice_of(with_endpoints(json!([{"addresses": ["010.000.0.09"]}])));
    assert_eq!(slice.endpoints[0].address.to_string(), "10.0.0.9");
    let spec = json!({"clusterIP": "010.096.0.01", "externalIPs": ["192.0.02.1"],
        "loadBalancerSourceRanges": ["203.0.113.000/025", "::ffff:192.0.2.0/120"]});
    let service = service_of(with_spec(spec));
    assert_eq!(service.cluster_ips[0].to_string(), "10.96.0.1");
    assert_eq!(service.external_ips[0].to_string(), "192.0.2.1");
    let ranges: Vec<_> = service.source_ranges.iter().map(ToString::to_string).collect();
    assert_eq!(ranges, ["203.0.113.0/25", "192.0.2.0/24"]);
}

#[test]
fn an_ipv4_mapped_address_is_an_ipv4_one() {
    let service = service_of(with_spec(
        json!({"clusterIP": "::ffff:10.96.0.1", "externalIPs": ["::ffff:192.0.2.1"]}),
    ));
    assert_eq!(service.cluster_ips[0].to_string(), "10.96.0.1");
    assert_eq!(service.external_ips[0].to_string(), "192.0.2.1");
}
