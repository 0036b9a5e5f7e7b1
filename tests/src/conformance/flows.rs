//! A file of flows: scenarios of objects, and what becomes of packets among them.
//!
//! The data says itself what its fields mean (`meta.schema`). A field that is not known here is an error: what is not
//! understood must not pass.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, bail};
use lb_agent::model::IpPrefix;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A file; beside the scenarios it may hold any description.
#[derive(Clone, Debug, Deserialize)]
pub struct Flows {
    /// Read one by one, so that one which cannot be read does not hide the others.
    pub scenarios: Vec<Value>,
}

/// Objects, a node, and packets.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "where a scenario comes from is for people")]
pub(super) struct Scenario {
    /// What people call it.
    pub name: String,
    origin: Option<String>,
    source: Option<String>,
    line: Option<u32>,
    note: Option<String>,
    /// The node and the settings of the proxy.
    pub config: Config,
    /// Services as the API has them.
    #[serde(default)]
    pub services: Vec<Value>,
    /// EndpointSlices as the API has them.
    #[serde(default)]
    pub endpointslices: Vec<Value>,
    /// The packets, each the first of a connection.
    pub packets: Vec<Packet>,
}

/// The node and the settings of the proxy.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[expect(
    dead_code,
    reason = "the mark is kube-proxy's own, and what a family has is told by its addresses"
)]
pub(super) struct Config {
    /// Whose table it is.
    pub backend: Backend,
    ip_family: Option<String>,
    /// The name of the node.
    #[serde(default)]
    pub node_name: String,
    /// The addresses of the node's devices.
    #[serde(default, rename = "nodeIPs")]
    pub node_ips: Vec<IpAddr>,
    /// The addresses of its loopback device.
    #[serde(default, rename = "loopbackIPs")]
    pub loopback_ips: Vec<IpAddr>,
    /// Its primary address.
    #[serde(rename = "nodeIP")]
    pub node_ip: Option<IpAddr>,
    /// How pods are told from others.
    pub local_detector: Option<LocalDetector>,
    #[serde(rename = "clusterCIDR")]
    cluster_cidr: Option<Value>,
    masquerade_mark: Option<String>,
    /// The flag of this name.
    #[serde(default)]
    pub masquerade_all: bool,
    /// Where NodePorts listen; none: everywhere but at localhost.
    pub node_port_addresses: Option<Vec<String>>,
    /// Whether they listen at localhost.
    #[serde(default)]
    pub localhost_node_ports: bool,
    /// The prefixes that the cluster's services get their addresses from.
    #[serde(rename = "serviceCIDRs")]
    pub service_cidrs: Option<Vec<String>>,
    /// The zone of the node.
    pub node_zone: Option<String>,
    /// Whether kube-proxy looks at hints about nodes; the gate is locked since Kubernetes 1.35.
    pub prefer_same_traffic_distribution: Option<bool>,
}

/// A mode of kube-proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Backend {
    /// All of them.
    Any,
    /// That of iptables.
    Iptables,
    /// That of nftables, which is the one that Sluice follows.
    Nftables,
}

/// How pods are told from others.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LocalDetector {
    mode: String,
    cidr: Option<Value>,
}

/// How pods are told from others, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Pods {
    /// Not at all.
    Unknown,
    /// By prefixes that a flag names.
    Cluster(Vec<IpPrefix>),
    /// By the prefixes of the Node object.
    Node(Vec<IpPrefix>),
}

/// A packet and what becomes of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Packet {
    /// What people call it.
    pub name: String,
    /// Its protocol.
    pub proto: Protocol,
    /// Its source; the port may be any.
    pub src: IpAddr,
    /// Its destination.
    pub dst: IpAddr,
    /// Its destination port.
    pub dport: u16,
    /// What becomes of it.
    pub expect: Expectation,
}

/// A protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// What becomes of a packet.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Expectation {
    /// Where it goes.
    pub backends: Fate,
    /// Whether its source becomes the node's.
    #[serde(default)]
    pub masquerade: bool,
}

/// Where a packet goes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(
    untagged,
    expecting = "a list of endpoints, \"reject\", \"drop\", \"none\" or \"accept\""
)]
pub(super) enum Fate {
    /// To one of these, whichever.
    Backends(Vec<SocketAddr>),
    /// Elsewhere.
    Word(Word),
}

/// Where a packet goes that goes to no endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Word {
    /// Its sender is told so.
    Reject,
    /// Nowhere.
    Drop,
    /// Where it would go without the proxy.
    None,
    /// To the node itself.
    Accept,
}

impl Flows {
    /// From the text of a file.
    pub fn parse(text: &str) -> Result<Self> {
        serde_json::from_str(text).context("no file of flows: it must be an object with a list `scenarios`")
    }
}

impl Scenario {
    /// From a value of [`Flows::scenarios`].
    pub(super) fn parse(value: &Value) -> Result<Self> {
        Ok(serde_path_to_error::deserialize(value)?)
    }

    /// The nodes of every endpoint's address.
    pub(super) fn endpoints(&self) -> BTreeMap<IpAddr, Option<&str>> {
        let endpoints = self
            .endpointslices
            .iter()
            .filter_map(|slice| slice["endpoints"].as_array())
            .flatten();
        let place = |endpoint| {
            let address = first_address(endpoint)?;
            Some((address, endpoint["nodeName"].as_str()))
        };
        endpoints.filter_map(place).collect()
    }

    /// Every ClusterIP.
    pub(super) fn cluster_ips(&self) -> Vec<IpAddr> {
        let specs = self.services.iter().map(|service| &service["spec"]);
        let texts = specs.flat_map(|spec| {
            let list = spec["clusterIPs"].as_array().into_iter().flatten();
            list.chain([&spec["clusterIP"]]).filter_map(Value::as_str)
        });
        texts.filter_map(written).collect()
    }

    /// Whether any Service has session affinity.
    pub(super) fn has_affinity(&self) -> bool {
        let mut services = self.services.iter();
        services.any(|service| service["spec"]["sessionAffinity"] == "ClientIP")
    }
}

fn first_address(endpoint: &Value) -> Option<IpAddr> {
    written(endpoint["addresses"].get(0)?.as_str()?)
}

impl Config {
    /// How pods are told from others.
    pub(super) fn pods(&self) -> Result<Pods> {
        let Some(LocalDetector { mode, cidr }) = &self.local_detector else {
            return Ok(Pods::Unknown);
        };
        let cidrs = || {
            let texts = match cidr {
                Some(Value::String(text)) => text.split(',').map(str::to_owned).collect(),
                Some(Value::Array(texts)) => texts
                    .iter()
                    .filter_map(|text| Some(text.as_str()?.to_owned()))
                    .collect(),
                _ => Vec::new(),
            };
            prefixes("localDetector.cidr", &texts)
        };
        match mode.as_str() {
            "none" => Ok(Pods::Unknown),
            "ClusterCIDR" => Ok(Pods::Cluster(cidrs()?)),
            "NodeCIDR" => Ok(Pods::Node(cidrs()?)),
            other => bail!(
                "localDetector.mode \"{other}\" is unknown; use none, ClusterCIDR or NodeCIDR. Packets here do not say by \
                 which device they come, so pods cannot be told by that"
            ),
        }
    }
}

/// An address in any way that Kubernetes reads: leading zeros are decimal, and IPv4-mapped addresses are IPv4 ones.
pub(super) fn written(text: &str) -> Option<IpAddr> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(ip.to_canonical());
    }
    let octets: Vec<u8> = text
        .split('.')
        .map(|octet| octet.parse().ok())
        .collect::<Option<_>>()?;
    <[u8; 4]>::try_from(octets).ok().map(IpAddr::from)
}

/// Prefixes of a field.
pub(super) fn prefixes(field: &str, texts: &[String]) -> Result<Vec<IpPrefix>> {
    let parse = |text: &String| text.parse().with_context(|| format!("{field}: {text}"));
    texts.iter().map(parse).collect()
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}

impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            proto,
            src,
            dst,
            dport,
            ..
        } = self;
        write!(f, "{proto} {src} to {}", SocketAddr::new(*dst, *dport))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn error(value: &Value) -> String {
        format!("{:#}", Scenario::parse(value).unwrap_err())
    }

    #[test]
    fn what_is_unknown_is_an_error_with_its_path() {
        let mut value = json!({"name": "a", "config": {"backend": "any"}, "packets": [
            {"name": "p", "proto": "TCP", "src": "10.0.0.1", "dst": "10.0.0.2", "dport": 80, "expect": {"backends": "reject"}},
        ]});
        assert_eq!(Scenario::parse(&value).unwrap().packets.len(), 1);
        value["packets"][0]["expect"]["backends"] = json!("vanish");
        assert_eq!(
            error(&value),
            "packets[0].expect.backends: a list of endpoints, \"reject\", \"drop\", \"none\" or \"accept\""
        );
        value["packets"][0]["expect"]["backends"] = json!("none");
        value["config"]["newFlag"] = json!(1);
        assert!(
            error(&value).starts_with("config.newFlag: unknown field `newFlag`"),
            "{}",
            error(&value)
        );
        value["config"] = json!({"backend": "any", "localDetector": {"mode": "BridgeInterface"}});
        let scenario = Scenario::parse(&value).unwrap();
        let error = scenario.config.pods().unwrap_err().to_string();
        assert!(error.contains("\"BridgeInterface\" is unknown"), "{error}");
    }
}
