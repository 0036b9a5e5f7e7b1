//! The packet core: what happens to a packet, written once for both address families, for XDP and TC, for the
//! kernel and the host.
//!
//! Modules stand in the order in which a packet meets them. Nothing here knows a BPF helper or a map: bytes come
//! from [`ctx::Packet`], tables from [`ctx::Tables`], the rest of the node from [`ctx::Node`].

#![cfg_attr(not(feature = "testkit"), no_std)]
#![forbid(unsafe_code)]

pub mod checksum;
pub mod choose;
pub mod ctx;
pub mod direct;
pub mod hash;
pub mod headers;
pub mod known;
pub mod link;
pub mod open;
pub mod reverse;
pub mod rewrite;
pub mod service;
pub mod stage;
#[cfg(feature = "testkit")]
pub mod testkit;
pub mod verdict;
pub mod wire;
