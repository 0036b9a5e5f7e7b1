//! The object's maps, written as the agent writes them, and read.

use std::collections::BTreeMap;

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, MapData, PerCpuArray};
use aya::{Ebpf, Pod};
use lb_agent::dataplane::KernelStore;
use lb_agent::store::FamilyTables;
use lb_common::addr::Address as _;
use lb_common::layout::map;
use lb_common::{
    Backend, ClientKey, Counter, DropReason, FamilySettings, FragmentKey, LocalKey, ServiceKey, ServiceStats,
    V4, V6, filter,
};
use lb_ebpf::testkit::Counts;

use crate::flow_table;

use super::{Kernel, Rows, TestFamily, Written};

/// Slots, backends, service ids: as few as cases use.
pub(super) const ROWS: u32 = 1024;
/// The highest service id of any case, and one more.
const SERVICES: u32 = 64;
/// The highest index of a backend of any case, and one more.
const BACKENDS: u32 = 64;

/// The maps of a loaded object.
struct Tables<'a> {
    ebpf: &'a mut Ebpf,
}

/// What was counted. Only what is not zero.
pub(super) fn counts(ebpf: &mut Ebpf) -> Counts {
    Tables { ebpf }.counts()
}

/// A family whose rows can be copied in and out of maps.
pub trait KernelTables: TestFamily {
    /// Puts exactly these rows into the maps; `last` are those that stand there, if that is known.
    fn write(ebpf: &mut Ebpf, rows: &Rows<Self>, last: Option<&Rows<Self>>);
    /// The rows of this family that were written last.
    fn last(kernel: &mut Kernel) -> &mut Option<Rows<Self>>;
    /// What the programs have written.
    fn written(ebpf: &mut Ebpf, store: &KernelStore) -> Written<Self::Addr>;
    /// Replaces it.
    fn set_written(ebpf: &mut Ebpf, store: &mut KernelStore, written: &Written<Self::Addr>);
}

/// All of [`lb_common::RangeKey`] but the prefix's length, which the map's type has as its own.
#[derive(Clone, Copy)]
#[repr(C)]
struct RangeData<A> {
    list: u32,
    addr: A,
}

// SAFETY: repr(C), made of integers and arrays of them, and without padding: all that it is made of has an alignment of
// at most 4.
unsafe impl<A: Pod> Pod for RangeData<A> {}

macro_rules! kernel_tables {
    ($($family:ident $last:ident),+) => {
        $(impl KernelTables for $family {
            fn write(ebpf: &mut Ebpf, rows: &Rows<Self>, last: Option<&Rows<Self>>) {
                Tables { ebpf }.write(rows, last);
            }
            fn last(kernel: &mut Kernel) -> &mut Option<Rows<Self>> {
                &mut kernel.$last
            }
            fn written(ebpf: &mut Ebpf, store: &KernelStore) -> Written<Self::Addr> {
                Tables { ebpf }.written::<Self>(store)
            }
            fn set_written(ebpf: &mut Ebpf, store: &mut KernelStore, written: &Written<Self::Addr>) {
                Tables { ebpf }.set_written::<Self>(store, written);
            }
        })+
    };
}
kernel_tables!(V4 last4, V6 last6);

impl Tables<'_> {
    fn write<F: TestFamily>(&mut self, rows: &Rows<F>, last: Option<&Rows<F>>)
    where
        F::Addr: Pod,
        ServiceKey<F::Addr>: Pod,
        Backend<F::Addr>: Pod,
        LocalKey<F::Addr>: Pod,
        FamilySettings<F::Addr>: Pod,
    {
        macro_rules! hash {
            ($name:expr, $field:ident) => {{
                let mut map = self.hash($name);
                let standing = last.map_or_else(|| all(&map), |last| last.$field.clone());
                replace(&mut map, &standing, &rows.$field);
            }};
        }
        macro_rules! array {
            ($name:expr, $field:ident, $length:expr) => {{
                fill(
                    &mut self.array($name),
                    $length,
                    last.map(|last| &last.$field),
                    &rows.$field,
                )
            }};
        }
        let name = |table: &str| format!("lb_{table}{}", F::SUFFIX);
        self.write_filter(&name("filter"), rows, last.is_none());
        hash!(&name("services"), services);
        hash!(&name("node_addrs"), node_addresses);
        hash!(&name("locals"), locals);
        hash!(&name("snat"), snat);
        hash!(map::DEVICES, devices);
        if last.is_none_or(|last| last.devices != rows.devices) {
            self.forget_devices();
        }
        if last.is_none_or(|last| last.ranges != rows.ranges) {
            self.write_ranges(&name("ranges"), rows);
        }
        self.array(&name("family")).set(0, rows.family, 0).unwrap();
        self.array(map::SETTINGS).set(0, rows.settings, 0).unwrap();
        array!(&name("slots"), slots, ROWS);
        array!(&name("backends"), backends, BACKENDS);
        array!(map::POLICIES, policies, SERVICES);
    }

    /// Makes each CPU look devices up again, as the agent does by another epoch of routes.
    fn forget_devices(&mut self) {
        let map = self.ebpf.map_mut("lb_known_devices").unwrap();
        let mut known = PerCpuArray::<_, [u64; 3]>::try_from(map).unwrap();
        for row in 0..known.len() {
            let none = known
                .get(&row, 0)
                .unwrap()
                .iter()
                .map(|_| [0; 3])
                .collect::<Vec<_>>();
            known.set(row, none.try_into().unwrap(), 0).unwrap();
        }
    }

    fn write_filter<F: TestFamily>(&mut self, name: &str, rows: &Rows<F>, is_new: bool) {
        let mut filter = self.array::<u64>(name);
        if is_new {
            for row in 0..filter::ROWS {
                filter.set(row, 0, 0).unwrap();
            }
        }
        for key in rows.services.keys() {
            let bit = key.addr.filter_bit();
            let row = filter.get(&bit.row, 0).unwrap();
            filter.set(bit.row, row | bit.mask, 0).unwrap();
        }
    }

    fn write_ranges<F: TestFamily>(&mut self, name: &str, rows: &Rows<F>)
    where
        F::Addr: Pod,
    {
        let map = self.ebpf.map_mut(name).unwrap();
        let mut trie = LpmTrie::<_, RangeData<F::Addr>, u32>::try_from(map).unwrap();
        let standing: Vec<_> = trie.keys().map(Result::unwrap).collect();
        for key in standing {
            trie.remove(&key).unwrap();
        }
        for range in &rows.ranges {
            let data = RangeData {
                list: range.list,
                addr: range.addr,
            };
            trie.insert(&Key::new(range.prefix_length, data), 1, 0).unwrap();
        }
    }

    fn written<F: TestFamily + FamilyTables>(&mut self, store: &KernelStore) -> Written<F::Addr>
    where
        F::Addr: Pod,
        ClientKey<F::Addr>: Pod,
        FragmentKey<F::Addr>: Pod,
    {
        let name = |table: &str| format!("lb_{table}{}", F::SUFFIX);
        Written {
            flows: flow_table::flows::<F>(store).unwrap(),
            affinity: all(&self.hash(&name("affinity"))),
            fragments: all(&self.hash(&name("frags"))),
            sources: all(&self.hash(&name("sources"))),
            paths: all(&self.hash(&name("path_mtu"))),
            loads: used(&self.array(&name("loads")), BACKENDS),
            limits: used(&self.array(map::LIMITS), SERVICES),
        }
    }

    fn set_written<F: TestFamily + FamilyTables>(
        &mut self,
        store: &mut KernelStore,
        written: &Written<F::Addr>,
    ) where
        F::Addr: Pod,
        ClientKey<F::Addr>: Pod,
        FragmentKey<F::Addr>: Pod,
    {
        let name = |table: &str| format!("lb_{table}{}", F::SUFFIX);
        macro_rules! hash {
            ($name:expr, $field:ident) => {{
                let mut map = self.hash(&name($name));
                let standing = all(&map);
                replace(&mut map, &standing, &written.$field);
            }};
        }
        flow_table::set_flows::<F>(store, written.flows.clone()).unwrap();
        hash!("affinity", affinity);
        hash!("frags", fragments);
        hash!("sources", sources);
        hash!("path_mtu", paths);
        let learned = u32::from(!written.paths.is_empty());
        self.array("lb_paths_learned").set(0, learned, 0).unwrap();
        fill(&mut self.array(&name("loads")), BACKENDS, None, &written.loads);
        fill(&mut self.array(map::LIMITS), SERVICES, None, &written.limits);
    }

    fn counts(&mut self) -> Counts {
        let drops = self.sums(map::DROPS, DropReason::ALL.len());
        let counters = self.sums(map::COUNTERS, Counter::ALL.len());
        Counts {
            drops: DropReason::ALL
                .into_iter()
                .zip(drops)
                .filter(|(_, count)| *count > 0)
                .collect(),
            counters: Counter::ALL
                .into_iter()
                .zip(counters)
                .filter(|(_, count)| *count > 0)
                .collect(),
            services: (0..)
                .zip(self.stats())
                .filter(|(_, stats)| *stats != ServiceStats::default())
                .collect(),
        }
    }

    fn stats(&mut self) -> Vec<ServiceStats> {
        let array = PerCpuArray::<_, ServiceStats>::try_from(self.ebpf.map_mut(map::STATS).unwrap()).unwrap();
        (0..SERVICES)
            .map(|service| {
                let mut sum = ServiceStats::default();
                for row in array.get(&service, 0).unwrap().iter() {
                    sum.packets += row.packets;
                    sum.bytes += row.bytes;
                    sum.reply_packets += row.reply_packets;
                    sum.reply_bytes += row.reply_bytes;
                    sum.connections += row.connections;
                    sum.dropped += row.dropped;
                }
                sum
            })
            .collect()
    }

    /// Sums of a per-CPU array of numbers.
    fn sums(&mut self, name: &str, length: usize) -> Vec<u64> {
        let array = PerCpuArray::<_, u64>::try_from(self.ebpf.map_mut(name).unwrap()).unwrap();
        (0..length)
            .map(|index| array.get(&(index as u32), 0).unwrap().iter().sum())
            .collect()
    }

    fn hash<K: Pod, V: Pod>(&mut self, name: &str) -> HashMap<&mut MapData, K, V> {
        let map = self.ebpf.map_mut(name).unwrap_or_else(|| panic!("no map {name}"));
        HashMap::try_from(map).unwrap()
    }

    fn array<V: Pod>(&mut self, name: &str) -> Array<&mut MapData, V> {
        let map = self.ebpf.map_mut(name).unwrap_or_else(|| panic!("no map {name}"));
        Array::try_from(map).unwrap()
    }
}

/// Puts exactly these rows into a hash map, which has others so far.
fn replace<K: Pod + Ord, V: Pod + PartialEq>(
    map: &mut HashMap<&mut MapData, K, V>,
    standing: &BTreeMap<K, V>,
    rows: &BTreeMap<K, V>,
) {
    for key in standing.keys().filter(|key| !rows.contains_key(key)) {
        map.remove(key).unwrap();
    }
    for (key, row) in rows.iter().filter(|(key, row)| standing.get(key) != Some(row)) {
        map.insert(key, row, 0).unwrap();
    }
}

/// Puts exactly these rows into the first `length` of an array, which has others so far, if that is known.
fn fill<V: Pod + Default + PartialEq>(
    array: &mut Array<&mut MapData, V>,
    length: u32,
    standing: Option<&BTreeMap<u32, V>>,
    rows: &BTreeMap<u32, V>,
) {
    assert!(rows.keys().all(|index| *index < length), "the array is too short");
    for index in 0..length {
        let row = rows.get(&index).copied().unwrap_or_default();
        if standing.is_none_or(|standing| standing.get(&index).copied().unwrap_or_default() != row) {
            array.set(index, row, 0).unwrap();
        }
    }
}

/// All rows of a hash map.
fn all<K: Pod + Ord, V: Pod>(map: &HashMap<&mut MapData, K, V>) -> BTreeMap<K, V> {
    map.iter().map(Result::unwrap).collect()
}

/// The rows of an array that are not zero.
fn used<V: Pod + Default + PartialEq>(array: &Array<&mut MapData, V>, length: u32) -> BTreeMap<u32, V> {
    (0..length)
        .map(|index| (index, array.get(&index, 0).unwrap()))
        .filter(|(_, row)| *row != V::default())
        .collect()
}
