//! IPv6 extension headers (RFC 8200, section 4).

/// An IPv6 extension header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extension {
    /// Hop-by-hop options, filled with padding up to this many units of 8 bytes.
    HopByHop(u8),
    /// A routing header with so many segments left.
    Routing(u8),
    /// A fragment header: offset in units of 8 bytes, and whether more follow.
    Fragment(u16, bool),
    /// An authentication header (its integrity value is not right).
    Authentication,
    /// Destination options, as [`Extension::HopByHop`].
    DestinationOptions(u8),
    /// An extension header that nobody knows (RFC 3692, experiments).
    Unknown,
}

impl Extension {
    /// Its number as somebody's next header.
    pub(super) fn number(self) -> u8 {
        match self {
            Self::HopByHop(_) => 0,
            Self::Routing(_) => 43,
            Self::Fragment(..) => 44,
            Self::Authentication => 51,
            Self::DestinationOptions(_) => 60,
            Self::Unknown => 253,
        }
    }

    /// Its bytes, in a packet of this identification.
    pub(super) fn bytes(self, next: u8, identification: u32) -> Vec<u8> {
        match self {
            Self::HopByHop(units) | Self::DestinationOptions(units) => {
                let mut bytes = vec![0; usize::from(units) * 8];
                bytes[0] = next;
                bytes[1] = units - 1;
                bytes
            }
            // Type 253, for experiments, which has no contents of its own.
            Self::Routing(left) => vec![next, 0, 253, left, 0, 0, 0, 0],
            Self::Fragment(offset, more) => {
                let [high, low] = (offset << 3 | u16::from(more)).to_be_bytes();
                let [a, b, c, d] = identification.to_be_bytes();
                vec![next, 0, high, low, a, b, c, d]
            }
            // Length in units of 4 bytes, minus 2: 16 bytes.
            Self::Authentication => vec![next, 2, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 1, 2, 3, 4],
            Self::Unknown => vec![next, 0, 0, 0, 0, 0, 0, 0],
        }
    }
}
