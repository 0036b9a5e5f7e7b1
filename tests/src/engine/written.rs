//! What the programs write: the tables that no agent fills.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use lb_common::{Affinity, ClientKey, Fragment, FragmentKey, PathMtu};
use lb_ebpf::testkit::Flows;

use super::UNIT;

/// The contents of those tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written<A> {
    /// Flows.
    pub flows: Flows<A>,
    /// The backends that clients stay with.
    pub affinity: BTreeMap<ClientKey<A>, Affinity>,
    /// Packets in fragments.
    pub fragments: BTreeMap<FragmentKey<A>, Fragment>,
    /// Limits on the connections of clients.
    pub sources: BTreeMap<ClientKey<A>, u64>,
    /// The largest packets on ways to backends.
    pub paths: BTreeMap<A, PathMtu>,
    /// Open connections by index of the backend. Only what is not zero.
    pub loads: BTreeMap<u32, u32>,
    /// Limits on new connections by service, and in row 0 on answers. Only what is not zero.
    pub limits: BTreeMap<u32, u64>,
}

impl<A> Default for Written<A> {
    fn default() -> Self {
        Self {
            flows: BTreeMap::new(),
            affinity: BTreeMap::new(),
            fragments: BTreeMap::new(),
            sources: BTreeMap::new(),
            paths: BTreeMap::new(),
            loads: BTreeMap::new(),
            limits: BTreeMap::new(),
        }
    }
}

impl<A: Ord + Debug> Written<A> {
    /// What is not the same, a line each.
    pub(super) fn differences(&self, other: &Self) -> Vec<String> {
        [
            different(&self.flows, &other.flows),
            different(&self.affinity, &other.affinity),
            different(&self.fragments, &other.fragments),
            different(&self.sources, &other.sources),
            different(&self.loads, &other.loads),
            different(&self.limits, &other.limits),
        ]
        .concat()
    }
}

fn different<K: Ord + Debug, V: PartialEq + Debug>(
    one: &BTreeMap<K, V>,
    other: &BTreeMap<K, V>,
) -> Vec<String> {
    let keys: BTreeSet<&K> = one.keys().chain(other.keys()).collect();
    keys.into_iter()
        .filter(|key| one.get(key) != other.get(key))
        .map(|key| {
            format!(
                "{key:?}:\n  host  {:?}\n  other {:?}\n",
                one.get(key),
                other.get(key)
            )
        })
        .collect()
}

impl<A: Ord> Written<A> {
    /// Everything is older by so many seconds.
    pub(super) fn age(&mut self, seconds: u32) {
        let jiffies = seconds * UNIT;
        for time in self.times() {
            *time = time.wrapping_sub(jiffies);
        }
        // In 1/65536 of a jiffy.
        let spent = u64::from(jiffies) << 16;
        for until in self.sources.values_mut().chain(self.limits.values_mut()) {
            *until = until.saturating_sub(spent);
        }
    }

    /// With ages in seconds instead of times, so that engines with different clocks can be compared. Limits are left
    /// out: they are finer than that.
    #[must_use]
    pub(super) fn normal(mut self, now: u32) -> Self {
        for time in self.times() {
            let age = now.wrapping_sub(*time) & 0x7fff_ffff;
            *time = (age + UNIT / 2) / UNIT;
        }
        self.sources.values_mut().for_each(|until| *until = 1);
        self.limits.values_mut().for_each(|until| *until = 1);
        self
    }

    fn times(&mut self) -> impl Iterator<Item = &mut u32> {
        let flows = self.flows.values_mut().map(|flow| &mut flow.last_seen);
        let clients = self.affinity.values_mut().map(|client| &mut client.last_used);
        let fragments = self
            .fragments
            .values_mut()
            .map(|fragment| &mut fragment.first_seen);
        let paths = self.paths.values_mut().map(|path| &mut path.learned);
        flows.chain(clients).chain(fragments).chain(paths)
    }
}
