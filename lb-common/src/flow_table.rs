//! The flow table: buckets, each with room for eight flows.
//!
//! A flow's key says to which bucket it belongs, and no other ever holds it: so a flow is found in one look, is written
//! at once, and where its bucket is full, the flow that is wanted least makes room. The kernel's LRU maps take more
//! than twice as long to write, and forget an open connection as soon as one that was never answered.
//!
//! A bucket is in two arrays: what its flows are found by, in a cache line of its own, and the flows themselves. Most look-ups
//! of new flows find nothing, and then need no more than the first, which is small enough for the processor's caches. In the
//! second the first flows of all buckets come before the second ones: so a table with few flows is small, too.

use crate::addr::Address;
use crate::{Flow, FlowKey, Ip4, Ip6, TcpState};

/// Flows that a bucket has room for.
pub const WAYS: u32 = 8;

/// Row of `lb_flow_tags4`, `lb_flow_tags6`: what the flows of a bucket are found by. A cache line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct FlowTags {
    /// Odd while somebody writes the bucket, and another one afterwards: what was read meanwhile does not count. Who makes
    /// it odd, by a compare-and-exchange, is the only one to write.
    pub version: u64,
    /// By which each flow is found ([`Place::tag`]); 0: there is none. No two are the same.
    pub tags: [u32; WAYS as usize],
    /// 1: a flow that is open as far as is known, so that others make room before it.
    pub assured: [u8; WAYS as usize],
    /// When each flow was last written, in units of 16 jiffies, as far as they fit: so finely that a new flow
    /// does not push out its own other entry, and so coarsely that a flow which was seen within minutes is known to be younger.
    pub seen: [u16; WAYS as usize],
}

/// Row of `lb_flows4`, `lb_flows6`: a flow; of IPv4 a cache line. Where the key's protocol is 0, there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct FlowRow<A> {
    /// The packet as a stage meets it.
    pub key: FlowKey<A>,
    /// What becomes of it.
    pub flow: Flow<A>,
}

impl<A> FlowRow<A> {
    /// Whether there is a flow.
    pub const fn is_there(&self) -> bool {
        self.key.protocol != 0
    }
}

/// The one row of `lb_flow_hash` (an array of length 1): how keys are spread over buckets.
///
/// The hash is pair-multiply-shift (M. Thorup, "High Speed Hashing for Integers and Strings"), which is strongly universal:
/// under random numbers that nobody else knows, keys that somebody chooses fall into one bucket no more often than others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct FlowHash {
    /// Random numbers, drawn when the maps are made.
    pub keys: [u64; 11],
    /// How many buckets there are for IPv4.
    pub buckets4: u32,
    /// How many buckets there are for IPv6.
    pub buckets6: u32,
    /// 1: other processors may see what this one writes in another order, so a writer has to keep it.
    pub reorders: u32,
    /// Always 0.
    pub pad: u32,
}

impl FlowHash {
    /// [`FlowHash::reorders`] of the machine that this is built for. Of x86 each processor's writes are seen in their order
    /// (Intel SDM, volume 3, "Memory Ordering"; Linux, tools/memory-model).
    pub const REORDERS: u32 = !cfg!(target_arch = "x86_64") as u32;
}

/// Where a flow belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Index into `lb_flow_tags4` or `lb_flow_tags6`.
    pub bucket: u32,
    /// How many there are.
    pub buckets: u32,
    /// What its entry is found by; never 0.
    pub tag: u32,
}

impl<A: Address> FlowKey<A> {
    /// Where a flow with this key belongs.
    #[inline(always)]
    pub fn place(&self, hash: &FlowHash) -> Place {
        A::place(self, hash)
    }
}

#[inline(always)]
pub(crate) const fn place4(key: &FlowKey<Ip4>, hash: &FlowHash) -> Place {
    let FlowHash {
        keys: k, buckets4, ..
    } = hash;
    let sum = pair([key.src.word(), key.dst.word()], [k[0], k[1]])
        .wrapping_add(pair(rest(key), [k[2], k[3]]))
        .wrapping_add(k[4]);
    place(sum, *buckets4)
}

#[inline(always)]
#[expect(clippy::many_single_char_names, reason = "the words of two addresses")]
pub(crate) const fn place6(key: &FlowKey<Ip6>, hash: &FlowHash) -> Place {
    let FlowHash {
        keys: k, buckets6, ..
    } = hash;
    let ([a, b, c, d], [e, f, g, h]) = (key.src.words(), key.dst.words());
    let sum = pair([a, b], [k[0], k[1]])
        .wrapping_add(pair([c, d], [k[2], k[3]]))
        .wrapping_add(pair([e, f], [k[4], k[5]]))
        .wrapping_add(pair([g, h], [k[6], k[7]]))
        .wrapping_add(pair(rest(key), [k[8], k[9]]))
        .wrapping_add(k[10]);
    place(sum, *buckets6)
}

impl Place {
    /// Index into `lb_flows4` or `lb_flows6` of the bucket's flow of that number.
    #[inline(always)]
    pub const fn row(&self, way: u32) -> u32 {
        way.wrapping_mul(self.buckets).wrapping_add(self.bucket)
    }
}

/// What a pair of words adds to the sum.
#[inline(always)]
const fn pair([one, other]: [u32; 2], [first, second]: [u64; 2]) -> u64 {
    first
        .wrapping_add(one as u64)
        .wrapping_mul(second.wrapping_add(other as u64))
}

/// The words of a key that are not addresses.
#[inline(always)]
const fn rest<A>(key: &FlowKey<A>) -> [u32; 2] {
    [
        key.src_port.word() as u32 | (key.dst_port.word() as u32) << 16,
        key.protocol as u32 | (key.stage as u32) << 8,
    ]
}

/// The sum is mixed once more (the end of `MurmurHash3`, 64 bit): keys that follow each other, such as the ports of a client,
/// have sums that do so, too, and would fill a few buckets under some of the random numbers.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "halves of the hash")]
const fn place(sum: u64, buckets: u32) -> Place {
    let mixed = (sum ^ (sum >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    let mixed = mixed ^ (mixed >> 33);
    Place {
        bucket: (((mixed >> 32) * buckets as u64) >> 32) as u32,
        buckets,
        tag: mixed as u32 | 1,
    }
}

/// One way of a bucket, as a writer sees it. Numbers of 64 bits, for the sake of [`claim`].
#[derive(Clone, Copy, Debug)]
pub struct Way {
    /// [`FlowTags::tags`].
    pub tag: u64,
    /// [`FlowTags::seen`].
    pub seen: u16,
    /// [`FlowTags::assured`].
    pub assured: u8,
    /// Its number, exclusive or [`turn`]: of ways that are the same otherwise, the one with the highest goes first.
    pub order: u64,
}

/// What makes the order of ways another one each time that a full bucket is written: or else of two entries in a row, as
/// the two of a flow, the second one would push out the first one where all are of the same age. In a bucket whose `last`
/// tag is 0 the first free way goes first.
#[inline(always)]
pub const fn turn(version: u64, last: u64) -> u64 {
    const LAST: u64 = WAYS as u64 - 1;
    ((version >> 1) | mask(last)) & LAST
}

/// A way that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Which it is: [`Way::order`].
    pub order: u64,
    /// [`Claim::OWN`], [`Claim::FREE`], [`Claim::ASSURED`], as bits.
    pub what: u64,
}

impl Claim {
    /// It has the wanted tag.
    pub const OWN: u64 = 4;
    /// It is free.
    pub const FREE: u64 = 2;
    /// Without these two bits: a flow stands there that has to make room. With this one: it is not assured.
    pub const UNASSURED: u64 = 1;

    /// Whether an entry with the wanted tag stands there.
    #[inline(always)]
    pub const fn is_own(self) -> bool {
        self.what & Self::OWN != 0
    }

    /// Whether an open flow has to make room.
    #[inline(always)]
    pub const fn evicts(self) -> bool {
        self.what == 0
    }
}

/// Which of the ways has the tag: one more than its number; 0: none.
///
/// Without branches, each of which would be one more way for the verifier to follow.
#[inline(always)]
pub fn find(tags: impl Fn(usize) -> u64, tag: u32) -> u64 {
    (0..WAYS as usize).fold(0, |found, way| {
        found | (mask(tags(way) ^ u64::from(tag)) & (way as u64 + 1))
    })
}

/// The way for an entry with this tag: that which has it, a free one, one that is not assured, the one that was written
/// longest ago; in this order. `now` is in the units of [`FlowTags::seen`]. Without branches, as [`find`]: `opaque` gives a number
/// back so that the compiler does not know it, where it would make branches of the choice.
#[inline(always)]
pub fn claim(ways: impl Fn(usize) -> Way, tag: u32, now: u16, opaque: impl Fn(u64) -> u64) -> Claim {
    const AGE: u32 = 3;
    const WHAT: u32 = AGE + 16;
    let best = (0..WAYS as usize).fold(0, |best: u64, number| {
        let way = ways(number);
        let own = mask(way.tag ^ u64::from(tag)) & Claim::OWN;
        let free = mask(way.tag) & Claim::FREE;
        let unassured = u64::from(way.assured & 1) ^ Claim::UNASSURED;
        let age = u64::from(now.wrapping_sub(way.seen));
        let wanted = (own | free | unassured) << WHAT | age << AGE | way.order;
        let is_better = opaque((best.wrapping_sub(wanted).cast_signed() >> 63).cast_unsigned());
        best ^ ((best ^ wanted) & is_better)
    });
    Claim {
        order: best & (WAYS as u64 - 1),
        what: best >> WHAT,
    }
}

/// All ones if the number, which is below 2^63, is 0.
#[inline(always)]
const fn mask(number: u64) -> u64 {
    (number.wrapping_sub(1).cast_signed() >> 63).cast_unsigned()
}

impl<A> Flow<A> {
    /// When it was last seen, as [`FlowTags::seen`] has it.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "as far as it fits")]
    pub const fn seen(&self) -> u16 {
        (self.last_seen >> 4) as u16
    }

    /// Whether it is open as far as is known ([`FlowTags::assured`]).
    #[inline(always)]
    pub const fn is_assured(&self) -> bool {
        self.tcp & (TcpState::ESTABLISHED | TcpState::FIN | TcpState::RST) == TcpState::ESTABLISHED
    }
}

/// For user space; the programs do the same in place.
impl FlowTags {
    /// Makes room for a flow with this tag; its number in the bucket.
    #[expect(clippy::cast_possible_truncation, reason = "below eight")]
    pub fn put<A>(&mut self, tag: u32, flow: &Flow<A>) -> u32 {
        let turn = turn(self.version, self.tags[WAYS as usize - 1].into());
        let way = |way: usize| Way {
            tag: self.tags[way].into(),
            seen: self.seen[way],
            assured: self.assured[way],
            order: way as u64 ^ turn,
        };
        let way = (claim(way, tag, flow.seen(), core::convert::identity).order ^ turn) as usize;
        self.version = self.version.wrapping_add(2);
        self.tags[way] = tag;
        self.seen[way] = flow.seen();
        self.assured[way] = flow.is_assured().into();
        way as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Port;

    const BUCKETS: u32 = 128;

    fn hash() -> FlowHash {
        let mut number = 1_u64;
        FlowHash {
            keys: core::array::from_fn(|_| {
                number = number.wrapping_mul(0xd134_2543_de82_ef95).wrapping_add(1);
                number
            }),
            buckets4: BUCKETS,
            buckets6: BUCKETS,
            ..FlowHash::default()
        }
    }

    fn key(host: u8, port: u16) -> FlowKey<Ip6> {
        let mut key = FlowKey::<Ip6>::default();
        key.src.octets[15] = host;
        key.src_port = Port::new(port);
        key.protocol = crate::protocol::TCP;
        key
    }

    fn flow(last_seen: u32, tcp: u8) -> Flow<Ip6> {
        Flow {
            last_seen: last_seen << 4,
            tcp,
            ..Flow::default()
        }
    }

    /// Under whatever numbers: of a hash that is no more than universal, some let these keys fall into a few buckets.
    #[test]
    fn ports_that_follow_each_other_are_spread_under_all_numbers() {
        for seed in 0..500_u64 {
            let mut number = seed;
            let hash = FlowHash {
                keys: core::array::from_fn(|_| {
                    number = number.wrapping_mul(0xd134_2543_de82_ef95).wrapping_add(1);
                    number ^ (number >> 29)
                }),
                ..hash()
            };
            let mut counts = [0_u32; BUCKETS as usize];
            for port in 1024..1024 + 4 * 128 {
                counts[key(1, port).place(&hash).bucket as usize] += 1;
            }
            // A mean of 4; more than 18 in any of all these buckets is not to be expected.
            assert!(counts.iter().all(|count| *count <= 18), "{seed}: {counts:?}");
        }
    }

    #[test]
    fn keys_that_differ_little_are_spread_evenly_and_told_apart() {
        let mut counts = [0_u32; BUCKETS as usize];
        let mut tags = std::collections::BTreeSet::new();
        for (host, port) in (0..=255).flat_map(|host| (0..100).map(move |port| (host, port))) {
            let Place { bucket, tag, .. } = key(host, port).place(&hash());
            counts[bucket as usize] += 1;
            assert!(tag != 0 && tags.insert((bucket, tag)), "{host} {port}");
        }
        // A mean of 200, and a standard deviation of 14.
        assert!(
            counts.iter().all(|count| (130..270).contains(count)),
            "{counts:?}"
        );
    }

    #[test]
    fn the_least_wanted_makes_room() {
        const OPEN: u8 = TcpState::ESTABLISHED;
        const OVER: u8 = OPEN | TcpState::FIN;
        let (mut tags, mut there) = (FlowTags::default(), [0; WAYS as usize]);
        let mut put = |number: u8, flow: Flow<Ip6>| {
            there[tags.put(number.into(), &flow) as usize] = number;
            there
        };
        let states = [OPEN, OPEN, OVER, OPEN, OPEN, 0, OPEN, OPEN];
        for (number, state) in (1_u8..).zip(states) {
            let there = put(number, flow(100 - u32::from(number), state));
            assert!(
                there[..number.into()].iter().copied().eq(1..=number),
                "each has a free way"
            );
        }
        assert_eq!(
            put(4, flow(100, OPEN)),
            [1, 2, 3, 4, 5, 6, 7, 8],
            "it has its own"
        );
        assert_eq!(
            put(9, flow(100, OPEN)),
            [1, 2, 3, 4, 5, 9, 7, 8],
            "the older of those that are not open"
        );
        assert_eq!(
            put(10, flow(100, 0)),
            [1, 2, 10, 4, 5, 9, 7, 8],
            "the other of them"
        );
        assert_eq!(
            put(11, flow(100, OPEN)),
            [1, 2, 11, 4, 5, 9, 7, 8],
            "the one that is not open, young as it is"
        );
        assert_eq!(put(12, flow(100, OPEN)), [1, 2, 11, 4, 5, 9, 7, 12], "the oldest");
    }

    /// All entries are of one age: the two of a flow, one after the other, must both stay.
    #[test]
    fn two_entries_in_a_row_do_not_push_each_other_out() {
        let mut tags = FlowTags::default();
        for number in 1..=8 {
            tags.put(number, &flow(100, 0));
        }
        for pair in 10..100 {
            let ways = [2 * pair, 2 * pair + 1].map(|tag| tags.put(tag, &flow(100, 0)));
            assert_ne!(ways[0], ways[1], "{pair}");
            assert!(tags.tags.contains(&(2 * pair)), "{pair}: {:?}", tags.tags);
        }
    }

    #[test]
    fn what_is_in_no_way_is_not_found() {
        let tags = [5, 0, 7, 9, 0, 0, 0, 11_u64];
        let found = |tag| find(|way| tags[way], tag);
        assert_eq!([5, 7, 9, 11, 3].map(found), [1, 3, 4, 8, 0]);
    }
}
