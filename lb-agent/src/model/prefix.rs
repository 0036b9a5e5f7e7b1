//! Prefixes of addresses (CIDR).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use thiserror::Error;

use super::IpFamily;

/// A prefix of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct IpPrefix {
    ip: IpAddr,
    length: u8,
}

/// Text that is no prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("no prefix such as 10.244.0.0/16 or fd00:10::/64")]
pub struct NoPrefix;

impl IpPrefix {
    /// The prefix of `length` bits that `ip` is in; `None` when its family has not so many.
    pub fn new(ip: IpAddr, length: u8) -> Option<Self> {
        (u32::from(length) <= bits(ip)).then(|| Self {
            ip: masked(ip, length),
            length,
        })
    }

    /// The prefix of one address alone.
    pub fn host(ip: IpAddr) -> Self {
        let length = if ip.is_ipv4() { 32 } else { 128 };
        Self { ip, length }
    }

    /// Its first address.
    pub const fn ip(self) -> IpAddr {
        self.ip
    }

    /// How many bits count.
    pub const fn length(self) -> u8 {
        self.length
    }

    /// The bits that count, as an address.
    pub fn mask(self) -> IpAddr {
        let ones = match self.ip {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::BROADCAST),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(u128::MAX)),
        };
        masked(ones, self.length)
    }

    /// Its family.
    pub const fn family(self) -> IpFamily {
        IpFamily::of(self.ip)
    }

    /// Whether an address is in it.
    pub fn contains(self, ip: IpAddr) -> bool {
        IpFamily::of(ip) == self.family() && masked(ip, self.length) == self.ip
    }
}

impl FromStr for IpPrefix {
    type Err = NoPrefix;

    fn from_str(text: &str) -> Result<Self, NoPrefix> {
        let (ip, length) = text.trim().split_once('/').ok_or(NoPrefix)?;
        let (ip, length) = (ip.parse(), length.parse());
        let prefix = ip
            .ok()
            .zip(length.ok())
            .and_then(|(ip, length)| Self::new(ip, length));
        prefix.ok_or(NoPrefix)
    }
}

impl fmt::Display for IpPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.length)
    }
}

const fn bits(ip: IpAddr) -> u32 {
    match ip {
        IpAddr::V4(_) => Ipv4Addr::BITS,
        IpAddr::V6(_) => Ipv6Addr::BITS,
    }
}

fn masked(ip: IpAddr, length: u8) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => {
            let shift = Ipv4Addr::BITS - u32::from(length);
            Ipv4Addr::from_bits(ip.to_bits() & u32::MAX.checked_shl(shift).unwrap_or(0)).into()
        }
        IpAddr::V6(ip) => {
            let shift = Ipv6Addr::BITS - u32::from(length);
            Ipv6Addr::from_bits(ip.to_bits() & u128::MAX.checked_shl(shift).unwrap_or(0)).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_that_do_not_count_are_zero() {
        for (text, shown, mask) in [
            ("10.1.2.3/8", "10.0.0.0/8", "255.0.0.0"),
            (" 10.1.2.3/32 ", "10.1.2.3/32", "255.255.255.255"),
            ("10.1.2.3/0", "0.0.0.0/0", "0.0.0.0"),
            ("fd00:1:2::3/48", "fd00:1:2::/48", "ffff:ffff:ffff::"),
            ("fd00::3/0", "::/0", "::"),
        ] {
            let prefix: IpPrefix = text.parse().unwrap();
            assert_eq!(
                (prefix.to_string().as_str(), prefix.mask().to_string().as_str()),
                (shown, mask)
            );
        }
        for text in [
            "10.0.0.0",
            "10.0.0.0/33",
            "fd00::/129",
            "10.0.0.0/-1",
            "x/8",
            "10.0.0.0/8/8",
            "",
        ] {
            assert_eq!(text.parse::<IpPrefix>(), Err(NoPrefix), "{text}");
        }
    }

    #[test]
    fn an_address_is_in_prefixes_of_its_family() {
        let prefix: IpPrefix = "10.244.0.0/16".parse().unwrap();
        assert!(prefix.contains(Ipv4Addr::new(10, 244, 255, 255).into()));
        assert!(!prefix.contains(Ipv4Addr::new(10, 245, 0, 0).into()));
        assert!(!prefix.contains(Ipv6Addr::LOCALHOST.into()));
        assert!(IpPrefix::host(Ipv6Addr::LOCALHOST.into()).contains(Ipv6Addr::LOCALHOST.into()));
    }
}
