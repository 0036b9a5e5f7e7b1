//! Nodes.

use k8s_openapi::api::core::v1 as api;

use super::{ParseError, Parsed, field};
use crate::model::{Node, Object};

/// The taint of Nodes that the Cluster Autoscaler is about to remove.
const TO_BE_DELETED: &str = "ToBeDeletedByClusterAutoscaler";
/// The label that names the zone of a Node.
const ZONE: &str = "topology.kubernetes.io/zone";

/// A Node.
pub fn node(object: &api::Node) -> Result<Parsed, ParseError> {
    let name = field::object_name(&object.metadata)?.name.to_string();
    let addresses = object
        .status
        .as_ref()
        .and_then(|status| status.addresses.as_deref())
        .unwrap_or_default();
    let internal = addresses
        .iter()
        .enumerate()
        .filter(|(_, address)| address.type_ == "InternalIP");
    let internal_ips = internal.map(|(place, address)| {
        field::address(|| format!("status.addresses[{place}].address"), &address.address)
    });
    let mut notices = Vec::new();
    let internal_ips = field::usable(internal_ips, &mut notices);
    let spec = object.spec.as_ref();
    let cidrs = spec
        .and_then(|spec| spec.pod_cidrs.as_deref())
        .unwrap_or_default();
    let one = spec
        .and_then(|spec| spec.pod_cidr.as_ref())
        .filter(|_| cidrs.is_empty());
    let cidrs = cidrs.iter().chain(one).filter(|cidr| !cidr.is_empty());
    let pod_cidrs = cidrs.map(|cidr| field::prefix("spec.podCIDRs", cidr));
    let pod_cidrs = field::usable(pod_cidrs, &mut notices);
    let zone = field::label(&object.metadata, ZONE).filter(|zone| !zone.is_empty());
    let node = Node {
        name,
        internal_ips,
        pod_cidrs,
        leaving: leaving(object),
        zone: zone.map(Into::into),
    };
    Ok(Parsed {
        object: Some(Object::Node(node)),
        notices,
        lacking: None,
    })
}

fn leaving(object: &api::Node) -> bool {
    let taints = object.spec.as_ref().and_then(|spec| spec.taints.as_deref());
    let mut taints = taints.unwrap_or_default().iter();
    object.metadata.deletion_timestamp.is_some() || taints.any(|taint| taint.key == TO_BE_DELETED)
}
