//! Where problems are told: in the log, in metrics, and, where there is an API, as Events on the Services that they are
//! about.
//!
//! Telling waits for nothing. What there is too much of for the API is still in the log.

mod api;
mod limit;
mod worker;

use tokio::sync::mpsc;
use tracing::warn;

use crate::model::{Kind, Problem};
use crate::serve::metrics::agent::{AgentMetrics, EventOutcome};

pub use api::ApiEvents;
pub use worker::{Refusal, Sink};

/// Events that may wait to be published.
const QUEUE: usize = 256;

/// Tells problems.
#[derive(Clone, Debug)]
pub struct Events {
    metrics: AgentMetrics,
    api: Option<mpsc::Sender<Problem>>,
}

impl Events {
    /// Without an API.
    pub fn without_api(metrics: AgentMetrics) -> Self {
        Self { metrics, api: None }
    }

    /// With an API; the second is what publishes, and is to be run beside.
    pub fn with_api(metrics: AgentMetrics, sink: impl Sink) -> (Self, impl Future<Output = ()> + Send) {
        let (sender, problems) = mpsc::channel(QUEUE);
        let worker = worker::run(problems, sink, metrics.clone());
        let events = Self {
            metrics,
            api: Some(sender),
        };
        (events, worker)
    }

    /// Tells a problem.
    pub fn tell(&self, problem: &Problem) {
        warn!("{problem}");
        self.metrics.told(problem);
        // Like kube-proxy, which publishes about Services alone.
        let of_service = problem
            .object
            .as_ref()
            .is_some_and(|object| object.kind == Kind::Service);
        match self.api.as_ref().filter(|_| of_service) {
            None => self.metrics.event(EventOutcome::LoggedOnly),
            Some(api) => {
                if api.try_send(problem.clone()).is_err() {
                    self.metrics.event(EventOutcome::Limited);
                }
            }
        }
    }
}
