//! The host engine: the core on bytes and tables in memory, so that tests need no kernel.
//!
//! Checksums are patched as XDP has to do it: by hand (RFC 1624).

mod cx;
mod tables;

use std::collections::BTreeMap;

use lb_common::{Counter, Device, DropReason, Flow, FlowKey, ServiceStats, Settings, V4, V6};

pub use self::tables::{Endpoint, FamilyTables, Kept};
use crate::link::{self, Version};
use crate::stage;
use crate::verdict::Stop;
use cx::Cx;

/// A program of the BPF object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// Stage pre, Ethernet.
    Pre,
    /// Stage post, Ethernet.
    Post,
    /// Stage pre without link layer.
    PreL3,
    /// Stage post without link layer.
    PostL3,
}

/// A packet at a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its bytes, from the link-layer header on if there is one.
    pub bytes: Vec<u8>,
    /// The device that it arrived on or leaves by.
    pub ifindex: u32,
    /// Packets on the wire that it stands for.
    pub segments: u32,
    /// What the stack knows of a packet without link layer, in host order.
    pub ether_type: u16,
}

/// What was counted. Only what is not zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Dropped packets.
    pub drops: BTreeMap<DropReason, u64>,
    /// Other events.
    pub counters: BTreeMap<Counter, u64>,
    /// By service port.
    pub services: BTreeMap<u32, ServiceStats>,
}

/// The entries of a flow table.
pub type Flows<A> = BTreeMap<FlowKey<A>, Flow<A>>;

/// The node in memory.
#[derive(Debug, Default)]
pub struct Host {
    /// Tables of IPv4.
    pub v4: FamilyTables<V4>,
    /// Tables of IPv6.
    pub v6: FamilyTables<V6>,
    /// Devices by ifindex.
    pub devices: BTreeMap<u32, Device>,
    /// The agent's settings.
    pub settings: Settings,
    /// The clock, in jiffies.
    pub now: u32,
    /// What was counted so far.
    pub counts: Counts,
}

impl Host {
    /// Runs a program on a packet, as `bpf/programs.rs` does, and leaves the packet as the program does. `Ok`: it goes
    /// on, translated or not.
    pub fn run(&mut self, program: Program, frame: &mut Frame) -> Result<(), DropReason> {
        let mut cx = Cx::new(self, frame);
        let done = cx
            .network(program)
            .and_then(|(network, l3)| match (program, network) {
                (Program::Pre | Program::PreL3, Version::V4) => stage::pre::<V4, _>(&mut cx, l3),
                (Program::Pre | Program::PreL3, Version::V6) => stage::pre::<V6, _>(&mut cx, l3),
                (Program::Post | Program::PostL3, Version::V4) => stage::post::<V4, _>(&mut cx, l3),
                (Program::Post | Program::PostL3, Version::V6) => stage::post::<V6, _>(&mut cx, l3),
            });
        match done {
            Ok(()) | Err(Stop::Pass) => Ok(()),
            Err(Stop::Drop(reason)) => {
                *self.counts.drops.entry(reason).or_default() += 1;
                Err(reason)
            }
        }
    }
}

impl Cx<'_> {
    fn network(&self, program: Program) -> Result<(Version, u32), Stop> {
        match program {
            Program::Pre | Program::Post => link::ethernet(self),
            Program::PreL3 | Program::PostL3 => Ok((link::network(self.ether_type())?, 0)),
        }
    }
}
