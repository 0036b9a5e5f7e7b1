//! The agent's pinned maps, read as the programs read them.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray};
use lb_agent::store::{DevicesTable, FamilyTables, SettingsTable, Table};
use lb_common::addr::Address as _;
use lb_common::layout::{self, map};
use lb_common::{Counter, Device, DropReason, Port, ServiceKey, Settings, V4, V6, protocol};

use crate::manifests;

/// Transport protocols of services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// That of a service's port.
    pub fn of(port: manifests::Port) -> Self {
        match port.protocol {
            "UDP" => Self::Udp,
            "SCTP" => Self::Sctp,
            _ => Self::Tcp,
        }
    }

    fn number(self) -> u8 {
        match self {
            Self::Tcp => protocol::TCP,
            Self::Udp => protocol::UDP,
            Self::Sctp => protocol::SCTP,
        }
    }
}

/// The maps under one pin root.
#[derive(Clone, Debug)]
pub struct Maps {
    folder: PathBuf,
}

impl Maps {
    /// Under this pin root.
    pub fn new(pin_root: &Path) -> Self {
        Self {
            folder: pin_root.join(format!("v{}", layout::VERSION)).join("maps"),
        }
    }

    /// Where a map is pinned.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The backends that get new flows of a front end (a NodePort's has the unspecified address); `None` when there
    /// is no such front end.
    pub fn eligible(
        &self,
        front_end: SocketAddr,
        protocol: Protocol,
    ) -> Result<Option<BTreeSet<SocketAddr>>> {
        match front_end.ip() {
            IpAddr::V4(ip) => self.eligible_of::<V4>(ip.into(), front_end.port(), protocol),
            IpAddr::V6(ip) => self.eligible_of::<V6>(ip.into(), front_end.port(), protocol),
        }
    }

    /// How many backends get new flows of a front end of IPv4; none when there is no such front end.
    pub fn eligible_count(&self, ip: Ipv4Addr, port: u16, protocol: Protocol) -> Result<usize> {
        let key = ServiceKey::new(ip.into(), Port::new(port), protocol.number());
        let service = self.row::<<V4 as FamilyTables>::Services>(&key)?;
        Ok(service.map_or(0, |service| service.inside.count as usize))
    }

    /// How many rows a table has.
    pub fn count_rows<T: Table>(&self) -> Result<usize> {
        Ok(self.keys::<T>()?.len())
    }

    /// Whether any flow has this source.
    pub fn has_flow_from(&self, source: IpAddr) -> Result<bool> {
        match source {
            IpAddr::V4(ip) => self.has_flow_of::<V4>(ip.into()),
            IpAddr::V6(ip) => self.has_flow_of::<V6>(ip.into()),
        }
    }

    /// What the agent tells the programs.
    pub fn settings(&self) -> Result<Settings> {
        self.row::<SettingsTable>(&0)?.context("no row of settings")
    }

    /// The row of a device.
    pub fn device(&self, ifindex: u32) -> Result<Option<Device>> {
        self.row::<DevicesTable>(&ifindex)
    }

    /// How many packets were dropped for a reason.
    pub fn drops(&self, reason: DropReason) -> Result<u64> {
        self.count(map::DROPS, reason as u32)
    }

    /// How often something was counted.
    pub fn counter(&self, counter: Counter) -> Result<u64> {
        self.count(map::COUNTERS, counter as u32)
    }

    /// Everything that was counted, for the report of a failure.
    pub fn summary(&self) -> String {
        let drops = DropReason::ALL.map(|reason| (reason.as_str(), self.drops(reason)));
        let counters = Counter::ALL.map(|counter| (counter.as_str(), self.counter(counter)));
        let line = |(name, count): (&str, Result<u64>)| match count {
            Ok(0) => String::new(),
            Ok(count) => format!("{name} {count}\n"),
            Err(error) => format!("{name} {error:#}\n"),
        };
        format!(
            "dropped:\n{}counted:\n{}",
            drops.map(line).concat(),
            counters.map(line).concat()
        )
    }

    fn eligible_of<F: FamilyTables>(
        &self,
        ip: F::Addr,
        port: u16,
        protocol: Protocol,
    ) -> Result<Option<BTreeSet<SocketAddr>>> {
        let key = ServiceKey::new(ip, Port::new(port), protocol.number());
        let Some(service) = self.row::<F::Services>(&key)? else {
            return Ok(None);
        };
        let slots = service.inside;
        let eligible = (slots.base..slots.base + slots.count).map(|index| {
            let slot = self.row::<F::Slots>(&index)?.context("no such slot")?;
            let backend = self
                .row::<F::Backends>(&slot.backend)?
                .context("no such backend")?;
            Ok(SocketAddr::new(backend.addr.ip(), backend.port.number()))
        });
        eligible.collect::<Result<_>>().map(Some)
    }

    fn has_flow_of<F: FamilyTables>(&self, source: F::Addr) -> Result<bool> {
        let rows = self.rows::<F::Flows>()?;
        let mut flows = rows.iter().filter(|row| row.is_there());
        Ok(flows.any(|row| row.key.src == source))
    }

    /// All rows of an array.
    fn rows<T: Table<Key = u32>>(&self) -> Result<Vec<T::Value>> {
        let table = Array::<_, T::Value>::try_from(Map::Array(self.open(T::NAME)?))?;
        table.iter().collect::<Result<_, _>>().context(T::NAME)
    }

    fn row<T: Table>(&self, key: &T::Key) -> Result<Option<T::Value>> {
        match self.table::<T>()?.get(key, 0) {
            Ok(row) => Ok(Some(row)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(error).context(T::NAME),
        }
    }

    fn keys<T: Table>(&self) -> Result<Vec<T::Key>> {
        self.table::<T>()?
            .keys()
            .collect::<Result<_, _>>()
            .context(T::NAME)
    }

    fn count(&self, name: &str, index: u32) -> Result<u64> {
        let counts = PerCpuArray::<_, u64>::try_from(Map::PerCpuArray(self.open(name)?))?;
        Ok(counts.get(&index, 0)?.iter().sum())
    }

    /// The calls that read rows are the same for hash maps, LRU maps and arrays.
    fn table<T: Table>(&self) -> Result<HashMap<MapData, T::Key, T::Value>> {
        Ok(HashMap::try_from(Map::HashMap(self.open(T::NAME)?))?)
    }

    fn open(&self, name: &str) -> Result<MapData> {
        let path = self.path(name);
        MapData::from_pin(&path)
            .map_err(|error| anyhow!(error))
            .with_context(|| path.display().to_string())
    }
}
