//! The programs, loaded once more: what they write is in maps of their own, so that a trial leaves no trace.

use std::net::IpAddr;

use anyhow::Context as _;
use aya::programs::{TestRun, TestRunOptions, TestRunResult};
use lb_common::addr::Address as _;
use lb_common::layout::{map, program};
use lb_common::{Counter, DropReason, FlowKey, ServiceStats, V4, V6};

use super::packet::Packet;
use crate::dataplane::clock::FirstReading;
use crate::dataplane::test_run::{ROOM, SkbContext, xdp_context};
use crate::dataplane::{Access, KernelStore, Pins, Programs, Sizes, load_apart};
use crate::store::{FamilyTables, Limits, MapStore, Names, StoreError, Table};

/// Flows of a trial, and what goes with them.
const FLOWS: u32 = 4096;

/// The programs and their maps.
pub(super) struct Apart {
    programs: Programs,
    pub(super) store: KernelStore,
}

/// What a run of a program has led to.
pub(super) struct Ran {
    /// Its result.
    pub(super) result: i32,
    /// The frame as it has left it.
    pub(super) frame: Vec<u8>,
}

impl Apart {
    /// Over the maps of a data plane at work, with what is remembered of a client: its flows, its affinity, its limits.
    pub(super) fn of_node(pins: &Pins, client: IpAddr) -> anyhow::Result<Self> {
        let live = KernelStore::open(pins, Access::Read)?;
        let ids = live.rows::<Names>()?.into_keys().next_back().unwrap_or_default();
        let rows = |of4: usize, of6: usize| u32::try_from(of4.max(of6)).unwrap_or(u32::MAX);
        let (v4, v6) = (capacity::<V4>(&live)?, capacity::<V6>(&live)?);
        let sizes = Sizes {
            services: ids.max(1),
            backends: rows(v4, v6),
            slots: 1,
            flows: FLOWS,
            // A family that is off has one row.
            ipv4: v4 > 1,
            ipv6: v6 > 1,
        };
        let programs = load_apart(Some(pins), &sizes)?;
        let mut apart = Self {
            store: programs.store(Access::Read)?,
            programs,
        };
        copy::<Limits>(&live, &mut apart.store, |id, _| *id <= ids)?;
        match client {
            IpAddr::V4(_) => copy_client::<V4>(&live, &mut apart.store, client),
            IpAddr::V6(_) => copy_client::<V6>(&live, &mut apart.store, client),
        }
        .context("copying what is remembered of the client")?;
        Ok(apart)
    }

    /// Over empty maps.
    pub(super) fn empty() -> anyhow::Result<Self> {
        let sizes = Sizes {
            flows: FLOWS,
            ..Sizes::default()
        };
        let programs = load_apart(None, &sizes)?;
        Ok(Self {
            store: programs.store(Access::ReadWrite)?,
            programs,
        })
    }

    /// Jiffies in a second.
    pub(super) async fn clock_rate(&mut self) -> anyhow::Result<u32> {
        let clock = self.programs.get(program::JIFFIES)?;
        Ok(FirstReading::take(clock)?.rate(clock).await?)
    }

    /// Runs a TC program.
    pub(super) fn run_tc(&mut self, name: &'static str, frame: &[u8], at: SkbContext) -> anyhow::Result<Ran> {
        run(self.programs.get(name)?, frame, &at.bytes())
            .with_context(|| format!("running {name} on the packet"))
    }

    /// Runs the XDP program on a packet that comes in by that device.
    pub(super) fn run_xdp(&mut self, frame: &[u8], ifindex: u32) -> anyhow::Result<Ran> {
        let program = self.programs.xdp().map_err(|error| match error {
            Some(error) => anyhow::Error::new(error),
            None => anyhow::anyhow!("the kernel refuses the XDP program"),
        })?;
        let context = xdp_context(u32::try_from(frame.len())?, ifindex);
        run(program, frame, &context).context("running lb_xdp on the packet")
    }

    /// Why packets were dropped so far.
    pub(super) fn drops(&self) -> anyhow::Result<Vec<DropReason>> {
        self.counted(map::DROPS, DropReason::ALL.map(|reason| (reason, reason as u32)))
    }

    /// What else was counted so far.
    pub(super) fn counters(&self) -> anyhow::Result<Vec<Counter>> {
        self.counted(
            map::COUNTERS,
            Counter::ALL.map(|counter| (counter, counter as u32)),
        )
    }

    /// What a per-CPU array has counted, of things with their indices.
    fn counted<T>(
        &self,
        name: &'static str,
        things: impl IntoIterator<Item = (T, u32)>,
    ) -> anyhow::Result<Vec<T>> {
        let counts = self.store.per_cpu::<u64>(name)?;
        let mut found = Vec::new();
        for (thing, index) in things {
            if counts.get(index)?.iter().any(|count| *count > 0) {
                found.push(thing);
            }
        }
        Ok(found)
    }

    /// The service port that the programs have dropped or rejected the packet for.
    pub(super) fn refused(&self) -> anyhow::Result<Option<u32>> {
        let stats = self.store.per_cpu::<ServiceStats>(map::STATS)?;
        for id in self.store.rows::<Names>()?.into_keys() {
            if stats.get(id)?.iter().any(|stats| stats.dropped > 0) {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }
}

/// Runs a program on a frame, with what it is told of it.
fn run<P>(program: &P, frame: &[u8], context: &[u8]) -> anyhow::Result<Ran>
where
    P: for<'a> TestRun<Opts<'a> = TestRunOptions<'a>, Result = TestRunResult>,
{
    let mut out = vec![0; frame.len() + ROOM];
    let done = program.test_run(TestRunOptions {
        data_in: Some(frame),
        data_out: Some(&mut out),
        ctx_in: Some(context),
        ..TestRunOptions::new()
    })?;
    out.truncate(done.data_size_out as usize);
    Ok(Ran {
        result: done.return_value.cast_signed(),
        frame: out,
    })
}

/// The key under which a packet is met in stage pre.
pub(super) fn key<F: FamilyTables>(packet: &Packet) -> Option<FlowKey<F::Addr>> {
    let Packet {
        protocol,
        source,
        destination,
    } = packet;
    Some(FlowKey {
        src: F::Addr::from_ip(source.ip())?,
        dst: F::Addr::from_ip(destination.ip())?,
        src_port: lb_common::Port::new(source.port()),
        dst_port: lb_common::Port::new(destination.port()),
        protocol: protocol.number(),
        stage: lb_common::Stage::Pre as u8,
        pad: [0; 2],
    })
}

fn capacity<F: FamilyTables>(store: &KernelStore) -> Result<usize, StoreError> {
    store.capacity::<F::Backends>()
}

fn copy_client<F: FamilyTables>(
    from: &KernelStore,
    to: &mut KernelStore,
    client: IpAddr,
) -> Result<(), StoreError> {
    let Some(client) = F::Addr::from_ip(client) else {
        return Ok(());
    };
    copy_flows::<F>(from, to, client)?;
    copy::<F::Affinities>(from, to, |key, _| key.addr == client)?;
    copy::<F::Sources>(from, to, |key, _| key.addr == client)?;
    copy::<F::Paths>(from, to, |_, _| true)?;
    copy::<F::Loads>(from, to, |_, _| true)
}

/// Copies the flows of a client, each to its bucket in the other table.
fn copy_flows<F: FamilyTables>(
    from: &KernelStore,
    to: &mut KernelStore,
    client: F::Addr,
) -> Result<(), StoreError> {
    let mut flows = Vec::new();
    from.for_each_flow::<F>(&mut |key, flow| {
        if [key.src, key.dst, flow.addr].contains(&client) {
            flows.push((key, flow));
        }
    })?;
    flows
        .iter()
        .try_for_each(|(key, flow)| to.put_flow::<F>(key, flow))
}

/// Copies the rows that are wanted.
fn copy<T: Table>(
    from: &KernelStore,
    to: &mut KernelStore,
    wanted: impl Fn(&T::Key, &T::Value) -> bool,
) -> Result<(), StoreError> {
    let mut rows = Vec::new();
    from.for_each_row::<T>(&mut |key, value| {
        if wanted(&key, &value) {
            rows.push((key, value));
        }
    })?;
    rows.iter().try_for_each(|(key, value)| to.set::<T>(key, value))
}
