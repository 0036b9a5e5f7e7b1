//! The BPF object in the kernel, one packet at a time by `BPF_PROG_TEST_RUN`.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd as _;

use anyhow::{Context as _, Result, bail};
use aya::maps::PerCpuArray;
use aya::programs::{Program as Loaded, SchedClassifier, Xdp};
use aya::{Ebpf, EbpfLoader};
use lb_agent::dataplane::{Access, KernelStore, Pins};
use lb_common::addr::Address as _;
use lb_common::flow_table::WAYS;
use lb_common::layout::{map, program};
use lb_common::{Counter, V4, V6, protocol};
use lb_ebpf::testkit::{Counts, Frame, Program};

use super::tables::{KernelTables, ROWS, counts};
use super::test_run::{run_tc, run_xdp};
use super::{Engine, Ground, Outcome, Rows, TestFamily, Verdict, Written};
use crate::flow_table;
use crate::object::object;

/// Rows of the tables of clients and fragments: enough that none of them has to make room.
const CLIENTS: u32 = 16_384;

/// The kernel engine. Its programs run in the network namespace of the calling thread.
#[derive(Debug)]
pub struct Kernel {
    ebpf: Ebpf,
    /// The same maps, as the agent reads and writes them.
    store: KernelStore,
    complete: bool,
    /// What stands in the maps of a family; `None` when that is not known.
    pub(super) last4: Option<Rows<V4>>,
    /// The same for IPv6.
    pub(super) last6: Option<Rows<V6>>,
    /// Held open.
    datagrams: Vec<UdpSocket>,
    /// Held open.
    listeners: Vec<TcpListener>,
}

impl Kernel {
    /// Loads the object. With `complete`, packets come with the sum of their bytes (`CHECKSUM_COMPLETE`), and a run
    /// fails when the programs do not keep it right. The flow table has so many `buckets`.
    pub fn new(complete: bool, buckets: u32) -> Result<Self> {
        let mut loader = EbpfLoader::new();
        for name in [map::STATS, map::POLICIES, map::LIMITS] {
            loader.map_max_entries(name, ROWS);
        }
        for suffix in ["4", "6"] {
            for (name, rows) in [
                ("slots", ROWS),
                ("backends", ROWS),
                ("loads", ROWS),
                ("flow_tags", buckets),
                ("flows", buckets * WAYS),
                ("affinity", CLIENTS),
                ("sources", CLIENTS),
                ("frags", CLIENTS),
            ] {
                let name = map::ALL.iter().find(|map| **map == format!("lb_{name}{suffix}"));
                loader.map_max_entries(name.context("no such map")?, rows);
            }
        }
        Self::with(&mut loader, complete)
    }

    /// Loads the object over maps that are pinned already.
    pub fn over(pins: &Pins) -> Result<Self> {
        let mut loader = EbpfLoader::new();
        for name in map::ALL {
            loader.map_pin_path(name, pins.map(name));
        }
        Self::with(&mut loader, false)
    }

    fn with(loader: &mut EbpfLoader<'_>, complete: bool) -> Result<Self> {
        let mut ebpf = loader.load_file(object("sluice.o")?)?;
        flow_table::draw(&mut ebpf)?;
        for (name, program) in ebpf.programs_mut() {
            match program {
                Loaded::SchedClassifier(program) => program.load(),
                Loaded::Xdp(program) => program.load(),
                other => bail!("{name}: not known as a program: {:?}", other.prog_type()),
            }
            .with_context(|| format!("cannot load {name}"))?;
        }
        Ok(Self {
            store: KernelStore::of_object(&ebpf, Access::ReadWrite)?,
            ebpf,
            complete,
            last4: None,
            last6: None,
            datagrams: Vec::new(),
            listeners: Vec::new(),
        })
    }

    /// Works with an engine whose flow table has so many `buckets`, on a ground of its own.
    pub fn on_its_ground(buckets: u32, work: impl FnOnce(&mut Self) + Send) -> Result<()> {
        Ground::new()?.run(|| {
            work(&mut Self::new(false, buckets)?);
            Ok(())
        })
    }

    /// The same maps, as the agent reads and writes them.
    pub fn store(&mut self) -> &mut KernelStore {
        &mut self.store
    }

    /// What runs stage pre at TC on packets, for several threads at the same time.
    pub fn runner(&self) -> Result<impl Fn(&mut Frame) -> io::Result<i32> + Send + Sync + use<>> {
        let program: &SchedClassifier = self
            .ebpf
            .program(program::PRE)
            .context("no program")?
            .try_into()?;
        let program = program.fd()?.try_clone()?;
        Ok(move |frame: &mut Frame| run_tc(program.as_fd(), frame, false))
    }

    /// Changes what each CPU remembers of the ways to backends of a family: rows as bytes.
    pub fn change_known_ways<F: TestFamily, const BYTES: usize>(
        &mut self,
        change: impl Fn(&mut [u8; BYTES]),
    ) -> Result<()> {
        let map = self
            .ebpf
            .map_mut(&format!("lb_known_ways{}", F::SUFFIX))
            .context("no map")?;
        let mut rows = PerCpuArray::<_, [u8; BYTES]>::try_from(map)?;
        for index in 0..rows.len() {
            let mut row = rows.get(&index, 0)?.to_vec();
            row.iter_mut().for_each(&change);
            rows.set(index, row.try_into()?, 0)?;
        }
        Ok(())
    }

    /// Whether the kernel can run packets with the sum of their bytes (6.11).
    pub fn knows_complete() -> Result<bool> {
        let mut kernel = Self::new(true, 1)?;
        match kernel.run_tc(program::JIFFIES, &mut blank()) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
            done => Ok(done.map(|_| true)?),
        }
    }

    fn run_tc(&mut self, name: &str, frame: &mut Frame) -> io::Result<i32> {
        // The sum is that of the bytes after an Ethernet header.
        let complete = self.complete && ![program::PRE_L3, program::POST_L3].contains(&name);
        let program: &mut SchedClassifier = self.ebpf.program_mut(name).unwrap().try_into().unwrap();
        run_tc(program.fd().unwrap().as_fd(), frame, complete)
    }

    /// How many packets were answered; 0 for an engine that shows them.
    fn answers(&mut self) -> u64 {
        if !self.complete {
            return 0;
        }
        let counters = PerCpuArray::<_, u64>::try_from(self.ebpf.map_mut(map::COUNTERS).unwrap()).unwrap();
        [
            Counter::AnsweredReset,
            Counter::AnsweredUnreachable,
            Counter::AnsweredTooBig,
            Counter::AnsweredTimeExceeded,
            Counter::AnsweredEcho,
        ]
        .into_iter()
        .map(|counter| counters.get(&(counter as u32), 0).unwrap().iter().sum::<u64>())
        .sum()
    }

    fn run_xdp(&mut self, frame: &mut Frame) -> io::Result<i32> {
        let program: &mut Xdp = self.ebpf.program_mut(program::XDP).unwrap().try_into().unwrap();
        run_xdp(program.fd().unwrap().as_fd(), frame)
    }
}

impl<F: TestFamily + KernelTables> Engine<F> for Kernel {
    fn name(&self) -> &'static str {
        if self.complete {
            "kernel, CHECKSUM_COMPLETE"
        } else {
            "kernel"
        }
    }

    fn forget(&mut self) {
        self.datagrams.clear();
        self.listeners.clear();
        // Some maps are for both.
        (self.last4, self.last6) = (None, None);
        <F as KernelTables>::set_written(&mut self.ebpf, &mut self.store, &Written::default());
    }

    fn write(&mut self, rows: &Rows<F>) {
        let last = F::last(self).take();
        KernelTables::write(&mut self.ebpf, rows, last.as_ref());
        *F::last(self) = Some(rows.clone());
    }

    fn run(&mut self, program: Program, frame: &mut Frame) -> Outcome {
        let on = Outcome {
            verdict: Some(Verdict::On),
            device: None,
        };
        if frame.bytes.len() < shortest(program, &frame.bytes) {
            return on;
        }
        let bytes = frame.bytes.clone();
        let answers = self.answers();
        let (name, result) = match program {
            Program::Xdp => (program::XDP, self.run_xdp(frame)),
            Program::Pre => (program::PRE, self.run_tc(program::PRE, frame)),
            Program::Post => (program::POST, self.run_tc(program::POST, frame)),
            Program::PreL3 => (program::PRE_L3, self.run_tc(program::PRE_L3, frame)),
            Program::PostL3 => (program::POST_L3, self.run_tc(program::POST_L3, frame)),
        };
        let result = match result {
            // The sum that came with the packet is compared even when it is no longer in force, as with an answer.
            Err(error) if error.raw_os_error() == Some(libc::EBADMSG) && self.answers() > answers => {
                return Outcome { verdict: None, ..on };
            }
            result => result.unwrap_or_else(|error| panic!("{name} with {bytes:02x?}: {error}")),
        };
        let verdict = verdict(program, result).unwrap_or_else(|| panic!("{name} answers {result}"));
        Outcome {
            verdict: Some(verdict),
            ..on
        }
    }

    fn counts(&mut self) -> Counts {
        counts(&mut self.ebpf)
    }

    fn written(&mut self) -> Written<F::Addr> {
        <F as KernelTables>::written(&mut self.ebpf, &self.store)
    }

    fn set_written(&mut self, written: &Written<F::Addr>) {
        <F as KernelTables>::set_written(&mut self.ebpf, &mut self.store, written);
    }

    fn now(&mut self) -> u32 {
        self.run_tc(program::JIFFIES, &mut blank())
            .unwrap()
            .cast_unsigned()
    }

    fn connect(&mut self, local: (F::Addr, u16), peer: (F::Addr, u16)) {
        if let Some(socket) = unless_taken(UdpSocket::bind(end::<F>(local))) {
            socket.connect(end::<F>(peer)).unwrap();
            self.datagrams.push(socket);
        }
    }

    fn listen(&mut self, protocol: u8, local: (F::Addr, u16)) {
        let local = end::<F>(local);
        if protocol == protocol::TCP {
            self.listeners.extend(unless_taken(TcpListener::bind(local)));
        } else {
            self.datagrams.extend(unless_taken(UdpSocket::bind(local)));
        }
    }
}

/// The meaning of a program's result; `None` for one that no program may give.
fn verdict(program: Program, result: i32) -> Option<Verdict> {
    Some(match (program, result) {
        // TCX_NEXT, XDP_PASS
        (Program::Xdp, 2) => Verdict::On,
        (Program::Xdp, 1) => Verdict::Dropped,
        (Program::Xdp, 3) => Verdict::Back,
        (Program::Xdp, 4) => Verdict::Redirected,
        (Program::Xdp, _) => return None,
        (_, -1) => Verdict::On,
        (_, 2) => Verdict::Dropped,
        (_, 7) => Verdict::Redirected,
        _ => return None,
    })
}

/// The least that a test run takes: an Ethernet header, and at TC the IP header that it announces.
fn shortest(program: Program, bytes: &[u8]) -> usize {
    match bytes.get(12..14) {
        Some([0x08, 0x00]) if program != Program::Xdp => 14 + 20,
        Some([0x86, 0xdd]) if program != Program::Xdp => 14 + 40,
        _ => 14,
    }
}

fn blank() -> Frame {
    Frame {
        bytes: vec![0; 64],
        ifindex: 0,
        segments: 1,
        ether_type: 0,
        own: false,
    }
}

fn end<F: TestFamily>((addr, port): (F::Addr, u16)) -> SocketAddr {
    SocketAddr::new(addr.ip(), port)
}

/// Another engine in this namespace may have it.
fn unless_taken<T>(bound: io::Result<T>) -> Option<T> {
    match bound {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => None,
        bound => Some(bound.unwrap()),
    }
}
