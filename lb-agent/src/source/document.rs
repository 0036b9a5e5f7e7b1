//! The text of a manifest file, taken apart into documents and objects.

use k8s_openapi::api::core::v1::{Namespace, Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::decode::decode;
use super::parse::{self, ParseError, Parsed};
use crate::model::{Kind, Object, ObjectRef};

/// Kinds that people put into the same files, and that are nothing to us.
const OTHER_KINDS: [&str; 23] = [
    "ConfigMap",
    "CronJob",
    "CustomResourceDefinition",
    "DaemonSet",
    "Deployment",
    "Endpoints",
    "Event",
    "HorizontalPodAutoscaler",
    "Ingress",
    "Job",
    "LimitRange",
    "NetworkPolicy",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "Pod",
    "PodDisruptionBudget",
    "ReplicaSet",
    "Role",
    "RoleBinding",
    "Secret",
    "ServiceAccount",
    "StatefulSet",
    "StorageClass",
];

/// What one object of a file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Where in the file it is: the numbers of its document and of the item of a List, from 1.
    pub(super) place: String,
    /// Which object it is, as far as that can be told.
    pub(super) object: Option<ObjectRef>,
    /// What became of it.
    pub(super) content: Content,
}

/// What became of an object of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// It is here, with notices about parts of it.
    Object(Object, Vec<String>),
    /// It is here, but lacks this: its last good state is better.
    Lacking(Object, String),
    /// It is rightly left alone.
    LeftAlone,
    /// Of a kind that is nothing to us.
    OtherKind(String),
    /// Of a kind that we never heard of.
    Unknown(String),
    /// It cannot be used.
    Broken(String),
}

/// One document of a file.
struct Document {
    /// The number of its first line, from 0.
    line: usize,
    text: String,
}

/// Every object of a file. An empty document is none.
pub(super) fn entries(text: &str) -> Vec<Entry> {
    let mut found = Vec::new();
    for (place, document) in documents(text).into_iter().enumerate() {
        let place = format!("document {}", place + 1);
        match value(&document.text) {
            Ok(Value::Null) => {}
            Ok(value) => collect(place, value, &mut found),
            Err(_) => {
                let content = Content::Broken(why_broken(&document));
                found.push(Entry {
                    place,
                    object: None,
                    content,
                });
            }
        }
    }
    found
}

/// The documents of a file: separated by lines that begin with `---`, as YAML has it.
fn documents(text: &str) -> Vec<Document> {
    let mut found = vec![Document {
        line: 0,
        text: String::new(),
    }];
    for (number, line) in text.lines().enumerate() {
        let separator = line
            .strip_prefix("---")
            .filter(|rest| rest.is_empty() || rest.starts_with([' ', '\t']));
        if let Some(rest) = separator {
            // Comments before the first separator are no document.
            if found.len() == 1 && found.iter().all(|document| is_blank(&document.text)) {
                found.clear();
            }
            found.push(Document {
                line: number,
                text: format!("{rest}\n"),
            });
        } else if let Some(document) = found.last_mut() {
            document.text.extend([line, "\n"]);
        }
    }
    found
}

/// The error of a document, with lines counted from the beginning of the file.
fn why_broken(document: &Document) -> String {
    let padded = "\n".repeat(document.line) + &document.text;
    let error = value(&padded).err().unwrap_or_default();
    format!(
        "cannot be read: {}",
        error.split_whitespace().collect::<Vec<_>>().join(" ")
    )
}

fn is_blank(document: &str) -> bool {
    document
        .lines()
        .map(str::trim)
        .all(|line| line.is_empty() || line.starts_with('#'))
}

fn value(document: &str) -> Result<Value, String> {
    if is_blank(document) {
        return Ok(Value::Null);
    }
    if document.trim_start().starts_with('{')
        && let Ok(value) = serde_json::from_str(document)
    {
        return Ok(value);
    }
    // The folder is the administrator's own: a long List is no attack.
    let budget = serde_saphyr::budget! { max_events: usize::MAX, max_nodes: usize::MAX };
    let options = serde_saphyr::options! { budget: budget, with_snippet: false };
    serde_saphyr::from_str_with_options(document, options).map_err(|error| match error {
        serde_saphyr::Error::Budget { .. } => {
            "it has more anchors, aliases, levels or text than is read".into()
        }
        other => other.to_string(),
    })
}

/// Adds the object, or those of a List.
fn collect(place: String, mut value: Value, found: &mut Vec<Entry>) {
    let kind = text(&value, "/kind").to_owned();
    let Some(item_kind @ ("" | "Service" | "EndpointSlice" | "Node" | "Namespace" | "ServiceCIDR")) =
        kind.strip_suffix("List")
    else {
        let (object, content) = interpret(&kind, &value);
        found.push(Entry {
            place,
            object,
            content,
        });
        return;
    };
    let Some(items) = value.get_mut("items").map(Value::take).and_then(array) else {
        found.push(Entry {
            place,
            object: None,
            content: Content::Broken("items must be a list".into()),
        });
        return;
    };
    for (number, mut item) in items.into_iter().enumerate() {
        // Items of a typed list need not say their kind.
        if let Some(fields) = item.as_object_mut().filter(|_| !item_kind.is_empty()) {
            fields.entry("kind").or_insert_with(|| item_kind.into());
        }
        collect(format!("{place}, item {}", number + 1), item, found);
    }
}

fn array(value: Value) -> Option<Vec<Value>> {
    match value {
        Value::Array(items) => Some(items),
        _ => None,
    }
}

/// An object of this kind.
pub(super) fn interpret(kind: &str, value: &Value) -> (Option<ObjectRef>, Content) {
    match kind {
        "Service" => object::<Service>(Kind::Service, value, parse::service),
        "EndpointSlice" => object::<EndpointSlice>(Kind::EndpointSlice, value, parse::endpoint_slice),
        "Node" => object::<Node>(Kind::Node, value, parse::node),
        "Namespace" => object::<Namespace>(Kind::Namespace, value, parse::namespace),
        "ServiceCIDR" => object::<ServiceCIDR>(Kind::ServiceCidr, value, parse::service_cidr),
        "" => (None, Content::Broken(no_object(value).into())),
        other if OTHER_KINDS.contains(&other) => (None, Content::OtherKind(other.into())),
        other => {
            let why = format!("kind \"{other}\" is unknown; only Service, EndpointSlice and Node are used");
            (None, Content::Unknown(why))
        }
    }
}

fn object<T: DeserializeOwned>(
    kind: Kind,
    value: &Value,
    parse: fn(&T) -> Result<Parsed, ParseError>,
) -> (Option<ObjectRef>, Content) {
    let reference = reference(kind, value);
    let content = other_version(kind, value).unwrap_or_else(|| content(kind, value, parse));
    (reference, content)
}

fn content<T: DeserializeOwned>(
    kind: Kind,
    value: &Value,
    parse: fn(&T) -> Result<Parsed, ParseError>,
) -> Content {
    // Kubernetes always writes it; absent, it is misspelt or not written yet.
    if kind == Kind::EndpointSlice && value.get("endpoints").is_none() {
        return Content::Broken("endpoints is missing; write [] if there are none".into());
    }
    let (object, unknown) = match decode::<T>(value) {
        Ok(decoded) => decoded,
        Err(why) => return Content::Broken(why),
    };
    match parse(&object) {
        Ok(mut parsed) => match (parsed.object, parsed.lacking) {
            (Some(object), None) => {
                parsed.notices.extend(unknown);
                Content::Object(object, parsed.notices)
            }
            (Some(object), Some(what)) => {
                let unknown = unknown.map(|unknown| format!("; {unknown}")).unwrap_or_default();
                Content::Lacking(object, format!("{what}{unknown}"))
            }
            (None, _) => Content::LeftAlone,
        },
        Err(error) => Content::Broken(error.to_string()),
    }
}

/// What becomes of an object whose `apiVersion` is not the one that is read here.
fn other_version(kind: Kind, value: &Value) -> Option<Content> {
    let (name, ours) = match kind {
        Kind::Service => ("Service", "v1"),
        Kind::EndpointSlice => ("EndpointSlice", "discovery.k8s.io/v1"),
        Kind::Node => ("Node", "v1"),
        Kind::Namespace => ("Namespace", "v1"),
        Kind::ServiceCidr => ("ServiceCIDR", "networking.k8s.io/v1"),
    };
    let version = value.get("apiVersion").filter(|version| *version != ours)?;
    let text = version.as_str().unwrap_or_default();
    match text.split_once('/') {
        // Kubernetes' own groups have no object of this kind: that is a mistake.
        Some((group, _)) if group.contains('.') && !group.ends_with(".k8s.io") => {
            Some(Content::OtherKind(format!("{name} of {group}")))
        }
        _ => Some(Content::Broken(format!(
            "apiVersion: {version} is not known for a {name}; use {ours}"
        ))),
    }
}

fn no_object(value: &Value) -> &'static str {
    match value {
        Value::Object(fields) if fields.contains_key("kind") => "kind must be text",
        Value::Object(_) => "field kind is missing, so this is no Kubernetes object",
        Value::Array(_) => "this is a list, not a Kubernetes object",
        _ => "this is a single value, not a Kubernetes object",
    }
}

/// Which object of this kind it is, as far as that can be told.
pub(super) fn reference(kind: Kind, value: &Value) -> Option<ObjectRef> {
    let name = Some(text(value, "/metadata/name")).filter(|name| !name.is_empty())?;
    Some(ObjectRef::new(kind, text(value, "/metadata/namespace"), name))
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}
