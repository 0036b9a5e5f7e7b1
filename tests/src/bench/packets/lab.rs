//! The programs, loaded, with the tables that a case needs.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, HashMap, Map, MapData, PerCpuArray, ProgramArray};
use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions};
use aya::{Ebpf, Pod};
use lb_common::bench::Plan;
use lb_common::layout::map;
use lb_common::{
    Backend, BackendState, Counter, DropReason, Family, Flow, FlowKey, Port, ServiceKey, ServiceStats,
    ServiceValue, Settings, Slot, Stage, TcpState, V4, V6, addr::Address, protocol,
};

use super::cases::{self, Case, Path};

const SERVICE: u32 = 1;
const EPOCH: u16 = 1;
const NEXT: u32 = u32::MAX;

/// Programs and maps of one case.
pub(super) struct Lab {
    case: Case,
    sluice: Ebpf,
    wrapper: Ebpf,
    frame: Vec<u8>,
}

/// What the programs have counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counted {
    packets: u64,
    replies: u64,
    connections: u64,
    opened: u64,
    reopened: u64,
    other: u64,
}

/// Where the objects are: see `cargo xtask build`.
pub(super) fn object(name: &str) -> Result<PathBuf> {
    let folder =
        std::env::var_os("SLUICE_BPF_DIR").context("SLUICE_BPF_DIR is not set: use cargo xtask bench")?;
    Ok(PathBuf::from(folder).join(name))
}

/// Of one run.
pub(super) fn nanoseconds(duration: Duration) -> Result<u64> {
    Ok(u64::try_from(duration.as_nanos())?)
}

impl Lab {
    pub(super) fn new(case: &Case) -> Result<Self> {
        let mut sluice = Ebpf::load_file(object("sluice.o")?)?;
        let mut wrapper = Ebpf::load_file(object("sluice-bench.o")?)?;
        classifier(&mut sluice, case.program())?.load()?;
        classifier(&mut wrapper, "bench_empty")?.load()?;
        classifier(&mut wrapper, wrapper_name(case))?.load()?;
        let mut lab = Self {
            case: *case,
            sluice,
            wrapper,
            frame: case.frame(),
        };
        let plan = lab.wrapper.map_mut("bench_plan").context("no bench_plan")?;
        Array::<_, Plan>::try_from(plan)?.set(0, case.plan(), 0)?;
        lab.fill()?;
        Ok(lab)
    }

    /// Nanoseconds of the wrapper with an empty program to call.
    pub(super) fn run_empty(&mut self, runs: u32) -> Result<u64> {
        let before = self.counted()?;
        let empty = classifier(&mut self.wrapper, "bench_empty")?.fd()?.try_clone()?;
        let nanoseconds = self.run(&empty, runs)?;
        ensure!(
            self.counted()? == before,
            "the wrapper alone has counted something"
        );
        Ok(nanoseconds)
    }

    /// Nanoseconds of the wrapper with the program under test to call.
    pub(super) fn run_target(&mut self, runs: u32) -> Result<u64> {
        let before = self.counted()?;
        let target = classifier(&mut self.sluice, self.case.program())?
            .fd()?
            .try_clone()?;
        let nanoseconds = self.run(&target, runs)?;
        let after = self.counted()?;
        let expected = before.plus(self.case.path, runs.into());
        ensure!(
            after == expected,
            "{:?}: counted {after:?}, expected {expected:?}",
            self.case
        );
        Ok(nanoseconds)
    }

    fn run(&mut self, target: &aya::programs::ProgramFd, runs: u32) -> Result<u64> {
        let mut targets =
            ProgramArray::try_from(self.wrapper.map_mut("bench_target").context("no bench_target")?)?;
        targets.set(0, target, 0)?;
        let options = TestRunOptions {
            data_in: Some(&self.frame),
            repeat: runs,
            ..TestRunOptions::default()
        };
        let done = classifier(&mut self.wrapper, wrapper_name(&self.case))?.test_run(options)?;
        ensure!(
            done.return_value == NEXT,
            "{:?}: verdict {}",
            self.case,
            done.return_value
        );
        nanoseconds(done.duration)
    }

    fn fill(&mut self) -> Result<()> {
        // A flow writes down once a second that it was seen: that is not what is measured.
        const JIFFIES_FOR_EVER: u32 = u32::MAX;
        let settings = Settings {
            jiffies_per_second: JIFFIES_FOR_EVER,
            tcp_idle: JIFFIES_FOR_EVER,
            udp_idle: JIFFIES_FOR_EVER,
            hash_seed: 7,
            node_port_min: 30_000,
            node_port_max: 32_767,
        };
        let map = self.sluice.map_mut(map::SETTINGS).context("no settings")?;
        Array::<_, Settings>::try_from(map)?.set(0, settings, 0)?;
        match self.case.family {
            cases::Family::V4 => self.fill_family::<V4>([
                map::SERVICES4,
                map::FILTER4,
                map::SLOTS4,
                map::BACKENDS4,
                map::FLOWS4,
            ]),
            cases::Family::V6 => self.fill_family::<V6>([
                map::SERVICES6,
                map::FILTER6,
                map::SLOTS6,
                map::BACKENDS6,
                map::FLOWS6,
            ]),
        }
    }

    fn fill_family<F: Family<Addr: Pod>>(
        &mut self,
        [services, filter, slots, backends, flows]: [&str; 5],
    ) -> Result<()>
    where
        ServiceKey<F::Addr>: Pod,
        Backend<F::Addr>: Pod,
        FlowKey<F::Addr>: Pod,
        Flow<F::Addr>: Pod,
    {
        let addr = |ip| F::Addr::from_ip(ip).context("an address of the other family");
        let (service, backend) = (self.case.service(), self.case.backend());
        let (vip, pod) = (addr(service.ip())?, addr(backend.ip())?);
        let (vip_port, pod_port) = (Port::new(service.port()), Port::new(backend.port()));

        let value = ServiceValue {
            service: SERVICE,
            generation: 1,
            slot_base: 0,
            slot_count: 1,
            flags: 0,
        };
        let bit = vip.filter_bit();
        Array::<_, u64>::try_from(self.map(filter)?)?.set(bit.row, bit.mask, 0)?;
        self.hash(services)?
            .insert(ServiceKey::new(vip, vip_port, protocol::TCP), value, 0)?;
        let slot = Slot {
            service: SERVICE,
            generation: 1,
            backend: 0,
        };
        Array::<_, Slot>::try_from(self.map(slots)?)?.set(0, slot, 0)?;
        let row = Backend {
            addr: pod,
            port: pod_port,
            epoch: EPOCH,
            service: SERVICE,
            state: BackendState::Active as u8,
            pad: [0; 3],
        };
        Array::<_, Backend<F::Addr>>::try_from(self.map(backends)?)?.set(0, row, 0)?;

        if !matches!(self.case.path, Path::PreHit | Path::PostHit) {
            return Ok(());
        }
        let clients: Vec<_> = (0..self.case.flows).map(|flow| self.case.client(flow)).collect();
        let mut table = self.hash(flows)?;
        for client in clients {
            let (ip, port) = (addr(client.ip())?, Port::new(client.port()));
            let entry = |addr, port, peer_port| Flow {
                addr,
                port,
                peer_port,
                service: SERVICE,
                backend: 0,
                last_seen: 0,
                epoch: EPOCH,
                tcp: TcpState::ESTABLISHED,
                flags: 0,
            };
            let key = |stage, src, src_port, dst, dst_port| FlowKey {
                src,
                dst,
                src_port,
                dst_port,
                protocol: protocol::TCP,
                stage: stage as u8,
                pad: [0; 2],
            };
            table.insert(
                key(Stage::Pre, ip, port, vip, vip_port),
                entry(pod, pod_port, port),
                0,
            )?;
            table.insert(
                key(Stage::Post, pod, pod_port, ip, port),
                entry(vip, vip_port, port),
                0,
            )?;
        }
        Ok(())
    }

    fn counted(&mut self) -> Result<Counted> {
        let stats = PerCpuArray::<_, ServiceStats>::try_from(self.map(map::STATS)?)?.get(&SERVICE, 0)?;
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
                Counter::FlowReopened => counted.reopened += count,
                _ => counted.other += count,
            }
        }
        for reason in DropReason::ALL {
            counted.other += self.sum(map::DROPS, reason as u32)?;
        }
        Ok(counted)
    }

    fn sum(&mut self, name: &str, index: u32) -> Result<u64> {
        Ok(PerCpuArray::<_, u64>::try_from(self.map(name)?)?
            .get(&index, 0)?
            .iter()
            .sum())
    }

    fn map(&mut self, name: &str) -> Result<&mut Map> {
        self.sluice
            .map_mut(name)
            .with_context(|| format!("no map {name}"))
    }

    fn hash<K: Pod, V: Pod>(&mut self, name: &str) -> Result<HashMap<&mut MapData, K, V>> {
        Ok(HashMap::try_from(self.map(name)?)?)
    }
}

impl Counted {
    /// What `runs` packets on this path count.
    fn plus(self, path: Path, runs: u64) -> Self {
        match path {
            Path::PreHit => Self {
                packets: self.packets + runs,
                ..self
            },
            Path::PostHit => Self {
                replies: self.replies + runs,
                ..self
            },
            Path::NewFlow => Self {
                packets: self.packets + runs,
                connections: self.connections + runs,
                opened: self.opened + runs,
                ..self
            },
            Path::NotAServicePre | Path::NotAServicePost => self,
        }
    }
}

fn wrapper_name(case: &Case) -> &'static str {
    match case.family {
        cases::Family::V4 => "bench_wrap4",
        cases::Family::V6 => "bench_wrap6",
    }
}

fn classifier<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier> {
    Ok(ebpf
        .program_mut(name)
        .with_context(|| format!("no program {name}"))?
        .try_into()?)
}
