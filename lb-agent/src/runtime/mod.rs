//! THE WAY OF AN EVENT: whatever happens becomes an [`Event`], one loop takes it, and one writer writes the maps.
//!
//! ```text
//! source of objects ────┐
//! netlink notifications ┼─ Event ─> Runtime::take ─(burst drained)─> Runtime::pass: look, sync the maps, ask for programs
//! reports of programs ──┤
//! timers, signals ──────┘
//! ```

mod bulletin;
mod options;
mod programs;
mod signals;
mod start;
mod start_times;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lb_common::ServiceFlags;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::{debug, info, warn};

use crate::dataplane::attach::{self, Worker};
use crate::dataplane::devices::{Changes, Devices, Host};
use crate::dataplane::loads::Recounter;
use crate::dataplane::reserved::Reservation;
use crate::dataplane::xdp::XdpState;
use crate::dataplane::{self, DataplaneError, KernelStore, Lock, Pins};
use crate::model::HostDevice;
use crate::reconcile::Pipe;
use crate::serve::Servers;
use crate::source::{Source, SourceEvent};

use bulletin::{Bulletin, Seen};
pub use options::Options;
use signals::Signals;
pub(crate) use start::first_objects;
use start_times::StartTimes;

/// Something that the agent acts upon.
#[derive(Debug)]
enum Event {
    /// Objects came, changed or went.
    Source(Vec<SourceEvent>),
    /// Devices, addresses, default routes or filters changed.
    Devices(Changes),
    /// The way of packets may have changed.
    Routes,
    /// Programs were brought into order.
    Attached(attach::Report),
    /// Rows that could not be written are tried again.
    Retry,
    /// Time to see whether the programs are still in their places.
    Recheck,
    /// Time to count the connections of backends anew.
    Recount,
    /// The agent cannot serve what it must.
    Unserved(anyhow::Error),
    /// The agent is to end.
    Stop(&'static str),
}

/// The least time between two passes: what happens meanwhile is acted upon together. After a quiet time an event is acted
/// upon at once.
const APART: Duration = Duration::from_millis(3);
/// How often programs are looked after when nothing happens: nobody tells when a TCX program is attached.
const RECHECK: Duration = Duration::from_secs(30);
/// How often connections are counted anew while a service wants their numbers.
const RECOUNT: Duration = Duration::from_secs(10);
/// After a device refused a program: the first wait, doubled up to [`RECHECK`].
const ATTACH_RETRY: Duration = Duration::from_secs(1);

/// Runs the agent until a signal ends it.
pub async fn run(options: Options) -> anyhow::Result<()> {
    // Signals are heard from the first moment on, so that a start can be broken off.
    let mut signals = Signals::new()?;
    let stopped = tokio::select! {
        biased;
        name = signals.next() => name,
        runtime = Runtime::start(&options) => { runtime?.run(&mut signals).await? }
    };
    info!(signal = stopped, "stopping");
    if options.detach_on_exit {
        let removed = dataplane::cleanup::cleanup(&options.pins).await?;
        info!(removed = removed.len(), "data plane removed");
    } else {
        info!("programs and maps stay in the kernel; `lb-agent cleanup` removes them");
    }
    Ok(())
}

struct Runtime {
    pipe: Pipe,
    pins: Pins,
    /// Keeps other agents away.
    _lock: Lock,
    reservation: Reservation,
    /// The NodePorts for which ports were reserved last.
    node_ports: Option<(u16, u16)>,
    store: KernelStore,
    bulletin: Bulletin,
    servers: Servers,
    devices: Devices,
    attacher: Worker,
    /// Until the first programs are in their places.
    start: Option<StartTimes>,
    host: Host,
    /// How XDP was attached at the end of the last pass over the programs.
    xdp: BTreeMap<u32, XdpState>,
    /// The devices as the pipe was told of them last.
    told: Vec<HostDevice>,
    /// Next hops that flows remember do not go with what the rows of devices say.
    hops_stale: bool,
    /// The devices whose neighbours are kept fresh.
    fresh: watch::Sender<BTreeSet<u32>>,
    changes: watch::Receiver<Changes>,
    routes: watch::Receiver<u64>,
    source: mpsc::Receiver<Vec<SourceEvent>>,
    /// Dropping it would end the watch.
    _source: Source,
    /// Warnings given about devices, so that each is given once.
    warned: BTreeMap<(String, &'static str), String>,
    recounter: Recounter,
    recount_at: Instant,
    retry_at: Option<Instant>,
    recheck_at: Instant,
    attach_retry: Duration,
}

/// What a burst of events asks for, beside writing the maps.
#[derive(Debug, Default)]
struct Due {
    look: Option<Changes>,
    attach: bool,
    stop: Option<anyhow::Result<&'static str>>,
}

impl Runtime {
    /// The loop. Returns the name of the signal that ended it, or why it cannot go on.
    async fn run(mut self, signals: &mut Signals) -> anyhow::Result<&'static str> {
        let mut next_pass = Instant::now();
        let ended = loop {
            let mut due = Due::default();
            let event = self.next(signals).await;
            self.take(event, &mut due);
            // Also what is there already is taken.
            let begin = next_pass.max(Instant::now());
            while let Ok(event) = timeout_at(begin, self.next(signals)).await {
                self.take(event, &mut due);
            }
            if let Some(why) = due.stop {
                break why;
            }
            if let Err(error) = self.pass(&due).await {
                break Err(error.into());
            }
            next_pass = Instant::now() + APART;
        };
        self.attacher.stop().await;
        ended
    }

    async fn next(&mut self, signals: &mut Signals) -> Event {
        let retry_at = self.retry_at;
        let retry = async {
            match retry_at {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            signal = signals.next() => Event::Stop(signal),
            Ok(()) = self.routes.changed() => Event::Routes,
            Ok(()) = self.changes.changed() => Event::Devices(*self.changes.borrow_and_update()),
            Some(events) = self.source.recv() => Event::Source(events),
            Some(report) = self.attacher.report() => Event::Attached(report),
            error = self.servers.failure() => Event::Unserved(error),
            () = retry => Event::Retry,
            () = sleep_until(self.recheck_at) => Event::Recheck,
            () = sleep_until(self.recount_at) => Event::Recount,
        }
    }

    fn take(&mut self, event: Event, due: &mut Due) {
        debug!(?event, "event");
        match event {
            Event::Source(events) => {
                for event in events {
                    apply(&mut self.pipe, &mut self.bulletin, event);
                }
            }
            Event::Devices(changes) => {
                self.bulletin.anything_changed();
                due.look = Some(changes);
            }
            Event::Routes => self.routes_changed(),
            Event::Attached(report) => self.attached(report),
            Event::Retry => {
                self.retry_at = None;
                self.pipe.retry();
            }
            Event::Recheck => {
                self.recheck_at = Instant::now() + RECHECK;
                due.attach = true;
            }
            Event::Recount => {
                self.recount_at = Instant::now() + RECOUNT;
                if self.pipe.has_front_end_with(ServiceFlags::LEAST_CONNECTIONS) {
                    self.recounter.start();
                }
            }
            Event::Unserved(error) => due.stop = Some(Err(error)),
            Event::Stop(signal) => due.stop = Some(Ok(signal)),
        }
    }

    /// A device's row is there before its programs are.
    async fn pass(&mut self, due: &Due) -> Result<(), DataplaneError> {
        if let Some(changes) = due.look {
            match self.devices.look(changes).await {
                Ok(host) => {
                    self.host = host;
                    self.tell_host();
                }
                Err(error) => warn!("{:#}", anyhow::Error::new(error)),
            }
        }
        self.sync();
        if due.attach || due.look.is_some() {
            self.attach()?;
        }
        Ok(())
    }

    /// Writes what differs.
    fn sync(&mut self) {
        let start = Instant::now();
        let mut report = self.pipe.sync(&mut self.store);
        self.bulletin.synced(&self.pipe, &mut report, start.elapsed());
        if report.written + report.deleted > 0 {
            info!(
                written = report.written,
                deleted = report.deleted,
                write_ms = report.writing.as_millis(),
                "maps updated"
            );
        }
        let next = report.retry_after.into_iter().chain(report.expire_after).min();
        self.retry_at = next.map(|after| Instant::now() + after);
        // Flows remember whether XDP may send to a device: rows first.
        if std::mem::take(&mut self.hops_stale) {
            self.routes_changed();
        }
        if self.node_ports != self.pipe.node_ports() {
            self.node_ports = self.pipe.node_ports();
            self.reservation.renew();
        }
    }

    /// Makes the programs look their next hops up again. At once, and not with the next pass: packets go astray meanwhile.
    fn routes_changed(&mut self) {
        if let Err(error) = self.pipe.routes_changed(&mut self.store) {
            // The pass that follows writes it, or tells why not.
            debug!(
                error = &error as &dyn std::error::Error,
                "the epoch of routes was not written"
            );
        }
    }

    /// Tells the pipe of the node's devices as they are now.
    fn tell_host(&mut self) {
        let state = self.host.state(&self.xdp);
        self.hops_stale |= state.devices != self.told;
        self.told.clone_from(&state.devices);
        self.pipe.host_changed(state);
    }
}

/// Takes an event of the source.
fn apply(pipe: &mut Pipe, bulletin: &mut Bulletin, event: SourceEvent) {
    let seen = Seen::of(&event);
    if pipe.apply(event) {
        bulletin.changed(seen);
    }
}
