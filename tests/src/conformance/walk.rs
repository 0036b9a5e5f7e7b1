//! The way of one packet through the programs, hook after hook, as the kernel would lead it.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, bail};
use lb_common::{DropReason, V4};
use lb_ebpf::testkit::{Counts, Frame, Program};
use serde::Serialize;

use super::flows::{Packet, Protocol};
use super::node::{LOOPBACK, PODS, Place, Places, UPLINK};
use crate::engine::{Engine, Kernel, Outcome, Verdict};
use crate::packet::{Content, IcmpError, PacketBuilder, View, flag};

/// How a packet meets the programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Entry {
    /// It comes in by the uplink, at TC.
    #[serde(rename = "uplink, TC")]
    UplinkTc,
    /// It comes in by the uplink, at XDP.
    #[serde(rename = "uplink, XDP")]
    UplinkXdp,
    /// It comes in by the device of a pod, at TC.
    #[serde(rename = "pod, TC")]
    Pod,
    /// The node has made it, and it leaves.
    #[serde(rename = "node, TC egress")]
    Node,
}

/// What has become of a packet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Found {
    /// It goes to an endpoint.
    Backend {
        /// The endpoint.
        to: SocketAddr,
        /// With an address of the node as its source.
        masquerade: bool,
    },
    /// Its sender is told that there is nothing.
    Reject,
    /// It is dropped.
    Drop(&'static str),
    /// It is as it was.
    None,
    /// What should become of no packet.
    Wrong(String),
}

/// Sends packets through the programs.
pub(super) struct Walker<'a> {
    pub(super) kernel: &'a mut Kernel,
    pub(super) places: &'a Places,
    pub(super) entry: Entry,
    /// What was counted when it was last looked at.
    counts: Counts,
}

impl<'a> Walker<'a> {
    pub(super) fn new(kernel: &'a mut Kernel, places: &'a Places, entry: Entry) -> Self {
        let counts = Engine::<V4>::counts(kernel);
        Self {
            kernel,
            places,
            entry,
            counts,
        }
    }

    /// Sends the first packet of a connection from this port.
    pub(super) fn send(&mut self, packet: &Packet, port: u16) -> Result<Found> {
        let before = Tuple {
            source: SocketAddr::new(packet.src, port),
            destination: SocketAddr::new(packet.dst, packet.dport),
        };
        let mut bytes = opening(packet.proto, before);
        let verdict = match self.entry {
            Entry::Node => {
                let device = if self.places.place(packet.dst) == Place::Node {
                    LOOPBACK
                } else {
                    self.egress(packet.dst)
                };
                self.run(Program::Post, device, true, &mut bytes)?
            }
            Entry::Pod => self.arrive(PODS, &mut bytes)?,
            Entry::UplinkTc => self.arrive(UPLINK, &mut bytes)?,
            Entry::UplinkXdp => match self.run(Program::Xdp, UPLINK, false, &mut bytes)? {
                Verdict::On => self.arrive(UPLINK, &mut bytes)?,
                verdict => verdict,
            },
        };
        if verdict == Verdict::Dropped {
            return self.dropped();
        }
        Ok(self.read(before, &bytes, verdict))
    }

    /// TC ingress; then what goes on is routed, and leaves by a device unless it is for the node.
    fn arrive(&mut self, device: u32, bytes: &mut Vec<u8>) -> Result<Verdict> {
        let verdict = self.run(Program::Pre, device, false, bytes)?;
        if verdict != Verdict::On {
            return Ok(verdict);
        }
        let destination = View::of(bytes).map_err(anyhow::Error::msg)?.destination;
        if self.places.place(destination) == Place::Node {
            return Ok(verdict);
        }
        let device = self.egress(destination);
        self.run(Program::Post, device, false, bytes)
    }

    fn egress(&self, destination: IpAddr) -> u32 {
        if self.places.place(destination) == Place::Pod {
            PODS
        } else {
            UPLINK
        }
    }

    fn run(&mut self, program: Program, ifindex: u32, own: bool, bytes: &mut Vec<u8>) -> Result<Verdict> {
        let mut frame = Frame {
            ether_type: u16::from_be_bytes([bytes[12], bytes[13]]),
            bytes: std::mem::take(bytes),
            ifindex,
            segments: 1,
            own,
        };
        let Outcome { verdict, .. } = Engine::<V4>::run(self.kernel, program, &mut frame);
        *bytes = frame.bytes;
        verdict.context("the engine shows every packet")
    }

    /// A drop, for the one reason that was counted.
    fn dropped(&mut self) -> Result<Found> {
        let counts = Engine::<V4>::counts(self.kernel);
        let more = |reason: &DropReason| counts.drops.get(reason) > self.counts.drops.get(reason);
        let reasons: Vec<_> = DropReason::ALL.into_iter().filter(more).collect();
        self.counts = counts;
        match reasons[..] {
            [reason] => Ok(Found::Drop(reason.as_str())),
            _ => bail!("a drop was counted for the reasons {reasons:?}"),
        }
    }

    fn read(&self, before: Tuple, bytes: &[u8], verdict: Verdict) -> Found {
        let view = match View::of(bytes) {
            Ok(view) => view,
            Err(error) => return Found::Wrong(error),
        };
        if is_refusal(&view, before) {
            return Found::Reject;
        }
        let Some(after) = Tuple::of(&view) else {
            return Found::Wrong(format!("{view:?}"));
        };
        if after == before {
            return match verdict {
                Verdict::On => Found::None,
                _ => Found::Wrong(format!("{verdict:?} without a change")),
            };
        }
        let masquerade = after.source != before.source;
        if masquerade && !self.places.is_address_of_node(after.source.ip()) {
            return Found::Wrong(format!(
                "masqueraded as {}, which is no address of the node",
                after.source
            ));
        }
        Found::Backend {
            to: after.destination,
            masquerade,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tuple {
    source: SocketAddr,
    destination: SocketAddr,
}

impl Tuple {
    fn of(view: &View) -> Option<Self> {
        let [source, destination] = view.ports()?;
        Some(Self {
            source: SocketAddr::new(view.source, source),
            destination: SocketAddr::new(view.destination, destination),
        })
    }
}

/// The first packet of a connection.
fn opening(protocol: Protocol, Tuple { source, destination }: Tuple) -> Vec<u8> {
    match protocol {
        Protocol::Tcp => PacketBuilder::tcp(source, destination).flags(flag::SYN).build(),
        Protocol::Udp => PacketBuilder::udp(source, destination).build(),
        Protocol::Sctp => PacketBuilder::sctp(source, destination).init().build(),
    }
}

/// Whether a packet tells the sender of another one that there is nothing: a reset, or an unreachable about it.
fn is_refusal(view: &View, about: Tuple) -> bool {
    let back = view.destination == about.source.ip();
    match &view.content {
        Content::Tcp { ports, flags, .. } => {
            let reversed = [about.destination.port(), about.source.port()];
            back && *flags & flag::RST != 0 && *ports == reversed && view.source == about.destination.ip()
        }
        Content::Error {
            error: IcmpError::Unreachable(_),
            about: Some(quoted),
            ..
        } => back && quoted.map(|end| end.ip()) == [about.source.ip(), about.destination.ip()],
        _ => false,
    }
}
