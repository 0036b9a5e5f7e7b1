//! Packets that nobody would send: all engines must agree on them, and none may be made worse.

use std::env;
use std::net::SocketAddr;

use lb_common::protocol;
use lb_ebpf::testkit::Program;

use super::{client, node, stranger, vip};
use crate::engine::{BRIDGE, Bed, Engine, POD, TestFamily, UPLINK, Verdict, backend, end};
use crate::packet::{Extension, PacketBuilder, checksums_are_right, flag};

/// Packets for each stage and protocol, unless `$SLUICE_RANDOM_PACKETS` says otherwise.
const PACKETS: u32 = 10_000;
/// Between two comparisons of flows and counters.
const CHUNK: u32 = 500;

/// Most devices have Ethernet headers.
const PROGRAMS: [Program; 6] = [
    Program::Pre,
    Program::Pre,
    Program::Post,
    Program::Post,
    Program::PreL3,
    Program::PostL3,
];

/// Sends random packets through both stages.
pub fn run<F: TestFamily>(engines: &mut [&mut dyn Engine<F>], protocol: u8) {
    let packets = env::var("SLUICE_RANDOM_PACKETS")
        .ok()
        .and_then(|number| number.parse().ok())
        .unwrap_or(PACKETS);
    let mut bed = Bed::new(engines, protocol);
    let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ u64::from(protocol));
    let mut before = bed.counts();
    let (mut translated, mut judged) = (0, 0);
    for number in 1..=2 * packets {
        let program = random.one_of(&PROGRAMS);
        bed.device = random.one_of(&[UPLINK, UPLINK, POD, BRIDGE]);
        let bytes = packet::<F>(&mut random, protocol, program);
        let (verdict, after) = bed.run_bare(program, &bytes);
        if verdict == Verdict::On && after != bytes {
            translated += 1;
            if checksums_are_right(&bytes) == Some(true) {
                judged += 1;
                assert_eq!(
                    checksums_are_right(&after),
                    Some(true),
                    "packet {number}, {program:?} of {bytes:02x?}\nto {after:02x?}"
                );
            }
        }
        if number % CHUNK == 0 {
            bed.agree(&before);
            before = bed.counts();
            let seconds = random.below(4) * random.below(5);
            bed.wait(seconds);
        }
    }
    // Or it tests nothing.
    assert!(
        translated > packets / 5 && judged > packets / 10,
        "{translated} {judged}"
    );
}

/// A packet of some connection, as it should be or with some bits turned and some bytes cut off.
fn packet<F: TestFamily>(random: &mut Random, protocol: u8, program: Program) -> Vec<u8> {
    let mut shape = shape::<F>(random, protocol);
    let is_l3 = matches!(program, Program::PreL3 | Program::PostL3);
    if is_l3 {
        shape = shape.without_link();
    }
    let mut bytes = shape.build();
    if random.below(3) == 0 {
        for _bit in 0..=random.below(3) {
            // Mostly in the headers.
            let most = random.one_of(&[14, 34, 58, 80, 200]).min(bytes.len() as u32);
            let at = random.below(most) as usize;
            bytes[at] ^= 1 << random.below(8);
        }
    }
    if random.below(16) == 0 {
        // The least that the kernel runs in any case.
        let least = if is_l3 { 54 } else { 14 };
        let cut = random.below(bytes.len().saturating_sub(least) as u32);
        bytes.truncate(bytes.len() - cut as usize);
    }
    bytes
}

fn shape<F: TestFamily>(random: &mut Random, protocol: u8) -> PacketBuilder {
    let port = 40_000 + random.below(3) as u16;
    let client = random.one_of(&[end::<F>([0, 10], port), end::<F>([1, 50], port), client::<F>()]);
    let service = random.one_of::<SocketAddr>(&[
        vip::<F>(1),
        vip::<F>(2),
        vip::<F>(3),
        vip::<F>(4),
        node::<F>(30_080),
        node::<F>(30_081),
        stranger::<F>(),
        backend::<F>(0),
    ]);
    let server = backend::<F>(random.below(3) as u8);
    let (source, destination) = random.one_of(&[(client, service), (client, service), (server, client)]);
    let mut packet = if protocol == protocol::TCP {
        PacketBuilder::tcp(source, destination).flags(random.one_of(&[
            flag::SYN,
            flag::SYN,
            flag::SYN | flag::ACK,
            flag::ACK,
            flag::ACK | flag::PSH,
            flag::ACK | flag::PSH,
            flag::FIN | flag::ACK,
            flag::RST,
        ]))
    } else if random.below(8) == 0 {
        PacketBuilder::udp(source, destination).without_checksum()
    } else {
        PacketBuilder::udp(source, destination)
    };
    // Without link layer, too, as long as the least that the kernel runs.
    let length = 26 + random.below(60) as usize;
    let payload: Vec<u8> = (0..length).map(|_| random.below(256) as u8).collect();
    packet = packet.payload(&payload);
    for _tag in 0..random.one_of(&[0, 0, 0, 1, 2, 3]) {
        packet = packet.vlan(random.below(4095) as u16);
    }
    packet = packet.options(random.one_of(&[0, 0, 0, 4, 40]));
    for _extension in 0..random.one_of(&[0, 0, 0, 1, 2, 7]) {
        packet = packet.extension(random.one_of(&[
            Extension::HopByHop(1),
            Extension::DestinationOptions(2),
            Extension::Routing(0),
            Extension::Routing(1),
            Extension::Authentication,
            Extension::Fragment(0, false),
        ]));
    }
    if random.below(16) == 0 {
        packet = packet.fragment(random.below(3) as u16, random.below(2) == 0);
    }
    packet
}

/// The same numbers in every run (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
    }

    fn below(&mut self, bound: u32) -> u32 {
        self.next() % bound.max(1)
    }

    fn one_of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u32) as usize].clone()
    }
}
