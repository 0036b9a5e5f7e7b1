//! Which endpoints a front end leads to, which it does not, and why.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use lb_common::addr::Address as _;
use lb_common::{BackendFlags, BackendState, V4, V6};
use serde::Serialize;

use super::front_end::FrontEnd;
use crate::dataplane::KernelStore;
use crate::desired::Standing;
use crate::desired::considered::{Considered, considered};
use crate::model::{IpFamily, World};
use crate::store::{FamilyTables, MapStore as _, StoreError};

/// An endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EndpointView {
    /// Address and port.
    pub address: SocketAddr,
    /// The pod, as `namespace/name`; null when that is not known.
    pub pod: Option<String>,
    /// The node that it is on; null when that is not known.
    pub node: Option<String>,
    /// Whether it is on this node.
    pub here: bool,
    /// The Service that it is an endpoint of, where that is another one (a split); else null.
    pub service: Option<String>,
    /// Why it gets no new connections, in one word; null when it does.
    pub reason: Option<&'static str>,
    /// The same in words. Of an endpoint that gets new connections although it is not ready, why.
    pub why: Option<&'static str>,
}

/// Objects, as far as they are known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Objects<'a> {
    pub(super) world: &'a World,
    /// The name of this node.
    pub(super) node_name: &'a str,
}

/// Of an endpoint that gets new connections in the maps alone.
const OUTDATED: &str =
    "by its objects it should get none: the agent has not followed them yet, or does not run";
/// Of an endpoint that gets new connections in the objects alone.
const NOT_IN_MAPS: &str = "by its objects it should: the agent has not followed them yet, or does not run";

/// Those of a front end, from its Service's objects.
pub(super) fn of_objects(objects: Objects<'_>, front_end: &FrontEnd, inside: bool) -> Vec<EndpointView> {
    let Some(name) = &front_end.name else {
        return Vec::new();
    };
    let family = IpFamily::of(front_end.address.ip());
    let policy = front_end.policy(inside);
    let considered = considered(name, (policy, family), (objects.node_name, objects.world));
    let view = |considered: Considered| {
        let (reason, why) = match considered.standing {
            Standing::Ready => (None, None),
            Standing::Fallback => (None, Some("it terminates, but still serves, and none is ready")),
            Standing::LeftOut(why) => (Some(why.code()), Some(why.as_str())),
        };
        EndpointView {
            address: considered.target,
            pod: considered.pod.map(|pod| pod.to_string()),
            node: considered.node.map(|node| node.to_string()),
            here: considered.local,
            service: Some(considered.service)
                .filter(|service| *service != name.service)
                .map(|service| service.to_string()),
            reason,
            why,
        }
    };
    considered.into_iter().flatten().map(view).collect()
}

/// What maps and objects say together. Who gets new connections, the maps say; objects have names, and know of those that
/// were never in the maps.
pub(super) fn joined(maps: Vec<EndpointView>, objects: Vec<EndpointView>) -> Vec<EndpointView> {
    let get_new: BTreeSet<SocketAddr> = maps
        .iter()
        .filter(|endpoint| endpoint.reason.is_none())
        .map(|endpoint| endpoint.address)
        .collect();
    let known: BTreeMap<SocketAddr, &EndpointView> = objects
        .iter()
        .map(|endpoint| (endpoint.address, endpoint))
        .collect();
    let in_maps: BTreeSet<SocketAddr> = maps.iter().map(|endpoint| endpoint.address).collect();
    let mut found: Vec<_> = maps
        .into_iter()
        .map(|endpoint| {
            let known = known.get(&endpoint.address).copied();
            // Beside one that has left, there may be its successor at the same address.
            let is_old = endpoint.reason.is_some() && get_new.contains(&endpoint.address);
            if is_old { endpoint } else { endpoint.with(known) }
        })
        .collect();
    let others = objects
        .into_iter()
        .filter(|endpoint| !in_maps.contains(&endpoint.address));
    found.extend(others.map(EndpointView::not_in_maps));
    found
}

impl EndpointView {
    /// One of the maps, with what the objects say of it.
    fn with(self, known: Option<&Self>) -> Self {
        let Some(known) = known else {
            // One that is left out says so itself.
            let why = if self.reason.is_none() {
                Some(OUTDATED)
            } else {
                self.why
            };
            return Self { why, ..self };
        };
        let (reason, why) = match (self.reason, known.reason) {
            (None, None) => (None, known.why),
            (None, Some(_)) => (None, Some(OUTDATED)),
            (Some(_), None) => (Some("not-in-maps"), Some(NOT_IN_MAPS)),
            (Some(_), Some(_)) => (known.reason, known.why),
        };
        Self {
            address: self.address,
            here: self.here,
            reason,
            why,
            ..known.clone()
        }
    }

    /// One of the objects that the maps do not have.
    fn not_in_maps(self) -> Self {
        if self.reason.is_some() {
            return self;
        }
        Self {
            reason: Some("not-in-maps"),
            why: Some(NOT_IN_MAPS),
            ..self
        }
    }
}

/// Those of a front end, from the maps: all that have ever been ready and are not forgotten yet.
pub(super) fn of_maps(
    store: &KernelStore,
    front_end: &FrontEnd,
    inside: bool,
) -> Result<Vec<EndpointView>, StoreError> {
    if front_end.address.is_ipv4() {
        of_family::<V4>(store, front_end, inside)
    } else {
        of_family::<V6>(store, front_end, inside)
    }
}

fn of_family<F: FamilyTables>(
    store: &KernelStore,
    front_end: &FrontEnd,
    inside: bool,
) -> Result<Vec<EndpointView>, StoreError> {
    let range = front_end.range(inside);
    let slots = store.some_rows::<F::Slots>(range.base, range.count)?;
    let eligible: BTreeSet<u32> = slots
        .iter()
        .filter(|slot| slot.generation == range.generation)
        .map(|slot| slot.backend)
        .collect();
    let mut found = BTreeMap::new();
    for (index, row) in store.rows::<F::Backends>()? {
        let state = BackendState::from_number(row.state);
        let Some(state) = state.filter(|state| *state != BackendState::Free) else {
            continue;
        };
        if row.service != front_end.row.service {
            continue;
        }
        let (reason, why) = match state {
            _ if eligible.contains(&index) => (None, None),
            BackendState::NoNew => (
                Some("no-new"),
                Some("not ready or terminating: it keeps its connections and gets no new ones"),
            ),
            BackendState::NotServing => (
                Some("not-serving"),
                Some("it does not serve: established connections go on, and its datagrams go to others"),
            ),
            BackendState::Removed => (
                Some("removed"),
                Some("it has left the EndpointSlices: established connections go on"),
            ),
            BackendState::Active | BackendState::Free => {
                (Some("other-policy"), Some("another traffic policy leads to it"))
            }
        };
        let address = SocketAddr::new(row.addr.ip(), row.port.number());
        let view = EndpointView {
            address,
            pod: None,
            node: None,
            here: row.flags & BackendFlags::LOCAL != 0,
            service: None,
            reason,
            why,
        };
        found.insert((address, index), view);
    }
    Ok(found.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(host: u8, named: bool, reason: Option<&'static str>) -> EndpointView {
        EndpointView {
            address: SocketAddr::from(([10, 244, 1, host], 80)),
            pod: named.then(|| format!("shop/web-{host}")),
            node: named.then(|| "node-a".to_owned()),
            here: true,
            service: None,
            reason,
            why: None,
        }
    }

    #[test]
    fn maps_say_who_gets_new_connections_and_objects_the_rest() {
        let maps = [
            (1, None),
            (2, None),
            (3, None),
            (4, Some("no-new")),
            (5, Some("removed")),
            (6, Some("removed")),
            (7, Some("removed")),
            (7, None),
        ];
        let objects = [
            (1, None),
            (2, Some("not-ready")),
            (4, Some("terminating")),
            (6, None),
            (7, None),
            (8, Some("other-zone")),
            (9, None),
        ];
        let maps = maps.map(|(host, reason)| view(host, false, reason)).to_vec();
        let objects = objects.map(|(host, reason)| view(host, true, reason)).to_vec();
        let found: Vec<_> = joined(maps, objects)
            .into_iter()
            .map(|view| {
                (
                    view.address.ip().to_string(),
                    view.pod.is_some(),
                    view.reason,
                    view.why,
                )
            })
            .collect();
        let expected = [
            (1, true, None, None),
            (2, true, None, Some(OUTDATED)),
            (3, false, None, Some(OUTDATED)),
            (4, true, Some("terminating"), None),
            (5, false, Some("removed"), None),
            (6, true, Some("not-in-maps"), Some(NOT_IN_MAPS)),
            (7, false, Some("removed"), None),
            (7, true, None, None),
            (8, true, Some("other-zone"), None),
            (9, true, Some("not-in-maps"), Some(NOT_IN_MAPS)),
        ]
        .map(|(host, named, reason, why)| (format!("10.244.1.{host}"), named, reason, why));
        assert_eq!(found, expected);
    }
}
