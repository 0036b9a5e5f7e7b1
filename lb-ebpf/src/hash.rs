//! The flow hash: the choice of a backend is a function of the flow, so that a flow whose entry was evicted, or that
//! lands on another node, finds the same backend again.
//!
//! The mixing steps are those of `MurmurHash3` (x86, 32 bit).

use lb_common::FlowKey;

use crate::wire::Wire;

/// Mixes one word in.
#[inline(always)]
pub const fn mix(hash: u32, word: u32) -> u32 {
    let word = word
        .wrapping_mul(0xcc9e_2d51)
        .rotate_left(15)
        .wrapping_mul(0x1b87_3593);
    (hash ^ word)
        .rotate_left(13)
        .wrapping_mul(5)
        .wrapping_add(0xe654_6b64)
}

/// Spreads every input bit over the whole word.
#[inline(always)]
pub const fn finish(hash: u32) -> u32 {
    let hash = (hash ^ (hash >> 16)).wrapping_mul(0x85eb_ca6b);
    let hash = (hash ^ (hash >> 13)).wrapping_mul(0xc2b2_ae35);
    hash ^ (hash >> 16)
}

/// The hash of a packet's addresses, ports and protocol.
#[inline(always)]
pub fn of_flow<F: Wire>(seed: u32, key: &FlowKey<F::Addr>) -> u32 {
    let ports = u32::from(key.src_port.word()) << 16 | u32::from(key.dst_port.word());
    let hash = F::mix(F::mix(seed, key.src), key.dst);
    finish(mix(mix(hash, ports), u32::from(key.protocol)))
}

/// A number below `count`, evenly spread over the values of `hash`; 0 when `count` is 0.
#[inline(always)]
pub const fn below(hash: u32, count: u32) -> u32 {
    ((hash as u64 * count as u64) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use lb_common::{Ip4, Port, V4, protocol};

    use super::*;

    #[test]
    fn clients_that_differ_in_the_port_alone_spread_evenly() {
        const BACKENDS: u32 = 7;
        const FLOWS: u16 = 28_000;
        let mut shares = [0u32; BACKENDS as usize];
        for port in 0..FLOWS {
            let key = FlowKey {
                src: Ip4::new([10, 0, 0, 1]),
                dst: Ip4::new([10, 96, 0, 1]),
                src_port: Port::new(32768 + port),
                dst_port: Port::new(80),
                protocol: protocol::TCP,
                stage: 1,
                pad: [0; 2],
            };
            shares[below(of_flow::<V4>(0, &key), BACKENDS) as usize] += 1;
        }
        // Mean 4000, standard deviation 58.6: five of them.
        for share in shares {
            assert!((3707..=4293).contains(&share), "{shares:?}");
        }
    }

    #[test]
    fn below_stays_below() {
        assert_eq!(below(u32::MAX, 3), 2);
        assert_eq!(below(0, 3), 0);
        assert_eq!(below(u32::MAX, 0), 0);
    }
}
