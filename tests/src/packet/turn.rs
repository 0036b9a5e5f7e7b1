//! The bytes of a packet the other way round.

use super::layers;

/// An Ethernet packet as its receiver would answer it: hardware addresses, addresses and ports change places, and all
/// checksums stay as they are, for a sum does not mind the order; that of SCTP does, and is as wrong as it may be. `None`
/// when there is no IP packet in it.
pub fn turned(frame: &[u8]) -> Option<Vec<u8>> {
    let link = layers::link(frame)?;
    let network = layers::network(link.network)?;
    let mut bytes = frame.to_vec();
    swap(&mut bytes, 0, 6);
    let at = |part: &[u8]| part.as_ptr().addr() - frame.as_ptr().addr();
    let l3 = at(link.network);
    if network.is_v4() {
        swap(&mut bytes, l3 + 12, 4);
    } else {
        swap(&mut bytes, l3 + 8, 16);
    }
    if network.is_first() && layers::has_ports(network.protocol) && network.payload.len() >= 4 {
        swap(&mut bytes, at(network.payload), 2);
    }
    Some(bytes)
}

/// Two neighbouring fields of `length` bytes change places.
fn swap(bytes: &mut [u8], at: usize, length: usize) {
    let (one, other) = bytes[at..at + 2 * length].split_at_mut(length);
    one.swap_with_slice(other);
}
