//! Every object that the sources told of, found by the Service that it matters to.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::sync::Arc;

use super::{EndpointSlice, IpPrefix, Kind, Namespace, Node, Object, ObjectName, ObjectRef, Origin, Service};

/// The objects that are there, and which Services have changed since they were last looked at.
#[derive(Debug, Default)]
pub struct World {
    services: BTreeMap<ObjectName, Known<Service>>,
    /// By Service, then by slice: most Services have one, for which a map of its own would be large.
    slices: BTreeMap<(ObjectName, ObjectName), Known<EndpointSlice>>,
    /// The Service of each slice.
    service_of: BTreeMap<ObjectName, ObjectName>,
    nodes: BTreeMap<Arc<str>, Node>,
    namespaces: BTreeMap<Arc<str>, Namespace>,
    service_cidrs: BTreeMap<Arc<str>, Vec<IpPrefix>>,
    /// The Services that send their traffic to the backends of each.
    split_over: BTreeMap<ObjectName, BTreeSet<ObjectName>>,
    changed: BTreeSet<ObjectName>,
}

/// An object and where it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known<T> {
    /// The object.
    pub object: T,
    /// Where it was read.
    pub origin: Origin,
}

impl World {
    /// Takes an object as it is now. Returns whether that changes anything.
    pub fn apply(&mut self, object: Object, origin: Origin) -> bool {
        match object {
            Object::Service(object) => {
                let name = object.name.clone();
                let known = Known { object, origin };
                let changed = self.services.get(&name) != Some(&known);
                if changed {
                    self.replace_service(&name, Some(known));
                }
                changed
            }
            Object::EndpointSlice(object) => self.apply_slice(Known { object, origin }),
            Object::Node(node) => put(&mut self.nodes, node.name.as_str().into(), node),
            Object::Namespace(namespace) => {
                put(&mut self.namespaces, namespace.name.as_str().into(), namespace)
            }
            Object::ServiceCidr(cidr) => {
                put(&mut self.service_cidrs, cidr.name.as_str().into(), cidr.prefixes)
            }
        }
    }

    /// Forgets an object.
    pub fn delete(&mut self, gone: &ObjectRef) {
        match gone.kind {
            Kind::Service => {
                if self.services.contains_key(&gone.name) {
                    self.replace_service(&gone.name, None);
                }
            }
            Kind::EndpointSlice => self.delete_slice(&gone.name),
            Kind::Node => _ = self.nodes.remove(&gone.name.name),
            Kind::Namespace => _ = self.namespaces.remove(&gone.name.name),
            Kind::ServiceCidr => _ = self.service_cidrs.remove(&gone.name.name),
        }
    }

    /// Every Service.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.services.values().map(|known| &known.object)
    }

    /// The Service of this name.
    pub fn service(&self, name: &ObjectName) -> Option<&Known<Service>> {
        self.services.get(name)
    }

    /// The slices of the Service of this name, which itself need not be there.
    pub fn slices(&self, service: &ObjectName) -> impl Iterator<Item = &Known<EndpointSlice>> + Clone {
        let from = (service.clone(), ObjectName::new("", ""));
        let slices = self.slices.range(from..).map(|(_, slice)| slice);
        slices.take_while(move |slice| slice.object.service == *service)
    }

    /// The Node of this name.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.get(name)
    }

    /// Every Node.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// The prefixes that services get their addresses from, as every ServiceCIDR tells.
    pub fn service_prefixes(&self) -> impl Iterator<Item = IpPrefix> {
        self.service_cidrs.values().flatten().copied()
    }

    /// The Namespace of this name.
    pub fn namespace(&self, name: &str) -> Option<&Namespace> {
        self.namespaces.get(name)
    }

    /// How many objects of each kind there are.
    pub fn counts(&self) -> [(Kind, usize); 5] {
        [
            (Kind::Service, self.services.len()),
            (Kind::EndpointSlice, self.service_of.len()),
            (Kind::Node, self.nodes.len()),
            (Kind::Namespace, self.namespaces.len()),
            (Kind::ServiceCidr, self.service_cidrs.len()),
        ]
    }

    /// Makes [`Self::take_changed`] name a Service once more.
    pub fn touch(&mut self, service: ObjectName) {
        self.changed.insert(service);
    }

    /// The Services that have changed since the last call, or whose slices have, or those that they are split over.
    pub fn take_changed(&mut self) -> BTreeSet<ObjectName> {
        let mut changed = mem::take(&mut self.changed);
        let split = changed.iter().filter_map(|name| self.split_over.get(name));
        let split: Vec<_> = split.flatten().cloned().collect();
        changed.extend(split);
        changed
    }

    fn replace_service(&mut self, name: &ObjectName, now: Option<Known<Service>>) {
        if let Some(before) = self.services.remove(name) {
            for target in before.object.split_targets() {
                if let Some(others) = self.split_over.get_mut(&target) {
                    others.remove(name);
                    if others.is_empty() {
                        self.split_over.remove(&target);
                    }
                }
            }
        }
        if let Some(now) = now {
            for target in now.object.split_targets() {
                self.split_over.entry(target).or_default().insert(name.clone());
            }
            self.services.insert(name.clone(), now);
        }
        self.changed.insert(name.clone());
    }

    fn apply_slice(&mut self, known: Known<EndpointSlice>) -> bool {
        let (name, service) = (known.object.name.clone(), known.object.service.clone());
        if self
            .service_of
            .get(&name)
            .is_some_and(|before| *before != service)
        {
            self.delete_slice(&name);
        }
        let changed = put(&mut self.slices, (service.clone(), name.clone()), known);
        if changed {
            self.service_of.insert(name, service.clone());
            self.changed.insert(service);
        }
        changed
    }

    fn delete_slice(&mut self, name: &ObjectName) {
        let Some(service) = self.service_of.remove(name) else {
            return;
        };
        self.slices.remove(&(service.clone(), name.clone()));
        self.changed.insert(service);
    }
}

/// Puts a value under its key. Returns whether that changes anything.
fn put<K: Ord, V: PartialEq>(values: &mut BTreeMap<K, V>, key: K, value: V) -> bool {
    let changed = values.get(&key) != Some(&value);
    if changed {
        values.insert(key, value);
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{IpFamily, ServiceOptions, Share, TrafficPolicy};

    fn slice(name: &str, service: &str) -> Object {
        Object::EndpointSlice(EndpointSlice {
            name: ObjectName::new("default", name),
            service: ObjectName::new("default", service),
            family: IpFamily::V4,
            weight: 1,
            ports: Vec::new(),
            endpoints: Vec::new(),
            changed_at: None,
        })
    }

    /// Applies `object` and compares which Services are said to have changed.
    #[track_caller]
    fn check(world: &mut World, object: Object, changed: &[&str]) {
        world.apply(object, Origin::default());
        let names: Vec<_> = world
            .take_changed()
            .into_iter()
            .map(|name| name.name.to_string())
            .collect();
        assert_eq!(names, changed);
    }

    #[test]
    fn a_slice_changes_the_service_that_it_belongs_to() {
        let mut world = World::default();
        check(&mut world, slice("a", "web"), &["web"]);
        check(&mut world, slice("a", "web"), &[]);
        check(&mut world, slice("b", "dns"), &["dns"]);
    }

    #[test]
    fn a_slice_that_moves_changes_both_services() {
        let mut world = World::default();
        check(&mut world, slice("a", "web"), &["web"]);
        check(&mut world, slice("a", "dns"), &["dns", "web"]);
        assert_eq!(world.slices(&ObjectName::new("default", "web")).count(), 0);
    }

    #[test]
    fn a_service_changes_with_those_that_it_is_split_over() {
        let service = |split: &[&str]| {
            let share = |service: &&str| Share {
                service: (*service).into(),
                weight: 1,
            };
            let options = ServiceOptions {
                split: split.iter().map(share).collect(),
                ..ServiceOptions::default()
            };
            Object::Service(Service {
                name: ObjectName::new("default", "web"),
                cluster_ips: Vec::new(),
                external_ips: Vec::new(),
                load_balancer_ips: Vec::new(),
                source_ranges: Vec::new(),
                ports: Vec::new(),
                internal_policy: TrafficPolicy::Cluster,
                external_policy: TrafficPolicy::Cluster,
                affinity_seconds: None,
                health_check_port: None,
                options,
            })
        };
        let mut world = World::default();
        check(&mut world, service(&["v1", "v2"]), &["web"]);
        check(&mut world, slice("a", "v1"), &["v1", "web"]);
        check(&mut world, slice("b", "v2"), &["v2", "web"]);
        check(&mut world, service(&["v2"]), &["web"]);
        check(&mut world, slice("c", "v1"), &["v1"]);
        check(&mut world, slice("d", "v2"), &["v2", "web"]);
    }
}
