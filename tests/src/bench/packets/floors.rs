//! What is compared with: programs that do one thing.

use std::fmt;

use anyhow::{Context as _, Result, ensure};
use aya::Ebpf;
use aya::maps::HashMap;
use aya::programs::{TestRun as _, TestRunOptions, Xdp};
use lb_common::{Flow, FlowKey, Ip4, Port, protocol};
use serde::Serialize;

use super::cases::{self, Case, Path};
use super::lab;
use super::{ROOM_ROUNDS, ROOM_RUNS, ROUNDS, RUNS};
use crate::object::object;

const WARM_UP: usize = 2;
const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;

/// Nanoseconds per run, fastest round.
#[derive(Debug, Serialize)]
pub struct Floors {
    /// `XDP_PASS` and nothing else.
    pub xdp_pass: u64,
    /// Swap the MAC addresses, `XDP_TX`.
    pub xdp_tx: u64,
    /// One hit in an LRU map of the flow table's size.
    pub lru_hit: u64,
    /// One new entry in a full LRU map of that size.
    pub lru_insert_full: u64,
    /// One new entry in an LRU map of that size that is less than half full.
    pub lru_insert_room: u64,
    /// One IPv4 `bpf_fib_lookup` that finds a neighbour.
    pub fib_lookup_ipv4: u64,
    /// One IPv6 `bpf_fib_lookup` that finds a neighbour.
    pub fib_lookup_ipv6: u64,
}

impl fmt::Display for Floors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            xdp_pass,
            xdp_tx,
            lru_hit,
            lru_insert_full,
            lru_insert_room,
            fib_lookup_ipv4,
            fib_lookup_ipv6,
        } = self;
        write!(
            f,
            "XDP_PASS {xdp_pass}, XDP_TX {xdp_tx}, LRU hit {lru_hit}, LRU insert when full {lru_insert_full}, with room {lru_insert_room}, bpf_fib_lookup {fib_lookup_ipv4} (IPv4) \
             {fib_lookup_ipv6} (IPv6)"
        )
    }
}

pub(super) fn measure(device: u32) -> Result<Floors> {
    Ok(Floors {
        xdp_pass: fastest("floor_pass", cases::Family::V4, device, XDP_PASS)?,
        xdp_tx: fastest("floor_tx", cases::Family::V4, device, XDP_TX)?,
        lru_insert_full: fastest("floor_lru_insert", cases::Family::V4, device, XDP_PASS)?,
        lru_insert_room: with_room(device)?,
        lru_hit: fastest("floor_lru_hit", cases::Family::V4, device, XDP_PASS)?,
        fib_lookup_ipv4: fastest("floor_fib4", cases::Family::V4, device, XDP_PASS)?,
        fib_lookup_ipv6: fastest("floor_fib6", cases::Family::V6, device, XDP_PASS)?,
    })
}

/// What it costs to take a header's room away again: half of what making and taking it costs.
pub(super) fn give_back(device: u32) -> Result<u64> {
    let both = fastest("floor_adjust_head", cases::Family::V4, device, XDP_PASS)?;
    let nothing = fastest("floor_pass", cases::Family::V4, device, XDP_PASS)?;
    Ok(both.saturating_sub(nothing) / 2)
}

fn fastest(name: &str, family: cases::Family, device: u32, verdict: u32) -> Result<u64> {
    let rounds = Rounds {
        warm_up: WARM_UP,
        measured: ROUNDS,
        runs: RUNS,
    };
    run(name, family, device, verdict, rounds)
}

/// The fastest first round of several new maps.
fn with_room(device: u32) -> Result<u64> {
    let mut fastest = u64::MAX;
    for _round in 0..ROOM_ROUNDS {
        let rounds = Rounds {
            warm_up: 0,
            measured: 1,
            runs: 2 * ROOM_RUNS,
        };
        let name = "floor_lru_insert";
        fastest = fastest.min(run(name, cases::Family::V4, device, XDP_PASS, rounds)?);
    }
    Ok(fastest)
}

/// How often a program is run.
#[derive(Clone, Copy)]
struct Rounds {
    /// The first rounds fill the caches, and the map where the program does.
    warm_up: usize,
    measured: usize,
    runs: u32,
}

fn run(name: &str, family: cases::Family, device: u32, verdict: u32, rounds: Rounds) -> Result<u64> {
    let mut ebpf = Ebpf::load_file(object("sluice-bench.o")?)?;
    fill(&mut ebpf)?;
    let program: &mut Xdp = ebpf
        .program_mut(name)
        .with_context(|| format!("no program {name}"))?
        .try_into()?;
    program.load()?;
    let frame = Case {
        name: "",
        path: Path::PreHit,
        family,
        flows: 1,
    }
    .frame();
    let context = lab::xdp_context(frame.len(), device)?;
    let mut fastest = u64::MAX;
    for round in 0..rounds.warm_up + rounds.measured {
        let options = TestRunOptions {
            data_in: Some(&frame),
            ctx_in: Some(&context),
            repeat: rounds.runs,
            ..TestRunOptions::default()
        };
        let done = program
            .test_run(options)
            .with_context(|| format!("cannot run {name}"))?;
        ensure!(
            done.return_value == verdict,
            "{name}: verdict {}",
            done.return_value
        );
        if round >= rounds.warm_up {
            fastest = fastest.min(lab::nanoseconds(done.duration)?);
        }
    }
    Ok(fastest)
}

/// Puts in the flow that the floor of a look-up finds.
pub(super) fn fill(ebpf: &mut Ebpf) -> Result<()> {
    let mut flows: HashMap<_, FlowKey<Ip4>, Flow<Ip4>> =
        HashMap::try_from(ebpf.map_mut("bench_flows").context("no bench_flows")?)?;
    let key = FlowKey {
        src: Ip4::new([10, 0, 0, 1]),
        dst: Ip4::new([10, 96, 0, 1]),
        src_port: Port::new(1),
        dst_port: Port::new(80),
        protocol: protocol::TCP,
        stage: 1,
        pad: [0; 2],
    };
    Ok(flows.insert(key, Flow::default(), 0)?)
}
