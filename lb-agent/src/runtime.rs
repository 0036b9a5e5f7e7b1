//! THE WAY OF AN EVENT: whatever happens becomes an [`Event`], one loop takes it, and one writer writes the maps.
//!
//! ```text
//! source of objects ────┐
//! netlink notifications ┼─ Event ─> Runtime::take ─(burst drained)─> Runtime::pass: look, sync the maps, ask for programs
//! reports of programs ──┤
//! timers, signals ──────┘
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use lb_common::layout::program;
use lb_common::{ServiceFlags, Settings};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::{debug, info, warn};

use crate::dataplane::attach::{self, Attacher, Worker, adopted_xdp};
use crate::dataplane::clock::FirstReading;
use crate::dataplane::devices::{Changes, Devices, Host, Patterns};
use crate::dataplane::loads::Recounter;
use crate::dataplane::reserved::{PortRange, Reservation, warn_of_chance};
use crate::dataplane::xdp::{XdpChoice, XdpState};
use crate::dataplane::{
    self, Access, DataplaneError, KernelStore, Lock, Pins, Sizes, neighbours, routes, sysctl,
};
use crate::desired::seed_of_words;
use crate::model::HostDevice;
use crate::reconcile::{Config, Pipe};
use crate::signals::Signals;
use crate::source::{Source, SourceEvent, SourceOptions};
use crate::start_times::StartTimes;
use crate::store::{MapStore as _, SettingsTable};
use crate::traffic::{self, Traffic};

/// What `lb-agent run` is told.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where objects come from.
    pub source: SourceOptions,
    /// The name of this node's Node object.
    pub node_name: String,
    /// Where maps and links are pinned.
    pub pins: Pins,
    /// How large the maps are.
    pub sizes: Sizes,
    /// Which devices.
    pub devices: Patterns,
    /// Where XDP is tried.
    pub xdp: XdpChoice,
    /// How traffic is handled.
    pub traffic: Traffic,
    /// Ports to keep from the node's own connections.
    pub reserved_ports: Option<PortRange>,
    /// Leave nothing behind.
    pub detach_on_exit: bool,
}

/// Something that the agent acts upon.
#[derive(Debug)]
enum Event {
    /// Objects came, changed or went; none: the source has ended, which it never should.
    Source(Option<Vec<SourceEvent>>),
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
    /// The agent is to end.
    Stop(&'static str),
}

/// How long a burst of events may go on before it is acted upon.
const DEBOUNCE: Duration = Duration::from_millis(3);
/// How often programs are looked after when nothing happens: nobody tells when a TCX program is attached.
const RECHECK: Duration = Duration::from_secs(30);
/// How often connections are counted anew while a service wants their numbers.
const RECOUNT: Duration = Duration::from_secs(10);
/// After a device refused a program: the first wait, doubled up to [`RECHECK`].
const ATTACH_RETRY: Duration = Duration::from_secs(1);
/// Batches of the source that may wait.
const SOURCE_QUEUE: usize = 64;

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
    source_ended: bool,
    stop: Option<&'static str>,
}

impl Runtime {
    /// Maps, then rows, then programs: no program ever runs over maps that are not filled.
    async fn start(options: &Options) -> anyhow::Result<Self> {
        let start = Instant::now();
        dataplane::preflight()?;
        let lock = options.pins.prepare()?;
        options.pins.check_layouts()?;
        let mut programs = dataplane::load(&options.pins, &options.sizes).await?;
        let clock = FirstReading::take(programs.get(program::JIFFIES)?)?;
        let store = KernelStore::open(&options.pins, Access::ReadWrite)?;
        let loaded = Instant::now();

        let (sender, mut source) = mpsc::channel(SOURCE_QUEUE);
        let objects = Source::start(&options.source, &options.node_name, sender).await?;
        let mut devices = Devices::connect(options.devices.clone(), options.xdp)?;
        let (changes, routes) = (devices.follow()?, routes::follow()?);
        let host = devices.look(Changes::default()).await?;
        let xdp = adopted_xdp(&options.pins).await?;

        let before = store.rows::<SettingsTable>()?.remove(&0).unwrap_or_default();
        // The kernel's rate does not change.
        let jiffies_per_second = match before.jiffies_per_second {
            0 => clock.rate(programs.get(program::JIFFIES)?).await?,
            rate => rate,
        };
        let traffic = &options.traffic;
        let settings = Settings {
            // Nobody has told of what changed while no agent was there.
            route_epoch: before.route_epoch.wrapping_add(1),
            hash_seed: before.hash_seed,
            ..traffic.settings(jiffies_per_second)
        };
        warn_of_chance(settings.snat_port_min, settings.snat_port_max);
        let config = Config {
            tell_orphans: options.source.tells_together(),
            ipv4: options.sizes.ipv4,
            ipv6: options.sizes.ipv6,
            ..traffic.config(&options.node_name, settings)
        };
        let mut pipe = Pipe::adopt(&store, config)?;
        let adopted = Instant::now();
        debug!(jiffies_per_second, "maps adopted");

        first_objects(&mut pipe, &mut source).await?;
        if !pipe.has_seed() {
            pipe.set_seed(traffic::seed(
                traffic.seed_file.as_deref(),
                seed_of_words(before.hash_seed),
            ));
        }
        let mut runtime = Self {
            pipe,
            pins: options.pins.clone(),
            _lock: lock,
            reservation: Reservation::new(options.pins.clone(), options.reserved_ports),
            node_ports: None,
            store,
            devices,
            attacher: Worker::start(Attacher::new(programs, options.pins.clone())?),
            start: None,
            host,
            xdp,
            told: Vec::new(),
            hops_stale: false,
            fresh: neighbours::keep_fresh()?,
            changes,
            routes,
            source,
            _source: objects,
            warned: BTreeMap::new(),
            recounter: Recounter::new(options.pins.clone(), settings, clock),
            recount_at: start + RECOUNT,
            retry_at: None,
            recheck_at: start + RECHECK,
            attach_retry: ATTACH_RETRY,
        };
        if let Err(error) = sysctl::set(&runtime.pins) {
            let error = anyhow::Error::new(error);
            warn!("{error:#}; connections of the node itself to its own NodePorts will fail");
        }
        runtime.reservation.renew();
        runtime.tell_host();
        runtime.sync();
        runtime.start = Some(StartTimes {
            start,
            loaded,
            adopted,
            synced: Instant::now(),
        });
        runtime.attach()?;
        Ok(runtime)
    }

    /// The loop. Returns the name of the signal that ended it, or why it cannot go on.
    async fn run(mut self, signals: &mut Signals) -> anyhow::Result<&'static str> {
        let ended = loop {
            let mut due = Due::default();
            let event = self.next(signals).await;
            self.take(event, &mut due);
            let burst = Instant::now() + DEBOUNCE;
            while let Ok(event) = timeout_at(burst, self.next(signals)).await {
                self.take(event, &mut due);
            }
            if let Some(signal) = due.stop {
                break Ok(signal);
            }
            if due.source_ended {
                break Err(anyhow!(
                    "the source of objects has ended: a bug, report it with the log"
                ));
            }
            if let Err(error) = self.pass(&due).await {
                break Err(error.into());
            }
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
            events = self.source.recv() => Event::Source(events),
            Some(report) = self.attacher.report() => Event::Attached(report),
            () = retry => Event::Retry,
            () = sleep_until(self.recheck_at) => Event::Recheck,
            () = sleep_until(self.recount_at) => Event::Recount,
        }
    }

    fn take(&mut self, event: Event, due: &mut Due) {
        debug!(?event, "event");
        match event {
            Event::Source(Some(events)) => events.into_iter().for_each(|event| self.pipe.apply(event)),
            Event::Source(None) => due.source_ended = true,
            Event::Devices(changes) => due.look = Some(changes),
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
            Event::Stop(signal) => due.stop = Some(signal),
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
        let report = self.pipe.sync(&mut self.store);
        for problem in &report.problems {
            warn!("{problem}");
        }
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

    /// Asks for programs at every device that is there now, unless somebody has taken the pins away.
    fn attach(&self) -> Result<(), DataplaneError> {
        self.store.check_pins(&self.pins)?;
        self.attacher.sync(self.host.attach_points());
        Ok(())
    }

    /// Draws the conclusions from a pass over the programs.
    fn attached(&mut self, report: attach::Report) {
        if report.changed() {
            info!(
                attached = report.attached,
                replaced = report.replaced,
                moved = report.moved,
                removed = report.removed,
                "programs updated"
            );
        }
        if report.failed.is_empty() {
            self.attach_retry = ATTACH_RETRY;
        } else {
            self.recheck_at = Instant::now() + self.attach_retry;
            self.attach_retry = RECHECK.min(self.attach_retry * 2);
        }
        if let Some(times) = self.start.take() {
            times.log(self.host.devices.len(), &report.summary());
        }
        self.xdp_attached(&report);
        self.warn_of(report);
    }

    /// Rows of devices tell from now on where XDP is at work.
    fn xdp_attached(&mut self, report: &attach::Report) {
        if !report.complete {
            return;
        }
        let known = report.xdp.iter().filter_map(|(ifindex, state)| {
            let before = self.xdp.get(ifindex).copied();
            Some((*ifindex, state.or(before)?))
        });
        let known: BTreeMap<u32, XdpState> = known.collect();
        for (ifindex, state) in &known {
            if self.xdp.get(ifindex) != Some(state) {
                let device = self.host.name_of(*ifindex);
                match state {
                    Ok(mode) => info!(device, mode = mode.as_str(), "XDP attached"),
                    Err(reason) => info!(device, "no XDP: {reason}"),
                }
            }
        }
        let attached = known.iter().filter(|(_, state)| state.is_ok());
        self.fresh
            .send_replace(attached.map(|(ifindex, _)| *ifindex).collect());
        self.xdp = known;
        self.tell_host();
    }

    /// Tells the pipe of the node's devices as they are now.
    fn tell_host(&mut self) {
        let state = self.host.state(&self.xdp);
        self.hops_stale |= state.devices != self.told;
        self.told.clone_from(&state.devices);
        self.pipe.host_changed(state);
    }

    fn warn_of(&mut self, report: attach::Report) {
        let failed: BTreeMap<(String, &'static str), String> = report
            .failed
            .into_iter()
            .map(|(place, error)| (place, format!("{:#}", anyhow::Error::new(error))))
            .collect();
        for ((device, hook), error) in &failed {
            if self.warned.get(&(device.clone(), *hook)) != Some(error) {
                warn!(device, hook, "no program: {error}; trying again");
            }
        }
        self.warned = failed;
    }
}

/// Waits until the source has told everything once.
pub(crate) async fn first_objects(
    pipe: &mut Pipe,
    source: &mut mpsc::Receiver<Vec<SourceEvent>>,
) -> anyhow::Result<()> {
    loop {
        let events = source
            .recv()
            .await
            .context("the source ended before it told what is there")?;
        let synced = events.contains(&SourceEvent::Synced);
        for event in events {
            pipe.apply(event);
        }
        if synced {
            return Ok(());
        }
    }
}
