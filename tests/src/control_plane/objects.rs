//! What a kubelet, a scheduler and a cloud would say: Nodes, Pods and what they are in.

use serde_json::{Value, json};

use crate::family::Pair;

/// A Pod on a node, with one label `app`.
pub fn pod(name: &str, node: &str, app: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name, "labels": { "app": app } },
        "spec": {
            "nodeName": node,
            "automountServiceAccountToken": false,
            // Nobody looks for it: there is no kubelet.
            "containers": [{ "name": "server", "image": "none.invalid/server" }],
        },
    })
}

/// The status of a Pod that runs with these addresses.
pub fn pod_status(name: &str, addresses: Pair, is_ready: bool) -> Value {
    let [ip, _] = addresses.both();
    let ips = addresses.both().map(|ip| json!({ "ip": ip }));
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name },
        "status": {
            "phase": "Running",
            "podIP": ip,
            "podIPs": ips,
            "conditions": [{ "type": "Ready", "status": if is_ready { "True" } else { "False" } }],
        },
    })
}

/// The status of a Service whose load balancer has these addresses.
pub fn load_balancer_status(name: &str, addresses: &[std::net::IpAddr]) -> Value {
    let ingress: Vec<_> = addresses
        .iter()
        .map(|ip| json!({ "ip": ip, "ipMode": "VIP" }))
        .collect();
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": name },
        "status": { "loadBalancer": { "ingress": ingress } },
    })
}
