//! The objects of a large cluster, with the fields that a real one has: those that a controller writes are most of the text.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

use super::state::Resource;

/// The name of the Node that is asked from.
pub const NODE: &str = "node-0";

/// Endpoints that one EndpointSlice holds at most, as Kubernetes makes them.
const SLICE: usize = 100;
/// Nodes of the cluster; endpoints are spread over them.
const NODES: usize = 100;
const SERVICES_FROM: u32 = u32::from_be_bytes([10, 96, 0, 10]);
const PODS_FROM: u32 = u32::from_be_bytes([10, 128, 0, 0]);

/// A cluster of equal Services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// How many Services.
    pub services: usize,
    /// Endpoints of each; at most 100, which is one EndpointSlice.
    pub endpoints: usize,
}

impl Cluster {
    /// All endpoints.
    pub fn total(self) -> usize {
        self.services * self.endpoints
    }

    /// The ClusterIP of a Service.
    pub fn cluster_ip(self, service: usize) -> Ipv4Addr {
        (SERVICES_FROM + number(service)).into()
    }

    /// The text of the EndpointSlice of a Service whose first endpoint is not there when `shortened`.
    pub fn slice(self, service: usize, shortened: bool) -> String {
        debug_assert!(self.endpoints <= SLICE, "one slice a Service");
        let first = service * self.endpoints;
        let endpoints: Vec<_> = (first..first + self.endpoints)
            .skip(usize::from(shortened))
            .map(|pod| endpoint(service, pod))
            .collect();
        slice(service, &endpoints).to_string()
    }

    pub(super) fn objects(self, resource: Resource) -> Vec<String> {
        match resource {
            Resource::Services => (0..self.services)
                .map(|service| self.service(service).to_string())
                .collect(),
            Resource::EndpointSlices => (0..self.services)
                .map(|service| self.slice(service, false))
                .collect(),
            Resource::Nodes => (0..NODES).map(|node| self::node(node).to_string()).collect(),
            Resource::ServiceCidrs => vec![cidr().to_string()],
        }
    }

    fn service(self, number: usize) -> Value {
        let name = name(number);
        let ip = self.cluster_ip(number);
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": name,
                "namespace": "default",
                "uid": uid(1, number),
                "resourceVersion": "1000",
                "creationTimestamp": "2026-01-01T00:00:00Z",
                "labels": { "app": name },
                "managedFields": managed("kubectl-client-side-apply", "v1"),
            },
            "spec": {
                "type": "ClusterIP",
                "clusterIP": ip,
                "clusterIPs": [ip],
                "ipFamilies": ["IPv4"],
                "ipFamilyPolicy": "SingleStack",
                "internalTrafficPolicy": "Cluster",
                "selector": { "app": name },
                "sessionAffinity": "None",
                "ports": [{ "name": "http", "protocol": "TCP", "port": 80, "targetPort": 8080 }],
            },
            "status": { "loadBalancer": {} },
        })
    }
}

fn slice(service: usize, endpoints: &[Value]) -> Value {
    let name = name(service);
    json!({
        "addressType": "IPv4",
        "apiVersion": "discovery.k8s.io/v1",
        "endpoints": endpoints,
        "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{name}-x7k2p"),
            "generateName": format!("{name}-"),
            "namespace": "default",
            "uid": uid(2, service),
            "resourceVersion": "1000",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {
                "app": name,
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
                "kubernetes.io/service-name": name,
            },
            "managedFields": managed("kube-controller-manager", "discovery.k8s.io/v1"),
            "ownerReferences": [{
                "apiVersion": "v1",
                "blockOwnerDeletion": true,
                "controller": true,
                "kind": "Service",
                "name": name,
                "uid": uid(1, service),
            }],
        },
        "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }],
    })
}

fn endpoint(service: usize, pod: usize) -> Value {
    json!({
        "addresses": [Ipv4Addr::from(PODS_FROM + number(pod))],
        "conditions": { "ready": true, "serving": true, "terminating": false },
        "nodeName": node_name(pod % NODES),
        "targetRef": {
            "kind": "Pod",
            "name": format!("{}-{pod:08x}", name(service)),
            "namespace": "default",
            "uid": uid(3, pod),
        },
        "zone": zone(pod % NODES),
    })
}

fn node(number: usize) -> Value {
    let name = node_name(number);
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "uid": uid(4, number),
            "resourceVersion": "1000",
            "labels": { "kubernetes.io/hostname": name, "topology.kubernetes.io/zone": zone(number) },
        },
        "spec": { "podCIDR": format!("10.244.{number}.0/24"), "podCIDRs": [format!("10.244.{number}.0/24")] },
        "status": {
            "addresses": [{ "type": "InternalIP", "address": format!("192.0.2.{}", number + 1) }],
            "conditions": [{ "type": "Ready", "status": "True", "reason": "KubeletReady" }],
        },
    })
}

fn cidr() -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "ServiceCIDR",
        "metadata": { "name": "kubernetes", "uid": uid(5, 0), "resourceVersion": "1000" },
        "spec": { "cidrs": ["10.96.0.0/16"] },
    })
}

/// What server-side apply keeps of who wrote what.
fn managed(manager: &str, version: &str) -> Value {
    json!([{
        "apiVersion": version,
        "fieldsType": "FieldsV1",
        "fieldsV1": {
            "f:addressType": {}, "f:endpoints": {}, "f:ports": {},
            "f:metadata": {
                "f:generateName": {},
                "f:labels": { ".": {}, "f:app": {}, "f:kubernetes.io/service-name": {} },
                "f:ownerReferences": { ".": {}, "k:{\"uid\":\"\"}": {} },
            },
        },
        "manager": manager,
        "operation": "Update",
        "time": "2026-01-01T00:00:00Z",
    }])
}

fn name(service: usize) -> String {
    format!("service-{service:05}")
}

fn node_name(node: usize) -> String {
    format!("node-{node}")
}

fn zone(node: usize) -> String {
    format!("zone-{}", node % 3)
}

fn uid(kind: usize, number: usize) -> String {
    format!("0000000{kind}-0000-4000-8000-{number:012x}")
}

fn number(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
