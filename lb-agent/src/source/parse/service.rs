//! Services.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::core::v1 as api;

use super::field;
use super::{ParseError, Parsed, annotation};
use crate::model::{IpFamily, IpPrefix, Object, Service, ServiceOptions, ServicePort, TrafficPolicy};

/// The label by which a Service belongs to another proxy.
const PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";
/// The longest name of a port (RFC 6335).
const PORT_NAME: usize = 15;
/// Seconds of session affinity when nothing else is said.
const AFFINITY_SECONDS: i32 = 10_800;

/// What traffic policies are called.
const POLICIES: [(&str, TrafficPolicy); 2] = [
    ("Cluster", TrafficPolicy::Cluster),
    ("Local", TrafficPolicy::Local),
];
/// What session affinities are called: whether there is any.
const AFFINITIES: [(&str, bool); 2] = [("None", false), ("ClientIP", true)];

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
    let mut notices = Vec::new();
    let owner = owner(object, spec, &mut notices);
    let mut service = Service {
        name,
        cluster_ips: Vec::new(),
        external_ips: Vec::new(),
        load_balancer_ips: Vec::new(),
        source_ranges: Vec::new(),
        ports: Vec::new(),
        internal_policy: TrafficPolicy::Cluster,
        external_policy: TrafficPolicy::Cluster,
        affinity_seconds: None,
        health_check_port: None,
        options: ServiceOptions::default(),
    };
    if owner == Owner::Us {
        service.cluster_ips = cluster_ips(spec, &mut notices)?;
        service.external_ips = external_ips(spec, &service, &mut notices);
        service.load_balancer_ips = load_balancer_ips(object, &service, &mut notices);
        service.ports = ports(spec, &mut notices)?;
        let mut policy =
            |field: &str, value: Option<&str>| field::word(field, value, &POLICIES, &mut notices);
        service.internal_policy = policy(
            "spec.internalTrafficPolicy",
            spec.internal_traffic_policy.as_deref(),
        );
        service.external_policy = policy(
            "spec.externalTrafficPolicy",
            spec.external_traffic_policy.as_deref(),
        );
        service.affinity_seconds = affinity(spec, &mut notices);
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

fn owner(object: &api::Service, spec: &api::ServiceSpec, notices: &mut Vec<String>) -> Owner {
    let first = spec.cluster_ips.as_ref().and_then(|ips| ips.first());
    let cluster_ip = spec.cluster_ip.as_ref().or(first).map(String::as_str);
    let external = spec.type_.as_deref() == Some("ExternalName");
    match cluster_ip {
        _ if external || field::label(&object.metadata, PROXY_NAME).is_some() => return Owner::Others,
        Some("None") => return Owner::Others,
        None | Some("") => return Owner::Unknown,
        Some(_) => {}
    }
    match spec.type_.as_deref() {
        None | Some("" | "ClusterIP" | "NodePort" | "LoadBalancer") => {}
        Some(other) => notices.push(format!(
            "spec.type: \"{other}\" is unknown; use ClusterIP, NodePort, LoadBalancer or ExternalName. Its addresses are \
             served as they are"
        )),
    }
    Owner::Us
}

/// The sources that may use the load balancer's addresses. As for kube-proxy, those that cannot be read are left out, and
/// without any that can be read every source may.
fn source_ranges(spec: &api::ServiceSpec, notices: &mut Vec<String>) -> Vec<IpPrefix> {
    const FIELD: &str = "spec.loadBalancerSourceRanges";
    let texts = spec.load_balancer_source_ranges.as_deref().unwrap_or_default();
    let ranges = texts.iter().enumerate();
    let ranges = ranges.map(|(place, text)| field::prefix(&format!("{FIELD}[{place}]"), text));
    let ranges = field::usable(ranges, notices);
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

/// The ClusterIPs that can be used; an error when there is none.
fn cluster_ips(spec: &api::ServiceSpec, notices: &mut Vec<String>) -> Result<Vec<IpAddr>, ParseError> {
    let (field, texts) = match spec.cluster_ips.as_deref() {
        None | Some([]) => ("spec.clusterIP", spec.cluster_ip.as_slice()),
        Some(texts) => ("spec.clusterIPs", texts),
    };
    let mut ips = Vec::<IpAddr>::new();
    let mut unusable = None;
    for (place, text) in texts.iter().enumerate() {
        let field = || format!("{field}[{place}]");
        let ip = field::front_address(field, text).and_then(|ip| {
            let mut others = ips.iter().map(|ip| IpFamily::of(*ip));
            if others.any(|family| family == IpFamily::of(ip)) {
                let value = format!("family {}", IpFamily::of(ip));
                return Err(ParseError::Duplicate {
                    field: field(),
                    value,
                });
            }
            Ok(ip)
        });
        match ip {
            Ok(ip) => ips.push(ip),
            Err(error) => {
                notices.push(format!("{error}; left out"));
                unusable.get_or_insert(error);
            }
        }
    }
    match unusable {
        Some(error) if ips.is_empty() => Err(error),
        _ => Ok(ips),
    }
}

fn external_ips(spec: &api::ServiceSpec, service: &Service, notices: &mut Vec<String>) -> Vec<IpAddr> {
    let texts = spec.external_ips.iter().flatten().map(String::as_str);
    extra_ips("spec.externalIPs", texts, service, notices)
}

/// The addresses of the load balancer that are to be handled here: not those by which it proxies, and no names. As for
/// kube-proxy, the type of the Service does not matter: that it has such a status is the API server's business.
fn load_balancer_ips(object: &api::Service, service: &Service, notices: &mut Vec<String>) -> Vec<IpAddr> {
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

/// Of these addresses, those that are of a family of the Service.
fn extra_ips<'a>(
    field: &str,
    texts: impl Iterator<Item = &'a str>,
    service: &Service,
    notices: &mut Vec<String>,
) -> Vec<IpAddr> {
    let ips = field::usable(
        texts.map(|text| field::front_address(|| field.into(), text)),
        notices,
    );
    let (ours, others): (Vec<_>, Vec<_>) = ips
        .into_iter()
        .partition(|ip| service.has_family(IpFamily::of(*ip)));
    notices.extend(others.into_iter().map(|ip| {
        let family = IpFamily::of(ip);
        format!("{field}: {ip} is left out, because the Service has no {family} ClusterIP")
    }));
    ours
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
        let Some(protocol) = field::protocol(|| path("protocol"), port.protocol.as_deref(), notices) else {
            continue;
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

fn affinity(spec: &api::ServiceSpec, notices: &mut Vec<String>) -> Option<u32> {
    let kind = spec.session_affinity.as_deref();
    if !field::word("spec.sessionAffinity", kind, &AFFINITIES, notices) {
        return None;
    }
    let config = spec
        .session_affinity_config
        .as_ref()
        .and_then(|config| config.client_ip.as_ref());
    let seconds = config
        .and_then(|client_ip| client_ip.timeout_seconds)
        .unwrap_or(AFFINITY_SECONDS);
    Some(u32::try_from(seconds).unwrap_or(0))
}
