//! Packets that nobody would send, while the agent changes its mind: all engines must agree on them, none may be made
//! worse, and what is no service's must stay as it was.

mod judge;
mod numbers;
pub mod search;
mod shapes;
mod storms;

use std::collections::BTreeMap;
use std::env;

use lb_common::Counter;
use lb_ebpf::testkit::Program;

use super::{client, vip};
use crate::engine::{BRIDGE, Bed, Engine, OTHER_UPLINK, POD, TestFamily, UPLINK, Verdict, WEB};
use crate::packet::link_length;
use judge::{Change, judge};
use numbers::Random;
use shapes::{Pool, packet};

/// Packets of each family and protocol, unless `$SLUICE_RANDOM_PACKETS` says how many of all.
const PACKETS: u32 = 20_000;
/// Between two comparisons of all that was written and counted.
const CHUNK: u32 = 250;
/// More flows are forgotten: the kernel's table must never have to choose.
const MOST_FLOWS: usize = 500;

/// How often each program is run.
const PROGRAMS: [(u32, Program); 6] = [
    (30, Program::Pre),
    (20, Program::Post),
    (30, Program::Xdp),
    (8, Program::PreL3),
    (8, Program::PostL3),
    (4, Program::Post),
];

/// How often packets come by each device.
const DEVICES: [(u32, u32); 5] = [(6, UPLINK), (2, POD), (1, BRIDGE), (2, OTHER_UPLINK), (1, WEB)];

/// What happened, so that a run that tests nothing is seen.
#[derive(Debug, Default)]
struct Seen {
    translated: u32,
    wrapped: u32,
    answered: u32,
    sent_on: u32,
    dropped: u32,
    counters: BTreeMap<Counter, u64>,
}

/// Sends random packets through all programs.
pub fn run<F: TestFamily>(engines: &mut [&mut dyn Engine<F>], protocol: u8) {
    let packets = env::var("SLUICE_RANDOM_PACKETS")
        .ok()
        .and_then(|number| number.parse::<u32>().ok())
        // Two families and three protocols.
        .map_or(PACKETS, |number| number.div_ceil(6));
    let mut bed = Bed::new(engines, protocol);
    let mut random = Random::new(u64::from(protocol));
    let mut pool = Pool::new(bed.opening(client::<F>(), vip::<F>(1)).build());
    let mut before = bed.counts();
    let mut seen = Seen::default();
    for number in 1..=packets {
        one::<F>(&mut bed, &mut random, &mut pool, &mut seen, number);
        if number % CHUNK == 0 {
            bed.agree(&before);
            before = bed.counts();
            if bed.flow_count() > MOST_FLOWS {
                bed.forget();
            }
            bed.wait(random.below(4) * random.below(5));
            bed.update(|rows| storms::change(&mut random, rows, protocol));
        }
    }
    seen.counters.clone_from(&bed.counts()[0].counters);
    seen.check(packets, bed.is_tcp());
}

fn one<F: TestFamily>(
    bed: &mut Bed<'_, F>,
    random: &mut Random,
    pool: &mut Pool,
    seen: &mut Seen,
    number: u32,
) {
    let program = *random.weighted(&PROGRAMS);
    bed.device = *random.weighted(&DEVICES);
    bed.own = matches!(program, Program::Post | Program::PostL3) && random.once_in(4);
    let bytes = packet::<F>(random, pool, bed.protocol, program);
    let is_l3 = matches!(program, Program::PreL3 | Program::PostL3);
    if bed.host_alone().is_none() && (is_l3 || is_tagged(&bytes)) {
        // A test run takes the first bytes of any packet for an Ethernet header, and no tag out of the way, as the kernel
        // does before TC; then nothing works that changes a packet's length. Cases and the host engine have them.
        return;
    }
    let (verdict, after) = bed.run_bare(program, &bytes);
    let what = judged::<F>(program, verdict, [&bytes, &after]);
    let what = what.unwrap_or_else(|wrong| {
        panic!("packet {number}: {wrong}: {program:?} of\n{bytes:02x?}\n{verdict:?}\n{after:02x?}")
    });
    seen.note(verdict, what);
    if what != Change::None && !is_l3 {
        pool.remember(after);
    }
}

/// Whether a VLAN tag stands in the frame.
fn is_tagged(frame: &[u8]) -> bool {
    matches!(frame.get(12..14), Some([0x81, 0] | [0x88, 0xa8]))
}

/// What a program did to a packet, or what is wrong about it.
fn judged<F: TestFamily>(
    program: Program,
    verdict: Verdict,
    [bytes, after]: [&[u8]; 2],
) -> Result<Change, &'static str> {
    if matches!(program, Program::PreL3 | Program::PostL3) {
        // What is sent out by a device with Ethernet headers gets one; without, the bytes of a source look like one.
        return judge::<F>(verdict, bytes, after)
            .or_else(|wrong| judge::<F>(verdict, bytes, after.get(14..).ok_or(wrong)?));
    }
    // Tags may be taken off.
    match [bytes, after].map(link_length) {
        [Some(link), Some(link_after)] => judge::<F>(
            verdict,
            &bytes[link..],
            after.get(link_after..).unwrap_or_default(),
        ),
        _ if bytes == after && verdict == Verdict::On => Ok(Change::None),
        _ => Err("no IP packet, and changed or dropped"),
    }
}

impl Seen {
    fn note(&mut self, verdict: Verdict, change: Change) {
        match verdict {
            Verdict::Dropped => self.dropped += 1,
            Verdict::Back | Verdict::Redirected => self.sent_on += 1,
            Verdict::On => {}
        }
        match change {
            Change::None => {}
            Change::Translated => self.translated += 1,
            Change::Wrapped => self.wrapped += 1,
            Change::Answered => self.answered += 1,
        }
    }

    /// Enough of everything, or it tests nothing.
    fn check(&self, packets: u32, is_tcp: bool) {
        let of_tcp = COVERED_BY_TCP.iter().filter(|_| is_tcp);
        let counted = COVERED
            .iter()
            .chain(of_tcp)
            .all(|counter| self.counters.get(counter).is_some_and(|count| *count > 0));
        assert!(
            self.translated > packets / 20
                && self.sent_on > packets / 50
                && self.dropped > packets / 500
                && counted,
            "{self:#?}"
        );
    }
}

/// What a run must have come across.
const COVERED: [Counter; 10] = [
    Counter::FlowOpened,
    Counter::FlowReopened,
    Counter::FlowRestored,
    Counter::PortReplaced,
    Counter::XdpSent,
    Counter::XdpPassed,
    Counter::TcSent,
    Counter::HopLooked,
    Counter::SnatOpened,
    Counter::IcmpTranslated,
];
/// The same for TCP.
const COVERED_BY_TCP: [Counter; 3] = [Counter::ForeignSynAck, Counter::NotOpening, Counter::FlowAdopted];
