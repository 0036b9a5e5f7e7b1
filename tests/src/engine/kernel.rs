//! The BPF object in the kernel, one packet at a time by `BPF_PROG_TEST_RUN`.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use aya::maps::{Array, HashMap, MapData, PerCpuArray};
use aya::programs::SchedClassifier;
use aya::{Ebpf, EbpfLoader, Pod};
use lb_common::addr::Address as _;
use lb_common::layout::{map, program};
use lb_common::{Backend, Counter, DropReason, Flow, FlowKey, ServiceKey, ServiceStats, Slot, filter};
use lb_ebpf::testkit::{Counts, Flows, Frame, Program};

use super::test_run::test_run;
use super::{Engine, Rows, TestFamily};

/// Slots, backends, service ids: as few as cases use.
const ROWS: u32 = 64;
/// Enough that none is evicted.
const FLOWS: u32 = 131_072;
/// The least that a test run takes: an Ethernet header, and the IP header that it announces.
fn shortest(bytes: &[u8]) -> usize {
    match bytes.get(12..14) {
        Some([0x08, 0x00]) => 14 + 20,
        Some([0x86, 0xdd]) => 14 + 40,
        _ => 14,
    }
}

/// The kernel engine. Its programs run in the network namespace of the calling thread.
#[derive(Debug)]
pub struct Kernel {
    ebpf: Ebpf,
    complete: bool,
    sockets: Vec<UdpSocket>,
}

impl Kernel {
    /// Loads the object. With `complete`, packets come with the sum of their bytes (`CHECKSUM_COMPLETE`), and a run
    /// fails when the programs do not keep it right.
    pub fn new(complete: bool) -> Result<Self> {
        let folder = std::env::var_os("SLUICE_BPF_DIR").context("SLUICE_BPF_DIR is not set")?;
        let mut loader = EbpfLoader::new();
        for name in [
            map::SLOTS4,
            map::SLOTS6,
            map::BACKENDS4,
            map::BACKENDS6,
            map::STATS,
        ] {
            loader.map_max_entries(name, ROWS);
        }
        for name in [map::FLOWS4, map::FLOWS6] {
            loader.map_max_entries(name, FLOWS);
        }
        let mut ebpf = loader.load_file(PathBuf::from(folder).join("sluice.o"))?;
        for (name, program) in ebpf.programs_mut() {
            let program: &mut SchedClassifier = program.try_into()?;
            program.load().with_context(|| format!("cannot load {name}"))?;
        }
        Ok(Self {
            ebpf,
            complete,
            sockets: Vec::new(),
        })
    }

    /// Whether the kernel can run packets with the sum of their bytes (6.11).
    pub fn knows_complete() -> Result<bool> {
        let mut kernel = Self::new(true)?;
        let mut frame = Frame {
            bytes: vec![0; 64],
            ifindex: 0,
            segments: 1,
            ether_type: 0,
        };
        match kernel.test_run(program::JIFFIES, &mut frame) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
            done => Ok(done.map(|_| true)?),
        }
    }

    fn test_run(&mut self, program: &str, frame: &mut Frame) -> io::Result<i32> {
        // The sum is that of the bytes after an Ethernet header.
        let complete = self.complete && ![program::PRE_L3, program::POST_L3].contains(&program);
        let program: &mut SchedClassifier = self.ebpf.program_mut(program).unwrap().try_into().unwrap();
        test_run(program.fd().unwrap().as_fd(), frame, complete)
    }

    fn hash<K: Pod, V: Pod>(&mut self, name: &str) -> HashMap<&mut MapData, K, V> {
        HashMap::try_from(self.ebpf.map_mut(name).unwrap()).unwrap()
    }

    fn array<V: Pod>(&mut self, name: &str) -> Array<&mut MapData, V> {
        Array::try_from(self.ebpf.map_mut(name).unwrap()).unwrap()
    }

    /// Sums of a per-CPU array of numbers.
    fn sums(&mut self, name: &str, length: usize) -> Vec<u64> {
        let array = PerCpuArray::<_, u64>::try_from(self.ebpf.map_mut(name).unwrap()).unwrap();
        (0..length)
            .map(|index| array.get(&(index as u32), 0).unwrap().iter().sum())
            .collect()
    }

    fn stats(&mut self) -> Vec<ServiceStats> {
        let array = PerCpuArray::<_, ServiceStats>::try_from(self.ebpf.map_mut(map::STATS).unwrap()).unwrap();
        (0..ROWS)
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
}

impl<F: TestFamily> Engine<F> for Kernel
where
    F::Addr: Pod,
    ServiceKey<F::Addr>: Pod,
    Backend<F::Addr>: Pod,
    FlowKey<F::Addr>: Pod,
    Flow<F::Addr>: Pod,
{
    fn name(&self) -> &'static str {
        if self.complete {
            "kernel, CHECKSUM_COMPLETE"
        } else {
            "kernel"
        }
    }

    fn forget(&mut self) {
        self.sockets.clear();
        Engine::<F>::set_flows(self, &Flows::new());
    }

    fn write(&mut self, rows: &Rows<F>) {
        let name = |table: &str| format!("lb_{table}{}", F::SUFFIX);
        let mut filter = self.array::<u64>(&name("filter"));
        for row in 0..filter::ROWS {
            filter.set(row, 0, 0).unwrap();
        }
        for key in rows.services.keys() {
            let bit = key.addr.filter_bit();
            let row = filter.get(&bit.row, 0).unwrap();
            filter.set(bit.row, row | bit.mask, 0).unwrap();
        }
        replace(&mut self.hash(&name("services")), &rows.services);
        replace(&mut self.hash(&name("node_addrs")), &rows.node_addresses);
        replace(&mut self.hash(map::DEVICES), &rows.devices);
        self.array(map::SETTINGS).set(0, rows.settings, 0).unwrap();
        let mut slots = self.array::<Slot>(&name("slots"));
        for index in 0..ROWS {
            let row = rows.slots.get(&index).copied().unwrap_or_default();
            slots.set(index, row, 0).unwrap();
        }
        let mut backends = self.array::<Backend<F::Addr>>(&name("backends"));
        for index in 0..ROWS {
            let row = rows.backends.get(&index).copied().unwrap_or_default();
            backends.set(index, row, 0).unwrap();
        }
    }

    fn run(&mut self, program: Program, frame: &mut Frame) -> i32 {
        if frame.bytes.len() < shortest(&frame.bytes) {
            return super::NEXT;
        }
        let program = match program {
            Program::Pre => program::PRE,
            Program::Post => program::POST,
            Program::PreL3 => program::PRE_L3,
            Program::PostL3 => program::POST_L3,
        };
        let bytes = frame.bytes.clone();
        self.test_run(program, frame)
            .unwrap_or_else(|error| panic!("{program} with {bytes:02x?}: {error}"))
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

    fn flows(&mut self) -> Flows<F::Addr> {
        let flows = self.hash::<FlowKey<F::Addr>, Flow<F::Addr>>(&format!("lb_flows{}", F::SUFFIX));
        flows.iter().map(Result::unwrap).collect()
    }

    fn set_flows(&mut self, flows: &Flows<F::Addr>) {
        replace(&mut self.hash(&format!("lb_flows{}", F::SUFFIX)), flows);
    }

    fn now(&mut self) -> u32 {
        let mut frame = Frame {
            bytes: vec![0; 64],
            ifindex: 0,
            segments: 1,
            ether_type: 0,
        };
        self.test_run(program::JIFFIES, &mut frame)
            .unwrap()
            .cast_unsigned()
    }

    fn connect(&mut self, (local, local_port): (F::Addr, u16), (peer, peer_port): (F::Addr, u16)) {
        let socket = match UdpSocket::bind(SocketAddr::new(local.ip(), local_port)) {
            // Another engine in this namespace has it.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return,
            bound => bound.unwrap(),
        };
        socket.connect(SocketAddr::new(peer.ip(), peer_port)).unwrap();
        self.sockets.push(socket);
    }
}

fn replace<K: Pod + Ord, V: Pod>(
    map: &mut HashMap<&mut MapData, K, V>,
    rows: &std::collections::BTreeMap<K, V>,
) {
    let standing: Vec<K> = map.keys().map(Result::unwrap).collect();
    for key in standing.iter().filter(|key| !rows.contains_key(key)) {
        map.remove(key).unwrap();
    }
    for (key, row) in rows {
        map.insert(key, row, 0).unwrap();
    }
}
