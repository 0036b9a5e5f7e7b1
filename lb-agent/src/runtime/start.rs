//! From nothing to a data plane at work.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use lb_common::Settings;
use lb_common::layout::program;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tracing::{debug, warn};

use super::bulletin::Bulletin;
use super::start_times::StartTimes;
use super::{ATTACH_RETRY, Options, RECHECK, RECOUNT, Runtime, apply};
use crate::dataplane::attach::{Attacher, Worker, adopted_xdp};
use crate::dataplane::clock::FirstReading;
use crate::dataplane::devices::{Changes, Devices};
use crate::dataplane::loads::Recounter;
use crate::dataplane::reserved::{Reservation, warn_of_chance};
use crate::dataplane::{self, Access, KernelStore, neighbours, routes, sysctl};
use crate::desired::seed_of_words;
use crate::events::{ApiEvents, Events};
use crate::model::IpFamily;
use crate::reconcile::{Config, Pipe};
use crate::serve::{Publisher, Servers};
use crate::source::{Source, SourceEvent, SourceOptions};
use crate::store::{MapStore as _, SettingsTable};
use crate::traffic;

/// How long maps that are whole, from an agent before this one, wait for the source before programs are attached.
const PATIENCE: Duration = Duration::from_secs(3);
/// Batches of the source that may wait.
const SOURCE_QUEUE: usize = 64;

// === impl Runtime ===

impl Runtime {
    /// Maps, then rows, then programs: no program ever runs over maps that are not filled, by this agent or one before.
    pub(super) async fn start(options: &Options) -> anyhow::Result<Self> {
        let start = Instant::now();
        dataplane::preflight()?;
        let lock = options.pins.prepare()?;
        options.pins.check_layouts()?;
        let (mut bulletin, servers) = serve(options)?;
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
            ipv4: options.sizes.ipv4,
            ipv6: options.sizes.ipv6,
            tell_orphans: options.source.tells_together(),
            ..traffic.config(&options.node_name, settings)
        };
        let mut pipe = Pipe::adopt(&store, config)?;
        let adopted = Instant::now();
        debug!(jiffies_per_second, "maps adopted");

        let told = until_synced(&mut source, |event| apply(&mut pipe, &mut bulletin, event));
        if before == Settings::default() {
            told.await?;
        } else if let Ok(told) = timeout(PATIENCE, told).await {
            told?;
        } else {
            warn!(
                "the source has not told everything yet; services stay as they were, and new devices get programs"
            );
        }
        // Until then, that of the maps stays.
        if pipe.is_synced() && !pipe.has_seed() {
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
            bulletin,
            servers,
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
}

/// Starts the servers: probes are answered from the first moment on.
fn serve(options: &Options) -> anyhow::Result<(Bulletin, Servers)> {
    let publisher = Publisher::new()?;
    let counts = publisher.metrics.agent.clone();
    let events = match &options.source {
        SourceOptions::Manifests(_) => Events::without_api(counts),
        SourceOptions::Api(access) => {
            let sink = ApiEvents::new(access.clone(), options.node_name.clone());
            let (events, worker) = Events::with_api(counts, sink);
            // It ends with the last who may tell something.
            tokio::spawn(worker);
            events
        }
    };
    let servers = Servers::start(
        &options.serve,
        &options.node_name,
        &options.pins,
        &publisher,
        events.clone(),
    )?;
    let families = [
        (IpFamily::V4, options.sizes.ipv4),
        (IpFamily::V6, options.sizes.ipv6),
    ];
    let families = families
        .into_iter()
        .filter_map(|(family, on)| on.then_some(family));
    // A folder of manifests need not hold the node's object.
    let node_required = matches!(options.source, SourceOptions::Api(_));
    Ok((
        Bulletin::new(publisher, events, families.collect(), node_required),
        servers,
    ))
}

/// Waits until the source has told everything once.
pub(crate) async fn first_objects(
    pipe: &mut Pipe,
    source: &mut mpsc::Receiver<Vec<SourceEvent>>,
) -> anyhow::Result<()> {
    until_synced(source, |event| _ = pipe.apply(event)).await
}

async fn until_synced(
    source: &mut mpsc::Receiver<Vec<SourceEvent>>,
    mut take: impl FnMut(SourceEvent),
) -> anyhow::Result<()> {
    loop {
        let events = source
            .recv()
            .await
            .context("the source ended before it told what is there")?;
        let synced = events.contains(&SourceEvent::Synced);
        events.into_iter().for_each(&mut take);
        if synced {
            return Ok(());
        }
    }
}
