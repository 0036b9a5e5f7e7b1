//! Publishes Events, one after the other.

use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::{info, warn};

use super::limit::{Limiter, Verdict};
use crate::model::Problem;
use crate::serve::metrics::agent::{AgentMetrics, EventOutcome};

/// How long the API may take for one.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where Events are published.
pub trait Sink: Send + 'static {
    /// Publishes a problem that is about a Service.
    fn publish(&mut self, problem: &Problem) -> impl Future<Output = Result<(), Refusal>> + Send;
}

/// Why an Event was not published.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The agent has no right to.
    #[error(
        "Events cannot be published: {0}. Give the ServiceAccount a ClusterRole with the rules apiGroups: \
         [\"events.k8s.io\"], resources: [\"events\"], verbs: [create], and apiGroups: [\"\"], resources: [\"services\"], \
         verbs: [get]"
    )]
    Forbidden(String),
    /// The API could not be reached, or did not want it.
    #[error("Events cannot be published: {0}")]
    Failed(String),
}

/// Publishes until nobody tells any more.
pub(super) async fn run(mut problems: mpsc::Receiver<Problem>, mut sink: impl Sink, metrics: AgentMetrics) {
    let mut limiter = Limiter::new(Instant::now());
    let mut told = None;
    while let Some(problem) = problems.recv().await {
        let outcome = match limiter.admit(&problem, Instant::now()) {
            Verdict::Repeated => EventOutcome::Repeated,
            Verdict::Limited => EventOutcome::Limited,
            Verdict::Publish => {
                let late = |_| Err(Refusal::Failed(format!("no answer within {PATIENCE:?}")));
                let published = timeout(PATIENCE, sink.publish(&problem))
                    .await
                    .unwrap_or_else(late);
                let outcome = if published.is_ok() {
                    EventOutcome::Published
                } else {
                    limiter.forget(&problem);
                    EventOutcome::Failed
                };
                tell(published, &mut told);
                outcome
            }
        };
        metrics.event(outcome);
    }
}

/// Tells that Events are not published, and that they are again, each once.
fn tell(published: Result<(), Refusal>, told: &mut Option<Refusal>) {
    match published {
        Ok(()) => {
            if told.take().is_some() {
                info!("Events are published again");
            }
        }
        Err(refusal) => {
            // What the API says of a missing right names each Namespace.
            let forbidden = |refusal: &Refusal| matches!(refusal, Refusal::Forbidden(_));
            let known = told
                .as_ref()
                .is_some_and(|told| *told == refusal || forbidden(told) && forbidden(&refusal));
            if !known {
                warn!("{refusal}");
                *told = Some(refusal);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Events;
    use super::*;
    use crate::model::{Kind, ObjectName, ObjectRef, Origin, Reason};
    use crate::serve::metrics::Metrics;

    struct Api {
        answers: Vec<Result<(), Refusal>>,
        asked: mpsc::UnboundedSender<String>,
    }

    impl Sink for Api {
        async fn publish(&mut self, problem: &Problem) -> Result<(), Refusal> {
            self.asked.send(problem.text.clone()).unwrap();
            self.answers.pop().unwrap_or(Ok(()))
        }
    }

    fn problem(kind: Kind, text: &str) -> Problem {
        Problem {
            object: Some(ObjectRef {
                kind,
                name: ObjectName::new("default", "web"),
            }),
            origin: Origin::default(),
            reason: Reason::InvalidObject,
            text: text.to_owned(),
        }
    }

    /// Tells problems, and compares what the API was asked to publish.
    #[track_caller]
    fn check(answers: Vec<Result<(), Refusal>>, problems: &[Problem], expected: &[&str]) {
        let metrics = Metrics::new().unwrap();
        let (asked, mut heard) = mpsc::unbounded_channel();
        let (events, worker) = Events::with_api(metrics.agent, Api { answers, asked });
        for problem in problems {
            events.tell(problem);
        }
        drop(events);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        runtime.block_on(worker);
        let mut found = Vec::new();
        while let Ok(text) = heard.try_recv() {
            found.push(text);
        }
        assert_eq!(found, expected);
    }

    #[test]
    fn problems_with_services_are_published_once() {
        let problems = [
            problem(Kind::Service, "one"),
            problem(Kind::EndpointSlice, "no Service"),
            problem(Kind::Service, "one"),
            problem(Kind::Service, "two"),
        ];
        check(Vec::new(), &problems, &["one", "two"]);
    }

    #[test]
    fn what_was_refused_is_tried_again_when_it_is_told_again() {
        let one = || problem(Kind::Service, "one");
        let refused = Err(Refusal::Forbidden("no".to_owned()));
        check(vec![refused], &[one(), one(), one()], &["one", "one"]);
    }

    #[test]
    fn telling_never_waits() {
        let many: Vec<_> = (0..10_000)
            .map(|n| problem(Kind::Service, &n.to_string()))
            .collect();
        let expected: Vec<_> = (0..25).map(|n| n.to_string()).collect();
        check(
            Vec::new(),
            &many,
            &expected.iter().map(String::as_str).collect::<Vec<_>>(),
        );
    }
}
