//! IPv6 extension headers (RFC 8200, section 4).

use super::{MAX_HEADERS, Transport, kind_of_fragment};
use crate::ctx::Packet;
use crate::headers::Fragment;
use crate::verdict::Stop;

/// How many are skipped at most.
const MAX_EXTENSIONS: u32 = 6;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;

#[inline(always)]
pub(super) fn is(next: u8) -> bool {
    matches!(
        next,
        HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS
    )
}

/// A real call: branches of a loop times branches of the rest are too many for the verifier.
#[inline(never)]
pub(super) fn skip<P: Packet>(packet: &mut P, transport: &mut Transport) -> Result<(), Stop> {
    packet.linearize(MAX_HEADERS)?;
    let Transport {
        protocol: mut next,
        mut at,
        mut fragment,
        mut part,
    } = *transport;
    for _header in 0..MAX_EXTENSIONS {
        if !is(next) {
            break;
        }
        let [following, length] = packet.read_u16(at)?.to_ne_bytes();
        let [_, segments_left] = packet.read_u16(at + 2)?.to_ne_bytes();
        if next == ROUTING && segments_left != 0 {
            // The checksum is made for the last destination, which is not the one in the header.
            return Err(Stop::PASS);
        }
        at += match next {
            FRAGMENT => {
                // Neither offset nor more to come: an atomic fragment (RFC 6946), which is the whole packet.
                fragment = kind_of_fragment(u16::from_be(packet.read_u16(at + 2)?), 0xfff8, 1);
                part = at;
                8
            }
            // In units of 4 bytes, minus 2 (RFC 4302).
            AUTHENTICATION => (u32::from(length) + 2) * 4,
            // In units of 8 bytes, the first not counted.
            _ => (u32::from(length) + 1) * 8,
        };
        if at >= MAX_HEADERS {
            return Err(Stop::PASS);
        }
        next = following;
        if fragment == Fragment::LATER {
            // What follows is no header.
            break;
        }
    }
    *transport = Transport {
        protocol: next,
        at,
        fragment,
        part,
    };
    Ok(())
}
