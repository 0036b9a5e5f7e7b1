//! Indices and rows of backends.

use std::collections::BTreeMap;

use lb_common::{Backend, BackendFlags, BackendState, LocalKey};

use super::NoRoom;
use super::family::FamilyImage;
use super::half::HalfRows;
use crate::desired::{Half, Target};
use crate::store::{FamilyTables, Rows, Table as _};

// === impl FamilyImage ===

impl<F: FamilyTables> FamilyImage<F> {
    /// The rows of the endpoints of a port, with indices for new ones.
    pub(super) fn assign_backends(
        &mut self,
        id: u32,
        half: &Half<F>,
        rows: &Rows,
    ) -> Result<HalfRows<F>, NoRoom> {
        let mut found = HalfRows::default();
        if let Some(port) = self.ports.get(&id) {
            // Endpoints that have come back must have their indices before new ones take them.
            for (target, index) in &port.backends {
                if half.backends.contains_key(target) {
                    self.indices.wake(*index);
                } else if let Some(row) = own_row::<F>(rows, id, target, *index) {
                    found.backends.insert(*index, removed(row));
                }
            }
        }
        let port = self.ports.entry(id).or_default();
        let new = half
            .backends
            .keys()
            .filter(|target| !port.backends.contains_key(target))
            .count();
        if new > self.indices.available() {
            return Err(NoRoom::Backends {
                map: F::Backends::NAME,
            });
        }
        for (target, member) in &half.backends {
            let index = self.index_of(id, target, rows, &mut found)?;
            let flags = [
                (BackendFlags::LOCAL, member.local),
                (BackendFlags::LOCAL_ONLY, member.local_only),
            ]
            .into_iter()
            .filter(|(_, set)| *set)
            .fold(0, |flags, (flag, _)| flags | flag);
            let row = backend_row::<F>(rows, id, target, index, member.state);
            let port = self.ports.entry(id).or_default();
            let epoch = port.pods.epoch(target, member.pod.as_ref(), row.epoch);
            // This replaces the row of an endpoint of this port that has just lost its index.
            found.backends.insert(index, Backend { epoch, flags, ..row });
        }
        Ok(found)
    }

    /// The index of an endpoint: its own, or a new one.
    fn index_of(
        &mut self,
        id: u32,
        target: &Target<F::Addr>,
        rows: &Rows,
        found: &mut HalfRows<F>,
    ) -> Result<u32, NoRoom> {
        if let Some(index) = self.ports.get(&id).and_then(|port| port.backends.get(target)) {
            return Ok(*index);
        }
        let index = self.indices.take().ok_or(NoRoom::Backends {
            map: F::Backends::NAME,
        })?;
        if let Some(row) = rows.get::<F::Backends>(&index) {
            let before = target_of(row);
            found.vacated_locals.extend(local_of::<F>(rows, row, index));
            if let Some(port) = self.ports.get_mut(&row.service)
                && port.backends.get(&before) == Some(&index)
            {
                port.backends.remove(&before);
                port.pods.forget(&before);
            }
        }
        self.ports.entry(id).or_default().backends.insert(*target, index);
        Ok(index)
    }
}

/// The endpoint that a row is of.
pub(super) fn target_of<A: Copy>(row: &Backend<A>) -> Target<A> {
    Target {
        addr: row.addr,
        port: row.port,
    }
}

/// The row at `index`, when it is that of `target` and not free.
pub(super) fn own_row<F: FamilyTables>(
    rows: &Rows,
    service: u32,
    target: &Target<F::Addr>,
    index: u32,
) -> Option<Backend<F::Addr>> {
    let row = *rows.get::<F::Backends>(&index)?;
    let own = row.service == service && target_of(&row) == *target;
    (own && row.state != BackendState::Free as u8).then_some(row)
}

/// What leads to the backend at `index`, as a packet that comes wrapped.
pub(super) fn local_of<F: FamilyTables>(
    rows: &Rows,
    row: &Backend<F::Addr>,
    index: u32,
) -> Option<LocalKey<F::Addr>> {
    let key = LocalKey {
        addr: row.addr,
        service: row.service,
    };
    (rows.get::<F::Locals>(&key) == Some(&index)).then_some(key)
}

/// The local endpoints among `backends`, by address. Those that have left keep what leads to them, for their flows live
/// on, but get nothing new: their indices may be another's soon. Of an address with several ports the one that gets new
/// flows, or else the lowest.
pub(super) fn locals<F: FamilyTables>(
    id: u32,
    backends: &BTreeMap<u32, Backend<F::Addr>>,
    rows: &Rows,
) -> BTreeMap<LocalKey<F::Addr>, u32> {
    let mut best = BTreeMap::new();
    for (index, row) in backends {
        let key = LocalKey {
            addr: row.addr,
            service: id,
        };
        let here = row.flags & BackendFlags::LOCAL != 0 && row.service == id;
        let known = rows.get::<F::Locals>(&key) == Some(index);
        let counts = match BackendState::from_number(row.state) {
            Some(BackendState::Active | BackendState::NoNew | BackendState::NotServing) => here,
            Some(BackendState::Removed) => here && known,
            Some(BackendState::Free) | None => false,
        };
        if counts {
            // States are numbered from the liveliest on.
            let candidate = (row.state, row.port, *index);
            let best = best.entry(key).or_insert(candidate);
            *best = candidate.min(*best);
        }
    }
    best.into_iter()
        .map(|(key, (_, _, index))| (key, index))
        .collect()
}

/// The row for `target` at `index`, of a new epoch when the index has been another's.
fn backend_row<F: FamilyTables>(
    rows: &Rows,
    service: u32,
    target: &Target<F::Addr>,
    index: u32,
    state: BackendState,
) -> Backend<F::Addr> {
    let own = own_row::<F>(rows, service, target, index);
    let epoch = own.map_or_else(
        || {
            rows.get::<F::Backends>(&index)
                .map_or(1, |before| before.epoch.wrapping_add(1))
        },
        |row| row.epoch,
    );
    Backend {
        addr: target.addr,
        port: target.port,
        epoch,
        service,
        state: state as u8,
        flags: 0,
        pad: [0; 2],
    }
}

/// The same endpoint after it has left.
pub(super) fn removed<A>(row: Backend<A>) -> Backend<A> {
    Backend {
        state: BackendState::Removed as u8,
        ..row
    }
}

/// Nobody's, so that no flow matches it; the epoch stays, for the next one.
pub(super) fn free<A: Default>(row: &Backend<A>) -> Backend<A> {
    Backend {
        epoch: row.epoch,
        ..Backend::default()
    }
}

#[cfg(test)]
mod tests {
    use lb_common::{Ip4, Port, V4};

    use super::*;
    use crate::store::Locals;

    #[test]
    fn of_an_address_with_several_ports_the_liveliest_is_named() {
        let addr = |host| Ip4::new([10, 0, 0, host]);
        let row = |host, port, state: BackendState, flags| Backend {
            addr: addr(host),
            port: Port::new(port),
            epoch: 1,
            service: 7,
            state: state as u8,
            flags,
            pad: [0; 2],
        };
        let local = BackendFlags::LOCAL;
        let backends = [
            (0, row(1, 80, BackendState::Removed, local)),
            (1, row(1, 8081, BackendState::Active, local)),
            (2, row(1, 8080, BackendState::Active, local)),
            (3, row(2, 80, BackendState::Active, 0)),
            (4, row(3, 80, BackendState::NoNew, local)),
            (5, row(4, 80, BackendState::Free, local)),
            (6, row(5, 80, BackendState::Removed, local)),
            (7, row(6, 80, BackendState::Removed, local)),
        ];
        let mut rows = Rows::default();
        let key = LocalKey {
            addr: addr(6),
            service: 7,
        };
        rows.put::<Locals<V4>>(&key, Some(&7));
        let found = locals::<V4>(7, &backends.into(), &rows);
        let found: Vec<_> = found
            .into_iter()
            .map(|(key, index)| (key.addr.octets[3], index))
            .collect();
        assert_eq!(found, [(1, 2), (3, 4), (6, 7)]);
    }
}
