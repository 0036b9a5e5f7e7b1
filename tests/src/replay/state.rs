//! What the server holds: the text of every object, and who watches.

use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

use hyper::body::Bytes;
use serde_json::json;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::cluster::Cluster;

/// Kinds of objects that can be listed and watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// Services.
    Services,
    /// EndpointSlices.
    EndpointSlices,
    /// Nodes.
    Nodes,
    /// Ranges of cluster addresses.
    ServiceCidrs,
}

impl Resource {
    const ALL: [Self; 4] = [
        Self::Services,
        Self::EndpointSlices,
        Self::Nodes,
        Self::ServiceCidrs,
    ];

    /// The resource of a path.
    pub(super) fn of_path(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|resource| resource.path() == path)
    }

    fn path(self) -> &'static str {
        match self {
            Self::Services => "/api/v1/services",
            Self::EndpointSlices => "/apis/discovery.k8s.io/v1/endpointslices",
            Self::Nodes => "/api/v1/nodes",
            Self::ServiceCidrs => "/apis/networking.k8s.io/v1/servicecidrs",
        }
    }

    /// `apiVersion` and kind of its objects.
    fn kind(self) -> (&'static str, &'static str) {
        match self {
            Self::Services => ("v1", "Service"),
            Self::EndpointSlices => ("discovery.k8s.io/v1", "EndpointSlice"),
            Self::Nodes => ("v1", "Node"),
            Self::ServiceCidrs => ("networking.k8s.io/v1", "ServiceCIDR"),
        }
    }
}

/// Everything, by resource.
#[derive(Debug)]
pub(super) struct State([Mutex<Kept>; Resource::ALL.len()]);

#[derive(Debug, Default)]
struct Kept {
    /// The text of each object.
    objects: Vec<String>,
    /// The version of the last change.
    version: u64,
    watches: Vec<UnboundedSender<Bytes>>,
}

/// The version of a cluster that nothing has changed yet.
const FIRST_VERSION: u64 = 1000;
/// Bytes that are sent together, at least.
const CHUNK: usize = 1 << 18;

impl State {
    pub(super) fn new(cluster: &Cluster) -> Self {
        Self(Resource::ALL.map(|resource| {
            Mutex::new(Kept {
                objects: cluster.objects(resource),
                version: FIRST_VERSION,
                watches: Vec::new(),
            })
        }))
    }

    /// Replaces an object, and tells every watch of it.
    pub(super) fn replace(&self, resource: Resource, number: usize, text: &str) {
        let mut kept = self.kept(resource);
        kept.version += 1;
        let version = kept.version;
        let text = text.replacen(
            &format!("\"resourceVersion\":\"{FIRST_VERSION}\""),
            &format!("\"resourceVersion\":\"{version}\""),
            1,
        );
        let line = Bytes::from(event("MODIFIED", &text));
        kept.watches.retain(|watch| watch.send(line.clone()).is_ok());
        if let Some(object) = kept.objects.get_mut(number) {
            *object = text;
        }
    }

    pub(super) fn watches(&self, resource: Resource) -> usize {
        let kept = self.kept(resource);
        kept.watches.iter().filter(|watch| !watch.is_closed()).count()
    }

    /// A page of the list, from an object on; or the one of this name.
    pub(super) fn page(&self, resource: Resource, only: Option<&str>, from: usize, limit: usize) -> String {
        let kept = self.kept(resource);
        let objects: Vec<_> = kept.named(only).collect();
        let end = objects.len().min(from.saturating_add(limit));
        let items = objects.get(from..end).unwrap_or_default();
        let items = items
            .iter()
            .map(|text| text.as_str())
            .collect::<Vec<_>>()
            .join(",");
        let next = if end < objects.len() {
            end.to_string()
        } else {
            String::new()
        };
        let (group, kind) = resource.kind();
        format!(
            "{{\"kind\":\"{kind}List\",\"apiVersion\":\"{group}\",\"metadata\":{{\"resourceVersion\":\"{}\",\"continue\":\"{next}\"}},\"items\":[{items}]}}",
            kept.version
        )
    }

    /// The object of this name.
    pub(super) fn object(&self, resource: Resource, name: &str) -> Option<String> {
        self.kept(resource).named(Some(name)).next().cloned()
    }

    /// What changes from now on, after everything that is there now if that is asked for.
    pub(super) fn watch(
        &self,
        resource: Resource,
        only: Option<&str>,
        with_all: bool,
    ) -> UnboundedReceiver<Bytes> {
        let (sender, receiver) = unbounded_channel();
        let mut kept = self.kept(resource);
        if with_all {
            // The receiver is there: nothing fails.
            for chunk in kept.everything(resource, only) {
                let _received = sender.send(chunk);
            }
        }
        kept.watches.push(sender);
        receiver
    }

    fn kept(&self, resource: Resource) -> MutexGuard<'_, Kept> {
        let [services, slices, nodes, cidrs] = &self.0;
        let kept = match resource {
            Resource::Services => services,
            Resource::EndpointSlices => slices,
            Resource::Nodes => nodes,
            Resource::ServiceCidrs => cidrs,
        };
        kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// All objects, or the one of this name.
    fn named(&self, only: Option<&str>) -> impl Iterator<Item = &String> {
        let name = only.map(|name| format!("\"name\":\"{name}\""));
        self.objects
            .iter()
            .filter(move |text| name.as_ref().is_none_or(|name| text.contains(name)))
    }

    /// An event for each object, and the bookmark that says that these were all.
    fn everything(&self, resource: Resource, only: Option<&str>) -> Vec<Bytes> {
        let (group, kind) = resource.kind();
        let bookmark = json!({
            "kind": kind,
            "apiVersion": group,
            "metadata": {
                "resourceVersion": self.version.to_string(),
                "annotations": { "k8s.io/initial-events-end": "true" },
            },
        });
        let mut chunks = Vec::new();
        let mut chunk = String::new();
        for object in self.named(only) {
            chunk.push_str(&event("ADDED", object));
            if chunk.len() > CHUNK {
                chunks.push(std::mem::take(&mut chunk).into());
            }
        }
        chunk.push_str(&event("BOOKMARK", &bookmark.to_string()));
        chunks.push(chunk.into());
        chunks
    }
}

fn event(what: &str, object: &str) -> String {
    let mut line = String::with_capacity(object.len() + 40);
    // A String takes all.
    let _written = writeln!(line, "{{\"type\":\"{what}\",\"object\":{object}}}");
    line
}
