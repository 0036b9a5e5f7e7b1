//! A flood of SYNs, each from another client, none of which ever goes on.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::Result;

use super::Link;
use crate::packet::{PacketBuilder, flag};
use crate::topology::Prefixes;

/// Where the flood comes from: nobody's (RFC 2544, RFC 5180). The topologies route the answers back to the client, which
/// throws them away.
pub const FLOOD_SOURCES: Prefixes<'_> = Prefixes {
    v4: "198.18.0.0/15",
    v6: "2001:2::/48",
};

/// Sends `count` SYNs to a front end by way of a next hop, each from another address and port, the first from number
/// `first`; so a second flood can go on where one has ended.
pub fn syn_flood(link: &Link, next_hop: [u8; 6], to: SocketAddr, first: u32, count: u32) -> Result<()> {
    (first..first + count).try_for_each(|number| {
        let frame = PacketBuilder::tcp(source(number, to.is_ipv4()), to)
            .flags(flag::SYN)
            .macs(next_hop, link.mac);
        link.send(&frame.build())
    })
}

/// Addresses change fastest: the sources of a small flood are all different.
fn source(number: u32, is_v4: bool) -> SocketAddr {
    let [_, high, middle, low] = (number % (1 << 17)).to_be_bytes();
    let port = 1024 + u16::try_from(number >> 17).unwrap_or_default();
    let ip: IpAddr = if is_v4 {
        Ipv4Addr::new(198, 18 + high, middle, low).into()
    } else {
        Ipv6Addr::new(0x2001, 2, 0, 0, 0, high.into(), middle.into(), low.into()).into()
    };
    SocketAddr::new(ip, port)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_sources_are_the_same() {
        for is_v4 in [true, false] {
            let sources: BTreeSet<_> = (0..300_000).map(|number| source(number, is_v4)).collect();
            assert_eq!(sources.len(), 300_000);
        }
    }
}
