//! What is to be written, in the one order in which no packet sees half an update.
//!
//! The phases before the flip only make what nothing leads to yet. So their writes may go ahead, in portions, while the
//! rest is still being planned; the flip and what comes after it waits until everything is planned, since a front end may
//! go from one Service to another.

use std::sync::Arc;

use lb_common::{
    Backend, Device, Family, FamilySettings, LocalKey, NodeAddress, RangeKey, ServiceKey, ServiceName,
    ServicePolicy, ServiceValue, Settings, SlotRange, V4, V6,
};

/// The parts of an update, in order. New rows that nothing leads to go first, then the rows that lead to them, and
/// what nothing leads to any more goes last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Settings, devices, addresses of the node, lists of the node.
    Node,
    /// Backends that are nobody's and that no front end leads to, and what else leads to them.
    Vacate,
    /// Names of new ports.
    Names,
    /// Backends that are new or that get more flows than before.
    Backends,
    /// What front ends' flags need more of: times and limits, sources, local endpoints.
    Lists,
    /// New slots.
    Slots,
    /// Front ends: the flip.
    Flip,
    /// Front ends that are gone.
    Unlist,
    /// Addresses as such: by now their front ends are there, or gone.
    Addresses,
    /// What no front end's flags need any more.
    Shorten,
    /// Backends that get fewer flows than before, or none.
    Retire,
    /// Names of ports that are gone.
    Unname,
}

/// Writes by phase.
#[derive(Debug, Default)]
pub(super) struct Plan {
    phases: [Vec<Planned>; 12],
}

/// A write and whose it is.
#[derive(Debug)]
pub(super) struct Planned {
    /// The id of the port of a Service that it is for, or [`NODE`].
    pub(super) owner: u32,
    /// The write.
    pub(super) write: Write,
}

/// The owner of what belongs to no Service.
pub(super) const NODE: u32 = 0;

/// One or more rows to put in their places, or to take out.
#[derive(Debug)]
pub(super) enum Write {
    /// The row of settings.
    Settings(Settings),
    /// A row of devices.
    Device(u32, Option<Device>),
    /// A row of names.
    Name(u32, Option<Box<ServiceName>>),
    /// A row of times and limits.
    Policy(u32, ServicePolicy),
    /// The traffic counters of a port that is new: they are its id's former holder's.
    ResetStats(u32),
    /// Rows of IPv4.
    V4(FamilyWrite<V4>),
    /// Rows of IPv6.
    V6(FamilyWrite<V6>),
}

/// Rows of one family's maps.
#[derive(Debug)]
pub(super) enum FamilyWrite<F: Family> {
    /// A row of node addresses.
    NodeAddress(F::Addr, Option<NodeAddress>),
    /// The address to masquerade with on a device.
    SnatAddress(u32, Option<F::Addr>),
    /// The row of what is told of the family.
    Settings(FamilySettings<F::Addr>),
    /// A row of backends.
    Backend(u32, Backend<F::Addr>),
    /// The slots of a region: the indices of its backends.
    Slots(SlotRange, Arc<[u32]>),
    /// A prefix in a list: whether it is there.
    Range(RangeKey<F::Addr>, bool),
    /// The index of a local endpoint.
    Local(LocalKey<F::Addr>, Option<u32>),
    /// A row of services.
    Service(ServiceKey<F::Addr>, Option<ServiceValue>),
    /// The row of an address as such.
    Address(F::Addr, Option<ServiceValue>),
}

/// A family whose writes have their place in [`Write`].
pub(super) trait FamilyWrites: Family {
    /// The write for it.
    fn write(write: FamilyWrite<Self>) -> Write;
}

impl Plan {
    /// Adds a write to a phase.
    pub(super) fn add(&mut self, phase: Phase, owner: u32, write: Write) {
        if let Some(writes) = self.phases.get_mut(phase as usize) {
            writes.push(Planned { owner, write });
        }
    }

    /// Takes the writes that may go ahead, if there are so many of them.
    pub(super) fn take_ahead(&mut self, at_least: usize) -> Option<Self> {
        let (ahead, _) = self.phases.split_at_mut(Phase::Flip as usize);
        let count: usize = ahead.iter().map(Vec::len).sum();
        (count >= at_least).then(|| {
            let mut taken = Self::default();
            for (writes, taken) in ahead.iter_mut().zip(&mut taken.phases) {
                std::mem::swap(writes, taken);
            }
            taken
        })
    }

    /// The writes in their order.
    pub(super) fn into_writes(self) -> impl Iterator<Item = Planned> {
        self.phases.into_iter().flatten()
    }
}

impl FamilyWrites for V4 {
    fn write(write: FamilyWrite<Self>) -> Write {
        Write::V4(write)
    }
}

impl FamilyWrites for V6 {
    fn write(write: FamilyWrite<Self>) -> Write {
        Write::V6(write)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_comes_before_the_flip_may_go_ahead() {
        let key = ServiceKey::address(lb_common::Ip4::default());
        let mut plan = Plan::default();
        plan.add(Phase::Flip, 1, V4::write(FamilyWrite::Service(key, None)));
        plan.add(Phase::Names, 1, Write::ResetStats(1));
        plan.add(Phase::Retire, 1, Write::ResetStats(2));
        assert!(plan.take_ahead(2).is_none());
        plan.add(Phase::Slots, 1, Write::ResetStats(3));
        let ahead = plan.take_ahead(2).unwrap().into_writes();
        let ahead: Vec<_> = ahead.map(|planned| planned.write).collect();
        assert!(
            matches!(ahead[..], [Write::ResetStats(1), Write::ResetStats(3)]),
            "{ahead:?}"
        );
        let rest: Vec<_> = plan.into_writes().map(|planned| planned.write).collect();
        assert!(
            matches!(rest[..], [Write::V4(_), Write::ResetStats(2)]),
            "{rest:?}"
        );
    }
}
