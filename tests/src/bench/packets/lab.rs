//! The programs of one case, loaded, and run.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aya::Ebpf;
use aya::maps::{Array, PerCpuArray, ProgramArray};
use aya::programs::{Program, ProgramFd, SchedClassifier, TestRun as _, TestRunOptions, Xdp};
use lb_common::bench::Plan;
use lb_common::layout::map;
use lb_common::{Counter, DropReason, ServiceStats};

use super::cases::{self, Case};
use super::floors;
use super::rows::{self, SERVICE};
use crate::object::object;

/// One hit in the flow table's kind of map, and back.
const LOOK_UP: &str = "bench_lookup_xdp";
const NEXT: u32 = u32::MAX;
const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;

/// Programs and maps of one case.
pub(super) struct Lab {
    case: Case,
    sluice: Ebpf,
    wrapper: Ebpf,
    frame: Vec<u8>,
    device: u32,
}

/// What the programs have counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counted {
    packets: u64,
    replies: u64,
    connections: u64,
    opened: u64,
    sent: u64,
    other: u64,
}

/// Of one run.
pub(super) fn nanoseconds(duration: Duration) -> Result<u64> {
    Ok(u64::try_from(duration.as_nanos())?)
}

/// `struct xdp_md`: `data`, `data_end`, `data_meta`, `ingress_ifindex`, `rx_queue_index`, `egress_ifindex`.
pub(super) fn xdp_context(length: usize, device: u32) -> Result<Vec<u8>> {
    let words = [0, u32::try_from(length)?, 0, device, 0, 0];
    Ok(words.into_iter().flat_map(u32::to_ne_bytes).collect())
}

impl Lab {
    /// For packets that arrive on `device`.
    pub(super) fn new(case: &Case, device: u32) -> Result<Self> {
        Self::of(case, device, &object("sluice.o")?)
    }

    /// With the programs in the object `sluice`.
    pub(super) fn of(case: &Case, device: u32, sluice: &Path) -> Result<Self> {
        let mut lab = Self {
            case: *case,
            sluice: Ebpf::load_file(sluice)?,
            wrapper: Ebpf::load_file(object("sluice-bench.o")?)?,
            frame: case.frame(),
            device,
        };
        load(&mut lab.sluice, case.program())?;
        load(&mut lab.wrapper, lab.case.empty())?;
        load(&mut lab.wrapper, LOOK_UP)?;
        floors::fill(&mut lab.wrapper)?;
        load(&mut lab.wrapper, lab.case.wrapper())?;
        let plan = lab.wrapper.map_mut("bench_plan").context("no bench_plan")?;
        Array::<_, Plan>::try_from(plan)?.set(0, case.plan(), 0)?;
        rows::fill(&mut lab.sluice, case, device)?;
        Ok(lab)
    }

    /// Nanoseconds of the wrapper with an empty program to call.
    pub(super) fn run_empty(&mut self, runs: u32) -> Result<u64> {
        let before = self.counted()?;
        self.aim_at_nothing()?;
        let verdict = if self.case.path.is_xdp() { XDP_TX } else { NEXT };
        let nanoseconds = self.run(runs, verdict)?;
        ensure!(
            self.counted()? == before,
            "the wrapper alone has counted something"
        );
        Ok(nanoseconds)
    }

    /// Nanoseconds of the wrapper with the program under test to call.
    pub(super) fn run_target(&mut self, runs: u32) -> Result<u64> {
        let before = self.counted()?;
        self.aim_at_target()?;
        let verdict = match self.case.path {
            path if path.is_sent() => XDP_TX,
            path if path.is_xdp() => XDP_PASS,
            _ => NEXT,
        };
        let nanoseconds = self.run(runs, verdict)?;
        let after = self.counted()?;
        let expected = before.plus(&self.case, runs.into());
        ensure!(
            after == expected,
            "{:?}: counted {after:?}, expected {expected:?}",
            self.case
        );
        Ok(nanoseconds)
    }

    /// The wrapper calls the program under test.
    pub(super) fn aim_at_target(&mut self) -> Result<()> {
        let target = file(&mut self.sluice, self.case.program())?;
        self.aim(&target)
    }

    /// The wrapper calls an empty program.
    pub(super) fn aim_at_nothing(&mut self) -> Result<()> {
        let empty = file(&mut self.wrapper, self.case.empty())?;
        self.aim(&empty)
    }

    /// The wrapper calls a program that looks a flow up and sends back.
    pub(super) fn aim_at_look_up(&mut self) -> Result<()> {
        let target = file(&mut self.wrapper, LOOK_UP)?;
        self.aim(&target)
    }

    /// The wrapper's program, the frame, and the context that goes with it.
    pub(super) fn parts(&mut self) -> Result<(ProgramFd, &[u8], Vec<u8>)> {
        let program = file(&mut self.wrapper, self.case.wrapper())?;
        let context = xdp_context(self.frame.len(), self.device)?;
        Ok((program, &self.frame, context))
    }

    fn aim(&mut self, target: &ProgramFd) -> Result<()> {
        let name = if self.case.path.is_xdp() {
            "bench_target_xdp"
        } else {
            "bench_target"
        };
        let mut targets = ProgramArray::try_from(self.wrapper.map_mut(name).context("no map of targets")?)?;
        Ok(targets.set(0, target, 0)?)
    }

    fn run(&mut self, runs: u32, verdict: u32) -> Result<u64> {
        let context = xdp_context(self.frame.len(), self.device)?;
        let options = TestRunOptions {
            data_in: Some(&self.frame),
            repeat: runs,
            ..TestRunOptions::default()
        };
        let program = self
            .wrapper
            .program_mut(self.case.wrapper())
            .context("no wrapper")?;
        let done = if self.case.path.is_xdp() {
            let program: &mut Xdp = program.try_into()?;
            program.test_run(TestRunOptions {
                ctx_in: Some(&context),
                ..options
            })?
        } else {
            let program: &mut SchedClassifier = program.try_into()?;
            program.test_run(options)?
        };
        ensure!(
            done.return_value == verdict,
            "{:?}: verdict {}",
            self.case,
            done.return_value
        );
        nanoseconds(done.duration)
    }

    fn counted(&mut self) -> Result<Counted> {
        let map = self.sluice.map_mut(map::STATS).context("no map of stats")?;
        let stats = PerCpuArray::<_, ServiceStats>::try_from(map)?.get(&SERVICE, 0)?;
        let mut counted = Counted::default();
        for cpu in stats.iter() {
            counted.packets += cpu.packets;
            counted.replies += cpu.reply_packets;
            counted.connections += cpu.connections;
            counted.other += cpu.dropped;
        }
        for counter in Counter::ALL {
            let count = self.sum(map::COUNTERS, counter as u32)?;
            match counter {
                Counter::FlowOpened => counted.opened += count,
                Counter::XdpSent => counted.sent += count,
                // How a flow was opened.
                Counter::HopLooked | Counter::SnatOpened | Counter::SnatRetried | Counter::Wrapped => {}
                _ => counted.other += count,
            }
        }
        for reason in DropReason::ALL {
            counted.other += self.sum(map::DROPS, reason as u32)?;
        }
        Ok(counted)
    }

    fn sum(&mut self, name: &str, index: u32) -> Result<u64> {
        let map = self
            .sluice
            .map_mut(name)
            .with_context(|| format!("no map {name}"))?;
        Ok(PerCpuArray::<_, u64>::try_from(map)?.get(&index, 0)?.iter().sum())
    }
}

impl Counted {
    /// What `runs` packets of a case count.
    fn plus(self, case: &Case, runs: u64) -> Self {
        let path = case.path;
        let when = |condition| if condition { runs } else { 0 };
        let is_service = !case.name.contains("not-a-service");
        let is_reply = matches!(path, cases::Path::PostHit | cases::Path::NatReply);
        Self {
            packets: self.packets + when(is_service && !is_reply),
            replies: self.replies + when(is_service && is_reply),
            connections: self.connections + when(path.opens()),
            opened: self.opened + when(path.opens()),
            sent: self.sent + when(path.is_sent()),
            other: self.other,
        }
    }
}

impl Case {
    fn wrapper(&self) -> &'static str {
        match (self.path.is_xdp(), self.family) {
            (false, cases::Family::V4) => "bench_wrap4",
            (false, cases::Family::V6) => "bench_wrap6",
            (true, cases::Family::V4) => "bench_xdp4",
            (true, cases::Family::V6) => "bench_xdp6",
        }
    }

    fn empty(&self) -> &'static str {
        if self.path.is_xdp() {
            "bench_empty_xdp"
        } else {
            "bench_empty"
        }
    }
}

fn load(ebpf: &mut Ebpf, name: &str) -> Result<()> {
    match ebpf
        .program_mut(name)
        .with_context(|| format!("no program {name}"))?
    {
        Program::SchedClassifier(program) => program.load()?,
        Program::Xdp(program) => program.load()?,
        _ => anyhow::bail!("{name} is of no kind that is measured"),
    }
    Ok(())
}

fn file(ebpf: &mut Ebpf, name: &str) -> Result<ProgramFd> {
    let program = ebpf.program(name).with_context(|| format!("no program {name}"))?;
    Ok(match program {
        Program::SchedClassifier(program) => program.fd()?.try_clone()?,
        Program::Xdp(program) => program.fd()?.try_clone()?,
        _ => anyhow::bail!("{name} is of no kind that is measured"),
    })
}
