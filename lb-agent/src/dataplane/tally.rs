//! What the programs have counted, and how full the maps are: read from the pins, with or without an agent.

use aya::maps::MapError;
use lb_common::layout::map;
use lb_common::{Counter, DropReason};

use super::{Access, DataplaneError, PerCpu, PinnedMap, Pins};

/// How full a map is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// Its name.
    pub map: &'static str,
    /// How many rows it can hold.
    pub rows: u32,
    /// How many are in use; `None` for arrays of counters, which are neither full nor empty.
    pub used: Option<usize>,
}

/// Packets that were dropped, by reason.
pub fn drops(pins: &Pins) -> Result<Vec<(DropReason, u64)>, DataplaneError> {
    let numbered = DropReason::ALL.map(|reason| (reason, reason as u32));
    sums(pins, map::DROPS, &numbered)
}

/// What else happened to packets.
pub fn counters(pins: &Pins) -> Result<Vec<(Counter, u64)>, DataplaneError> {
    let numbered = Counter::ALL.map(|counter| (counter, counter as u32));
    sums(pins, map::COUNTERS, &numbered)
}

/// How full each map is, counted row by row. Nothing is written; but the memory of large arrays can be looked through, which
/// is far quicker than to ask for their rows, only with access for writing, too.
pub fn fills(pins: &Pins, access: Access) -> Result<Vec<Fill>, DataplaneError> {
    map::ALL
        .into_iter()
        .map(|name| fill(pins, name, access))
        .collect()
}

fn fill(pins: &Pins, name: &'static str, access: Access) -> Result<Fill, DataplaneError> {
    let opened = PinnedMap::open(pins, name, access)?;
    let counted = match name {
        map::STATS | map::DROPS | map::COUNTERS | map::FLOW_TAGS4 | map::FLOW_TAGS6 => Ok(None),
        map::FLOWS4 | map::FLOWS6 => opened.flows().map(Some),
        _ => opened.count().map(Some),
    };
    let used = counted.map_err(|error| DataplaneError::Map {
        map: name.to_owned(),
        source: MapError::IoError(error),
    })?;
    Ok(Fill {
        map: name,
        rows: opened.capacity(),
        used,
    })
}

fn sums<T: Copy>(
    pins: &Pins,
    name: &'static str,
    numbered: &[(T, u32)],
) -> Result<Vec<(T, u64)>, DataplaneError> {
    let array = PerCpu::<u64>::open(pins, name)?;
    numbered
        .iter()
        .map(|(what, index)| Ok((*what, array.get(*index)?.iter().sum())))
        .collect()
}
