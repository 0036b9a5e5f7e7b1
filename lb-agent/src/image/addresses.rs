//! Rows of addresses as such: what is said of a service's address beside its front ends. Ports of several Services may
//! share one.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::{ServiceFlags, ServiceKey, ServiceValue};

use crate::store::{FamilyTables, Rows};

/// Who wants a row of which address.
#[derive(Debug)]
pub(super) struct Addresses<A> {
    /// By address, the flags that each port wants.
    wanted: BTreeMap<A, BTreeMap<u32, u32>>,
    by_port: BTreeMap<u32, BTreeSet<A>>,
    /// Addresses whose rows may be wrong, with a port that has to do with it.
    open: BTreeMap<A, u32>,
}

/// The row that an address should have, or that it should have none, and the port to tell of when that fails.
#[derive(Clone, Copy, Debug)]
pub struct AddressRow<A> {
    /// The id of the port.
    pub owner: u32,
    /// The address.
    pub addr: A,
    /// Its row.
    pub row: Option<ServiceValue>,
}

impl<A: Copy + Ord> Addresses<A> {
    /// Takes note of rows that are there, wanted or not.
    pub(super) fn adopt(&mut self, addr: A) {
        self.open.insert(addr, 0);
    }

    /// Makes `flags` what a port wants of each address.
    pub(super) fn want(&mut self, id: u32, flags: &BTreeMap<A, u32>) {
        let before = self.by_port.remove(&id).unwrap_or_default();
        for addr in before {
            if let Some(ports) = self.wanted.get_mut(&addr) {
                ports.remove(&id);
                if ports.is_empty() {
                    self.wanted.remove(&addr);
                }
            }
            self.open.insert(addr, id);
        }
        for (addr, flags) in flags {
            self.wanted.entry(*addr).or_default().insert(id, *flags);
            self.open.insert(*addr, id);
        }
        if !flags.is_empty() {
            self.by_port.insert(id, flags.keys().copied().collect());
        }
    }

    /// The rows that differ. They are named again until the maps have them. `listed`: whether a port has a front end of
    /// the address; `planned`: whether it gets one in this pass. Without either, a row that is wanted has to wait.
    pub(super) fn rows<F: FamilyTables<Addr = A>>(
        &mut self,
        rows: &Rows,
        listed: impl Fn(A, u32) -> bool,
        planned: impl Fn(u32) -> bool,
    ) -> Vec<AddressRow<A>> {
        let mut found = Vec::new();
        let Self { wanted, open, .. } = self;
        open.retain(|addr, owner| {
            // An address that is a ClusterIP of any port is one from wherever packets come.
            let flags = wanted
                .get(addr)
                .and_then(|ports| ports.values().copied().reduce(|a, b| a & b));
            let row = flags.map(|flags| ServiceValue {
                flags,
                ..ServiceValue::default()
            });
            let differs = rows.get::<F::Services>(&ServiceKey::address(*addr)) != row.as_ref();
            let owner = match wanted.get(addr) {
                Some(ports) => {
                    let ids = || ports.keys().copied();
                    let found = ids().find(|id| listed(*addr, *id));
                    found.or_else(|| ids().find(|id| planned(*id)))
                }
                None => Some(*owner),
            };
            if let Some(owner) = owner.filter(|_| differs) {
                let addr = *addr;
                found.push(AddressRow { owner, addr, row });
            }
            differs
        });
        found
    }
}

/// Whether a row is that of an address as such.
pub fn is_address(row: &ServiceValue) -> bool {
    row.flags & ServiceFlags::ADDRESS != 0
}

impl<A> Default for Addresses<A> {
    fn default() -> Self {
        Self {
            wanted: BTreeMap::new(),
            by_port: BTreeMap::new(),
            open: BTreeMap::new(),
        }
    }
}
