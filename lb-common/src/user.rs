//! The marker that lets aya copy rows in and out of maps.

use crate::{
    Affinity, Backend, ClientKey, Device, FamilySettings, Flow, FlowHash, FlowKey, FlowRow, FlowTags,
    Fragment, FragmentKey, Hop, Ip4, Ip6, LocalKey, NodeAddress, PathMtu, Port, Prefix, RangeKey, ServiceKey,
    ServiceName, ServicePolicy, ServiceStats, ServiceValue, Settings, Slot, SlotRange,
};

macro_rules! pod {
    ($($type:ty),+ $(,)?) => {
        // SAFETY: every type is repr(C), made of integers and arrays of them only (any bit pattern is valid), and
        // has no padding, as `layout` proves.
        $(unsafe impl aya::Pod for $type {})+
    };
}

pod! {
    Ip4, Ip6, Port,
    ServiceKey<Ip4>, ServiceKey<Ip6>, ServiceValue, SlotRange, Slot, ServicePolicy, ServiceStats, ServiceName,
    Backend<Ip4>, Backend<Ip6>, LocalKey<Ip4>, LocalKey<Ip6>,
    ClientKey<Ip4>, ClientKey<Ip6>, Affinity, RangeKey<Ip4>, RangeKey<Ip6>,
    FlowKey<Ip4>, FlowKey<Ip6>, Flow<Ip4>, Flow<Ip6>, Hop, FlowRow<Ip4>, FlowRow<Ip6>, FlowTags, FlowHash,
    FragmentKey<Ip4>, FragmentKey<Ip6>, Fragment, PathMtu,
    Device, NodeAddress, Settings, FamilySettings<Ip4>, FamilySettings<Ip6>, Prefix<Ip4>, Prefix<Ip6>,
}

#[cfg(feature = "bench")]
// SAFETY: as above: integers and an array of them, no padding.
unsafe impl aya::Pod for crate::bench::Plan {}
