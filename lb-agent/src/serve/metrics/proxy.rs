//! kube-proxy's metrics.

use std::time::{Duration, SystemTime};

use prometheus::{Counter, Gauge, GaugeVec, HistogramVec, IntCounterVec, IntGaugeVec, Opts};

use super::{Register, float};
use crate::model::IpFamily;
use crate::reconcile::WithoutLocal;

/// kube-proxy's metrics, as far as they mean the same here.
#[derive(Clone, Debug)]
pub struct ProxyMetrics {
    sync: HistogramVec,
    full_sync: HistogramVec,
    partial_sync: HistogramVec,
    last_sync: GaugeVec,
    last_queued: GaugeVec,
    network_programming: HistogramVec,
    services: Changes,
    endpoints: Changes,
    without_local: IntGaugeVec,
    pub(crate) healthz: IntCounterVec,
    pub(crate) livez: IntCounterVec,
}

/// Changes of one kind of object.
#[derive(Clone, Debug)]
pub struct Changes {
    pending: Gauge,
    total: Counter,
}

const FAMILY: &str = "ip_family";
const FAMILIES: [IpFamily; 2] = [IpFamily::V4, IpFamily::V6];

impl ProxyMetrics {
    pub(super) fn new(add: Register<'_>) -> prometheus::Result<Self> {
        let sync = |name, help| add.histograms(name, help, sync_buckets(), &[FAMILY]);
        let time = |name: &str, help: &str| add.add(GaugeVec::new(Opts::new(name, help), &[FAMILY]));
        let metrics = Self {
            sync: sync(
                "kubeproxy_sync_proxy_rules_duration_seconds",
                "How long it took to write what had changed to the maps; one pass writes both families",
            )?,
            full_sync: sync(
                "kubeproxy_sync_full_proxy_rules_duration_seconds",
                "The same for the first pass, which compares everything",
            )?,
            partial_sync: sync(
                "kubeproxy_sync_partial_proxy_rules_duration_seconds",
                "The same for all other passes, which look at what has changed",
            )?,
            last_sync: time(
                "kubeproxy_sync_proxy_rules_last_timestamp_seconds",
                "When everything was written last",
            )?,
            last_queued: time(
                "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds",
                "When something that is to be written came last",
            )?,
            network_programming: add.histograms(
                "kubeproxy_network_programming_duration_seconds",
                "From a change of endpoints in the cluster until it is in the maps",
                network_programming_buckets(),
                &[FAMILY],
            )?,
            services: Changes {
                pending: add.gauge(
                    "kubeproxy_sync_proxy_rules_service_changes_pending",
                    "Changes of Services that are not written yet",
                )?,
                total: add.counter(
                    "kubeproxy_sync_proxy_rules_service_changes_total",
                    "Changes of Services that came",
                )?,
            },
            endpoints: Changes {
                pending: add.gauge(
                    "kubeproxy_sync_proxy_rules_endpoint_changes_pending",
                    "Changes of EndpointSlices that are not written yet",
                )?,
                total: add.counter(
                    "kubeproxy_sync_proxy_rules_endpoint_changes_total",
                    "Changes of EndpointSlices that came",
                )?,
            },
            without_local: add.gauges(
                "kubeproxy_sync_proxy_rules_no_local_endpoints_total",
                "Ports of Services with a traffic policy Local that have endpoints, but none on this node",
                &[FAMILY, "traffic_policy"],
            )?,
            healthz: add.counters("kubeproxy_proxy_healthz_total", "Answers of /healthz", &["code"])?,
            livez: add.counters("kubeproxy_proxy_livez_total", "Answers of /livez", &["code"])?,
        };
        metrics.make_all();
        Ok(metrics)
    }

    fn make_all(&self) {
        for family in FAMILIES {
            let label = [family.as_str()];
            let histograms = [
                &self.sync,
                &self.full_sync,
                &self.partial_sync,
                &self.network_programming,
            ];
            for histogram in histograms {
                histogram.with_label_values(&label);
            }
            self.last_sync.with_label_values(&label);
            self.last_queued.with_label_values(&label);
            self.set_without_local(family, WithoutLocal::default());
        }
        for code in ["200", "503"] {
            self.healthz.with_label_values(&[code]);
            self.livez.with_label_values(&[code]);
        }
    }

    /// Takes note that something of a family is to be written.
    pub fn queued(&self, family: IpFamily) {
        set_to_now(&self.last_queued, family);
    }

    /// Takes note of a change of a Service.
    pub fn service_changed(&self) {
        self.services.count();
    }

    /// Takes note of a change of an EndpointSlice.
    pub fn endpoints_changed(&self) {
        self.endpoints.count();
    }

    /// Takes note of a pass. `full`: of the first one.
    pub fn synced(&self, family: IpFamily, took: Duration, full: bool) {
        let part = if full { &self.full_sync } else { &self.partial_sync };
        for histogram in [&self.sync, part] {
            histogram
                .with_label_values(&[family.as_str()])
                .observe(took.as_secs_f64());
        }
        self.services.pending.set(0.0);
        self.endpoints.pending.set(0.0);
    }

    /// Takes note that all of a family is written.
    pub fn updated(&self, family: IpFamily) {
        set_to_now(&self.last_sync, family);
    }

    /// Takes note that a change of endpoints is written, which happened at this time.
    pub fn programmed(&self, family: IpFamily, changed_at: SystemTime) {
        // The clocks of other machines may be ahead.
        let took = SystemTime::now().duration_since(changed_at).unwrap_or_default();
        self.network_programming
            .with_label_values(&[family.as_str()])
            .observe(took.as_secs_f64());
    }

    /// Takes note of how many ports of Services a policy Local leads nowhere.
    pub fn set_without_local(&self, family: IpFamily, counts: WithoutLocal) {
        let WithoutLocal { internal, external } = counts;
        for (policy, count) in [("internal", internal), ("external", external)] {
            let gauge = self.without_local.with_label_values(&[family.as_str(), policy]);
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
}

impl Changes {
    fn count(&self) {
        self.pending.inc();
        self.total.inc();
    }
}

fn set_to_now(gauge: &GaugeVec, family: IpFamily) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.unwrap_or_default().as_secs_f64();
    gauge.with_label_values(&[family.as_str()]).set(now);
}

/// 1 ms to 16 s, each twice the one before.
fn sync_buckets() -> Vec<f64> {
    (0..15).map(|power| 0.001 * f64::from(1 << power)).collect()
}

/// Every second for a minute, every 5 s for another, every half minute up to five.
fn network_programming_buckets() -> Vec<f64> {
    let steps = |first: usize, step: usize, count: usize| (0..count).map(move |n| float(first + n * step));
    let seconds = steps(1, 1, 59).chain(steps(60, 5, 12)).chain(steps(120, 30, 7));
    [0.25, 0.5].into_iter().chain(seconds).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_those_of_kube_proxy() {
        let sync = sync_buckets();
        assert_eq!((sync.len(), sync[0], sync[14]), (15, 0.001, 16.384));
        let network = network_programming_buckets();
        assert_eq!(network.len(), 80);
        assert_eq!(network[..4], [0.25, 0.5, 1.0, 2.0]);
        assert_eq!(network[60..63], [59.0, 60.0, 65.0]);
        assert_eq!(
            network[72..],
            [115.0, 120.0, 150.0, 180.0, 210.0, 240.0, 270.0, 300.0]
        );
    }
}
