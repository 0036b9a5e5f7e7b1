//! Pinned maps: which ones the agent takes up, and rows in them.

use std::process::Command;

use aya::maps::{Map, MapData, PerCpuArray, PerCpuValues};
use aya::util::nr_cpus;
use lb_agent::dataplane::{Access, KernelStore, Pins, Sizes, create_maps};
use lb_agent::store::{DevicesTable, MapStore as _, Names, Slots, StoreError};
use lb_common::layout::map;
use lb_common::{Device, ServiceName, ServiceStats, Slot, V4};
use lb_tests::agent::Agent;
use lb_tests::need_root;
use lb_tests::scratch::Folder;

use crate::{Node, SMALL};

#[test]
fn maps_of_another_size_are_refused_with_the_flag_named() {
    need_root!();
    let node = Node::new();
    let mut agent = Agent::new().unwrap();
    node.start(&mut agent);
    agent.stop().unwrap();
    let error = agent.start(&node.host, &["--max-flows", "2048"]).unwrap_err();
    let text = format!("{error:#}");
    assert!(
        text.contains("lb_flows4") && text.contains("--max-flows") && text.contains("cleanup"),
        "{text}"
    );
}

#[test]
fn a_map_that_cannot_be_mapped_into_memory_is_refused() {
    need_root!();
    let node = Node::new();
    let mut agent = Agent::new().unwrap();
    node.start(&mut agent);
    agent.stop().unwrap();
    let pin = Pins::new(agent.pin_root()).map(map::SLOTS4);
    std::fs::remove_file(&pin).unwrap();
    let same_but_for_flags = format!(
        "type array key 4 value {} entries {} name {}",
        size_of::<Slot>(),
        Sizes::default().slots,
        map::SLOTS4
    );
    let created = Command::new("bpftool")
        .args(["map", "create"])
        .arg(&pin)
        .args(same_but_for_flags.split(' '))
        .status();
    assert!(created.unwrap().success());
    let text = format!("{:#}", agent.start(&node.host, &SMALL).unwrap_err());
    assert!(
        text.contains("flags 0x0)") && text.contains("flags 0x400)") && text.contains("cleanup"),
        "{text}"
    );
}

#[test]
fn programs_of_another_map_layout_are_refused() {
    need_root!();
    let node = Node::new();
    let mut agent = Agent::new().unwrap();
    node.start(&mut agent);
    agent.stop().unwrap();
    let other = agent.pin_root().join("v0/links");
    std::fs::create_dir_all(&other).unwrap();
    node.start(&mut agent);
    agent.stop().unwrap();
    // A folder in the place of a link: bpffs has no plain files.
    std::fs::create_dir(other.join("2-ingress")).unwrap();
    let text = format!("{:#}", agent.start(&node.host, &SMALL).unwrap_err());
    assert!(
        text.contains("map layout v0") && text.contains("lb-agent cleanup"),
        "{text}"
    );
}

#[test]
fn rows_are_written_read_and_removed_in_the_kernel() {
    need_root!();
    let folder = Folder::new("store").unwrap();
    let pins = Pins::new(folder.pins());
    let sizes = Sizes {
        services: 2,
        slots: 5000,
        backends: 8,
        flows: 64,
        ..Sizes::default()
    };
    create_maps(&pins, &sizes).unwrap();
    let mut store = KernelStore::open(&pins, Access::ReadWrite).unwrap();
    assert_eq!(store.capacity::<Slots<V4>>().unwrap(), 5000);
    assert!(store.rows::<Slots<V4>>().unwrap().is_empty());

    let slot = Slot {
        generation: 2,
        backend: 3,
    };
    store.set::<Slots<V4>>(&4999, &slot).unwrap();
    let readers = [Access::ReadWrite, Access::Read].map(|access| KernelStore::open(&pins, access).unwrap());
    for reader in &readers {
        assert_eq!(reader.rows::<Slots<V4>>().unwrap(), [(4999, slot)].into());
    }
    store.delete::<Slots<V4>>(&4999).unwrap();
    assert!(store.rows::<Slots<V4>>().unwrap().is_empty());

    let counted = ServiceStats {
        connections: 7,
        ..ServiceStats::default()
    };
    let path = pins.map(map::STATS);
    let mut stats = PerCpuArray::<_, ServiceStats>::try_from(
        Map::from_map_data(MapData::from_pin(path).unwrap()).unwrap(),
    )
    .unwrap();
    for id in [1, 2] {
        let rows = PerCpuValues::try_from(vec![counted; nr_cpus().unwrap()]).unwrap();
        stats.set(id, rows, 0).unwrap();
    }
    store.reset_stats(1).unwrap();
    let sum = |id| -> u64 { stats.get(&id, 0).unwrap().iter().map(|row| row.connections).sum() };
    assert_eq!(sum(1), 0);
    assert_eq!(sum(2), 7 * nr_cpus().unwrap() as u64);

    let device = Device {
        route_ifindex: 7,
        ..Device::default()
    };
    store.set::<DevicesTable>(&7, &device).unwrap();
    assert_eq!(store.rows::<DevicesTable>().unwrap(), [(7, device)].into());
    store.delete::<DevicesTable>(&7).unwrap();
    store.delete::<DevicesTable>(&7).unwrap();
    assert!(store.rows::<DevicesTable>().unwrap().is_empty());

    let name = ServiceName {
        text: [0; ServiceName::LEN],
    };
    store.set::<Names>(&1, &name).unwrap();
    store.set::<Names>(&2, &name).unwrap();
    let error = (3..100).find_map(|id| store.set::<Names>(&id, &name).err());
    assert!(
        matches!(error, Some(StoreError::Full { capacity: 2, .. })),
        "{error:?}"
    );
}
