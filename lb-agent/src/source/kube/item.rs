//! The text of one object, as the API server sends it, to our words.
//!
//! Only the fields that [`parse`](crate::source::parse) looks at are read: managedFields, the statuses and images of Nodes
//! and the like are skipped as text. An object that cannot be read is no error of the list or watch that it is in.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::api::networking::v1 as networking;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::model::{Kind, Object, ObjectRef};
use crate::source::decode::decode;
use crate::source::document::reference;
use crate::source::parse::{self, ParseError, Parsed};

/// One object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item {
    /// Which one it is, as far as that can be told.
    pub(super) object: Option<ObjectRef>,
    /// Its version, from which a watch can go on.
    pub(super) version: Option<String>,
    /// What became of it.
    pub(super) content: Content,
}

/// What became of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one at a time, and nearly all are objects"
)]
pub(super) enum Content {
    /// It is here, with notices about parts of it.
    Object(Object, Vec<String>),
    /// It is rightly left alone.
    LeftAlone,
    /// It cannot be used.
    Broken(String),
}

/// What is read of an object: a typed part of it, which becomes the type that is parsed.
trait Slim: DeserializeOwned {
    type Api;

    fn metadata(&self) -> &Metadata;
    fn api(self) -> Self::Api;
}

/// Metadata without bulk.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
    resource_version: Option<String>,
    uid: Option<String>,
    deletion_timestamp: Option<Time>,
}

#[derive(Debug, Deserialize)]
struct Service {
    metadata: Metadata,
    spec: Option<core::ServiceSpec>,
    status: Option<core::ServiceStatus>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct EndpointSlice {
    metadata: Metadata,
    address_type: String,
    endpoints: Option<Vec<Endpoint>>,
    ports: Option<Vec<discovery::EndpointPort>>,
}

/// An endpoint without what it is called: there may be hundreds of thousands.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Endpoint {
    addresses: Option<Vec<String>>,
    conditions: Option<discovery::EndpointConditions>,
    hints: Option<discovery::EndpointHints>,
    node_name: Option<String>,
    target_ref: Option<Target>,
}

#[derive(Debug, Deserialize)]
struct Target {
    uid: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Node {
    metadata: Metadata,
    spec: Option<NodeSpec>,
    status: Option<NodeStatus>,
}

#[derive(Debug, Deserialize)]
struct NodeSpec {
    #[serde(rename = "podCIDR")]
    pod_cidr: Option<String>,
    #[serde(rename = "podCIDRs")]
    pod_cidrs: Option<Vec<String>>,
    taints: Option<Vec<core::Taint>>,
}

#[derive(Debug, Deserialize)]
struct NodeStatus {
    addresses: Option<Vec<core::NodeAddress>>,
}

#[derive(Debug, Deserialize)]
struct ServiceCidr {
    metadata: Metadata,
    spec: Option<networking::ServiceCIDRSpec>,
}

#[derive(Debug, Deserialize)]
struct Namespace {
    metadata: Metadata,
}

/// An object of this kind.
pub(super) fn item(kind: Kind, text: &str) -> Item {
    match kind {
        Kind::Service => read::<Service>(kind, text, parse::service),
        Kind::EndpointSlice => read::<EndpointSlice>(kind, text, parse::endpoint_slice),
        Kind::Node => read::<Node>(kind, text, parse::node),
        Kind::ServiceCidr => read::<ServiceCidr>(kind, text, parse::service_cidr),
        Kind::Namespace => read::<Namespace>(kind, text, parse::namespace),
    }
}

fn read<T: Slim>(kind: Kind, text: &str, parse: fn(&T::Api) -> Result<Parsed, ParseError>) -> Item {
    let slim = match serde_json::from_str::<T>(text) {
        Ok(slim) => slim,
        Err(error) => return broken::<T>(kind, text, &error),
    };
    let version = slim.metadata().resource_version.clone();
    let object = slim.metadata().reference(kind);
    let content = match parse(&slim.api()) {
        // An API server fills in what a manifest may lack; what it leaves out is not there.
        Ok(Parsed {
            object: Some(object),
            notices,
            lacking: _,
        }) => Content::Object(object, notices),
        Ok(_) => Content::LeftAlone,
        Err(error) => Content::Broken(error.to_string()),
    };
    Item {
        object,
        version,
        content,
    }
}

/// Finds out what can be told of an object that does not fit.
fn broken<T: Slim>(kind: Kind, text: &str, error: &serde_json::Error) -> Item {
    let value: Value = serde_json::from_str(text).unwrap_or_default();
    let why = decode::<T>(&value).err().unwrap_or_else(|| error.to_string());
    let version = value.pointer("/metadata/resourceVersion").and_then(Value::as_str);
    Item {
        object: reference(kind, &value),
        version: version.map(str::to_owned),
        content: Content::Broken(why),
    }
}

// === impl Metadata ===

impl Metadata {
    fn reference(&self, kind: Kind) -> Option<ObjectRef> {
        let name = self.name.as_deref().filter(|name| !name.is_empty())?;
        Some(ObjectRef::new(
            kind,
            self.namespace.as_deref().unwrap_or_default(),
            name,
        ))
    }
}

impl From<Metadata> for ObjectMeta {
    fn from(metadata: Metadata) -> Self {
        Self {
            name: metadata.name,
            namespace: metadata.namespace,
            labels: metadata.labels,
            annotations: metadata.annotations,
            uid: metadata.uid,
            deletion_timestamp: metadata.deletion_timestamp,
            ..Self::default()
        }
    }
}

impl From<Endpoint> for discovery::Endpoint {
    fn from(endpoint: Endpoint) -> Self {
        let target = |target: Target| core::ObjectReference {
            uid: target.uid,
            ..core::ObjectReference::default()
        };
        Self {
            addresses: endpoint.addresses.unwrap_or_default(),
            conditions: endpoint.conditions,
            hints: endpoint.hints,
            node_name: endpoint.node_name,
            target_ref: endpoint.target_ref.map(target),
            ..Self::default()
        }
    }
}

// === impl Slim ===

impl Slim for Service {
    type Api = core::Service;

    fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    fn api(self) -> core::Service {
        core::Service {
            metadata: self.metadata.into(),
            spec: self.spec,
            status: self.status,
        }
    }
}

impl Slim for EndpointSlice {
    type Api = discovery::EndpointSlice;

    fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    fn api(self) -> discovery::EndpointSlice {
        discovery::EndpointSlice {
            metadata: self.metadata.into(),
            address_type: self.address_type,
            endpoints: self.endpoints.into_iter().flatten().map(Into::into).collect(),
            ports: self.ports,
        }
    }
}

impl Slim for Node {
    type Api = core::Node;

    fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    fn api(self) -> core::Node {
        core::Node {
            metadata: self.metadata.into(),
            spec: self.spec.map(|spec| core::NodeSpec {
                pod_cidr: spec.pod_cidr,
                pod_cidrs: spec.pod_cidrs,
                taints: spec.taints,
                ..core::NodeSpec::default()
            }),
            status: self.status.map(|status| core::NodeStatus {
                addresses: status.addresses,
                ..core::NodeStatus::default()
            }),
        }
    }
}

impl Slim for ServiceCidr {
    type Api = networking::ServiceCIDR;

    fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    fn api(self) -> networking::ServiceCIDR {
        networking::ServiceCIDR {
            metadata: self.metadata.into(),
            spec: self.spec,
            status: None,
        }
    }
}

impl Slim for Namespace {
    type Api = core::Namespace;

    fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    fn api(self) -> core::Namespace {
        core::Namespace {
            metadata: self.metadata.into(),
            ..core::Namespace::default()
        }
    }
}
