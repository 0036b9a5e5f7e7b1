//! The packets that are measured: TCP, without payload.

use std::net::{IpAddr, SocketAddr};

use lb_common::bench::Plan;

/// The hardware address of the device that the frames arrive on.
pub(super) const DEVICE: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// The hardware address of whoever sends them, and takes what is sent on.
pub(super) const ROUTER: [u8; 6] = [2, 0, 0, 0, 0, 2];
const TCP_HEADER: u8 = 20;
/// The least that Ethernet carries, and what a test run wants.
const PADDED: usize = 80;

/// A frame from `source` to `destination`. The TCP checksum is left empty: the programs change it by differences.
pub(super) fn tcp(source: SocketAddr, destination: SocketAddr, flags: u8) -> Vec<u8> {
    let mut frame = [DEVICE, ROUTER].concat();
    match (source.ip(), destination.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            frame.extend([8, 0, 0x45, 0, 0, 20 + TCP_HEADER, 0, 0, 0x40, 0, 64, 6, 0, 0]);
            frame.extend(source.octets());
            frame.extend(destination.octets());
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, TCP_HEADER, 6, 64]);
            frame.extend(source.octets());
            frame.extend(destination.octets());
        }
        mixed => unreachable!("one packet of two families: {mixed:?}"),
    }
    frame.extend(source.port().to_be_bytes());
    frame.extend(destination.port().to_be_bytes());
    frame.extend([0; 8]);
    frame.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    frame.resize(PADDED, 0);
    frame
}

/// The part that the wrapper restores, as words in memory order.
pub(super) fn words(frame: &[u8]) -> [u32; Plan::WORDS] {
    let mut words = [0; Plan::WORDS];
    for (word, bytes) in words.iter_mut().zip(frame[Plan::START..].as_chunks::<4>().0) {
        *word = u32::from_ne_bytes(*bytes);
    }
    words
}

/// The hardware addresses, as words in memory order.
pub(super) fn hardware(frame: &[u8]) -> [u32; 3] {
    let mut words = [0; 3];
    for (word, bytes) in words.iter_mut().zip(frame.as_chunks::<4>().0) {
        *word = u32::from_ne_bytes(*bytes);
    }
    words
}
