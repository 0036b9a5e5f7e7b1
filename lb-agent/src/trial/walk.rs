//! The way of one packet: program by program, and by the kernel's route between them.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use lb_common::addr::Address as _;
use lb_common::layout::program;
use lb_common::{Counter, Device, DeviceFlags, DropReason, V4, V6};
use rtnetlink::Handle;

use super::apart::{Apart, key};
use super::packet::{After, Packet};
use super::route::{Route, route};
use crate::dataplane::test_run::SkbContext;
use crate::store::{DevicesTable, FamilyTables, MapStore as _};

/// What a program has done with the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It goes on: `TCX_NEXT`, `XDP_PASS`.
    On,
    /// It is dropped.
    Dropped,
    /// It leaves without the stack, or comes in by another device, or is an answer.
    Sent,
    /// A result that no program gives.
    Unknown(i32),
}

/// A run of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) program: &'static str,
    pub(super) device: u32,
    pub(super) fate: Fate,
}

/// What is remembered of a connection, in the entry of the way there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) backend: SocketAddr,
    /// The source that the backend sees, where stage pre puts it in; unspecified elsewhere.
    pub(super) peer: SocketAddr,
    pub(super) service: u32,
    /// [`lb_common::FlowFlags`].
    pub(super) flags: u8,
    /// The device that the programs send it out by; 0: the stack does.
    pub(super) hop: u32,
}

/// Everything that was seen on the way.
#[derive(Debug, Default)]
pub(super) struct Walk {
    pub(super) runs: Vec<Run>,
    /// What was remembered before.
    pub(super) before: Option<Entry>,
    /// What is remembered now.
    pub(super) entry: Option<Entry>,
    /// Where the kernel sends the translated packet, or why nowhere.
    pub(super) route: Option<Result<Route, String>>,
    pub(super) after: Option<After>,
    pub(super) drops: Vec<DropReason>,
    pub(super) counters: BTreeSet<Counter>,
    /// The service port that dropped or rejected it.
    pub(super) refused: Option<u32>,
}

/// Where a packet begins its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start {
    pub(super) ifindex: u32,
    /// The node itself has made it.
    pub(super) own: bool,
}

/// Sends `packet` on its way.
pub(super) async fn walk(
    apart: &mut Apart,
    netlink: &Handle,
    packet: &Packet,
    start: Start,
) -> anyhow::Result<Walk> {
    let devices = apart.store.rows::<DevicesTable>()?;
    let device = devices.get(&start.ifindex).copied().unwrap_or_default();
    let mut walk = Walk {
        before: entry(apart, packet)?,
        ..Walk::default()
    };
    let frame = packet.frame(device.mac)?;
    let frame = enter(apart, &mut walk, &frame, (start, device))?;
    walk.entry = entry(apart, packet)?;
    walk.after = frame.as_deref().map(After::of);
    if let Some(frame) = frame
        && let Some(After::Ends { source, destination }) = walk.after
        && destination != packet.destination
    {
        let way = route(netlink, destination.ip(), Some((source.ip(), start.ifindex))).await?;
        if let Ok(Route {
            device, local: false, ..
        }) = way
            && devices.contains_key(&device)
        {
            let context = SkbContext {
                ifindex: device,
                ingress_ifindex: start.ifindex,
                segments: 1,
                control: 0,
            };
            let after = run_tc(apart, &mut walk, (program::POST, &frame), context)?;
            walk.after = after.as_deref().map(After::of);
        }
        walk.route = Some(way.map_err(|error| error.to_string()));
    }
    walk.drops = apart.drops()?;
    walk.counters = apart.counters()?.into_iter().collect();
    walk.refused = apart.refused()?;
    Ok(walk)
}

/// Where it comes in, or is made. The frame, when it goes on by the stack.
///
/// A run always has an Ethernet header, and so the programs of devices with one are run for all devices: they differ in
/// where the network header begins, and in nothing else.
fn enter(
    apart: &mut Apart,
    walk: &mut Walk,
    frame: &[u8],
    (start, device): (Start, Device),
) -> anyhow::Result<Option<Vec<u8>>> {
    let context = SkbContext {
        ifindex: start.ifindex,
        ingress_ifindex: if start.own { 0 } else { start.ifindex },
        segments: 1,
        control: 0,
    };
    if start.own {
        return run_tc(apart, walk, (program::POST, frame), context);
    }
    if device.flags & DeviceFlags::XDP != 0 {
        let ran = apart.run_xdp(frame, start.ifindex)?;
        let fate = match ran.result {
            1 => Fate::Dropped,
            2 => Fate::On,
            3 | 4 => Fate::Sent,
            other => Fate::Unknown(other),
        };
        walk.runs.push(Run {
            program: program::XDP,
            device: start.ifindex,
            fate,
        });
        if fate != Fate::On {
            return Ok(None);
        }
    }
    run_tc(apart, walk, (program::PRE, frame), context)
}

fn run_tc(
    apart: &mut Apart,
    walk: &mut Walk,
    (program, frame): (&'static str, &[u8]),
    context: SkbContext,
) -> anyhow::Result<Option<Vec<u8>>> {
    let ran = apart.run_tc(program, frame, context)?;
    let fate = match ran.result {
        -1 => Fate::On,
        2 => Fate::Dropped,
        7 => Fate::Sent,
        other => Fate::Unknown(other),
    };
    walk.runs.push(Run {
        program,
        device: context.ifindex,
        fate,
    });
    Ok((fate == Fate::On).then_some(ran.frame))
}

fn entry(apart: &Apart, packet: &Packet) -> anyhow::Result<Option<Entry>> {
    match packet.source.ip() {
        IpAddr::V4(_) => entry_of::<V4>(apart, packet),
        IpAddr::V6(_) => entry_of::<V6>(apart, packet),
    }
}

fn entry_of<F: FamilyTables>(apart: &Apart, packet: &Packet) -> anyhow::Result<Option<Entry>> {
    let Some(key) = key::<F>(packet) else {
        return Ok(None);
    };
    let flow = apart.store.flow::<F>(&key)?;
    Ok(flow.map(|flow| Entry {
        backend: SocketAddr::new(flow.addr.ip(), flow.port.number()),
        peer: SocketAddr::new(flow.peer_addr.ip(), flow.peer_port.number()),
        service: flow.service,
        flags: flow.flags,
        hop: flow.hop.ifindex,
    }))
}
