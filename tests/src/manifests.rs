//! Kubernetes objects for the agent, written as files.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::family::{Family, Pair};
use crate::server::{DNS_PORT, ECHO_PORT, HTTP_PORT, SCTP_PORT};
use crate::topology::{self, Host};

/// A folder of manifests.
#[derive(Clone, Debug)]
pub struct Manifests {
    folder: PathBuf,
}

impl Manifests {
    /// In this folder.
    pub fn new(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Self {
            folder: folder.to_owned(),
        })
    }

    /// Where they are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes a file of documents, in one step for whoever watches the folder.
    pub fn write(&self, file: &str, documents: &[Value]) -> Result<()> {
        let text = documents
            .iter()
            .map(|document| {
                format!(
                    "{document:#}
"
                )
            })
            .collect::<Vec<_>>()
            .join(
                "---
",
            );
        // The leading dot and the other ending say that this is no manifest.
        let draft = self.folder.join(format!(".{file}.draft"));
        fs::write(&draft, text)
            .and_then(|()| fs::rename(&draft, self.folder.join(file)))
            .with_context(|| format!("cannot write {file} to {}", self.folder.display()))
    }

    /// Removes a file.
    pub fn remove(&self, file: &str) -> Result<()> {
        fs::remove_file(self.folder.join(file)).with_context(|| format!("cannot remove {file}"))
    }
}

/// The Node object of a host, without addresses of pods.
pub fn node(host: &Host) -> Value {
    node_with_pods(host, &[])
}

/// The Node object of a host whose pods get their addresses from these prefixes.
pub fn node_with_pods(host: &Host, pod_prefixes: &[String]) -> Value {
    node_of(&host.name, host.addresses, pod_prefixes)
}

/// A Node object of this name.
pub fn node_of(name: &str, addresses: Pair, pod_prefixes: &[String]) -> Value {
    let addresses = addresses
        .both()
        .map(|ip| json!({ "type": "InternalIP", "address": ip }));
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": { "name": name },
        "spec": { "podCIDR": pod_prefixes.first(), "podCIDRs": pod_prefixes },
        "status": { "addresses": addresses },
    })
}

/// One port of a service.
#[derive(Clone, Copy, Debug)]
pub struct Port {
    /// Its name, the same in Service and EndpointSlices.
    pub name: &'static str,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: &'static str,
    /// The service's port.
    pub port: u16,
    /// The pods' port.
    pub target: u16,
    /// The NodePort, if it has one.
    pub node_port: Option<u16>,
}

/// HTTP, as the usual service has it.
pub const HTTP: Port = Port {
    name: "http",
    protocol: "TCP",
    port: 80,
    target: HTTP_PORT,
    node_port: Some(30080),
};
/// DNS, as the usual service has it.
pub const DNS: Port = Port {
    name: "dns",
    protocol: "UDP",
    port: 53,
    target: DNS_PORT,
    node_port: Some(30053),
};
/// Echo over TCP, as the usual service has it.
pub const ECHO_TCP: Port = Port {
    name: "echo-tcp",
    protocol: "TCP",
    port: 7,
    target: ECHO_PORT,
    node_port: Some(30007),
};
/// Echo over UDP, as the usual service has it.
pub const ECHO_UDP: Port = Port {
    name: "echo-udp",
    protocol: "UDP",
    port: 7,
    target: ECHO_PORT,
    node_port: Some(30007),
};

/// Diameter over SCTP, which the usual service does not have.
pub const DIAMETER: Port = Port {
    name: "diameter",
    protocol: "SCTP",
    port: 3868,
    target: SCTP_PORT,
    node_port: Some(30868),
};

/// A dual-stack service of type LoadBalancer.
#[derive(Clone, Debug)]
pub struct Service {
    /// Its name, in the namespace `default`.
    pub name: &'static str,
    /// Its ClusterIPs.
    pub cluster_ip: Pair,
    /// Its load balancer's addresses.
    pub vip: Pair,
    /// Its ports.
    pub ports: Vec<Port>,
    /// Its annotations.
    pub annotations: BTreeMap<&'static str, String>,
    /// What its spec has beside or instead of the usual, by name.
    pub spec: BTreeMap<&'static str, Value>,
}

/// An endpoint to be.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// The pod's addresses.
    pub addresses: Pair,
    /// The name of its node.
    pub node: String,
    /// What it is in.
    pub condition: Condition,
}

/// What an endpoint is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Ready for new connections.
    Ready,
    /// Not ready, not terminating.
    NotReady,
    /// Still serving, about to end.
    Terminating,
}

impl Service {
    /// A service with these addresses and ports, without annotations.
    pub fn new(name: &'static str, cluster_ip: Pair, vip: Pair, ports: &[Port]) -> Self {
        Self {
            name,
            cluster_ip,
            vip,
            ports: ports.to_vec(),
            annotations: BTreeMap::new(),
            spec: BTreeMap::new(),
        }
    }

    /// With one more annotation.
    #[must_use]
    pub fn annotated(mut self, name: &'static str, value: &str) -> Self {
        self.annotations.insert(name, value.to_owned());
        self
    }

    /// With one more field of the spec, e.g. `externalTrafficPolicy`.
    #[must_use]
    pub fn with_spec(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.spec.insert(name, value.into());
        self
    }

    /// The Service object.
    pub fn object(&self) -> Value {
        let ports = self.ports.iter().map(|port| {
            let mut object = json!({
                "name": port.name, "protocol": port.protocol, "port": port.port, "targetPort": port.target,
            });
            if let Some(node_port) = port.node_port {
                object["nodePort"] = node_port.into();
            }
            object
        });
        let mut object = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": { "name": self.name, "namespace": "default", "annotations": self.annotations },
            "spec": {
                "type": "LoadBalancer",
                "ipFamilyPolicy": "RequireDualStack",
                "ipFamilies": Family::BOTH.map(Family::name),
                "clusterIP": self.cluster_ip.v4,
                "clusterIPs": self.cluster_ip.both(),
                "selector": { "app": self.name },
                "ports": ports.collect::<Vec<_>>(),
            },
            "status": { "loadBalancer": { "ingress": self.vip.both().map(|ip| json!({ "ip": ip })) } },
        });
        for (name, value) in &self.spec {
            object["spec"][name] = value.clone();
        }
        object
    }

    /// Its EndpointSlices, one for each family; endpoints are serving pods of the usual hosts, counted from 0.
    pub fn slices(&self, endpoints: &[(usize, Condition)]) -> [Value; 2] {
        let endpoints: Vec<_> = endpoints
            .iter()
            .map(|&(pod, condition)| Endpoint {
                addresses: topology::web_address(pod),
                node: topology::web_node(pod).to_owned(),
                condition,
            })
            .collect();
        self.slices_of(&endpoints)
    }

    /// Its EndpointSlices, one for each family, with any endpoints.
    pub fn slices_of(&self, endpoints: &[Endpoint]) -> [Value; 2] {
        Family::BOTH.map(|family| self.slice(family, endpoints))
    }

    fn slice(&self, family: Family, endpoints: &[Endpoint]) -> Value {
        let ports = self
            .ports
            .iter()
            .map(|port| json!({ "name": port.name, "protocol": port.protocol, "port": port.target }));
        let endpoints = endpoints.iter().map(|endpoint| endpoint.object(family));
        json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": format!("{}-{}", self.name, family.name().to_lowercase()),
                "namespace": "default",
                "labels": { "kubernetes.io/service-name": self.name },
            },
            "addressType": family.name(),
            "ports": ports.collect::<Vec<_>>(),
            "endpoints": endpoints.collect::<Vec<_>>(),
        })
    }
}

impl Endpoint {
    fn object(&self, family: Family) -> Value {
        let (ready, terminating) = match self.condition {
            Condition::Ready => (true, false),
            Condition::NotReady => (false, false),
            Condition::Terminating => (false, true),
        };
        json!({
            "addresses": [self.addresses.of(family)],
            "nodeName": self.node,
            "conditions": { "ready": ready, "serving": ready || terminating, "terminating": terminating },
        })
    }
}
