//! Programs at devices: each device has its programs at both hooks, last on ingress and first on egress.
//!
//! Nothing is remembered here: each pass looks at what is attached and mends what is not as it should be. So a restart,
//! a program that somebody puts after ours and a link that somebody removes are one case. TCX is the way; clsact is
//! taken where the kernel has no TCX (older than 6.6), and on ingress where clsact filters of others stand, because
//! those run after all of TCX and ours must come last.

mod clsact;
mod tcx;
mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use aya::programs::{ProgramError, TcAttachType};
use lb_common::layout::program;
use rtnetlink::Handle;
use thiserror::Error;

use super::load::Programs;
use super::netlink::connect;
use super::{DataplaneError, Pins};

pub use clsact::{Filter, remove_all as remove_filters};
pub use worker::Worker;

/// Where in a packet's way a program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    /// Stage pre.
    Ingress,
    /// Stage post.
    Egress,
}

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// A TCX link.
    Tcx,
    /// A filter of a clsact qdisc.
    Clsact,
}

/// A device that is to have programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachPoint {
    /// Its index.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// Whether its packets start with the network header.
    pub l3: bool,
}

/// A program that is not attached as it should be.
#[derive(Debug, Error)]
pub enum AttachError {
    /// Attaching, replacing or looking failed.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// A netlink request failed.
    #[error("netlink")]
    Netlink(#[from] rtnetlink::Error),
    /// A pin cannot be read.
    #[error("link pin")]
    Link(#[from] aya::programs::links::LinkError),
    /// A link cannot be pinned.
    #[error("link pin")]
    Pin(#[from] aya::pin::PinError),
    /// The folder of pins.
    #[error(transparent)]
    Dataplane(#[from] DataplaneError),
    /// Nothing failed, and still.
    #[error("{0}")]
    Other(String),
}

/// What one pass did.
#[derive(Debug, Default)]
pub struct Report {
    /// Devices and hooks that had no program of ours.
    pub attached: usize,
    /// Whose program of an earlier run was replaced in place.
    pub replaced: usize,
    /// Whose program had to be put into its place again.
    pub moved: usize,
    /// That are to have none any more.
    pub removed: usize,
    /// What failed, by device name and hook.
    pub failed: BTreeMap<(String, Hook), AttachError>,
    /// How each hook of each device is attached now.
    pub ways: BTreeMap<(u32, Hook), Way>,
}

/// What was done at one hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Kept,
    Attached,
    Replaced,
    Moved,
}

/// Attaches the programs.
#[derive(Debug)]
pub struct Attacher {
    programs: Programs,
    pins: Pins,
    netlink: Handle,
    tcx: bool,
}

impl Attacher {
    /// For these programs; asks the kernel whether it has TCX.
    pub fn new(programs: Programs, pins: Pins) -> Result<Self, DataplaneError> {
        Ok(Self {
            programs,
            pins,
            netlink: connect()?,
            tcx: tcx::supported(),
        })
    }

    /// Brings both hooks of every point into order, and removes programs from all other devices. Leaves off
    /// as soon as `stopped` says so.
    pub async fn sync(&mut self, points: &[AttachPoint], stopped: impl Fn() -> bool) -> Report {
        let mut report = Report::default();
        let qdiscs = match clsact::devices(&self.netlink).await {
            Ok(qdiscs) => qdiscs,
            Err(error) => {
                report
                    .failed
                    .insert(("*".to_owned(), Hook::Ingress), error.into());
                return report;
            }
        };
        for point in points {
            for hook in [Hook::Ingress, Hook::Egress] {
                if stopped() {
                    return report;
                }
                match self.sync_hook(point, hook, qdiscs.contains(&point.ifindex)).await {
                    Ok((way, outcome)) => {
                        report.ways.insert((point.ifindex, hook), way);
                        report.count(outcome);
                    }
                    // A device that has gone by now is none of our troubles.
                    Err(error) if still_there(point) => {
                        report.failed.insert((point.name.clone(), hook), error);
                    }
                    Err(_) => {}
                }
            }
        }
        report.removed = self.remove_stale(points, &qdiscs).await;
        report
    }

    async fn sync_hook(
        &mut self,
        point: &AttachPoint,
        hook: Hook,
        has_qdisc: bool,
    ) -> Result<(Way, Outcome), AttachError> {
        let filters = if has_qdisc {
            clsact::filters(&self.netlink, point.ifindex, hook).await?
        } else {
            Vec::new()
        };
        let foreign_ingress = hook == Hook::Ingress && filters.iter().any(|filter| !filter.ours);
        let program = self.programs.get(hook.program(point.l3))?;
        if self.tcx && !foreign_ingress {
            let outcome = tcx::sync(program, &self.pins, point, hook)?;
            clsact::remove(point, hook, &filters)?;
            Ok((Way::Tcx, outcome))
        } else {
            if !has_qdisc {
                clsact::add_qdisc(point, &self.pins)?;
            }
            let outcome = clsact::sync(program, point, hook, &filters)?;
            self.pins.unlink(point.ifindex, hook)?;
            Ok((Way::Clsact, outcome))
        }
    }

    /// Removes programs of ours from all devices but these, and pins of devices that have gone.
    async fn remove_stale(&self, points: &[AttachPoint], qdiscs: &BTreeSet<u32>) -> usize {
        let wanted: BTreeSet<u32> = points.iter().map(|point| point.ifindex).collect();
        let mut removed = 0;
        for (ifindex, hook) in self.pins.pinned_links() {
            if !wanted.contains(&ifindex) && self.pins.unlink(ifindex, hook).is_ok() {
                removed += 1;
            }
        }
        for ifindex in qdiscs.difference(&wanted) {
            removed += clsact::remove_from(&self.netlink, *ifindex)
                .await
                .unwrap_or_default();
        }
        for ifindex in self.pins.marked_qdiscs() {
            if !qdiscs.contains(&ifindex) && !wanted.contains(&ifindex) {
                self.pins.unmark_qdisc(ifindex);
            }
        }
        removed
    }
}

impl Report {
    /// Whether the pass changed anything.
    pub fn changed(&self) -> bool {
        self.attached + self.replaced + self.moved + self.removed > 0
    }

    /// How many hooks are attached by which way, such as `4 tcx, 1 clsact`.
    pub fn summary(&self) -> String {
        let count = |way| self.ways.values().filter(|used| **used == way).count();
        let counts = [Way::Tcx, Way::Clsact].map(|way| (count(way), way.as_str()));
        let texts: Vec<String> = counts
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, way)| format!("{count} {way}"))
            .collect();
        texts.join(", ")
    }

    fn count(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Kept => {}
            Outcome::Attached => self.attached += 1,
            Outcome::Replaced => self.replaced += 1,
            Outcome::Moved => self.moved += 1,
        }
    }
}

/// How a device is attached at a hook; the error says why it is not, or not in the right place.
pub async fn inspect(netlink: &Handle, pins: &Pins, ifindex: u32, hook: Hook) -> Result<Way, AttachError> {
    let point = AttachPoint::of(ifindex)?;
    if tcx::supported() && tcx::inspect(pins, &point, hook)? {
        return Ok(Way::Tcx);
    }
    let filters = clsact::filters(netlink, ifindex, hook).await?;
    clsact::inspect(hook, &filters).map(|()| Way::Clsact)
}

fn still_there(point: &AttachPoint) -> bool {
    nix::net::if_::if_nametoindex(point.name.as_str()).is_ok_and(|ifindex| ifindex == point.ifindex)
}

impl AttachPoint {
    /// The device of that index, as it is named now.
    fn of(ifindex: u32) -> Result<Self, AttachError> {
        let name = nix::net::if_::if_indextoname(ifindex)
            .map_err(|error| AttachError::Other(format!("no device of index {ifindex}: {error}")))?;
        Ok(Self {
            ifindex,
            name: name.to_string_lossy().into_owned(),
            l3: false,
        })
    }
}

impl Hook {
    /// The program for this hook, on a device with or without a link-layer header.
    const fn program(self, l3: bool) -> &'static str {
        match (self, l3) {
            (Self::Ingress, false) => program::PRE,
            (Self::Ingress, true) => program::PRE_L3,
            (Self::Egress, false) => program::POST,
            (Self::Egress, true) => program::POST_L3,
        }
    }

    const fn attach_type(self) -> TcAttachType {
        match self {
            Self::Ingress => TcAttachType::Ingress,
            Self::Egress => TcAttachType::Egress,
        }
    }

    /// The word in names of pins and for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Hook {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        [Self::Ingress, Self::Egress]
            .into_iter()
            .find(|hook| hook.as_str() == text)
            .ok_or(())
    }
}

impl Way {
    /// The word for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        }
    }
}
