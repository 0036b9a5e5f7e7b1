//! The maps as tables of typed rows: the one way by which the agent reads and writes them.
//!
//! Two stores hold them: [`FakeStore`] in memory, for tests without a kernel, and the data plane's pinned maps
//! ([`crate::dataplane::KernelStore`]).

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::marker::PhantomData;

use aya::Pod;
use lb_common::layout::map;
use lb_common::{
    Affinity, Backend, ClientKey, Device, Family, FamilySettings, FlowHash, FlowRow, LocalKey, NodeAddress,
    PathMtu, RangeKey, ServiceKey, ServiceName, ServicePolicy, ServiceValue, Settings, Slot, V4, V6,
};

mod error;
mod fake;
mod flag;
mod row_set;
mod rows;

pub use error::StoreError;
pub use fake::FakeStore;
pub(crate) use flag::remedy;
pub use flag::size_flag;
pub use row_set::{ArrayRows, RowSet};
pub use rows::Rows;

/// How the kernel keeps a table's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A hash map: absent rows are not there.
    Hash,
    /// An array: every row is there, an absent one is all zero.
    Array,
}

/// One map: its name and the types of its rows.
pub trait Table: 'static {
    /// Key of a row; the index (`u32`) for an array.
    type Key: Pod + Ord + Debug + Send;
    /// The row.
    type Value: Pod + PartialEq + Debug + Send;
    /// The map's name, which is also the name of its pin.
    const NAME: &'static str;
    /// How the kernel keeps it.
    const KIND: Kind;
    /// Its rows in memory.
    type Rows: RowSet<Self::Key, Self::Value>;
}

/// Reads and writes rows.
pub trait MapStore {
    /// Calls `take` with every row of a hash map; of an array with every row that is not all zero.
    fn for_each_row<T: Table>(&self, take: &mut dyn FnMut(T::Key, T::Value)) -> Result<(), StoreError>;

    /// Writes a row, whether there is one or not.
    fn set<T: Table>(&mut self, key: &T::Key, value: &T::Value) -> Result<(), StoreError>;

    /// Writes neighbouring rows of an array.
    fn set_all<T: Table<Key = u32>>(&mut self, first: u32, values: &[T::Value]) -> Result<(), StoreError> {
        (first..)
            .zip(values)
            .try_for_each(|(index, value)| self.set::<T>(&index, value))
    }

    /// Removes a row (an array's is filled with zeros). That there is none is no error.
    fn delete<T: Table>(&mut self, key: &T::Key) -> Result<(), StoreError>;

    /// How many rows the map can hold.
    fn capacity<T: Table>(&self) -> Result<usize, StoreError>;

    /// Sets the traffic counters of a service id to zero. They are no [`Table`]: the programs write them, per CPU.
    fn reset_stats(&mut self, service: u32) -> Result<(), StoreError>;

    /// The rows that [`Self::for_each_row`] tells of, by key.
    fn rows<T: Table>(&self) -> Result<BTreeMap<T::Key, T::Value>, StoreError> {
        let mut rows = BTreeMap::new();
        self.for_each_row::<T>(&mut |key, value| _ = rows.insert(key, value))?;
        Ok(rows)
    }
}

/// The families that have maps: what ties a [`Family`] to the names of its maps.
pub trait FamilyTables: Family<Addr: Pod + Send> {
    /// Front ends.
    type Services: Table<Key = ServiceKey<Self::Addr>, Value = ServiceValue>;
    /// Which addresses may be front ends' (see [`lb_common::filter`]).
    type Filter: Table<Key = u32, Value = u64>;
    /// Eligible backends of the front ends.
    type Slots: Table<Key = u32, Value = Slot>;
    /// Endpoints.
    type Backends: Table<Key = u32, Value = Backend<Self::Addr>>;
    /// Addresses of the node itself.
    type NodeAddresses: Table<Key = Self::Addr, Value = NodeAddress>;
    /// Local endpoints of services with direct server return, with their indices.
    type Locals: Table<Key = LocalKey<Self::Addr>, Value = u32>;
    /// Lists of prefixes.
    type Ranges: Table<Key = RangeKey<Self::Addr>, Value = u32>;
    /// By ifindex, the address that masqueraded packets leave with.
    type SnatAddresses: Table<Key = u32, Value = Self::Addr>;
    /// The one row of what is told of a family.
    type FamilySettings: Table<Key = u32, Value = FamilySettings<Self::Addr>>;
    /// What flows are found by; written by the programs alone.
    type FlowTags: Table<Key = u32, Value = lb_common::FlowTags>;
    /// Flows; written by the programs alone.
    type Flows: Table<Key = u32, Value = FlowRow<Self::Addr>>;
    /// Which backend a client stays with; written by the programs alone.
    type Affinities: Table<Key = ClientKey<Self::Addr>, Value = Affinity>;
    /// Limits on the connections of a client; written by the programs alone.
    type Sources: Table<Key = ClientKey<Self::Addr>, Value = u64>;
    /// Open connections of backends; written by the programs, and set right by the agent.
    type Loads: Table<Key = u32, Value = u32>;
    /// The largest packets on ways to other nodes; written by the programs alone.
    type Paths: Table<Key = Self::Addr, Value = PathMtu>;
}

/// `lb_devices`.
#[derive(Debug)]
pub struct DevicesTable;
/// `lb_settings`.
#[derive(Debug)]
pub struct SettingsTable;
/// `lb_flow_hash`.
#[derive(Debug)]
pub struct FlowHashTable;
/// `lb_names`.
#[derive(Debug)]
pub struct Names;
/// `lb_policies`.
#[derive(Debug)]
pub struct Policies;
/// `lb_limits`.
#[derive(Debug)]
pub struct Limits;
/// `lb_services4`, `lb_services6`.
#[derive(Debug)]
pub struct Services<F>(PhantomData<F>);
/// `lb_filter4`, `lb_filter6`.
#[derive(Debug)]
pub struct Filter<F>(PhantomData<F>);
/// `lb_slots4`, `lb_slots6`.
#[derive(Debug)]
pub struct Slots<F>(PhantomData<F>);
/// `lb_backends4`, `lb_backends6`.
#[derive(Debug)]
pub struct Backends<F>(PhantomData<F>);
/// `lb_node_addrs4`, `lb_node_addrs6`.
#[derive(Debug)]
pub struct NodeAddresses<F>(PhantomData<F>);
/// `lb_locals4`, `lb_locals6`.
#[derive(Debug)]
pub struct Locals<F>(PhantomData<F>);
/// `lb_ranges4`, `lb_ranges6`.
#[derive(Debug)]
pub struct Ranges<F>(PhantomData<F>);
/// `lb_snat4`, `lb_snat6`.
#[derive(Debug)]
pub struct SnatAddresses<F>(PhantomData<F>);
/// `lb_family4`, `lb_family6`.
#[derive(Debug)]
pub struct FamilySettingsTable<F>(PhantomData<F>);
/// `lb_flow_tags4`, `lb_flow_tags6`.
#[derive(Debug)]
pub struct FlowTags<F>(PhantomData<F>);
/// `lb_flows4`, `lb_flows6`.
#[derive(Debug)]
pub struct Flows<F>(PhantomData<F>);
/// `lb_affinity4`, `lb_affinity6`.
#[derive(Debug)]
pub struct Affinities<F>(PhantomData<F>);
/// `lb_sources4`, `lb_sources6`.
#[derive(Debug)]
pub struct Sources<F>(PhantomData<F>);
/// `lb_loads4`, `lb_loads6`.
#[derive(Debug)]
pub struct Loads<F>(PhantomData<F>);
/// `lb_path_mtu4`, `lb_path_mtu6`.
#[derive(Debug)]
pub struct Paths<F>(PhantomData<F>);

macro_rules! table {
    ($table:ty: $kind:ident $name:ident, $key:ty => $value:ty) => {
        impl Table for $table {
            type Key = $key;
            type Value = $value;
            const NAME: &'static str = map::$name;
            const KIND: Kind = Kind::$kind;
            type Rows = rows_of!($kind, $key, $value);
        }
    };
}

macro_rules! rows_of {
    (Hash, $key:ty, $value:ty) => { BTreeMap<$key, $value> };
    (Array, $key:ty, $value:ty) => { ArrayRows<$value> };
}

macro_rules! family_tables {
    ($family:ident: $services:ident $filter:ident $slots:ident $backends:ident $node_addresses:ident $locals:ident
     $ranges:ident $snat:ident $settings:ident $tags:ident $flows:ident $affinity:ident $sources:ident $loads:ident
     $paths:ident) => {
        table!(Services<$family>: Hash $services, ServiceKey<<$family as Family>::Addr> => ServiceValue);
        table!(Filter<$family>: Array $filter, u32 => u64);
        table!(Slots<$family>: Array $slots, u32 => Slot);
        table!(Backends<$family>: Array $backends, u32 => Backend<<$family as Family>::Addr>);
        table!(NodeAddresses<$family>: Hash $node_addresses, <$family as Family>::Addr => NodeAddress);
        table!(Locals<$family>: Hash $locals, LocalKey<<$family as Family>::Addr> => u32);
        table!(Ranges<$family>: Hash $ranges, RangeKey<<$family as Family>::Addr> => u32);
        table!(SnatAddresses<$family>: Hash $snat, u32 => <$family as Family>::Addr);
        table!(FamilySettingsTable<$family>: Array $settings, u32 => FamilySettings<<$family as Family>::Addr>);
        table!(FlowTags<$family>: Array $tags, u32 => lb_common::FlowTags);
        table!(Flows<$family>: Array $flows, u32 => FlowRow<<$family as Family>::Addr>);
        table!(Affinities<$family>: Hash $affinity, ClientKey<<$family as Family>::Addr> => Affinity);
        table!(Sources<$family>: Hash $sources, ClientKey<<$family as Family>::Addr> => u64);
        table!(Loads<$family>: Array $loads, u32 => u32);
        table!(Paths<$family>: Hash $paths, <$family as Family>::Addr => PathMtu);

        impl FamilyTables for $family {
            type Services = Services<Self>;
            type Filter = Filter<Self>;
            type Slots = Slots<Self>;
            type Backends = Backends<Self>;
            type NodeAddresses = NodeAddresses<Self>;
            type Locals = Locals<Self>;
            type Ranges = Ranges<Self>;
            type SnatAddresses = SnatAddresses<Self>;
            type FamilySettings = FamilySettingsTable<Self>;
            type FlowTags = FlowTags<Self>;
            type Flows = Flows<Self>;
            type Affinities = Affinities<Self>;
            type Sources = Sources<Self>;
            type Loads = Loads<Self>;
            type Paths = Paths<Self>;
        }
    };
}

table!(DevicesTable: Hash DEVICES, u32 => Device);
table!(SettingsTable: Array SETTINGS, u32 => Settings);
table!(FlowHashTable: Array FLOW_HASH, u32 => FlowHash);
table!(Names: Hash NAMES, u32 => ServiceName);
table!(Policies: Array POLICIES, u32 => ServicePolicy);
table!(Limits: Array LIMITS, u32 => u64);
family_tables!(V4: SERVICES4 FILTER4 SLOTS4 BACKENDS4 NODE_ADDRS4 LOCALS4 RANGES4 SNAT4 FAMILY4 FLOW_TAGS4 FLOWS4
    AFFINITY4 SOURCES4 LOADS4 PATH_MTU4);
family_tables!(V6: SERVICES6 FILTER6 SLOTS6 BACKENDS6 NODE_ADDRS6 LOCALS6 RANGES6 SNAT6 FAMILY6 FLOW_TAGS6 FLOWS6
    AFFINITY6 SOURCES6 LOADS6 PATH_MTU6);
