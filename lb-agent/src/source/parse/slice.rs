//! EndpointSlices.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::discovery::v1 as api;

use super::field;
use super::{ParseError, Parsed, annotation};
use crate::model::{Conditions, Endpoint, EndpointSlice, Hints, IpFamily, Object, ObjectName, SlicePort};

/// The label that names the Service of a slice.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The label of slices of headless Services.
const HEADLESS: &str = "service.kubernetes.io/headless";

/// An EndpointSlice. Those of headless Services and of names instead of addresses are left alone.
pub fn endpoint_slice(object: &api::EndpointSlice) -> Result<Parsed, ParseError> {
    let name = field::object_name(&object.metadata)?;
    let family = match object.address_type.as_str() {
        "IPv4" => IpFamily::V4,
        "IPv6" => IpFamily::V6,
        "FQDN" => return Ok(Parsed::left_alone()),
        other => {
            let (field, value) = ("addressType".into(), other.into());
            return Err(ParseError::Unknown {
                field,
                value,
                known: "IPv4 or IPv6",
            });
        }
    };
    if field::label(&object.metadata, HEADLESS).is_some() {
        return Ok(Parsed::left_alone());
    }
    let service = field::label(&object.metadata, SERVICE_NAME).filter(|name| !name.is_empty());
    let missing = || ParseError::Missing {
        field: format!("metadata.labels[{SERVICE_NAME}]"),
    };
    let service = ObjectName::new(&name.namespace, service.ok_or_else(missing)?);
    let (mut ports, mut notices) = (Vec::new(), Vec::new());
    for (place, port) in object.ports.iter().flatten().enumerate() {
        ports.extend(slice_port(place, port, &mut notices));
    }
    let endpoints = object.endpoints.iter().enumerate();
    let endpoints = endpoints.map(|endpoint| self::endpoint(endpoint, family, &name.namespace));
    let mut endpoints = field::usable(endpoints, &mut notices);
    endpoints.shrink_to_fit();
    let weight = annotation::weight(&object.metadata, &mut notices);
    let slice = EndpointSlice {
        name,
        service,
        family,
        weight,
        ports,
        endpoints,
        changed_at: annotation::changed_at(&object.metadata, &mut notices),
    };
    Ok(Parsed {
        object: Some(Object::EndpointSlice(slice)),
        notices,
        lacking: None,
    })
}

/// A port; none for one without number (or with 0), which means every port and so none in particular. Without a name it
/// is the unnamed one, as the API server would have it.
fn slice_port(place: usize, port: &api::EndpointPort, notices: &mut Vec<String>) -> Option<SlicePort> {
    let path = |field: &str| format!("ports[{place}].{field}");
    let number = port.port.filter(|number| *number != 0)?;
    let number = field::or_left_out(field::port(|| path("port"), number), notices)?;
    Some(SlicePort {
        name: port.name.as_deref().unwrap_or_default().into(),
        port: number,
        protocol: field::protocol(|| path("protocol"), port.protocol.as_deref(), notices)?,
    })
}

fn endpoint(
    (place, endpoint): (usize, &api::Endpoint),
    family: IpFamily,
    namespace: &str,
) -> Result<Endpoint, ParseError> {
    let field = || format!("endpoints[{place}].addresses[0]");
    let text = endpoint
        .addresses
        .first()
        .ok_or_else(|| ParseError::Missing { field: field() })?;
    let address = field::backend_address(field, text)?;
    if IpFamily::of(address) != family {
        return Err(ParseError::Family {
            field: field(),
            value: text.clone(),
            family,
        });
    }
    let node = endpoint.node_name.as_deref().map(Into::into);
    let target = endpoint.target_ref.as_ref();
    let pod = target.and_then(|target| target.uid.as_deref());
    Ok(Endpoint {
        address,
        conditions: conditions(endpoint.conditions.as_ref()),
        node,
        pod: pod.map(Into::into),
        pod_name: target
            .and_then(|target| pod_name(target, namespace))
            .map(Box::new),
        hints: endpoint.hints.as_ref().and_then(hints).map(Arc::new),
    })
}

/// None when nothing is said.
fn hints(hints: &api::EndpointHints) -> Option<Hints> {
    let nodes = hints.for_nodes.iter().flatten().map(|node| node.name.as_str());
    let zones = hints.for_zones.iter().flatten().map(|zone| zone.name.as_str());
    let hints = Hints {
        nodes: nodes.map(Into::into).collect(),
        zones: zones.map(Into::into).collect(),
    };
    (hints != Hints::default()).then_some(hints)
}

/// What a reference to a pod names; in the slice's own `namespace` where it says none.
fn pod_name(target: &ObjectReference, namespace: &str) -> Option<ObjectName> {
    let is_pod = target.kind.as_deref() == Some("Pod");
    let name = target.name.as_deref().filter(|_| is_pod)?;
    Some(ObjectName::new(
        target.namespace.as_deref().unwrap_or(namespace),
        name,
    ))
}

fn conditions(conditions: Option<&api::EndpointConditions>) -> Conditions {
    let absent = Conditions::default();
    conditions.map_or(absent, |conditions| Conditions {
        ready: conditions.ready.unwrap_or(absent.ready),
        serving: conditions.serving.unwrap_or(absent.serving),
        terminating: conditions.terminating.unwrap_or(absent.terminating),
    })
}
