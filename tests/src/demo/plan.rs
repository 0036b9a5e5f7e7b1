//! What the demo asks: every address that the example manifests give to a service.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use serde_json::Value;

use crate::answer::Answer;
use crate::{dns, http};

/// How a service is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Kind {
    /// Its address in the cluster.
    ClusterIP,
    /// A port of the node.
    NodePort,
    /// Its load balancer's address.
    LoadBalancer,
}

/// What is spoken there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Talk {
    /// HTTP over TCP.
    Http,
    /// DNS over UDP.
    Dns,
}

/// One address of one service.
#[derive(Clone, Debug, Serialize)]
pub struct FrontEnd {
    /// The service's name.
    pub service: String,
    /// How it is reached.
    pub kind: Kind,
    /// What is spoken there.
    pub talk: Talk,
    /// Where.
    pub address: SocketAddr,
}

impl Talk {
    /// The words for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "TCP (HTTP)",
            Self::Dns => "UDP (DNS)",
        }
    }

    /// Asks who serves, in a flow of its own.
    pub fn ask(self, to: SocketAddr) -> Result<Answer> {
        match self {
            Self::Http => http::ask(to),
            Self::Dns => dns::ask(to),
        }
    }
}

/// Every document of a manifest.
pub(super) fn documents(file: &Path) -> Result<Vec<Value>> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    serde_saphyr::from_multiple(&text).with_context(|| format!("cannot understand {}", file.display()))
}

/// Every front end of the services in a folder, NodePorts at the addresses of the Node in it.
pub(super) fn front_ends(folder: &Path) -> Result<Vec<FrontEnd>> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<Result<_, _>>())
        .with_context(|| format!("cannot read {}", folder.display()))?;
    files.sort();
    let documents: Vec<_> = files
        .iter()
        .map(|file| documents(file))
        .collect::<Result<Vec<_>>>()?
        .into_iter()
        .flatten()
        .collect();

    let of_kind = |kind: &'static str| documents.iter().filter(move |document| document["kind"] == kind);
    let node = of_kind("Node").flat_map(|node| list(&node["status"]["addresses"]));
    let node: Vec<_> = node
        .map(|address| ip(&address["address"]))
        .collect::<Result<_>>()?;
    let services: Vec<_> = of_kind("Service")
        .map(|service| of_service(service, &node))
        .collect::<Result<_>>()?;
    Ok(services.into_iter().flatten().collect())
}

fn of_service(service: &Value, node: &[IpAddr]) -> Result<Vec<FrontEnd>> {
    let name = service["metadata"]["name"]
        .as_str()
        .context("a service has no name")?;
    let cluster = list(&service["spec"]["clusterIPs"])
        .map(ip)
        .collect::<Result<Vec<_>>>()?;
    let balancer = list(&service["status"]["loadBalancer"]["ingress"]).map(|ingress| ip(&ingress["ip"]));
    let balancer = balancer.collect::<Result<Vec<_>>>()?;
    let mut found = Vec::new();
    for port in list(&service["spec"]["ports"]) {
        let talk = match port["protocol"].as_str() {
            Some("TCP") => Talk::Http,
            Some("UDP") => Talk::Dns,
            other => bail!("the demo speaks nothing over {other:?}"),
        };
        let own = number(&port["port"])?;
        let ways = [
            (Kind::ClusterIP, &*cluster, own),
            (Kind::NodePort, node, number(&port["nodePort"])?),
            (Kind::LoadBalancer, &*balancer, own),
        ];
        for (kind, addresses, port) in ways {
            found.extend(addresses.iter().map(|&address| FrontEnd {
                service: name.to_owned(),
                kind,
                talk,
                address: SocketAddr::new(address, port),
            }));
        }
    }
    Ok(found)
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn ip(value: &Value) -> Result<IpAddr> {
    let text = value.as_str().with_context(|| format!("{value} is no address"))?;
    text.parse().with_context(|| format!("{text} is no address"))
}

fn number(value: &Value) -> Result<u16> {
    value
        .as_u64()
        .and_then(|number| number.try_into().ok())
        .with_context(|| format!("{value} is no port"))
}
