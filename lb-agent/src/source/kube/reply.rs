//! The frame around objects: pages of lists, and lines of watches. Objects themselves stay text.

use std::collections::BTreeMap;

use kube::core::Status;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::model::{Kind, ObjectRef};

/// The annotation of the bookmark that ends the initial events (KEP-3157).
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// A page of a list.
#[derive(Debug, Deserialize)]
pub(super) struct Page<'a> {
    #[serde(default)]
    metadata: PageMetadata,
    #[serde(borrow)]
    items: Option<Vec<&'a RawValue>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PageMetadata {
    resource_version: Option<String>,
    r#continue: Option<String>,
}

/// A line of a watch.
#[derive(Debug)]
pub(super) struct Line<'a> {
    /// What it tells.
    pub(super) what: What,
    /// The object, as text.
    pub(super) object: &'a str,
}

/// What a line tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(super) enum What {
    #[serde(rename = "ADDED", alias = "MODIFIED")]
    Applied,
    #[serde(rename = "DELETED")]
    Deleted,
    #[serde(rename = "BOOKMARK")]
    Bookmark,
    #[serde(rename = "ERROR")]
    Error,
    #[serde(other)]
    Other,
}

/// What an object is called, and nothing else of it.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Bare {
    #[serde(default)]
    metadata: BareMetadata,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct BareMetadata {
    name: Option<String>,
    namespace: Option<String>,
    resource_version: Option<String>,
    annotations: Option<BTreeMap<String, String>>,
}

impl<'a> Page<'a> {
    pub(super) fn read(text: &'a str) -> serde_json::Result<Self> {
        serde_json::from_str(text)
    }

    /// Its objects, as text.
    pub(super) fn items(&self) -> impl Iterator<Item = &'a str> {
        self.items.iter().flatten().map(|item| item.get())
    }

    /// What the next page is asked for with; none after the last one.
    pub(super) fn next(&self) -> Option<String> {
        self.metadata.r#continue.clone().filter(|token| !token.is_empty())
    }

    /// The version of the list.
    pub(super) fn version(&self) -> Option<String> {
        self.metadata
            .resource_version
            .clone()
            .filter(|version| !version.is_empty())
    }
}

impl<'a> Line<'a> {
    pub(super) fn read(line: &'a [u8]) -> serde_json::Result<Self> {
        #[derive(Deserialize)]
        struct Frame<'a> {
            r#type: What,
            #[serde(borrow)]
            object: &'a RawValue,
        }
        let frame: Frame<'a> = serde_json::from_slice(line)?;
        Ok(Self {
            what: frame.r#type,
            object: frame.object.get(),
        })
    }

    /// What its object is called. Nothing, when that cannot be told.
    pub(super) fn bare(&self) -> Bare {
        serde_json::from_str(self.object).unwrap_or_default()
    }

    /// The status that an error is.
    pub(super) fn status(&self) -> Status {
        serde_json::from_str(self.object).unwrap_or_else(|_| Status::failure(self.object, ""))
    }
}

impl Bare {
    pub(super) fn reference(&self, kind: Kind) -> Option<ObjectRef> {
        let BareMetadata { name, namespace, .. } = &self.metadata;
        let name = name.as_deref().filter(|name| !name.is_empty())?;
        Some(ObjectRef::new(
            kind,
            namespace.as_deref().unwrap_or_default(),
            name,
        ))
    }

    pub(super) fn version(&self) -> Option<String> {
        self.metadata
            .resource_version
            .clone()
            .filter(|version| !version.is_empty())
    }

    /// Whether it is the bookmark after the last of all objects.
    pub(super) fn ends_initial_events(&self) -> bool {
        let annotations = self.metadata.annotations.as_ref();
        annotations
            .and_then(|all| all.get(INITIAL_EVENTS_END))
            .is_some_and(|value| value == "true")
    }
}
