//! The flow table in the kernel, where several processors or a stopped one write it, and what each remembers of ways and devices.

#![expect(clippy::unwrap_used, reason = "tests panic")]

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use lb_agent::dataplane::KernelStore;
use lb_agent::store::{DevicesTable, FamilyTables, FlowHashTable, MapStore, SettingsTable};
use lb_common::addr::Address;
use lb_common::flow_table::WAYS;
use lb_common::{
    DeviceFlags, DropReason, Flow, FlowFlags, FlowHash, FlowKey, FlowRow, FlowTags, Port, Settings, Stage,
    V4, V6, protocol,
};
use lb_ebpf::testkit::Frame;
use lb_tests::engine::{Bed, Engine, Kernel, TestFamily, UPLINK, backend, end};
use lb_tests::need_root;
use lb_tests::packet::{PacketBuilder, flag};
use lb_tests::processor::stay_on;

/// `TC_ACT_SHOT`.
const DROPPED: i32 = 2;

/// A service with a backend on this node, and one whose backends are on others.
const NEAR: [u8; 2] = [96, 1];
const FAR: [u8; 2] = [96, 5];

fn with_kernel(buckets: u32, work: impl FnOnce(&mut Kernel) + Send) {
    let done = Kernel::on_its_ground(buckets, work);
    assert!(done.is_ok(), "{done:?}");
}

/// Empty tables, and the rows of the standard services.
fn prepare<F: TestFamily>(kernel: &mut Kernel)
where
    Kernel: Engine<F>,
{
    let engines: &mut [&mut dyn Engine<F>] = &mut [kernel];
    Bed::new(engines, protocol::TCP).write();
}

/// Raises the epoch of routes, as the agent does; the settings as they are then.
fn routes_change(store: &mut KernelStore) -> Settings {
    let mut settings = store.rows::<SettingsTable>().unwrap().remove(&0).unwrap();
    settings.route_epoch += 1;
    store.set::<SettingsTable>(&0, &settings).unwrap();
    settings
}

fn packet(source: SocketAddr, destination: SocketAddr, flags: u8) -> Frame {
    Frame {
        bytes: PacketBuilder::tcp(source, destination).flags(flags).build(),
        ifindex: UPLINK,
        segments: 1,
        ether_type: 0,
        own: false,
    }
}

fn rows<F: FamilyTables>(store: &KernelStore) -> (FlowHash, Vec<FlowTags>, Vec<FlowRow<F::Addr>>) {
    let hash = store.rows::<FlowHashTable>().unwrap().remove(&0).unwrap();
    let (mut tags, mut rows) = (Vec::new(), Vec::new());
    store
        .for_each_row::<F::FlowTags>(&mut |_, row| tags.push(row))
        .unwrap();
    store
        .for_each_row::<F::Flows>(&mut |_, row| rows.push(row))
        .unwrap();
    (hash, tags, rows)
}

/// All processors open connections that have to make room for each other: whatever stands there at the end is whole.
#[test]
fn what_processors_write_at_the_same_time_is_whole() {
    need_root!();
    with_kernel(2, |kernel| {
        crowd::<V4>(kernel);
        crowd::<V6>(kernel);
    });
}

fn crowd<F: TestFamily + FamilyTables>(kernel: &mut Kernel)
where
    Kernel: Engine<F>,
{
    const PACKETS: u16 = 20_000;
    prepare::<F>(kernel);
    let run = &kernel.runner().unwrap();
    let cpus = thread::available_parallelism().unwrap().get();
    let vip = end::<F>(NEAR, 80);
    thread::scope(|scope| {
        for cpu in 0..cpus {
            scope.spawn(move || {
                stay_on(cpu).unwrap();
                for number in 0..PACKETS {
                    let flags = if number % 3 == 0 { flag::ACK } else { flag::SYN };
                    let client = end::<F>([0, 10], 20_000 + number % 40);
                    run(&mut packet(client, vip, flags)).unwrap();
                }
            });
        }
    });
    let (hash, buckets, rows) = rows::<F>(kernel.store());
    let mut keys = BTreeSet::new();
    for (bucket, tags) in buckets.iter().enumerate() {
        assert!(tags.version % 2 == 0 && tags.version > 0, "{tags:?}");
        for way in 0..WAYS as usize {
            let FlowRow { key, flow } = rows[way * buckets.len() + bucket];
            let place = key.place(&hash);
            assert_eq!(
                (place.bucket as usize, place.tag),
                (bucket, tags.tags[way]),
                "{key:?}"
            );
            assert!(keys.insert(key), "twice: {key:?}");
            assert!(is_whole::<F>(&key, &flow), "{key:?} {flow:?}");
        }
    }
    assert_eq!(keys.len(), rows.len(), "both buckets are full");
}

fn at(addr: impl Address, port: Port) -> SocketAddr {
    SocketAddr::new(addr.ip(), port.number())
}

/// Whether key and value belong together.
fn is_whole<F: TestFamily>(key: &FlowKey<F::Addr>, flow: &Flow<F::Addr>) -> bool {
    let backends = [0, 1, 2].map(|number| backend::<F>(number));
    let put_in = at(flow.addr, flow.port);
    if key.stage == Stage::Pre as u8 {
        flow.peer_port == key.src_port && put_in == backends[flow.backend as usize]
    } else {
        put_in == end::<F>(NEAR, 80) && at(key.src, key.src_port) == backends[flow.backend as usize]
    }
}

/// A processor that has claimed a bucket and does not go on, as of a virtual machine that is not given any time.
#[test]
fn who_has_stopped_in_a_bucket_stops_nobody_else() {
    need_root!();
    with_kernel(1, |kernel| {
        stopped::<V4>(kernel);
        stopped::<V6>(kernel);
    });
}

fn stopped<F: TestFamily + FamilyTables>(kernel: &mut Kernel)
where
    Kernel: Engine<F>,
{
    prepare::<F>(kernel);
    let refused = |kernel: &mut Kernel| {
        let drops = Engine::<F>::counts(kernel).drops;
        drops.get(&DropReason::FlowTableFull).copied().unwrap_or_default()
    };
    let before = refused(kernel);
    let run = kernel.runner().unwrap();
    let (client, other, vip) = (
        end::<F>([0, 10], 20_000),
        end::<F>([0, 11], 20_000),
        end::<F>(NEAR, 80),
    );
    run(&mut packet(client, vip, flag::SYN)).unwrap();
    let mut known = packet(client, vip, flag::ACK);
    assert_ne!(run(&mut known).unwrap(), DROPPED);

    let mut change = |by: u64| {
        let (_, tags, _) = rows::<F>(kernel.store());
        let tags = FlowTags {
            version: tags[0].version + by,
            ..tags[0]
        };
        kernel.store().set::<F::FlowTags>(&0, &tags).unwrap();
    };
    change(1);
    let mut again = packet(client, vip, flag::ACK);
    assert_ne!(run(&mut again).unwrap(), DROPPED);
    assert_eq!(again.bytes, known.bytes, "what is known is found");
    assert_eq!(run(&mut packet(other, vip, flag::SYN)).unwrap(), DROPPED);
    change(1);
    assert_ne!(run(&mut packet(other, vip, flag::SYN)).unwrap(), DROPPED);
    assert_eq!(refused(kernel), before + 1);
}

/// The way to a backend is asked for once in a moment, and anew as soon as the agent says that routes have changed.
#[test]
fn a_way_is_known_for_a_moment() {
    need_root!();
    with_kernel(1024, |kernel| {
        // Two addresses, two numbers, and the hop with its device, epoch, size, and the next hop's address.
        ways::<V4, 32>(kernel, 16 + 10);
        ways::<V6, 56>(kernel, 40 + 10);
    });
}

fn ways<F: TestFamily + FamilyTables, const ROW: usize>(kernel: &mut Kernel, address: usize)
where
    Kernel: Engine<F>,
{
    const FALSE: [u8; 6] = [2, 0, 0, 0, 0, 0xee];
    prepare::<F>(kernel);
    stay_on(0).unwrap();
    let run = kernel.runner().unwrap();
    let (mut ports, mut backend) = (20_000.., None);
    // The next hop of a new flow to the same backend as the first.
    let mut open = |kernel: &mut Kernel| -> io::Result<[u8; 6]> {
        loop {
            let client = end::<F>([0, 10], ports.next().unwrap());
            run(&mut packet(client, end::<F>(FAR, 80), flag::SYN))?;
            let mut found = None;
            let take = &mut |key: FlowKey<F::Addr>, flow: Flow<F::Addr>| {
                if key.src_port.number() == client.port()
                    && *backend.get_or_insert(flow.backend) == flow.backend
                {
                    found = Some(flow.hop.dst);
                }
            };
            kernel
                .store()
                .for_each_flow::<F>(take)
                .map_err(io::Error::other)?;
            if let Some(hop) = found {
                return Ok(hop);
            }
        }
    };
    // The way back to a client is another one.
    let answer = |kernel: &mut Kernel| {
        let mut keys = Vec::new();
        let take = &mut |key: FlowKey<F::Addr>, flow: Flow<F::Addr>| {
            if flow.flags & FlowFlags::REPLY != 0 {
                keys.push(key);
            }
        };
        kernel.store().for_each_flow::<F>(take).unwrap();
        assert!(!keys.is_empty());
        for key in keys {
            let (pod, node) = (at(key.src, key.src_port), at(key.dst, key.dst_port));
            run(&mut packet(pod, node, flag::SYN | flag::ACK)).unwrap();
        }
    };
    let mislead = |kernel: &mut Kernel| {
        kernel
            .change_known_ways::<F, ROW>(|row| row[address..address + 6].copy_from_slice(&FALSE))
            .unwrap();
    };
    let real = open(kernel).unwrap();
    assert!(real != FALSE && real != [0; 6], "{real:?}");

    mislead(kernel);
    answer(kernel);
    assert_eq!(open(kernel).unwrap(), FALSE, "it is not asked for again");
    let mut settings = routes_change(kernel.store());
    assert_eq!(open(kernel).unwrap(), real, "routes have changed");

    mislead(kernel);
    settings.jiffies_per_second = 40;
    kernel.store().set::<SettingsTable>(&0, &settings).unwrap();
    assert_eq!(open(kernel).unwrap(), FALSE, "it is known still");
    let before = Engine::<F>::now(kernel);
    while Engine::<F>::now(kernel).wrapping_sub(before) <= settings.jiffies_per_second / 4 {
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(open(kernel).unwrap(), real, "the moment is over");
}

/// A device's row is read anew once the agent, having written it, says that routes have changed.
#[test]
fn a_device_is_known_until_routes_change() {
    need_root!();
    with_kernel(1024, |kernel| {
        devices::<V4>(kernel);
        devices::<V6>(kernel);
    });
}

fn devices<F: TestFamily + FamilyTables>(kernel: &mut Kernel)
where
    Kernel: Engine<F>,
{
    prepare::<F>(kernel);
    stay_on(0).unwrap();
    let run = kernel.runner().unwrap();
    let mut ports = 20_000..;
    // Where the replies of a new flow are to leave, which depends on the device that it came in by.
    let mut open = |kernel: &mut Kernel| {
        let client = end::<F>([0, 10], ports.next().unwrap());
        run(&mut packet(client, end::<F>(NEAR, 80), flag::SYN)).unwrap();
        let mut found = None;
        let take = &mut |key: FlowKey<F::Addr>, flow: Flow<F::Addr>| {
            if key.src_port.number() == client.port() {
                found = Some(flow.arrival);
            }
        };
        kernel.store().for_each_flow::<F>(take).unwrap();
        found.unwrap()
    };
    assert_eq!(open(kernel), 0);
    let store = kernel.store();
    let mut row = store.rows::<DevicesTable>().unwrap().remove(&UPLINK).unwrap();
    row.flags |= DeviceFlags::RETURNS;
    store.set::<DevicesTable>(&UPLINK, &row).unwrap();
    assert_eq!(open(kernel), 0, "it is not looked up again");
    routes_change(kernel.store());
    assert_eq!(open(kernel), UPLINK, "routes have changed");
}
