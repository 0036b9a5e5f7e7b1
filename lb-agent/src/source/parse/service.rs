//! Services.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::core::v1 as api;

use super::field::{self, Transport};
use super::{ParseError, Parsed, annotation};
use crate::model::{IpFamily, IpPrefix, Object, Service, ServiceOptions, ServicePort, TrafficPolicy};

/// The label by which a Service belongs to another proxy.
const PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";
/// The longest name of a port (RFC 6335).
const PORT_NAME: usize = 15;
/// Seconds of session affinity when nothing else is said.
const AFFINITY_SECONDS: i32 = 10_800;

/// Who handles a Service.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    /// We do.
    Us,
    /// Another proxy, or the clients themselves.
    Others,
    /// It has no address by which that could be told.
    Unknown,
}

/// A Service. One that is not for us is an object without ports, so that its slices are known to belong somewhere.
pub fn service(object: &api::Service) -> Result<Parsed, ParseError> {
    let name = field::object_name(&object.metadata)?;
    field::check_label("metadata.namespace", &name.namespace)?;
    field::check_label("metadata.name", &name.name)?;
    let empty = api::ServiceSpec::default();
    let spec = object.spec.as_ref().unwrap_or(&empty);
    let owner = owner(object, spec)?;
    let mut notices = Vec::new();
    let mut service = Service {
        name,
        cluster_ips: Vec::new(),
        external_ips: Vec::new(),
        load_balancer_ips: Vec::new(),
        source_ranges: Vec::new(),
        ports: Vec::new(),
        internal_policy: policy(
            "spec.internalTrafficPolicy",
            spec.internal_traffic_policy.as_deref(),
        )?,
        external_policy: policy(
            "spec.externalTrafficPolicy",
            spec.external_traffic_policy.as_deref(),
        )?,
        affinity_seconds: affinity(spec)?,
        health_check_port: None,
        options: ServiceOptions::default(),
    };
    if owner == Owner::Us {
        service.cluster_ips = cluster_ips(spec)?;
        service.external_ips = external_ips(spec, &service, &mut notices)?;
        service.load_balancer_ips = load_balancer_ips(object, spec, &service, &mut notices)?;
        service.ports = ports(spec, &mut notices)?;
        service.source_ranges = source_ranges(spec, &mut notices);
        service.health_check_port = health_check_port(spec, service.external_policy, &mut notices);
        service.options = annotation::service_options(&object.metadata, &mut notices);
    }
    Ok(Parsed {
        object: Some(Object::Service(service)),
        notices,
        lacking: (owner == Owner::Unknown)
            .then_some("spec.clusterIP is missing, and nothing but an API server assigns one"),
    })
}

fn owner(object: &api::Service, spec: &api::ServiceSpec) -> Result<Owner, ParseError> {
    let external = match spec.type_.as_deref() {
        None | Some("" | "ClusterIP" | "NodePort" | "LoadBalancer") => false,
        Some("ExternalName") => true,
        Some(other) => {
            return Err(ParseError::Unknown {
                field: "spec.type".into(),
                value: other.into(),
                known: "ClusterIP, NodePort, LoadBalancer or ExternalName",
            });
        }
    };
    let first = spec.cluster_ips.as_ref().and_then(|ips| ips.first());
    let cluster_ip = spec.cluster_ip.as_ref().or(first).map(String::as_str);
    Ok(match cluster_ip {
        _ if external || field::label(&object.metadata, PROXY_NAME).is_some() => Owner::Others,
        Some("None") => Owner::Others,
        None | Some("") => Owner::Unknown,
        Some(_) => Owner::Us,
    })
}

/// The sources that may use the load balancer's addresses. As for kube-proxy, those that cannot be read are left out, and
/// without any that can be read every source may.
fn source_ranges(spec: &api::ServiceSpec, notices: &mut Vec<String>) -> Vec<IpPrefix> {
    const FIELD: &str = "spec.loadBalancerSourceRanges";
    let texts = spec.load_balancer_source_ranges.as_deref().unwrap_or_default();
    if !is_load_balancer(spec) {
        return Vec::new();
    }
    let mut ranges = Vec::new();
    for (place, text) in texts.iter().enumerate() {
        match field::prefix(&format!("{FIELD}[{place}]"), text) {
            Ok(range) => ranges.push(range),
            Err(error) => notices.push(format!("{error}; left out")),
        }
    }
    if ranges.is_empty() && !texts.is_empty() {
        notices.push(format!(
            "{FIELD}: none of them can be used: every source is let through"
        ));
    }
    ranges
}

fn health_check_port(
    spec: &api::ServiceSpec,
    policy: TrafficPolicy,
    notices: &mut Vec<String>,
) -> Option<u16> {
    let number = spec.health_check_node_port.filter(|number| *number != 0)?;
    if !is_load_balancer(spec) || policy != TrafficPolicy::Local {
        return None;
    }
    match field::port(|| "spec.healthCheckNodePort".into(), number) {
        Ok(port) => Some(port),
        Err(error) => {
            notices.push(format!("{error}; left out"));
            None
        }
    }
}

fn is_load_balancer(spec: &api::ServiceSpec) -> bool {
    spec.type_.as_deref() == Some("LoadBalancer")
}

fn cluster_ips(spec: &api::ServiceSpec) -> Result<Vec<IpAddr>, ParseError> {
    let (field, texts) = match spec.cluster_ips.as_deref() {
        None | Some([]) => ("spec.clusterIP", spec.cluster_ip.as_slice()),
        Some(texts) => ("spec.clusterIPs", texts),
    };
    let mut ips = Vec::<IpAddr>::new();
    for (place, text) in texts.iter().enumerate() {
        let field = || format!("{field}[{place}]");
        let ip = field::front_address(field, text)?;
        if ips.iter().any(|other| IpFamily::of(*other) == IpFamily::of(ip)) {
            return Err(ParseError::Duplicate {
                field: field(),
                value: format!("family {}", IpFamily::of(ip)),
            });
        }
        ips.push(ip);
    }
    Ok(ips)
}

fn external_ips(
    spec: &api::ServiceSpec,
    service: &Service,
    notices: &mut Vec<String>,
) -> Result<Vec<IpAddr>, ParseError> {
    let texts = spec.external_ips.iter().flatten().map(String::as_str);
    extra_ips("spec.externalIPs", texts, service, notices)
}

/// The addresses of the load balancer that are to be handled here: not those by which it proxies.
fn load_balancer_ips(
    object: &api::Service,
    spec: &api::ServiceSpec,
    service: &Service,
    notices: &mut Vec<String>,
) -> Result<Vec<IpAddr>, ParseError> {
    if !is_load_balancer(spec) {
        return Ok(Vec::new());
    }
    let status = object
        .status
        .as_ref()
        .and_then(|status| status.load_balancer.as_ref());
    let ingress = status
        .and_then(|status| status.ingress.as_ref())
        .into_iter()
        .flatten();
    let vips = ingress.filter(|ingress| ingress.ip_mode.as_deref().is_none_or(|mode| mode == "VIP"));
    let texts = vips
        .filter_map(|ingress| ingress.ip.as_deref())
        .filter(|ip| !ip.is_empty());
    extra_ips("status.loadBalancer.ingress", texts, service, notices)
}

fn extra_ips<'a>(
    field: &str,
    texts: impl Iterator<Item = &'a str>,
    service: &Service,
    notices: &mut Vec<String>,
) -> Result<Vec<IpAddr>, ParseError> {
    let mut ips = Vec::new();
    for text in texts {
        let ip = field::front_address(|| field.into(), text)?;
        let family = IpFamily::of(ip);
        if service.has_family(family) {
            ips.push(ip);
        } else {
            notices.push(format!(
                "{field}: {ip} is left out, because the Service has no {family} ClusterIP"
            ));
        }
    }
    Ok(ips)
}

fn ports(spec: &api::ServiceSpec, notices: &mut Vec<String>) -> Result<Vec<ServicePort>, ParseError> {
    let mut found = Vec::new();
    let (mut names, mut numbers, mut node_ports) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let ports = spec.ports.as_deref().unwrap_or_default();
    for (place, port) in ports.iter().enumerate() {
        let path = |field: &str| format!("spec.ports[{place}].{field}");
        let name = port.name.as_deref().unwrap_or_default();
        field::check_name(&path("name"), name, PORT_NAME)?;
        if !names.insert(name) {
            return Err(ParseError::Duplicate {
                field: path("name"),
                value: format!("\"{name}\""),
            });
        }
        let number = field::port(|| path("port"), port.port)?;
        let protocol = match field::protocol(|| path("protocol"), port.protocol.as_deref())? {
            Transport::Known(protocol) => protocol,
            Transport::Sctp => {
                notices.push(format!(
                    "{}: SCTP is not supported yet; this port is left out",
                    path("protocol")
                ));
                continue;
            }
        };
        if !numbers.insert((number, protocol)) {
            let value = format!("{number}/{}", protocol.as_str());
            return Err(ParseError::Duplicate {
                field: path("port"),
                value,
            });
        }
        let node_port = port.node_port.filter(|number| *number != 0);
        let node_port = node_port
            .map(|number| field::port(|| path("nodePort"), number))
            .transpose()?;
        if node_port.is_some_and(|number| !node_ports.insert((number, protocol))) {
            let value = node_port.unwrap_or_default().to_string();
            return Err(ParseError::Duplicate {
                field: path("nodePort"),
                value,
            });
        }
        found.push(ServicePort {
            name: name.into(),
            port: number,
            node_port,
            protocol,
        });
    }
    Ok(found)
}

fn policy(field: &str, value: Option<&str>) -> Result<TrafficPolicy, ParseError> {
    match value {
        None | Some("Cluster" | "") => Ok(TrafficPolicy::Cluster),
        Some("Local") => Ok(TrafficPolicy::Local),
        Some(other) => Err(ParseError::Unknown {
            field: field.into(),
            value: other.into(),
            known: "Cluster or Local",
        }),
    }
}

fn affinity(spec: &api::ServiceSpec) -> Result<Option<u32>, ParseError> {
    match spec.session_affinity.as_deref() {
        None | Some("None" | "") => Ok(None),
        Some("ClientIP") => {
            let config = spec
                .session_affinity_config
                .as_ref()
                .and_then(|config| config.client_ip.as_ref());
            let seconds = config
                .and_then(|client_ip| client_ip.timeout_seconds)
                .unwrap_or(AFFINITY_SECONDS);
            Ok(Some(u32::try_from(seconds).unwrap_or(0)))
        }
        Some(other) => Err(ParseError::Unknown {
            field: "spec.sessionAffinity".into(),
            value: other.into(),
            known: "None or ClientIP",
        }),
    }
}
