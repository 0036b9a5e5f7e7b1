//! Programs at devices: each device has its programs at both hooks of TC, last on ingress and first on egress; uplinks have
//! one at XDP as well, and loopback has one at egress alone.
//!
//! Nothing is remembered here but for how long a refused XDP program is not tried again: each pass looks at what is attached
//! and mends what is not as it should be. So a restart, a program that somebody puts after ours and a link that somebody
//! removes are one case. TCX is the way; clsact is taken where the kernel has no TCX (older than 6.6), and on ingress where
//! clsact filters of others stand, because those run after all of TCX and ours must come last.

mod clsact;
mod point;
mod tcx;
mod worker;
mod xdp;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use aya::programs::ProgramError;
use rtnetlink::Handle;
use thiserror::Error;
use tracing::warn;

use super::load::Programs;
use super::netlink::connect;
use super::xdp::{NoXdp, XdpMode, XdpState};
use super::{DataplaneError, Pins};

pub use clsact::{Filter, remove_all as remove_filters};
pub use point::{AttachPoint, Hook, Layer, Way};
pub use worker::Worker;

/// For how long a driver that refused XDP is not asked again: some write a line to the kernel's log each time.
const ASK_AGAIN: Duration = Duration::from_secs(25);

/// The word for the hook before the network stack.
const XDP: &str = "xdp";

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
    /// What failed, by device name and the word for the hook.
    pub failed: BTreeMap<(String, &'static str), AttachError>,
    /// How each hook of each device is attached now.
    pub ways: BTreeMap<(u32, Hook), Way>,
    /// How XDP is attached at each uplink, by its index; `None` where that could not be found out.
    pub xdp: BTreeMap<u32, Option<XdpState>>,
    /// Whether the pass came to its end.
    pub complete: bool,
}

/// What was done at one hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Kept,
    Attached,
    Replaced,
    Moved,
    Removed,
}

/// Attaches the programs.
#[derive(Debug)]
pub struct Attacher {
    programs: Programs,
    pins: Pins,
    netlink: Handle,
    tcx: bool,
    /// By index, the drivers that refused XDP, and when.
    refused: BTreeMap<u32, (NoXdp, Instant)>,
}

impl Attacher {
    /// For these programs; asks the kernel whether it has TCX.
    pub fn new(programs: Programs, pins: Pins) -> Result<Self, DataplaneError> {
        Ok(Self {
            programs,
            pins,
            netlink: connect()?,
            tcx: tcx::supported(),
            refused: BTreeMap::new(),
        })
    }

    /// Brings the hooks of every point into order, and removes programs from all other devices. Leaves off
    /// as soon as `stopped` says so.
    pub async fn sync(&mut self, points: &[AttachPoint], stopped: impl Fn() -> bool) -> Report {
        let mut report = Report::default();
        let qdiscs = match clsact::devices(&self.netlink).await {
            Ok(qdiscs) => qdiscs,
            Err(error) => {
                let everywhere = ("*".to_owned(), Hook::Ingress.as_str());
                report.failed.insert(everywhere, error.into());
                return report;
            }
        };
        for point in points {
            for hook in point.hooks() {
                if stopped() {
                    return report;
                }
                let synced = self
                    .sync_hook(point, *hook, qdiscs.contains(&point.ifindex))
                    .await;
                report.note(point, *hook, synced);
            }
            // After the others: what XDP leaves to TC is met there.
            if let Some(plan) = point.xdp {
                let synced = self.sync_xdp(point, plan).await;
                report.note_xdp(point, synced);
            }
        }
        report.removed += self.remove_stale(points, &qdiscs).await;
        report.complete = true;
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
        let program = self.programs.get(point.program(hook))?;
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

    async fn sync_xdp(
        &mut self,
        point: &AttachPoint,
        plan: XdpState,
    ) -> Result<(XdpState, Outcome), AttachError> {
        let (state, outcome) = match plan {
            Ok(mode) => self.attach_xdp(point, mode).await?,
            Err(reason) => {
                let detached = self.pins.unlink_xdp(point.ifindex)?;
                (
                    Err(reason),
                    if detached { Outcome::Removed } else { Outcome::Kept },
                )
            }
        };
        self.pins.mark_no_xdp(point.ifindex, state.err())?;
        Ok((state, outcome))
    }

    async fn attach_xdp(
        &mut self,
        point: &AttachPoint,
        mode: XdpMode,
    ) -> Result<(XdpState, Outcome), AttachError> {
        if let Some((reason, at)) = self.refused.get(&point.ifindex)
            && at.elapsed() < ASK_AGAIN
        {
            return Ok((Err(*reason), Outcome::Kept));
        }
        let program = match self.programs.xdp() {
            Ok(program) => program,
            Err(error) => {
                if let Some(error) = error {
                    let error = anyhow::Error::new(error);
                    warn!("{error:#}; uplinks are left to TC alone");
                }
                return Ok((Err(NoXdp::NotLoaded), Outcome::Kept));
            }
        };
        let present = xdp::attached(&self.netlink, point.ifindex).await?;
        let (state, outcome) = xdp::sync(program, &self.pins, point, mode, present)?;
        match state {
            Err(reason @ NoXdp::Refused(_)) => {
                self.refused.insert(point.ifindex, (reason, Instant::now()));
            }
            _ => _ = self.refused.remove(&point.ifindex),
        }
        Ok((state, outcome))
    }

    /// Removes programs of ours from all devices but these, and pins of devices that have gone.
    async fn remove_stale(&mut self, points: &[AttachPoint], qdiscs: &BTreeSet<u32>) -> usize {
        let wanted: BTreeSet<u32> = points.iter().map(|point| point.ifindex).collect();
        let mut removed = 0;
        for (ifindex, hook) in self.pins.pinned_links() {
            if !wanted.contains(&ifindex) && self.pins.unlink(ifindex, hook).is_ok() {
                removed += 1;
            }
        }
        let with_xdp: BTreeSet<u32> = points
            .iter()
            .filter(|point| point.xdp.is_some())
            .map(|point| point.ifindex)
            .collect();
        for ifindex in self.pins.pinned_xdp() {
            if !with_xdp.contains(&ifindex) {
                removed += usize::from(self.pins.unlink_xdp(ifindex).is_ok_and(|there_was| there_was));
            }
        }
        for (ifindex, _) in self.pins.marked_no_xdp() {
            if !with_xdp.contains(&ifindex) {
                // A folder that stays is tried again in the next pass.
                let _stays = self.pins.mark_no_xdp(ifindex, None);
            }
        }
        self.refused.retain(|ifindex, _| with_xdp.contains(ifindex));
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

    /// How many hooks are attached by which way, such as `4 tcx, 1 clsact, 1 native xdp`.
    pub fn summary(&self) -> String {
        let ways = [Way::Tcx, Way::Clsact].map(|way| {
            let count = self.ways.values().filter(|used| **used == way).count();
            (count, way.as_str().to_owned())
        });
        let modes = [XdpMode::Native, XdpMode::Generic].map(|mode| {
            let count = self
                .xdp
                .values()
                .filter(|state| **state == Some(Ok(mode)))
                .count();
            (count, format!("{} xdp", mode.as_str()))
        });
        let texts: Vec<String> = ways
            .iter()
            .chain(&modes)
            .filter(|(count, _)| *count > 0)
            .map(|(count, way)| format!("{count} {way}"))
            .collect();
        texts.join(", ")
    }

    fn note(&mut self, point: &AttachPoint, hook: Hook, synced: Result<(Way, Outcome), AttachError>) {
        match synced {
            Ok((way, outcome)) => {
                self.ways.insert((point.ifindex, hook), way);
                self.count(outcome);
            }
            Err(error) => self.note_failure(point, hook.as_str(), error),
        }
    }

    fn note_xdp(&mut self, point: &AttachPoint, synced: Result<(XdpState, Outcome), AttachError>) {
        match synced {
            Ok((state, outcome)) => {
                self.xdp.insert(point.ifindex, Some(state));
                self.count(outcome);
            }
            Err(error) => {
                self.xdp.insert(point.ifindex, None);
                self.note_failure(point, XDP, error);
            }
        }
    }

    fn note_failure(&mut self, point: &AttachPoint, hook: &'static str, error: AttachError) {
        // A device that has gone by now is none of our troubles.
        if point.is_still_there() {
            self.failed.insert((point.name.clone(), hook), error);
        }
    }

    fn count(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Kept => {}
            Outcome::Attached => self.attached += 1,
            Outcome::Replaced => self.replaced += 1,
            Outcome::Moved => self.moved += 1,
            Outcome::Removed => self.removed += 1,
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

/// How XDP is attached at a device by our link, if it is.
pub async fn inspect_xdp(
    netlink: &Handle,
    pins: &Pins,
    ifindex: u32,
) -> Result<Option<XdpMode>, AttachError> {
    let present = xdp::attached(netlink, ifindex).await?;
    xdp::inspect(pins, ifindex, present)
}

/// How XDP is attached at every device where a link of ours is pinned: what an earlier run left.
pub async fn adopted_xdp(pins: &Pins) -> Result<BTreeMap<u32, XdpState>, DataplaneError> {
    let netlink = connect()?;
    let mut states = BTreeMap::new();
    for ifindex in pins.pinned_xdp() {
        // Whatever is the matter comes up again when programs are attached.
        if let Ok(Some(mode)) = inspect_xdp(&netlink, pins, ifindex).await {
            states.insert(ifindex, Ok(mode));
        }
    }
    Ok(states)
}
