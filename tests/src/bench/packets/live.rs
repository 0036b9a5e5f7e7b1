//! Frames a second that really leave by the device (`BPF_F_TEST_XDP_LIVE_FRAMES`, Linux 5.18) and arrive at the other end
//! of the wire: the NAT path beside a bare `XDP_TX`, both behind the same wrapper.

use std::fmt;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::time::Instant;

use anyhow::{Context as _, Result};
use aya::Ebpf;
use aya::maps::{MapData, PerCpuArray};
use aya::programs::Xdp;
use aya::programs::xdp::XdpMode;
use aya_obj::generated::{bpf_attr, bpf_cmd};
use serde::Serialize;

use super::cases::{Case, Family, Path};
use super::ground::Ground;
use super::lab::Lab;
use crate::bench::median;
use crate::object::object;

/// Frames in one round.
const FRAMES: u32 = 200_000;
/// Rounds of each, in turn.
const ROUNDS: usize = 25;
const LIVE_FRAMES: u32 = 1 << 1;

/// Millions of frames a second, fastest round.
#[derive(Debug, Serialize)]
pub struct Live {
    /// `XDP_TX` and nothing else.
    pub tx_mpps: f64,
    /// `XDP_TX` after one hit in an LRU map of the flow table's size.
    pub lookup_mpps: f64,
    /// The whole pass of a known NAT flow.
    pub nat_mpps: f64,
    /// The rate after one hit by that of `XDP_TX` alone: the middle one of all rounds.
    pub lookup_ratio: f64,
    /// The same of the NAT flow.
    pub ratio: f64,
}

impl fmt::Display for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            tx_mpps,
            lookup_mpps,
            nat_mpps,
            lookup_ratio,
            ratio,
        } = self;
        write!(
            f,
            "XDP_TX {tx_mpps:.2} Mpps, after one look-up {lookup_mpps:.2} Mpps ({lookup_ratio:.3}), NAT {nat_mpps:.2} Mpps ({ratio:.3}); nanoseconds for a \
             frame: {:.0}, {:.0}, {:.0}",
            1e3 / tx_mpps,
            1e3 / lookup_mpps,
            1e3 / nat_mpps
        )
    }
}

pub(super) fn measure(ground: &Ground) -> Result<Live> {
    let mut sink = Ebpf::load_file(object("sluice-bench.o")?)?;
    let program: &mut Xdp = sink.program_mut("bench_sink").context("no sink")?.try_into()?;
    program.load()?;
    // The link ends with `sink`.
    ground
        .outside()
        .run(|| Ok(program.attach("eth0", XdpMode::Driver).map(drop)?))?;
    let received = sink
        .map("bench_received")
        .context("no map of what was received")?;
    let received = PerCpuArray::try_from(received)?;
    ground.run(|device| measure_both(device, &received))
}

fn measure_both(device: u32, received: &PerCpuArray<&MapData, u64>) -> Result<Live> {
    let case = Case {
        name: "xdp-nat-forward",
        path: Path::NatForward,
        family: Family::V4,
        flows: 1,
    };
    let mut lab = Lab::new(&case, device)?;
    let (mut tx_mpps, mut lookup_mpps, mut nat_mpps) = (0f64, 0f64, 0f64);
    let (mut lookup_ratios, mut nat_ratios) = (Vec::new(), Vec::new());
    for _round in 0..ROUNDS {
        lab.aim_at_nothing()?;
        let tx = run(&mut lab, received)?;
        lab.aim_at_look_up()?;
        let lookup = run(&mut lab, received)?;
        lab.aim_at_target()?;
        let nat = run(&mut lab, received)?;
        tx_mpps = tx_mpps.max(tx);
        lookup_mpps = lookup_mpps.max(lookup);
        nat_mpps = nat_mpps.max(nat);
        lookup_ratios.push(lookup / tx);
        nat_ratios.push(nat / tx);
    }
    Ok(Live {
        tx_mpps,
        lookup_mpps,
        nat_mpps,
        lookup_ratio: median(lookup_ratios),
        ratio: median(nat_ratios),
    })
}

/// Sends one round; millions of frames a second that arrived.
fn run(lab: &mut Lab, received: &PerCpuArray<&MapData, u64>) -> Result<f64> {
    let before = arrived(received)?;
    let (program, frame, context) = lab.parts()?;
    // SAFETY: all zero is a valid value of this union.
    let mut attr: bpf_attr = unsafe { std::mem::zeroed() };
    // SAFETY: the member that belongs to BPF_PROG_TEST_RUN.
    let test = unsafe { &mut attr.test };
    test.prog_fd = u32::try_from(program.as_fd().as_raw_fd())?;
    test.repeat = FRAMES;
    test.flags = LIVE_FRAMES;
    test.data_size_in = u32::try_from(frame.len())?;
    test.data_in = frame.as_ptr() as u64;
    test.ctx_size_in = u32::try_from(context.len())?;
    test.ctx_in = context.as_ptr() as u64;
    let begin = Instant::now();
    // SAFETY: the buffers live on, and their lengths are those given.
    let done = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            bpf_cmd::BPF_PROG_TEST_RUN,
            &raw mut attr,
            size_of::<bpf_attr>(),
        )
    };
    if done < 0 {
        return Err(io::Error::last_os_error()).context("cannot run live frames");
    }
    let seconds = begin.elapsed().as_secs_f64();
    #[expect(
        clippy::cast_precision_loss,
        reason = "far fewer frames than a float tells apart"
    )]
    let frames = (arrived(received)? - before) as f64;
    Ok(frames / seconds / 1e6)
}

fn arrived(received: &PerCpuArray<&MapData, u64>) -> Result<u64> {
    Ok(received.get(&0, 0)?.iter().sum())
}
