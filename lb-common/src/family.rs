//! The two address families, as types: code for packets and maps is written once, over [`Family`].

use core::fmt;

use crate::addr::{Address, Ip4, Ip6};

/// An address family, known at compile time.
pub trait Family: Copy + Default + fmt::Debug + Ord + 'static {
    /// Its address.
    type Addr: Address;

    /// Its name for people and file names: `ipv4` or `ipv6`.
    const NAME: &'static str;

    /// What the names of its maps end with: `4` or `6`.
    const SUFFIX: char;
}

/// IPv4 (RFC 791).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct V4;

/// IPv6 (RFC 8200).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct V6;

impl Family for V4 {
    type Addr = Ip4;
    const NAME: &'static str = "ipv4";
    const SUFFIX: char = '4';
}

impl Family for V6 {
    type Addr = Ip6;
    const NAME: &'static str = "ipv6";
    const SUFFIX: char = '6';
}
