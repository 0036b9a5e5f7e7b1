//! The host engine: the core on bytes and tables in memory, so that tests need no kernel.
//!
//! Checksums are patched as XDP has to do it: by hand (RFC 1624).

mod cx;
mod tables;

use std::collections::BTreeMap;

use lb_common::{Counter, Device, DropReason, Flow, FlowKey, ServicePolicy, ServiceStats, Settings, V4, V6};

pub use self::tables::{Endpoint, FamilyTables, Kept, Way};
use crate::answer;
use crate::ctx::Hook;
use crate::hop::LOOPBACK;
use crate::link::{self, Version};
use crate::stage;
use crate::uplink;
use crate::verdict::{Next, Reason, Stop};
use crate::work::Work;
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
    /// XDP.
    Xdp,
}

/// What a program wants done with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on its way, translated or not.
    On,
    /// It is dropped.
    Dropped(DropReason),
    /// It leaves by a device.
    Out(u32),
    /// It goes back to where it came from.
    Back,
    /// It comes in by another device.
    Arrive(u32),
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
    /// At egress: the node has made it.
    pub own: bool,
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
    /// What the agent says about service ports.
    pub policies: BTreeMap<u32, ServicePolicy>,
    /// Limits on new connections by service port.
    pub limits: BTreeMap<u32, u64>,
    /// The agent's settings.
    pub settings: Settings,
    /// The clock, in jiffies.
    pub now: u32,
    /// What was counted so far.
    pub counts: Counts,
}

impl Host {
    /// Runs a program on a packet, as `bpf/programs.rs` does, and leaves the packet as the program does.
    pub fn run(&mut self, program: Program, frame: &mut Frame) -> Verdict {
        let hook = program.hook();
        let cx = Cx::new(self, frame, hook);
        match cx.network(program) {
            Ok((Version::V4, l3)) => self.run_of::<V4>(hook, frame, l3),
            Ok((Version::V6, l3)) => self.run_of::<V6>(hook, frame, l3),
            Err(_) => Verdict::On,
        }
    }

    fn run_of<F: Kept>(&mut self, hook: Hook, frame: &mut Frame, l3: u32) -> Verdict {
        let mut work = Work::<F>::default();
        let mut cx = Cx::new(self, frame, hook);
        let mut done = match hook {
            Hook::Xdp | Hook::Ingress => stage::pre(&mut cx, &mut work, l3),
            Hook::Egress => stage::post(&mut cx, &mut work, l3),
        };
        if done == Ok(Next::More) {
            done = match hook {
                Hook::Xdp | Hook::Ingress => stage::more_of_pre(&mut cx, &mut work),
                Hook::Egress => stage::more_of_post(&mut cx, &mut work),
            };
        }
        if done == Ok(Next::Own) {
            done = stage::own(&mut cx, &mut work);
        }
        if done == Ok(Next::Return) {
            done = uplink::leave(&mut cx, &mut work);
        }
        done = answer::due(&mut cx, &mut work, done);
        if done == Ok(Next::Answer) {
            done = answer::give(&mut cx, &mut work);
        }
        match done {
            Ok(Next::More | Next::Own | Next::Return | Next::Answer | Next::Stack) => Verdict::On,
            Ok(Next::Arrive) if hook == Hook::Xdp => Verdict::On,
            Ok(Next::Arrive) => Verdict::Arrive(work.flow.arrival),
            // What leaves by the loopback device comes in there.
            Ok(Next::Back) if frame.ifindex == LOOPBACK => Verdict::On,
            Ok(Next::Back) => Verdict::Back,
            Ok(Next::Out) => {
                let hop = work.flow.hop;
                if hook == Hook::Xdp
                    && let Some(addresses) = frame.bytes.first_chunk_mut::<12>()
                    && let Some(device) = self.devices.get(&hop.ifindex)
                {
                    addresses[..6].copy_from_slice(&hop.dst);
                    addresses[6..].copy_from_slice(&device.mac);
                } else if l3 == 0 {
                    // As the program at TC: the kernel's helper takes only what has a link-layer header.
                    frame.bytes.splice(..0, [0; 14]);
                }
                Verdict::Out(hop.ifindex)
            }
            Err(stop) => match stop.reason() {
                Reason::Pass | Reason::Answer(_) => Verdict::On,
                Reason::Drop(number) => {
                    let reason = DropReason::ALL[number as usize];
                    *self.counts.drops.entry(reason).or_default() += 1;
                    Verdict::Dropped(reason)
                }
            },
        }
    }
}

impl Program {
    /// Where it runs.
    pub const fn hook(self) -> Hook {
        match self {
            Self::Pre | Self::PreL3 => Hook::Ingress,
            Self::Post | Self::PostL3 => Hook::Egress,
            Self::Xdp => Hook::Xdp,
        }
    }
}

impl Cx<'_> {
    fn network(&self, program: Program) -> Result<(Version, u32), Stop> {
        match program {
            Program::Pre | Program::Post | Program::Xdp => link::ethernet(self),
            Program::PreL3 | Program::PostL3 => Ok((link::network(self.ether_type())?, 0)),
        }
    }
}
