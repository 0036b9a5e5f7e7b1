//! One page of all metrics: those that the agent counts, and those that the programs count in the maps.
//!
//! Maps are read when somebody asks, by a thread of its own, since counting the rows of large ones takes a while. All who
//! ask meanwhile get the same answer, so that nobody makes the agent read more than one time after the other.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use hyper::body::Bytes;
use lb_common::ServiceStats;
use lb_common::layout::map;
use prometheus::core::Collector as _;
use prometheus::proto::MetricFamily;
use prometheus::{IntCounterVec, IntGaugeVec, Opts, TextEncoder};
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use super::Metrics;
use super::traffic::Traffic;
use crate::dataplane::tally::{self, Fill};
use crate::dataplane::{Access, KernelStore, PerCpu, Pins};
use crate::image::name_text;
use crate::model::PortName;
use crate::store::{MapStore as _, Names};

/// For how long it is not looked again how full the maps are, which means to read every row of them.
const FILLS_LAST: Duration = Duration::from_mins(1);
/// Clients that may wait in line.
const QUEUE: usize = 64;

/// Whom to ask for the page.
#[derive(Debug)]
pub(in crate::serve) struct Scraper {
    requests: mpsc::Sender<oneshot::Sender<Bytes>>,
}

/// Makes the page.
struct Page {
    pins: Pins,
    metrics: Metrics,
    per_service: bool,
    traffic: Traffic,
    fills: Option<(Instant, Vec<Fill>)>,
    /// What was told to be the matter.
    told: Option<String>,
}

impl Scraper {
    /// Starts the thread, which ends when the scraper is dropped.
    pub(in crate::serve) fn start(pins: Pins, metrics: Metrics, per_service: bool) -> anyhow::Result<Self> {
        let (requests, mut waiting) = mpsc::channel::<oneshot::Sender<Bytes>>(QUEUE);
        let mut page = Page {
            pins,
            metrics,
            per_service,
            traffic: Traffic::default(),
            fills: None,
            told: None,
        };
        let answer = move || {
            while let Some(first) = waiting.blocking_recv() {
                let mut all = vec![first];
                while let Ok(next) = waiting.try_recv() {
                    all.push(next);
                }
                let text = page.text();
                for one in all {
                    // Who has gone away wants no answer.
                    let _gone = one.send(text.clone());
                }
            }
        };
        thread::Builder::new()
            .name("metrics".into())
            .spawn(answer)
            .context("starting the thread of the metrics")?;
        Ok(Self { requests })
    }

    /// The page.
    pub(in crate::serve) async fn scrape(&self) -> Option<Bytes> {
        let (sender, answer) = oneshot::channel();
        self.requests.send(sender).await.ok()?;
        answer.await.ok()
    }
}

impl Page {
    fn text(&mut self) -> Bytes {
        let mut families = self.metrics.registry.gather();
        match self.of_maps() {
            Ok(found) => {
                families.extend(found);
                self.told = None;
            }
            Err(error) => self.tell(&format!("{error:#}")),
        }
        // Prometheus refuses a family without values.
        families.retain(|family| !family.get_metric().is_empty());
        families.sort_by(|a, b| a.name().cmp(b.name()));
        match TextEncoder::new().encode_to_string(&families) {
            Ok(text) => text.into(),
            Err(error) => {
                self.tell(&error.to_string());
                Bytes::new()
            }
        }
    }

    fn tell(&mut self, text: &str) {
        if self.told.as_deref() != Some(text) {
            warn!("some metrics are missing: {text}");
            self.told = Some(text.to_owned());
        }
    }

    /// What the maps say. Before they are there, nothing.
    fn of_maps(&mut self) -> anyhow::Result<Vec<MetricFamily>> {
        if !self.pins.has_maps() {
            return Ok(Vec::new());
        }
        let drops = tally::drops(&self.pins)?;
        let drops = drops.into_iter().map(|(reason, count)| (reason.as_str(), count));
        let counters = tally::counters(&self.pins)?;
        let counters = counters
            .into_iter()
            .map(|(counter, count)| (counter.as_str(), count));
        let mut families = counter_family(
            Opts::new(
                "sluice_dropped_packets_total",
                "Packets that the programs dropped",
            ),
            "reason",
            drops,
        )?;
        families.extend(counter_family(
            Opts::new(
                "sluice_packet_events_total",
                "What else the programs have met or done",
            ),
            "event",
            counters,
        )?);
        families.extend(self.fill_families()?);
        self.read_traffic()?;
        families.extend(self.traffic.sums()?);
        if self.per_service {
            families.extend(self.traffic.per_service()?);
        }
        Ok(families)
    }

    fn fill_families(&mut self) -> anyhow::Result<Vec<MetricFamily>> {
        let fresh = self.fills.take().filter(|(at, _)| at.elapsed() < FILLS_LAST);
        let (at, fills) = match fresh {
            Some(fresh) => fresh,
            None => (Instant::now(), tally::fills(&self.pins, Access::ReadWrite)?),
        };
        let gauges = |name, help| IntGaugeVec::new(Opts::new(name, help), &["map"]);
        let used = gauges("sluice_map_entries", "Rows of a map that are in use")?;
        let rows = gauges("sluice_map_max_entries", "Rows that a map has room for")?;
        for fill in &fills {
            let label = [fill.map];
            rows.with_label_values(&label).set(fill.rows.into());
            if let Some(count) = fill.used {
                used.with_label_values(&label).set(i64::try_from(count)?);
            }
        }
        self.fills = Some((at, fills));
        Ok([used.collect(), rows.collect()].concat())
    }

    fn read_traffic(&mut self) -> anyhow::Result<()> {
        let store = KernelStore::open(&self.pins, Access::Read)?;
        let stats = PerCpu::<ServiceStats>::open(&self.pins, map::STATS)?;
        let mut ports = BTreeMap::new();
        for (id, name) in store.rows::<Names>()? {
            if let Some(name) = PortName::parse(name_text(&name)) {
                ports.insert(name, stats.get(id)?);
            }
        }
        self.traffic.update(&ports);
        Ok(())
    }
}

fn counter_family(
    opts: Opts,
    label: &str,
    counts: impl Iterator<Item = (&'static str, u64)>,
) -> prometheus::Result<Vec<MetricFamily>> {
    let counters = IntCounterVec::new(opts, &[label])?;
    for (value, count) in counts {
        counters.with_label_values(&[value]).inc_by(count);
    }
    Ok(counters.collect())
}
