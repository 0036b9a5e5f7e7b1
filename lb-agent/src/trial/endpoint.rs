//! Which endpoints a front end leads to, which it does not, and why.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use lb_common::addr::Address as _;
use lb_common::{BackendFlags, BackendState, V4, V6};
use serde::Serialize;

use super::front_end::FrontEnd;
use crate::dataplane::KernelStore;
use crate::desired::Standing;
use crate::desired::considered::Considered;
use crate::model::IpFamily;
use crate::reconcile::Pipe;
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

/// Those of a front end, from its Service's objects.
pub(super) fn of_objects(pipe: &Pipe, front_end: &FrontEnd, inside: bool) -> Vec<EndpointView> {
    let Some(name) = &front_end.name else {
        return Vec::new();
    };
    let family = IpFamily::of(front_end.address.ip());
    let considered = pipe.considered(name, front_end.policy(inside), family);
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
