//! Counts the open connections of backends anew, for services with least-connections.
//!
//! The programs count at the beginning and at the end of a connection. A connection whose end nobody saw, or whose entry was
//! evicted, stays counted; so from time to time what the flow table holds is what counts. A connection that begins or ends
//! meanwhile may be counted once too often or too seldom, until the next time.

use std::collections::{BTreeMap, BTreeSet};
use std::marker::PhantomData;

use lb_common::layout::map;
use lb_common::{Flow, FlowFlags, FlowKey, FlowRow, ServiceFlags, Settings, TcpState, V4, V6, protocol};

use tokio::task::{JoinHandle, spawn_blocking};
use tracing::{debug, warn};

use super::clock::{FirstReading, MASK, since};
use super::{Access, KernelStore, Pins};
use crate::store::{ArrayRows, FamilyTables, Kind, MapStore, StoreError, Table};

/// `lb_loads4`, `lb_loads6`: written by the programs, and here.
#[derive(Debug)]
pub struct Loads<F>(PhantomData<F>);

impl Table for Loads<V4> {
    type Key = u32;
    type Value = u32;
    const NAME: &'static str = map::LOADS4;
    const KIND: Kind = Kind::Array;
    type Rows = ArrayRows<u32>;
}

impl Table for Loads<V6> {
    type Key = u32;
    type Value = u32;
    const NAME: &'static str = map::LOADS6;
    const KIND: Kind = Kind::Array;
    type Rows = ArrayRows<u32>;
}

/// Counts when it is told to, on a thread of its own.
#[derive(Debug)]
pub struct Recounter {
    pins: Pins,
    settings: Settings,
    clock: FirstReading,
    thread: Option<JoinHandle<()>>,
}

impl Recounter {
    /// For the maps that are pinned there.
    pub fn new(pins: Pins, settings: Settings, clock: FirstReading) -> Self {
        Self {
            pins,
            settings,
            clock,
            thread: None,
        }
    }

    /// Begins to count, unless it is at it.
    pub fn start(&mut self) {
        if self.thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            return;
        }
        let (pins, settings) = (self.pins.clone(), self.settings);
        let now = self.clock.now(settings.jiffies_per_second);
        self.thread = Some(spawn_blocking(move || match recount(&pins, &settings, now) {
            Ok(wrong) => debug!(wrong, "connections counted"),
            Err(error) => warn!("connections cannot be counted: {error:#}; trying again"),
        }));
    }
}

/// Counts both families' connections anew, and says how many counts were wrong. `now` are the low 31 bits of the jiffies.
pub fn recount(pins: &Pins, settings: &Settings, now: u32) -> anyhow::Result<usize> {
    let mut store = KernelStore::open(pins, Access::ReadWrite)?;
    let four = recount_family::<V4>(&mut store, settings, now)?;
    let six = recount_family::<V6>(&mut store, settings, now)?;
    Ok(four + six)
}

/// The backends of one family whose connections are counted: index to epoch, and how many there are.
type Counts = BTreeMap<u32, (u16, u32)>;

fn recount_family<F: FamilyTables>(
    store: &mut impl MapStore,
    settings: &Settings,
    now: u32,
) -> Result<usize, StoreError>
where
    Loads<F>: Table<Key = u32, Value = u32>,
{
    let mut services = BTreeSet::new();
    store.for_each_row::<F::Services>(&mut |_, row| {
        if row.flags & ServiceFlags::LEAST_CONNECTIONS != 0 {
            services.insert(row.service);
        }
    })?;
    let mut counts = Counts::new();
    if services.is_empty() {
        return Ok(0);
    }
    store.for_each_row::<F::Backends>(&mut |index, row| {
        if services.contains(&row.service) {
            counts.insert(index, (row.epoch, 0));
        }
    })?;
    store.for_each_row::<F::Flows>(&mut |_, row| {
        let FlowRow { key, flow } = &row;
        // A row stays as it was, but for its protocol, when its flow is taken out.
        if row.is_there()
            && is_open(key, flow, settings, now)
            && let Some((epoch, count)) = counts.get_mut(&flow.backend)
        {
            *count += u32::from(*epoch == flow.epoch);
        }
    })?;
    let mut wrong = 0;
    let mut present = BTreeMap::new();
    store.for_each_row::<Loads<F>>(&mut |index, count| _ = present.insert(index, count))?;
    for (index, (_, count)) in counts {
        if present.get(&index).copied().unwrap_or_default() != count {
            store.set::<Loads<F>>(&index, &count)?;
            wrong += 1;
        }
    }
    Ok(wrong)
}

/// Whether an entry is one that the programs count, and not one that was left over.
fn is_open<A>(key: &FlowKey<A>, flow: &Flow<A>, settings: &Settings, now: u32) -> bool {
    let longest = match key.protocol {
        protocol::TCP if flow.tcp & TcpState::ESTABLISHED != 0 => settings.tcp_established,
        protocol::TCP => settings.tcp_handshake,
        _ => settings.udp_idle,
    };
    // Seen later than now: between the reading of the clock and this one.
    let idle = since(flow.last_seen, now);
    let is_idle = idle > longest && idle <= MASK / 2;
    flow.flags & FlowFlags::COUNTED != 0 && !is_idle
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use lb_common::{Backend, Ip4, Port, ServiceKey, ServiceValue, Stage};

    use super::*;
    use crate::store::FakeStore;

    fn settings() -> Settings {
        Settings {
            jiffies_per_second: 100,
            tcp_established: 1000,
            tcp_handshake: 100,
            udp_idle: 100,
            ..Settings::default()
        }
    }

    const NOW: u32 = 5;

    fn ip(octets: [u8; 4]) -> Ip4 {
        Ipv4Addr::from(octets).into()
    }

    struct Node {
        store: FakeStore,
        flows: u16,
    }

    impl Node {
        /// Service 1 counts connections, service 2 does not; backends 10 and 11 are of 1, 20 is of 2.
        fn new() -> Self {
            let mut store = FakeStore::default();
            for (service, flags) in [(1, ServiceFlags::LEAST_CONNECTIONS), (2, 0)] {
                let addr = ip([10, 96, 0, service]);
                let key = ServiceKey::new(addr, Port::new(80), protocol::TCP);
                let value = ServiceValue {
                    service: service.into(),
                    flags,
                    ..ServiceValue::default()
                };
                store.set::<<V4 as FamilyTables>::Services>(&key, &value).unwrap();
            }
            for (index, service) in [(10, 1), (11, 1), (20, 2)] {
                let backend = Backend {
                    epoch: 3,
                    service,
                    ..Backend::default()
                };
                store
                    .set::<<V4 as FamilyTables>::Backends>(&index, &backend)
                    .unwrap();
            }
            Self { store, flows: 0 }
        }

        fn flow(&mut self, backend: u32, change: impl FnOnce(&mut Flow<Ip4>)) {
            self.flows += 1;
            let key = FlowKey {
                src: ip([192, 0, 2, 1]),
                dst: ip([10, 96, 0, 1]),
                src_port: Port::new(self.flows),
                dst_port: Port::new(80),
                protocol: protocol::TCP,
                stage: Stage::Pre as u8,
                pad: [0; 2],
            };
            let mut flow = Flow {
                backend,
                epoch: 3,
                last_seen: NOW,
                tcp: TcpState::ESTABLISHED,
                flags: FlowFlags::COUNTED,
                ..Flow::default()
            };
            change(&mut flow);
            self.store
                .set::<<V4 as FamilyTables>::Flows>(&self.flows.into(), &FlowRow { key, flow })
                .unwrap();
        }

        fn recount(&mut self) -> (usize, [u32; 3]) {
            let wrong = recount_family::<V4>(&mut self.store, &settings(), NOW).unwrap();
            let counts = self.store.contents();
            let count = |index| counts.get::<Loads<V4>>(&index).copied().unwrap_or_default();
            (wrong, [10, 11, 20].map(count))
        }
    }

    #[test]
    fn open_connections_of_services_that_want_it_are_counted() {
        let mut node = Node::new();
        for backend in [10, 10, 11, 20] {
            node.flow(backend, |_| ());
        }
        node.store.set::<Loads<V4>>(&11, &7).unwrap();
        assert_eq!(node.recount(), (2, [2, 1, 0]));
        assert_eq!(node.recount(), (0, [2, 1, 0]));
    }

    #[test]
    fn what_is_over_idle_or_an_earlier_backends_is_not_counted() {
        let mut node = Node::new();
        node.flow(10, |flow| flow.flags = 0);
        node.flow(10, |flow| flow.epoch = 2);
        node.flow(10, |flow| flow.last_seen = NOW.wrapping_sub(1001));
        node.flow(10, |flow| {
            flow.tcp = 0;
            flow.last_seen = NOW.wrapping_sub(101);
        });
        assert_eq!(node.recount(), (0, [0; 3]));
        node.flow(10, |flow| flow.last_seen = NOW.wrapping_sub(1000));
        node.flow(10, |flow| flow.last_seen = NOW + 2);
        assert_eq!(node.recount(), (1, [2, 0, 0]));
    }
}
