//! The flow table of a loaded object, read and written flow by flow.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use aya::Ebpf;
use aya::maps::Array;
use lb_agent::dataplane::KernelStore;
use lb_agent::store::{FamilyTables, MapStore as _};
use lb_common::layout::map;
use lb_common::{Flow, FlowHash, FlowKey};
use lb_ebpf::testkit::Flows;

/// Says how many buckets there are, as the agent does; with numbers that are the same in each run.
pub fn draw(ebpf: &mut Ebpf) -> Result<()> {
    let rows = |ebpf: &Ebpf, name| -> Result<u32> {
        let map = ebpf.map(name).context(name)?;
        let aya::maps::Map::Array(map) = map else {
            anyhow::bail!("{name} is no array");
        };
        Ok(map.info()?.max_entries())
    };
    let mut odd = 0x9e37_79b9_7f4a_7c15_u64;
    let hash = FlowHash {
        keys: std::array::from_fn(|_| {
            odd = odd.wrapping_mul(0xd134_2543_de82_ef95).wrapping_add(1);
            odd ^ odd >> 29
        }),
        buckets4: rows(ebpf, map::FLOW_TAGS4)?,
        buckets6: rows(ebpf, map::FLOW_TAGS6)?,
        reorders: FlowHash::REORDERS,
        pad: 0,
    };
    let row = ebpf.map_mut(map::FLOW_HASH).context(map::FLOW_HASH)?;
    Ok(Array::<_, FlowHash>::try_from(row)?.set(0, hash, 0)?)
}

/// The flows of a family.
pub fn flows<F: FamilyTables>(store: &KernelStore) -> Result<Flows<F::Addr>> {
    let mut flows = BTreeMap::new();
    store.for_each_flow::<F>(&mut |key, flow| _ = flows.insert(key, flow))?;
    Ok(flows)
}

/// Puts exactly these flows into the table of a family.
pub fn set_flows<F: FamilyTables>(
    store: &mut KernelStore,
    flows: impl IntoIterator<Item = (FlowKey<F::Addr>, Flow<F::Addr>)>,
) -> Result<()> {
    let (mut tags, mut rows) = (Vec::new(), Vec::new());
    store.for_each_row::<F::FlowTags>(&mut |index, _| tags.push(index))?;
    store.for_each_row::<F::Flows>(&mut |index, _| rows.push(index))?;
    tags.iter()
        .try_for_each(|index| store.delete::<F::FlowTags>(index))?;
    rows.iter()
        .try_for_each(|index| store.delete::<F::Flows>(index))?;
    for (key, flow) in flows {
        store.put_flow::<F>(&key, &flow)?;
    }
    Ok(())
}
