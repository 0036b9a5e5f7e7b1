//! How flows are spread over their table: numbers that nobody else knows, drawn once for each set of maps.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;

use aya::Ebpf;
use aya::maps::Array;
use lb_common::FlowHash;
use lb_common::layout::map;

use super::DataplaneError;
use super::sizes::Size;

/// Draws the numbers of new maps; those of maps that flows may stand in stay.
pub(super) fn draw<'a>(ebpf: &mut Ebpf, sizes: impl Iterator<Item = &'a Size>) -> Result<(), DataplaneError> {
    let error = |source| DataplaneError::Map {
        map: map::FLOW_HASH.to_owned(),
        source,
    };
    let row = ebpf
        .map_mut(map::FLOW_HASH)
        .ok_or_else(|| DataplaneError::Incomplete {
            what: format!("map {}", map::FLOW_HASH),
        })?;
    let mut row: Array<_, FlowHash> = Array::try_from(row).map_err(error)?;
    let standing = row.get(&0, 0).map_err(error)?;
    if standing != FlowHash::default() {
        return Ok(());
    }
    let mut hash = FlowHash {
        keys: std::array::from_fn(|_| random()),
        reorders: FlowHash::REORDERS,
        ..standing
    };
    for size in sizes {
        match size.map {
            map::FLOW_TAGS4 => hash.buckets4 = size.rows,
            map::FLOW_TAGS6 => hash.buckets6 = size.rows,
            _ => {}
        }
    }
    row.set(0, hash, 0).map_err(error)
}

/// The standard library seeds its maps by the kernel's random numbers; each of these is `SipHash` under other keys.
fn random() -> u64 {
    RandomState::new().hash_one(())
}
