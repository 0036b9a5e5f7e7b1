//! `/healthz` and `/livez`, for the probes of load balancers and of the kubelet.

use hyper::StatusCode;
use prometheus::IntCounterVec;
use tokio::sync::watch;

use super::health::{Health, Moment};
use super::http::{JSON, Pages, Response, not_found, page};
use super::metrics::Metrics;

/// The server at `--healthz-bind-address`.
#[derive(Debug)]
pub(super) struct Probes {
    health: watch::Receiver<Health>,
    metrics: Metrics,
}

impl Probes {
    pub(super) fn new(health: watch::Receiver<Health>, metrics: Metrics) -> Self {
        Self { health, metrics }
    }

    /// Whether the agent keeps up, and the node is to get new connections.
    fn healthz(&self) -> Response {
        let report = self.health.borrow().healthz(Moment::now());
        answer(report, &self.metrics.proxy.healthz)
    }

    /// Whether the agent keeps up.
    pub(super) fn livez(&self) -> Response {
        let report = self.health.borrow().livez(Moment::now());
        answer(report, &self.metrics.proxy.livez)
    }
}

impl Pages for Probes {
    async fn page(&self, path: &str) -> Response {
        match path {
            "/healthz" => self.healthz(),
            "/livez" => self.livez(),
            _ => not_found(),
        }
    }
}

fn answer((good, body): (bool, String), answers: &IntCounterVec) -> Response {
    let status = if good {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    answers.with_label_values(&[status.as_str()]).inc();
    page(status, JSON, body)
}
