//! What the programs in the kernel make of more flows than the flow table has room for, and of the CPU that they run on.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_possible_truncation,
    reason = "tests panic"
)]

use std::collections::BTreeMap;
use std::net::SocketAddr;

use lb_common::flow_table::WAYS;
use lb_common::{ServiceFlags, V4, V6, protocol};
use lb_ebpf::testkit::Program;
use lb_tests::engine::{Bed, Engine, Kernel, TestFamily, Verdict, backend, end};
use lb_tests::need_root;
use lb_tests::packet::{Content, PacketBuilder, View, flag};
use lb_tests::processor::stay_on;

/// Entries in the flow table.
const ENTRIES: u32 = 8192;
/// Connections that are open: their entries fill a quarter of the table.
const OPEN: u16 = 1000;

fn with_kernel(entries: u32, work: impl FnOnce(&mut Kernel) + Send) {
    let done = Kernel::on_its_ground(entries / WAYS, work);
    assert!(done.is_ok(), "{done:?}");
}

#[test]
fn open_connections_outlive_a_flood() {
    need_root!();
    with_kernel(ENTRIES, |kernel| {
        flood::<V4>(kernel, 1);
        flood::<V4>(kernel, 5);
        flood::<V6>(kernel, 1);
        flood::<V6>(kernel, 5);
    });
}

/// Connections to a service while others open twice as many as the table has room for: the share of those that live on.
fn flood<F: TestFamily>(kernel: &mut Kernel, service: u8)
where
    Kernel: Engine<F>,
{
    let engines: &mut [&mut dyn Engine<F>] = &mut [kernel];
    let mut bed = Bed::new(engines, protocol::TCP);
    // Ports for all of them.
    bed.update(|rows| (rows.settings.snat_port_min, rows.settings.snat_port_max) = (1024, 65_535));
    let vip = end::<F>([96, service], 80);
    let clients: Vec<SocketAddr> = (0..OPEN)
        .map(|number| end::<F>([0, 10], 20_000 + number))
        .collect();
    let ways: Vec<_> = clients
        .iter()
        .map(|client| {
            let way = sent(&mut bed, &PacketBuilder::tcp(*client, vip).flags(flag::SYN));
            let way = way.expect("the table is empty");
            assert_eq!(sent(&mut bed, &PacketBuilder::tcp(*client, vip)), Some(way));
            way
        })
        .collect();
    let mut strangers = (0..).map(|number: u32| {
        let [_, a, b, c] = number.to_be_bytes();
        end::<F>([10 + a, b], 1024 + u16::from(c))
    });
    let (mut packets, mut lost) = (0, 0);
    // Twice as many SYNs as there is room for entries, of which each takes two.
    for _round in 0..=2 * ENTRIES / u32::from(OPEN) {
        for (client, way) in clients.iter().zip(&ways) {
            let stranger = strangers.next().unwrap();
            _ = sent(&mut bed, &PacketBuilder::tcp(stranger, vip).flags(flag::SYN));
            packets += 1;
            lost += u32::from(sent(&mut bed, &PacketBuilder::tcp(*client, vip)) != Some(*way));
            let [source, pod] = *way;
            // Back at the same hook, or where the packet leaves.
            let program = if source == *client {
                Program::Post
            } else {
                Program::Pre
            };
            _ = bed.run_bare(program, &PacketBuilder::tcp(pod, source).build());
        }
    }
    let dead = clients
        .iter()
        .zip(&ways)
        .filter(|(client, way)| sent(&mut bed, &PacketBuilder::tcp(**client, vip)) != Some(**way))
        .count();
    println!(
        "service {service}, {}: {lost} of {packets} packets lost, {dead} of {OPEN} connections",
        F::NAME
    );
    assert!(
        dead <= usize::from(OPEN) / 1000,
        "{dead} of {OPEN} connections are dead"
    );
}

/// Where a packet of a client goes, and as whose; `None` when it goes nowhere.
fn sent<F: TestFamily>(bed: &mut Bed<'_, F>, packet: &PacketBuilder) -> Option<[SocketAddr; 2]> {
    let (verdict, bytes) = bed.run_bare(Program::Pre, &packet.build());
    let view = View::of(&bytes).unwrap();
    let Content::Tcp { ports, flags, .. } = view.content else {
        return None;
    };
    let goes = verdict != Verdict::Dropped && flags & flag::RST == 0;
    goes.then(|| {
        [
            SocketAddr::new(view.source, ports[0]),
            SocketAddr::new(view.destination, ports[1]),
        ]
    })
}

#[test]
fn each_cpu_takes_its_turns() {
    need_root!();
    with_kernel(ENTRIES, |kernel| {
        let engines: &mut [&mut dyn Engine<V4>] = &mut [kernel];
        let mut bed = Bed::new(engines, protocol::TCP);
        bed.update(|rows| rows.set_flags(1, ServiceFlags::ROUND_ROBIN));
        let cpus = std::thread::available_parallelism().unwrap().get();
        let mut shares = BTreeMap::<SocketAddr, u32>::new();
        for cpu in 0..cpus {
            stay_on(cpu).unwrap();
            let turns: Vec<SocketAddr> = (0..9)
                .map(|number| {
                    let client = end::<V4>([cpu as u8, 10], 20_000 + number);
                    let packet = PacketBuilder::tcp(client, end::<V4>([96, 1], 80)).flags(flag::SYN);
                    sent(&mut bed, &packet).unwrap()[1]
                })
                .collect();
            for turn in turns.windows(3) {
                assert!(
                    turn[0] != turn[1] && turn[1] != turn[2] && turn[0] != turn[2],
                    "{turns:?}"
                );
            }
            for endpoint in turns {
                *shares.entry(endpoint).or_default() += 1;
            }
        }
        let even: BTreeMap<_, _> = (0..3)
            .map(|number| (backend::<V4>(number), 3 * cpus as u32))
            .collect();
        assert_eq!(shares, even);
    });
}
