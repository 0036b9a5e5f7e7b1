//! What a random packet may be: a table of shapes, and what is done to its bytes afterwards.

use std::net::SocketAddr;

use lb_common::protocol;
use lb_ebpf::testkit::Program;

use super::numbers::Random;
use crate::cases::{client, node, stranger, vip};
use crate::engine::{TestFamily, backend, end, far, other_far};
use crate::packet::{Extension, IcmpError, PacketBuilder, flag, turned};

/// Packets that came out lately: what answers and errors are made of.
pub(super) struct Pool {
    frames: Vec<Vec<u8>>,
    next: usize,
}

/// How many are remembered.
const REMEMBERED: usize = 64;

impl Pool {
    pub(super) fn new(first: Vec<u8>) -> Self {
        Self {
            frames: vec![first],
            next: 0,
        }
    }

    pub(super) fn remember(&mut self, frame: Vec<u8>) {
        if self.frames.len() < REMEMBERED {
            self.frames.push(frame);
        } else {
            self.frames[self.next] = frame;
            self.next = (self.next + 1) % REMEMBERED;
        }
    }
}

/// Makes the bytes of an Ethernet packet.
type Shape = fn(&mut Random, &Pool, u8) -> Vec<u8>;

/// Every shape, and how often it comes.
fn table<F: TestFamily>() -> [(u32, Shape); 10] {
    [
        (40, plain::<F>),
        (20, answer::<F>),
        (10, again),
        (10, error_about_one::<F>),
        (5, error_of_any_kind::<F>),
        (5, fragment::<F>),
        (3, overlapping::<F>),
        (4, wrapped::<F>),
        (3, echo::<F>),
        (5, straight_by::<F>),
    ]
}

/// A packet of any shape, as it should be or with some bits turned and some bytes cut off.
pub(super) fn packet<F: TestFamily>(
    random: &mut Random,
    pool: &Pool,
    protocol: u8,
    program: Program,
) -> Vec<u8> {
    let shape = *random.weighted(&table::<F>());
    let mut bytes = shape(random, pool, protocol);
    if matches!(program, Program::PreL3 | Program::PostL3) {
        bytes = without_link(random, bytes);
    }
    mutate(random, &mut bytes, program);
    bytes
}

/// The least that the kernel runs without link layer, in any case: as long as an Ethernet and an IPv6 header.
const LEAST_WITHOUT_LINK: usize = 54;

fn without_link(random: &mut Random, mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.drain(..14.min(bytes.len()));
    while bytes.len() < LEAST_WITHOUT_LINK {
        bytes.push(random.next() as u8);
    }
    bytes
}

fn mutate(random: &mut Random, bytes: &mut Vec<u8>, program: Program) {
    let is_l3 = matches!(program, Program::PreL3 | Program::PostL3);
    if random.once_in(3) {
        for _bit in 0..=random.below(3) {
            // Mostly in the headers; of the hardware addresses only what a frame for somebody else has.
            let most = (*random.one_of(&[6, 34, 58, 80, 200])).min(bytes.len() as u32);
            let at = random.below(most) as usize;
            bytes[at] ^= 1 << random.below(8);
        }
    }
    if random.once_in(16) {
        let least = if is_l3 { LEAST_WITHOUT_LINK } else { 14 };
        let cut = random.below(bytes.len().saturating_sub(least) as u32);
        bytes.truncate(bytes.len() - cut as usize);
    }
}

/// A client's packet to a service, or a backend's to a client.
fn plain<F: TestFamily>(random: &mut Random, _pool: &Pool, protocol: u8) -> Vec<u8> {
    shape::<F>(random, protocol).build()
}

/// The other way round of one that came out.
fn answer<F: TestFamily>(random: &mut Random, pool: &Pool, protocol: u8) -> Vec<u8> {
    turned(random.one_of::<Vec<u8>>(&pool.frames)).unwrap_or_else(|| plain::<F>(random, pool, protocol))
}

/// One that came out, once more.
fn again(random: &mut Random, pool: &Pool, _protocol: u8) -> Vec<u8> {
    random.one_of(&pool.frames).clone()
}

/// A router's error about a packet that came out, to its source.
fn error_about_one<F: TestFamily>(random: &mut Random, pool: &Pool, protocol: u8) -> Vec<u8> {
    let about = random.one_of(&pool.frames);
    let [source, destination] = match crate::packet::View::of(about) {
        Ok(view) if view.source.is_ipv4() == stranger::<F>().is_ipv4() => view.ends(),
        _ => return plain::<F>(random, pool, protocol),
    };
    let quoted = about[14..].to_vec();
    let packet = PacketBuilder::udp(source, destination);
    error::<F>(random, &packet, &quoted)
}

/// An error about a packet that perhaps nobody has sent.
fn error_of_any_kind<F: TestFamily>(random: &mut Random, _pool: &Pool, protocol: u8) -> Vec<u8> {
    let packet = shape::<F>(random, protocol);
    let mut quoted = packet.clone().without_link().build();
    if random.once_in(2) {
        let at = random.below(quoted.len() as u32) as usize;
        quoted[at] ^= 1 << random.below(8);
    }
    error::<F>(random, &packet, &quoted)
}

fn error<F: TestFamily>(random: &mut Random, packet: &PacketBuilder, quoted: &[u8]) -> Vec<u8> {
    let router = end::<F>([3, 200], 0).ip();
    let errors = IcmpError::all(router);
    let error = *random.one_of(&errors);
    let length = *random.one_of(&[0, 7, 28, 48, 60, 100, 548]);
    packet.error_quoting(router, error, quoted).cut(length).build()
}

/// One of the fragments of a packet; the first ones come most often.
fn fragment<F: TestFamily>(random: &mut Random, _pool: &Pool, protocol: u8) -> Vec<u8> {
    let identification = random.below(8);
    let parts = shape::<F>(random, protocol)
        .identification(identification)
        .fragments(*random.one_of(&[8, 16, 24, 40]));
    let place = random.below(4).min(parts.len() as u32 - 1);
    parts[place as usize].build()
}

/// A fragment that begins or ends where none should.
fn overlapping<F: TestFamily>(random: &mut Random, _pool: &Pool, protocol: u8) -> Vec<u8> {
    let identification = random.below(8);
    let offset = random.below(4) as u16;
    let length = *random.one_of(&[0, 1, 7, 8, 13, 20, 30]);
    let more = random.once_in(2);
    shape::<F>(random, protocol)
        .identification(identification)
        .fragment_of(offset, length, more)
        .build()
}

/// A packet that another node, or somebody else, has wrapped.
fn wrapped<F: TestFamily>(random: &mut Random, _pool: &Pool, protocol: u8) -> Vec<u8> {
    let from = *random.one_of(&[end::<F>([4, 1], 0), end::<F>([4, 2], 0), stranger::<F>()]);
    let to = *random.one_of(&[backend::<F>(4), backend::<F>(0), node::<F>(0)]);
    let service = vip::<F>(*random.one_of(&[8, 9, 9, 9, 1]));
    let inner = transport(random, protocol, random_client::<F>, service);
    inner.wrapped(from.ip(), to.ip()).build()
}

/// Echo requests and replies, and ICMP that is nothing.
fn echo<F: TestFamily>(random: &mut Random, _pool: &Pool, _protocol: u8) -> Vec<u8> {
    let service = vip::<F>(1 + random.below(9) as u8);
    let to = *random.one_of(&[service, service, node::<F>(0), stranger::<F>()]);
    let packet = PacketBuilder::icmp(client::<F>(), to).icmp_rest(random.next().to_ne_bytes());
    if random.once_in(4) {
        packet.reversed().build()
    } else {
        packet.build()
    }
}

/// What is for no service.
fn straight_by<F: TestFamily>(random: &mut Random, _pool: &Pool, protocol: u8) -> Vec<u8> {
    transport(random, protocol, random_client::<F>, stranger::<F>()).build()
}

fn random_client<F: TestFamily>(random: &mut Random) -> SocketAddr {
    let port = 40_000 + random.below(3) as u16;
    *random.one_of(&[end::<F>([0, 10], port), end::<F>([1, 50], port), client::<F>()])
}

fn shape<F: TestFamily>(random: &mut Random, protocol: u8) -> PacketBuilder {
    let service = match random.below(16) {
        number @ 0..=8 => vip::<F>(1 + number as u8),
        number @ 9..=13 => node::<F>(30_080 + number as u16 - 9),
        14 => stranger::<F>(),
        _ => backend::<F>(0),
    };
    let packet = transport(random, protocol, random_client::<F>, service);
    let packet = if random.once_in(3) {
        let number = random.below(3) as u8;
        let servers = [backend::<F>(number), far::<F>(number), other_far::<F>(0)];
        let server = *random.one_of(&servers);
        packet.to(random_client::<F>(random)).from(server)
    } else {
        packet
    };
    decorate(random, packet)
}

fn transport(
    random: &mut Random,
    protocol: u8,
    client: fn(&mut Random) -> SocketAddr,
    service: SocketAddr,
) -> PacketBuilder {
    let client = client(random);
    let packet = if protocol == protocol::TCP {
        let flags = *random.one_of(&[
            flag::SYN,
            flag::SYN,
            flag::SYN | flag::ACK,
            flag::ACK,
            flag::ACK | flag::PSH,
            flag::ACK | flag::PSH,
            flag::FIN | flag::ACK,
            flag::RST,
        ]);
        PacketBuilder::tcp(client, service).flags(flags)
    } else {
        let packet = if protocol == protocol::UDP {
            PacketBuilder::udp(client, service)
        } else if random.once_in(2) {
            PacketBuilder::sctp(client, service).init()
        } else {
            PacketBuilder::sctp(client, service)
        };
        if random.once_in(8) {
            packet.without_checksum()
        } else {
            packet
        }
    };
    // Without link layer, too, as long as the least that the kernel runs.
    let length = 26 + random.below(60) as usize;
    let payload: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
    packet.payload(&payload)
}

/// Tags, options, extension headers, a time to live.
fn decorate(random: &mut Random, mut packet: PacketBuilder) -> PacketBuilder {
    for _tag in 0..*random.one_of(&[0, 0, 0, 0, 1, 2, 3]) {
        packet = packet.vlan(random.below(4095) as u16);
    }
    packet = packet
        .options(*random.one_of(&[0, 0, 0, 0, 4, 40]))
        .hop_limit(*random.one_of(&[64, 64, 64, 255, 2, 1, 0]))
        .traffic_class(*random.one_of(&[0, 0, 0x88, 3]));
    for _extension in 0..*random.one_of(&[0, 0, 0, 0, 1, 2, 7]) {
        packet = packet.extension(*random.one_of(&[
            Extension::HopByHop(1),
            Extension::DestinationOptions(2),
            Extension::Routing(0),
            Extension::Routing(1),
            Extension::Authentication,
            Extension::Fragment(0, false),
        ]));
    }
    packet
}
