//! Searches for packets that make the data plane do what no packet before did, and keeps them.
//!
//! A packet is kept when what became of it is new: its verdict, how it was changed, what was
//! counted. New
//! ones are made of those by changes to their bytes. That needs neither a special compiler nor a long time, and what
//! was found (`corpus/packets.txt`) is run through all engines by every run of the tests.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use std::{env, fs};

use lb_common::{ServiceFlags, protocol};
use lb_ebpf::testkit::{Counts, Host, Program};

use super::judged;
use super::numbers::Random;
use super::shapes::{Pool, packet};
use crate::cases::{client, node, vip};
use crate::engine::{Bed, Engine, POD, TestFamily, UPLINK, WEB, Written, backend, far};
use crate::packet::flag;

/// A packet at a hook.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Input {
    program: usize,
    device: u32,
    own: bool,
    bytes: Vec<u8>,
}

const PROGRAMS: [(&str, Program); 5] = [
    ("pre", Program::Pre),
    ("post", Program::Post),
    ("xdp", Program::Xdp),
    ("pre-l3", Program::PreL3),
    ("post-l3", Program::PostL3),
];
const DEVICES: [u32; 3] = [UPLINK, POD, WEB];
/// The least that the kernel runs in any case: an Ethernet header, or without one as much as an IPv6 packet's two.
const LEAST: [usize; 2] = [14, 54];
/// The most: more than is ever looked at.
const MOST: usize = 400;
/// What a search begins with, beside what is kept.
const SEEDS: u32 = 500;

impl Input {
    fn program(&self) -> Program {
        PROGRAMS[self.program].1
    }

    fn is_l3(&self) -> bool {
        matches!(self.program(), Program::PreL3 | Program::PostL3)
    }

    /// A test run in the kernel makes the same of it as a device would: it takes the first 14 bytes of any packet for a
    /// link-layer header, and does not take tags out of the way, so that no room can be made behind them.
    fn is_plain(&self) -> bool {
        !self.is_l3() && !super::is_tagged(&self.bytes)
    }

    /// A line of the corpus, without family and protocol.
    fn text(&self) -> String {
        let own = if self.own { "own" } else { "passing" };
        let mut text = format!("{} {} {own} ", PROGRAMS[self.program].0, self.device);
        for byte in &self.bytes {
            write!(text, "{byte:02x}").unwrap();
        }
        text
    }

    fn parse(line: &str) -> Option<Self> {
        let [program, device, own, bytes] = line.split(' ').collect::<Vec<_>>().try_into().ok()?;
        let (digits, []) = bytes.as_bytes().as_chunks::<2>() else {
            return None;
        };
        let byte = |digits: &[u8; 2]| u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok();
        Some(Self {
            program: PROGRAMS.iter().position(|(name, _)| *name == program)?,
            device: device.parse().ok()?,
            own: own == "own",
            bytes: digits.iter().map(byte).collect::<Option<_>>()?,
        })
    }
}

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus/packets.txt")
}

/// What begins the lines of a family and a protocol.
fn prefix<F: TestFamily>(number: u8) -> String {
    let protocol = match number {
        protocol::TCP => "tcp",
        protocol::UDP => "udp",
        _ => "sctp",
    };
    format!("{} {protocol} ", F::NAME)
}

fn kept<F: TestFamily>(protocol: u8) -> Vec<Input> {
    let prefix = prefix::<F>(protocol);
    let text = fs::read_to_string(path()).unwrap_or_default();
    text.lines()
        .filter_map(|line| line.strip_prefix(&prefix))
        .map(|line| Input::parse(line).unwrap_or_else(|| panic!("{line} is no packet")))
        .collect()
}

/// Runs all packets that are kept through these engines, which must agree.
///
/// # Panics
/// If they do not, or if hardly any packets are kept.
pub fn replay<F: TestFamily>(engines: &mut [&mut dyn Engine<F>], protocol: u8) {
    let inputs = kept::<F>(protocol);
    assert!(
        inputs.len() > 50,
        "{} packets in {}",
        inputs.len(),
        path().display()
    );
    let is_host_alone = engines.len() == 1;
    let mut place = Place::new(Bed::new(engines, protocol));
    for input in inputs.iter().filter(|input| is_host_alone || input.is_plain()) {
        let before = place.bed.counts();
        place.run(input);
        place.bed.agree(&before);
    }
}

/// Searches on the host with so many packets, or for `$SLUICE_SEARCH_SECONDS`. What is found is written down when
/// `$SLUICE_SEARCH_KEEPS` is set.
///
/// # Panics
/// If the core does, or if hardly anything was tried.
pub fn run<F: TestFamily>(protocol: u8, packets: u32) {
    let seconds = env::var("SLUICE_SEARCH_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok());
    let until = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut host = Host::default();
    let mut engines: [&mut dyn Engine<F>; 1] = [&mut host];
    let mut place = Place::new(Bed::new(&mut engines, protocol));
    let mut random = Random::new(u64::from(protocol));
    let pool = Pool::new(place.bed.opening(client::<F>(), vip::<F>(1)).build());
    let (mut known, mut inputs) = (BTreeSet::new(), Vec::new());
    let kept = kept::<F>(protocol);
    for input in &kept {
        if known.insert(place.run(input)) {
            inputs.push(input.clone());
        }
    }
    let old = inputs.len();
    let mut runs = 0_u32;
    while until.map_or(runs < packets, |until| Instant::now() < until) {
        let input = if runs < SEEDS {
            seed::<F>(&mut random, &pool, protocol)
        } else {
            let (one, other) = (random.one_of(&inputs), random.one_of(&inputs));
            mutated(&mut random_of(&mut random), one, other)
        };
        runs += 1;
        if known.insert(place.run(&input)) {
            inputs.push(input);
        }
    }
    println!(
        "{}{runs} packets, {old} kept, {} new",
        prefix::<F>(protocol),
        inputs.len() - old
    );
    assert!(runs > SEEDS && !inputs.is_empty(), "{runs} packets");
    if env::var_os("SLUICE_SEARCH_KEEPS").is_some() {
        keep::<F>(protocol, inputs);
    }
}

/// A generator of its own, so that one search does the same from here on whatever the last one did.
fn random_of(random: &mut Random) -> Random {
    Random::new(u64::from(random.next()))
}

fn keep<F: TestFamily>(protocol: u8, mut inputs: Vec<Input>) {
    inputs.sort();
    inputs.dedup();
    let prefix = prefix::<F>(protocol);
    let text = fs::read_to_string(path()).unwrap_or_default();
    let others = text.lines().filter(|line| !line.starts_with(&prefix));
    let mut lines: Vec<String> = others.map(str::to_owned).collect();
    lines.extend(inputs.iter().map(|input| format!("{prefix}{}", input.text())));
    lines.sort();
    fs::write(path(), lines.join("\n") + "\n").unwrap();
}

/// A bed with a flow of every kind, the same for each packet.
struct Place<'a, F: TestFamily> {
    bed: Bed<'a, F>,
    saved: Vec<Written<F::Addr>>,
}

impl<'a, F: TestFamily> Place<'a, F> {
    fn new(mut bed: Bed<'a, F>) -> Self {
        bed.update(|rows| {
            for service in 1..=9 {
                rows.add_address(vip::<F>(service).ip(), ServiceFlags::REJECT | ServiceFlags::ECHO);
            }
        });
        open(&mut bed, client::<F>(), vip::<F>(2), backend::<F>(0));
        let far_client = SocketAddr::new(client::<F>().ip(), 40_001);
        open(&mut bed, far_client, vip::<F>(5), far::<F>(0));
        let opening = bed.opening(node::<F>(45_000), vip::<F>(3));
        bed.own(&opening);
        bed.pre(&bed.opening(far_client, vip::<F>(8)));
        // A first fragment, for later ones.
        let long = bed.data(client::<F>(), vip::<F>(2)).payload(&[7; 600]);
        bed.pre(&long.fragment_of(0, 64, true));
        let saved = bed.save();
        Self { bed, saved }
    }

    /// Runs a packet and judges what became of it. A text that is the same for packets that nobody tells apart.
    fn run(&mut self, input: &Input) -> String {
        let Self { bed, saved } = self;
        bed.restore(saved);
        bed.device = input.device;
        bed.own = input.own;
        let before = bed.counts();
        let (verdict, after) = bed.run_bare(input.program(), &input.bytes);
        let change = judged::<F>(input.program(), verdict, [&input.bytes, &after]);
        let change = change.unwrap_or_else(|wrong| {
            panic!(
                "{wrong}: {verdict:?} of {}{}\n{after:02x?}",
                prefix::<F>(bed.protocol),
                input.text()
            )
        });
        let seen = format!(
            "{} {verdict:?} {change:?} {}",
            PROGRAMS[input.program].0,
            difference(&before[0], &bed.counts()[0]),
        );
        seen
    }
}

/// Opens a flow both ways, whatever becomes of its packets.
fn open<F: TestFamily>(bed: &mut Bed<'_, F>, client: SocketAddr, service: SocketAddr, pod: SocketAddr) {
    bed.pre(&bed.opening(client, service));
    let source = bed
        .flow(lb_common::Stage::Pre, client, service)
        .map(|flow| flow.peer_port.number())
        .filter(|port| *port != client.port())
        .map_or(client, node::<F>);
    let mut answer = bed.data(pod, source);
    if bed.is_tcp() {
        answer = answer.flags(flag::SYN | flag::ACK);
    }
    if source == client {
        bed.post(&answer);
    } else {
        bed.pre(&answer);
    }
    bed.pre(&bed.data(client, service));
}

/// What was counted.
fn difference(before: &Counts, after: &Counts) -> String {
    let mut text = String::new();
    for (counter, count) in &after.counters {
        if before.counters.get(counter) != Some(count) {
            write!(text, "{} ", counter.as_str()).unwrap();
        }
    }
    for (reason, count) in &after.drops {
        if before.drops.get(reason) != Some(count) {
            write!(text, "{} ", reason.as_str()).unwrap();
        }
    }
    text
}

/// A packet of any shape.
fn seed<F: TestFamily>(random: &mut Random, pool: &Pool, protocol: u8) -> Input {
    let place = random.below(PROGRAMS.len() as u32) as usize;
    let mut bytes = packet::<F>(random, pool, protocol, PROGRAMS[place].1);
    bytes.truncate(MOST);
    Input {
        program: place,
        device: *random.one_of(&DEVICES),
        own: random.once_in(3),
        bytes,
    }
}

/// Bytes that mean something somewhere: versions and lengths, protocols, extension headers, ICMP types, port 80.
const TELLING: [u8; 24] = [
    0, 1, 2, 3, 4, 5, 6, 8, 11, 12, 17, 20, 41, 43, 44, 51, 58, 60, 0x45, 0x4f, 0x60, 80, 137, 255,
];

/// Another packet, made of one that is known and perhaps parts of another.
fn mutated(random: &mut Random, one: &Input, other: &Input) -> Input {
    let mut input = one.clone();
    for _change in 0..=random.below(4) {
        let bytes = &mut input.bytes;
        let length = bytes.len() as u32;
        let at = random.below(length) as usize;
        match random.below(10) {
            0..=2 => bytes[at] ^= 1 << random.below(8),
            3..=4 => bytes[at] = *random.one_of(&TELLING),
            5 => bytes[at] = random.next() as u8,
            6 => bytes.truncate(at),
            7 => {
                let part = random.below(64) as usize;
                let from = random.below(other.bytes.len() as u32) as usize;
                let part = &other.bytes[from..other.bytes.len().min(from + part)];
                bytes.splice(at..at, part.iter().copied());
            }
            8 => {
                let end = (at + random.below(24) as usize).min(bytes.len());
                bytes.drain(at..end);
            }
            _ => {
                let end = bytes.len().min(other.bytes.len());
                let from = at.min(end);
                bytes[from..end].copy_from_slice(&other.bytes[from..end]);
            }
        }
        let least = LEAST[usize::from(one.is_l3())];
        let length = input.bytes.len().clamp(least, MOST);
        input.bytes.resize(length, 0);
    }
    if random.once_in(8) {
        input.device = *random.one_of(&DEVICES);
        input.own = random.once_in(2);
    }
    input
}
