//! Kubernetes objects for the agent, written as files.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::family::{Family, Pair};
use crate::server::{DNS_PORT, ECHO_PORT, HTTP_PORT};
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

/// The Node object of a host.
pub fn node(host: &Host) -> Value {
    let addresses = host
        .addresses
        .both()
        .map(|ip| json!({ "type": "InternalIP", "address": ip }));
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": { "name": host.name },
        "status": { "addresses": addresses },
    })
}

/// One port of a service.
#[derive(Clone, Copy, Debug)]
pub struct Port {
    /// Its name, the same in Service and EndpointSlices.
    pub name: &'static str,
    /// `TCP` or `UDP`.
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
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": { "name": self.name, "namespace": "default" },
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
        })
    }

    /// Its EndpointSlices, one for each family; endpoints are serving pods, counted from 0.
    pub fn slices(&self, endpoints: &[(usize, Condition)]) -> [Value; 2] {
        Family::BOTH.map(|family| self.slice(family, endpoints))
    }

    fn slice(&self, family: Family, endpoints: &[(usize, Condition)]) -> Value {
        let ports = self
            .ports
            .iter()
            .map(|port| json!({ "name": port.name, "protocol": port.protocol, "port": port.target }));
        let endpoints = endpoints.iter().map(|&(pod, condition)| {
            endpoint(
                topology::web_address(pod).of(family),
                topology::web_node(pod),
                condition,
            )
        });
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

fn endpoint(ip: IpAddr, node: &str, condition: Condition) -> Value {
    let (ready, terminating) = match condition {
        Condition::Ready => (true, false),
        Condition::NotReady => (false, false),
        Condition::Terminating => (false, true),
    };
    json!({
        "addresses": [ip],
        "nodeName": node,
        "conditions": { "ready": ready, "serving": ready || terminating, "terminating": terminating },
    })
}
