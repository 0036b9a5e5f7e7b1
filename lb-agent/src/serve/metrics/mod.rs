//! Metrics: kube-proxy's by their own names where they mean the same here, and ours. `docs/metrics.md` lists them all.
//!
//! Every set of labels that can come is there from the start, at zero, so that nothing appears only once it is too late.

pub mod agent;
pub mod proxy;
pub mod scrape;
mod traffic;

use prometheus::core::Collector;
use prometheus::{
    Counter, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry,
};

use agent::AgentMetrics;
use proxy::ProxyMetrics;

/// What the agent counts of itself. Clones count together.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    /// kube-proxy's.
    pub proxy: ProxyMetrics,
    /// Ours.
    pub agent: AgentMetrics,
}

impl Metrics {
    /// All at zero. Fails when two have the same name.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let add = Register(&registry);
        Ok(Self {
            proxy: ProxyMetrics::new(add)?,
            agent: AgentMetrics::new(add)?,
            registry,
        })
    }
}

/// Makes metrics that are served.
#[derive(Clone, Copy)]
struct Register<'a>(&'a Registry);

impl Register<'_> {
    fn add<C: Collector + Clone + 'static>(self, metric: prometheus::Result<C>) -> prometheus::Result<C> {
        let metric = metric?;
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn counter(self, name: &str, help: &str) -> prometheus::Result<Counter> {
        self.add(Counter::new(name, help))
    }

    fn gauge(self, name: &str, help: &str) -> prometheus::Result<Gauge> {
        self.add(Gauge::new(name, help))
    }

    fn counters(self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
        self.add(IntCounterVec::new(Opts::new(name, help), labels))
    }

    fn gauges(self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntGaugeVec> {
        self.add(IntGaugeVec::new(Opts::new(name, help), labels))
    }

    fn histogram(self, name: &str, help: &str, buckets: Vec<f64>) -> prometheus::Result<Histogram> {
        self.add(Histogram::with_opts(
            HistogramOpts::new(name, help).buckets(buckets),
        ))
    }

    fn histograms(
        self,
        name: &str,
        help: &str,
        buckets: Vec<f64>,
        labels: &[&str],
    ) -> prometheus::Result<HistogramVec> {
        self.add(HistogramVec::new(
            HistogramOpts::new(name, help).buckets(buckets),
            labels,
        ))
    }
}

/// A count as Prometheus has all values.
#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
fn float(count: usize) -> f64 {
    count as f64
}
