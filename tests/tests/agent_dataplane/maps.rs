//! Pinned maps: which ones the agent takes up, and rows in them.

use std::net::Ipv4Addr;
use std::process::Command;

use aya::maps::{Map, MapData, PerCpuArray, PerCpuValues};
use aya::util::nr_cpus;
use lb_agent::dataplane::loads::{Loads, recount};
use lb_agent::dataplane::{Access, KernelStore, Pins, Sizes, create_maps};
use lb_agent::store::{Backends, DevicesTable, MapStore as _, Names, Services, Slots, StoreError};
use lb_common::layout::map;
use lb_common::{
    Backend, Device, Flow, FlowFlags, FlowKey, Ip4, Port, ServiceFlags, ServiceKey, ServiceName,
    ServiceStats, ServiceValue, Settings, Slot, Stage, V4, protocol,
};
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
fn an_agent_that_waits_has_no_map_in_its_memory() {
    need_root!();
    let node = Node::new();
    let mut agent = Agent::new().unwrap();
    node.start(&mut agent);
    let mapped = std::fs::read_to_string(format!("/proc/{}/maps", agent.process().unwrap())).unwrap();
    let mapped: Vec<_> = mapped.lines().filter(|line| line.contains("bpf-map")).collect();
    assert!(mapped.is_empty(), "{mapped:#?}");
}

#[test]
fn rows_on_both_sides_of_a_mapping_are_written_and_read() {
    /// In words: where a mapping may begin (64 KiB), and how much reading maps at once (1 MiB).
    const BORDERS: [u32; 2] = [8192, 131_072];
    need_root!();
    let folder = Folder::new("store").unwrap();
    let pins = Pins::new(folder.pins());
    let sizes = Sizes {
        services: 2,
        slots: 300_000,
        backends: 100_000,
        flows: 64,
        ..Sizes::default()
    };
    create_maps(&pins, &sizes).unwrap();
    let mut store = KernelStore::open(&pins, Access::ReadWrite).unwrap();
    let slots: Vec<Slot> = (1..=20)
        .map(|backend| Slot {
            generation: 7,
            backend,
        })
        .collect();
    let places = BORDERS.map(|border| border - 10).into_iter().chain([0, 299_980]);
    for first in places.clone() {
        store.set_all::<Slots<V4>>(first, &slots).unwrap();
    }
    // So few that they are not mapped.
    let (few, first_of_few) = (&slots[..3], 100);
    store.set_all::<Slots<V4>>(first_of_few, few).unwrap();
    // Rows of three words lie across the borders.
    let words = u32::try_from(size_of::<Backend<Ip4>>().div_ceil(8)).unwrap();
    let around = |border: u32| [border / words - 1, border / words, border / words + 1];
    let indices = BORDERS.into_iter().flat_map(around).chain([0, 99_999]);
    let backend = |index: u32| Backend {
        addr: Ip4::new(index.to_be_bytes()),
        port: Port::new(80),
        service: index + 1,
        ..Backend::default()
    };
    for index in indices.clone() {
        store.set::<Backends<V4>>(&index, &backend(index)).unwrap();
    }
    let by_system_call = KernelStore::open(&pins, Access::Read).unwrap();
    for store in [&store, &by_system_call] {
        let rows = store.rows::<Slots<V4>>().unwrap();
        let wanted = places.clone().flat_map(|first| (first..).zip(&slots));
        let wanted = wanted.chain((first_of_few..).zip(few));
        assert_eq!(rows, wanted.map(|(index, slot)| (index, *slot)).collect());
        let rows = store.rows::<Backends<V4>>().unwrap();
        assert_eq!(
            rows,
            indices.clone().map(|index| (index, backend(index))).collect()
        );
    }
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

    // More than one system call reads.
    let region: Vec<Slot> = (1..4900)
        .map(|backend| Slot {
            generation: 9,
            backend,
        })
        .collect();
    store.set_all::<Slots<V4>>(100, &region).unwrap();
    assert!(
        store.set_all::<Slots<V4>>(4999, &region).is_err(),
        "beyond the end"
    );
    for reader in &readers {
        assert_eq!(reader.some_rows::<Slots<V4>>(100, 4899).unwrap(), region);
        assert_eq!(
            reader.some_rows::<Slots<V4>>(99, 2).unwrap(),
            [Slot::default(), region[0]]
        );
        assert_eq!(
            reader.some_rows::<Slots<V4>>(0, 101).unwrap().last(),
            region.first()
        );
        assert_eq!(
            reader.some_rows::<Slots<V4>>(4998, 9).unwrap(),
            [region[4898], Slot::default()]
        );
        assert_eq!(reader.rows::<Slots<V4>>().unwrap().len(), region.len());
    }

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

#[test]
fn open_connections_are_counted_anew() {
    need_root!();
    let folder = Folder::new("loads").unwrap();
    let pins = Pins::new(folder.pins());
    let sizes = Sizes {
        services: 4,
        slots: 8,
        backends: 8,
        flows: 4096,
        ..Sizes::default()
    };
    create_maps(&pins, &sizes).unwrap();
    let mut store = KernelStore::open(&pins, Access::ReadWrite).unwrap();
    let value = ServiceValue {
        service: 1,
        flags: ServiceFlags::LEAST_CONNECTIONS,
        ..ServiceValue::default()
    };
    let addr = Ip4::from(Ipv4Addr::new(10, 96, 0, 1));
    let front_end = ServiceKey::new(addr, Port::new(80), protocol::TCP);
    store.set::<Services<V4>>(&front_end, &value).unwrap();
    let backend = Backend {
        addr,
        epoch: 3,
        service: 1,
        ..Backend::default()
    };
    store.set::<Backends<V4>>(&5, &backend).unwrap();
    for n in 0..3000 {
        let key = FlowKey {
            src: addr,
            dst: addr,
            src_port: Port::new(n),
            dst_port: Port::new(80),
            protocol: protocol::TCP,
            stage: Stage::Pre as u8,
            pad: [0; 2],
        };
        let flow = Flow {
            backend: 5,
            epoch: 3,
            flags: if n < 2000 { FlowFlags::COUNTED } else { 0 },
            ..Flow::default()
        };
        store.put_flow::<V4>(&key, &flow).unwrap();
    }
    let settings = Settings {
        tcp_handshake: 100,
        ..Settings::default()
    };
    assert_eq!(recount(&pins, &settings, 50).unwrap(), 1);
    let mut counts = Vec::new();
    let take = &mut |index, count| counts.push((index, count));
    store.for_each_row::<Loads<V4>>(take).unwrap();
    assert_eq!(counts, [(5, 2000)]);
    assert_eq!(recount(&pins, &settings, 50).unwrap(), 0);
    assert_eq!(recount(&pins, &settings, 500).unwrap(), 1, "they are idle by now");
}
