//! What has been told of the objects of one kind, so that nothing is told twice and nothing that is gone is kept.
//!
//! Objects themselves are kept by whom they are told to; here are their names, and small objects that change often in ways
//! that do not matter here (heartbeats of Nodes).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::item::{Content, Item};
use crate::model::{Hints, Kind, Object, ObjectRef, Origin, Problem, Reason};
use crate::source::SourceEvent;

const LAST_STAYS: &str = "its last good state stays until it is mended or removed";
const LEFT_OUT: &str = "it is left out until it is mended";

/// What has been told.
#[derive(Debug, Default)]
pub(super) struct Told {
    objects: BTreeMap<ObjectRef, Option<Box<Object>>>,
    /// Of each object, what a person should mend.
    problems: BTreeMap<ObjectRef, BTreeSet<String>>,
    /// Objects without name that were complained of.
    nameless: BTreeSet<String>,
    /// While everything is told anew: what was there so far.
    seen: Option<BTreeSet<ObjectRef>>,
    common: Common,
}

impl Told {
    /// From now on everything is told anew. What was told so far of such an attempt does not count.
    pub(super) fn begin(&mut self) {
        self.seen = Some(BTreeSet::new());
        self.common.forget();
    }

    /// Everything was told anew: what was not there is gone.
    pub(super) fn end(&mut self, events: &mut Vec<SourceEvent>) {
        let Some(seen) = self.seen.take() else { return };
        self.problems.retain(|object, _| seen.contains(object));
        let gone = self.objects.keys().filter(|object| !seen.contains(object));
        for object in gone.cloned().collect::<Vec<_>>() {
            self.gone(&object, events);
        }
    }

    /// An object is there, or is different now.
    pub(super) fn take(&mut self, kind: Kind, item: Item, events: &mut Vec<SourceEvent>) {
        let Some(name) = item.object else {
            if let Content::Broken(why) = item.content
                && self.nameless.insert(why.clone())
            {
                let text = format!("a {kind} without a name that can be read is left out: {why}");
                events.push(problem(None, Reason::InvalidObject, text));
            }
            return;
        };
        if let Some(seen) = &mut self.seen {
            seen.insert(name.clone());
        }
        match item.content {
            Content::Object(object, notices) => {
                self.tell_problems(&name, Reason::FieldIgnored, notices, events);
                self.tell(name, object, events);
            }
            Content::LeftAlone => self.gone(&name, events),
            Content::Broken(why) => {
                let kept = if self.objects.contains_key(&name) {
                    LAST_STAYS
                } else {
                    LEFT_OUT
                };
                let text = format!("{why}; {kept}");
                self.tell_problems(&name, Reason::InvalidObject, vec![text], events);
            }
        }
    }

    /// An object is gone.
    pub(super) fn gone(&mut self, object: &ObjectRef, events: &mut Vec<SourceEvent>) {
        self.problems.remove(object);
        if self.objects.remove(object).is_some() {
            events.push(SourceEvent::Delete(object.clone()));
        }
    }

    /// Whether this object was told of.
    pub(super) fn has(&self, object: &ObjectRef) -> bool {
        self.objects.contains_key(object)
    }

    fn tell(&mut self, name: ObjectRef, mut object: Object, events: &mut Vec<SourceEvent>) {
        self.common.share(&mut object);
        let last = match name.kind {
            Kind::Service | Kind::EndpointSlice => None,
            Kind::Node | Kind::Namespace | Kind::ServiceCidr => Some(Box::new(object.clone())),
        };
        if last.is_some() && self.objects.get(&name) == Some(&last) {
            return;
        }
        self.objects.insert(name, last);
        let origin = Origin::default();
        events.push(SourceEvent::Apply { object, origin });
    }

    /// Tells what is new of it.
    fn tell_problems(
        &mut self,
        object: &ObjectRef,
        reason: Reason,
        now: Vec<String>,
        events: &mut Vec<SourceEvent>,
    ) {
        let before = self.problems.remove(object).unwrap_or_default();
        let now: BTreeSet<String> = now.into_iter().collect();
        let new = now.difference(&before).cloned();
        events.extend(new.map(|text| problem(Some(object.clone()), reason, text)));
        if !now.is_empty() {
            self.problems.insert(object.clone(), now);
        }
    }
}

pub(super) fn problem(object: Option<ObjectRef>, reason: Reason, text: String) -> SourceEvent {
    SourceEvent::Problem(Problem {
        object,
        origin: Origin::default(),
        reason,
        text,
    })
}

/// What many endpoints have in common, the names of nodes and hints: each is in memory once.
#[derive(Debug, Default)]
struct Common {
    nodes: BTreeSet<Arc<str>>,
    hints: BTreeSet<Arc<Hints>>,
}

impl Common {
    fn share(&mut self, object: &mut Object) {
        let Object::EndpointSlice(slice) = object else {
            return;
        };
        for endpoint in &mut slice.endpoints {
            share(&mut self.nodes, endpoint.node.as_mut());
            share(&mut self.hints, endpoint.hints.as_mut());
        }
    }

    /// Forgets those that nobody has.
    fn forget(&mut self) {
        self.nodes.retain(|name| Arc::strong_count(name) > 1);
        self.hints.retain(|hints| Arc::strong_count(hints) > 1);
    }
}

/// Makes a value the known one that is equal to it, if there is one; else it is known from now on.
fn share<T: Ord + ?Sized>(known: &mut BTreeSet<Arc<T>>, value: Option<&mut Arc<T>>) {
    let Some(value) = value else { return };
    match known.get(value) {
        Some(known) => *value = Arc::clone(known),
        None => _ = known.insert(Arc::clone(value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Conditions, Endpoint, EndpointSlice, IpFamily, ObjectName};

    #[test]
    fn what_endpoints_have_in_common_is_in_memory_once() {
        let slice = |number: u32| {
            let endpoint = || Endpoint {
                address: [10, 0, 0, 1].into(),
                conditions: Conditions::default(),
                node: Some("node-a".into()),
                pod: None,
                pod_name: None,
                hints: Some(Arc::new(Hints {
                    nodes: Vec::new(),
                    zones: vec!["zone-a".into(), "zone-b".into()],
                })),
            };
            Object::EndpointSlice(EndpointSlice {
                name: ObjectName::new("default", &format!("web-{number}")),
                service: ObjectName::new("default", "web"),
                family: IpFamily::V4,
                weight: 1,
                ports: Vec::new(),
                endpoints: vec![endpoint(), endpoint()],
                changed_at: None,
            })
        };
        let mut common = Common::default();
        let mut slices = [slice(1), slice(2)];
        for slice in &mut slices {
            common.share(slice);
        }
        let nodes: Vec<_> = common.nodes.iter().map(Arc::strong_count).collect();
        let hints: Vec<_> = common.hints.iter().map(Arc::strong_count).collect();
        assert_eq!((nodes, hints), (vec![5], vec![5]));

        drop(slices);
        common.forget();
        assert!(common.nodes.is_empty() && common.hints.is_empty());
    }
}
