//! Packets for tests: built, taken apart, and their checksums verified, without any code of the data plane.
//!
//! [`PacketBuilder`] says what a packet is to be, and other packets are made from it: fragments, a wrapper around it, an
//! ICMP error about it, the reset that answers it. [`View`] says what the bytes of a packet are, and refuses a packet
//! with a wrong checksum. [`residues`] says how far each checksum is off, so that a translation can be judged that
//! met a packet with a wrong one.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what cannot be set up fails the test"
)]

mod answer;
mod builder;
mod checksum;
mod extension;
mod fragment;
mod icmp;
mod layers;
#[cfg(test)]
mod tests;
mod turn;
mod view;

pub use builder::PacketBuilder;
pub use checksum::{
    Residue, checksums_are_right, network_checksums_are_right, network_residues, residues, with_checksum,
};
pub use extension::Extension;
pub use icmp::IcmpError;
pub use layers::{ends, has_ports, is_later_fragment, link_length, quoted};
pub use turn::turned;
pub use view::{Content, Echo, View};

/// TCP flags, as in byte 13 of the header.
pub mod flag {
    /// No more data.
    pub const FIN: u8 = 0x01;
    /// Opens.
    pub const SYN: u8 = 0x02;
    /// Resets.
    pub const RST: u8 = 0x04;
    /// Deliver at once.
    pub const PSH: u8 = 0x08;
    /// Acknowledges.
    pub const ACK: u8 = 0x10;
}
