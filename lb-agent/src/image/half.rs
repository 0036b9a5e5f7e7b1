//! The rows of one port in one family's maps, as they should be.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lb_common::{Backend, Family, LocalKey, RangeKey, ServiceKey, ServiceValue, SlotRange};

/// The rows of one port in one family's maps.
#[derive(Debug)]
pub struct HalfRows<F: Family> {
    /// Rows of front ends that it should have.
    pub services: BTreeMap<ServiceKey<F::Addr>, ServiceValue>,
    /// Front ends whose rows it should have no longer.
    pub gone: Vec<ServiceKey<F::Addr>>,
    /// Regions that its front ends need, with the indices of backends in them.
    pub slots: Vec<(SlotRange, Arc<[u32]>)>,
    /// Rows of backends.
    pub backends: BTreeMap<u32, Backend<F::Addr>>,
    /// Its sources.
    pub ranges: BTreeSet<RangeKey<F::Addr>>,
    /// Sources that it should have no longer.
    pub gone_ranges: Vec<RangeKey<F::Addr>>,
    /// The indices of its local endpoints, where packets come wrapped.
    pub locals: BTreeMap<LocalKey<F::Addr>, u32>,
    /// Local endpoints that it should have no longer.
    pub gone_locals: Vec<LocalKey<F::Addr>>,
    /// The same, where the index is another's from now on.
    pub vacated_locals: Vec<LocalKey<F::Addr>>,
}

impl<F: Family> Default for HalfRows<F> {
    fn default() -> Self {
        Self {
            services: BTreeMap::new(),
            gone: Vec::new(),
            slots: Vec::new(),
            backends: BTreeMap::new(),
            ranges: BTreeSet::new(),
            gone_ranges: Vec::new(),
            locals: BTreeMap::new(),
            gone_locals: Vec::new(),
            vacated_locals: Vec::new(),
        }
    }
}
