//! The marker that lets aya copy rows in and out of maps.

use crate::{
    Backend, Device, Flow, FlowKey, Ip4, Ip6, NodeAddress, Port, ServiceKey, ServiceName, ServiceStats,
    ServiceValue, Settings, Slot,
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
    ServiceKey<Ip4>, ServiceKey<Ip6>, ServiceValue, Slot, ServiceStats, ServiceName,
    Backend<Ip4>, Backend<Ip6>,
    FlowKey<Ip4>, FlowKey<Ip6>, Flow<Ip4>, Flow<Ip6>,
    Device, NodeAddress, Settings,
}

#[cfg(feature = "bench")]
// SAFETY: as above: integers and an array of them, no padding.
unsafe impl aya::Pod for crate::bench::Plan {}
