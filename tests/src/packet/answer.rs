//! What answers a packet, as the standards have it.

use std::net::IpAddr;

use super::{IcmpError, PacketBuilder, View, flag};

impl PacketBuilder {
    /// The reset that answers this TCP segment, when nobody listens (RFC 9293, section 3.10.7.1), on its
    /// way back over the same link.
    ///
    /// # Panics
    /// When this is no TCP segment.
    #[must_use]
    pub fn reset(&self) -> Self {
        let Some((flags, [sequence, acknowledgment], length)) = self.tcp_parts() else {
            panic!("only TCP is reset: {self:?}");
        };
        let answer = self.clone().reversed().swapped_macs().payload(b"");
        if flags & flag::ACK != 0 {
            return answer.flags(flag::RST).sequence(acknowledgment, 0);
        }
        let counted = u32::from(flags & flag::SYN != 0) + u32::from(flags & flag::FIN != 0);
        let next = sequence
            .wrapping_add(u32::try_from(length).unwrap())
            .wrapping_add(counted);
        answer.flags(flag::RST | flag::ACK).sequence(0, next)
    }

    /// The error that `from` answers this packet with, on its way back over the same link.
    #[must_use]
    pub fn refused(&self, from: IpAddr, error: IcmpError) -> Self {
        self.clone().swapped_macs().error(from, error)
    }
}

impl View {
    /// Whether this is `expected`, but for what a sender may choose: hop limit, identification, whether routers may
    /// fragment it, traffic class, flow label, TCP window.
    ///
    /// # Panics
    /// When what is expected is no right packet itself.
    pub fn is_like(&self, expected: &PacketBuilder) -> bool {
        let mut expected = Self::of(&expected.build()).unwrap();
        expected.hop_limit = self.hop_limit;
        expected.traffic_class = self.traffic_class;
        expected.identification = self.identification;
        expected.dont_fragment = self.dont_fragment;
        *self == expected
    }
}
