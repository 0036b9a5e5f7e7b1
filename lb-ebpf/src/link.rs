//! The link layer: Ethernet, with up to two VLAN tags (IEEE 802.1Q, 802.1ad).

use crate::ctx::Packet;
use crate::verdict::Stop;

/// Which network header follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// `EtherType` values, as they stand in memory.
const IPV4: u16 = 0x0800u16.to_be();
const IPV6: u16 = 0x86ddu16.to_be();
const VLAN: u16 = 0x8100u16.to_be();
const SERVICE_VLAN: u16 = 0x88a8u16.to_be();

/// Length of an Ethernet header without tags, in bytes.
pub const ETHERNET: u32 = 14;
const TAG_LENGTH: u32 = 4;

/// Finds the network header: its kind and where it begins.
#[inline(always)]
pub fn ethernet<P: Packet>(packet: &P) -> Result<(Version, u32), Stop> {
    let mut at = ETHERNET;
    let mut kind = packet.read_u16(at - 2)?;
    for _tag in 0..2 {
        if kind != VLAN && kind != SERVICE_VLAN {
            break;
        }
        at += TAG_LENGTH;
        kind = packet.read_u16(at - 2)?;
    }
    Ok((network(kind)?, at))
}

/// The network header that an `EtherType`, as it stands in memory, announces.
#[inline(always)]
pub fn network(kind: u16) -> Result<Version, Stop> {
    match kind {
        IPV4 => Ok(Version::V4),
        IPV6 => Ok(Version::V6),
        _ => Err(Stop::PASS),
    }
}
