//! Namespaces.

use k8s_openapi::api::core::v1 as api;

use super::{ParseError, Parsed, field};
use crate::model::{Namespace, Object};

/// The one whose UID names the cluster.
const CLUSTER: &str = "kube-system";

/// A Namespace. Those that say nothing about the cluster are left alone.
pub fn namespace(object: &api::Namespace) -> Result<Parsed, ParseError> {
    let name = field::object_name(&object.metadata)?.name;
    if &*name != CLUSTER {
        return Ok(Parsed::left_alone());
    }
    let namespace = Namespace {
        name: name.to_string(),
        uid: object.metadata.uid.clone().filter(|uid| !uid.is_empty()),
    };
    Ok(Parsed {
        object: Some(Object::Namespace(namespace)),
        notices: Vec::new(),
        lacking: None,
    })
}
