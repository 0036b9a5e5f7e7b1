//! What the programs in the kernel and the agent agree on: the rows of every map.
//!
//! A change to a type here is a change of the map layout: raise [`layout::VERSION`].
//! Addresses and ports in rows are in network byte order; every other number is in host order.

#![no_std]
#![cfg_attr(not(feature = "user"), forbid(unsafe_code))]

#[cfg(test)]
extern crate std;

pub mod addr;
pub mod backend;
#[cfg(feature = "bench")]
pub mod bench;
pub mod client;
pub mod counter;
pub mod device;
pub mod drop;
pub mod family;
pub mod filter;
pub mod flow;
pub mod flow_table;
pub mod fragment;
pub mod layout;
pub mod path;
pub mod service;
pub mod settings;
#[cfg(feature = "user")]
mod user;

pub use addr::{Ip4, Ip6, Port};
pub use backend::{Backend, BackendFlags, BackendState, LocalKey};
pub use client::{Affinity, ClientKey, RangeKey, RangeList};
pub use counter::Counter;
pub use device::{Device, DeviceFlags, DeviceRole, NodeAddress};
pub use drop::DropReason;
pub use family::{Family, V4, V6};
pub use filter::FilterBit;
pub use flow::{Flow, FlowFlags, FlowKey, Hop, Stage, TcpState};
pub use flow_table::{FlowHash, FlowRow, FlowTags};
pub use fragment::{Fragment, FragmentKey};
pub use path::PathMtu;
pub use service::{
    ServiceFlags, ServiceKey, ServiceName, ServicePolicy, ServiceStats, ServiceValue, Slot, SlotRange,
};
pub use settings::{FamilySettings, Prefix, SERVICE_CIDRS, Settings, SettingsFlags};

/// IP protocol numbers, as in the IPv4 protocol field and the IPv6 next-header field (IANA).
pub mod protocol {
    /// Internet Control Message Protocol for IPv4.
    pub const ICMP: u8 = 1;
    /// IPv4 in IP (RFC 2003).
    pub const IPIP: u8 = 4;
    /// Transmission Control Protocol.
    pub const TCP: u8 = 6;
    /// User Datagram Protocol.
    pub const UDP: u8 = 17;
    /// IPv6 in IP (RFC 2473).
    pub const IPV6: u8 = 41;
    /// Internet Control Message Protocol for IPv6.
    pub const ICMPV6: u8 = 58;
    /// Stream Control Transmission Protocol.
    pub const SCTP: u8 = 132;
}
