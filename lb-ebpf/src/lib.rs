//! The packet core: what happens to a packet, written once for both address families, for XDP and TC, for the
//! kernel and the host.
//!
//! Modules stand in the order in which a packet meets them. Nothing here knows a BPF helper or a map: bytes come
//! from [`ctx::Packet`], tables from [`ctx::Tables`], the rest of the node from [`ctx::Node`].

#![cfg_attr(not(feature = "testkit"), no_std)]
#![forbid(unsafe_code)]

pub mod admit;
pub mod answer;
pub mod checksum;
pub mod choose;
pub mod crc32c;
pub mod ctx;
pub mod direct;
pub mod fragment;
pub mod hash;
pub mod headers;
pub mod hop;
pub mod icmp;
pub mod known;
pub mod limit;
pub mod link;
pub mod masquerade;
pub mod node;
pub mod open;
pub mod outer;
pub mod reverse;
pub mod rewrite;
pub mod send;
pub mod service;
pub mod snat;
pub mod split;
pub mod stage;
#[cfg(feature = "testkit")]
pub mod testkit;
pub mod uplink;
pub mod verdict;
pub mod vip;
pub mod wire;
pub mod work;
pub mod wrap;
