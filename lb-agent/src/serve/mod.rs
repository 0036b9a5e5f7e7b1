//! What the agent serves by HTTP, as kube-proxy does: health-check NodePorts, `/healthz` and `/livez`, metrics.
//!
//! The servers have a thread of their own, so that they answer whatever the loop is doing, and tell when it does nothing.
//! They know of the loop what it has published last ([`Publisher`]), and wait for nothing.

mod admin;
mod health;
pub mod health_check;
mod http;
mod listen;
pub mod metrics;
mod probes;

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Context as _;
use tokio::runtime::Builder;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::dataplane::Pins;
use crate::events::Events;
use admin::Admin;
pub use health::Health;
use health_check::HealthChecks;
use http::Pages;
use metrics::Metrics;
use metrics::scrape::Scraper;
use probes::Probes;

/// Where and how to serve.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where `/healthz` and `/livez` are, if anywhere.
    pub healthz: Option<SocketAddr>,
    /// Where metrics are, if anywhere.
    pub metrics: Option<SocketAddr>,
    /// End the agent when an address of these cannot be listened at, instead of trying again.
    pub hard_fail: bool,
    /// Serve the traffic of each port of a Service.
    pub metrics_per_service: bool,
    /// What the agent was told, for `/configz`.
    pub configuration: serde_json::Value,
}

/// What the loop tells the servers.
#[derive(Debug)]
pub struct Publisher {
    /// How the agent is doing.
    pub health: watch::Sender<Health>,
    /// What load balancers are told.
    pub checks: watch::Sender<HealthChecks>,
    /// What is counted.
    pub metrics: Metrics,
}

impl Publisher {
    /// Of an agent that has done nothing yet.
    pub fn new() -> anyhow::Result<Self> {
        Ok(Self {
            health: watch::Sender::default(),
            checks: watch::Sender::default(),
            metrics: Metrics::new().context("making the metrics")?,
        })
    }
}

/// The servers; dropping them ends them.
#[derive(Debug)]
pub struct Servers {
    stop: Option<watch::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    failures: mpsc::Receiver<anyhow::Error>,
}

/// How long an address that cannot be listened at is left alone, as with kube-proxy.
const LISTEN_AGAIN: Duration = Duration::from_secs(5);

impl Servers {
    /// Starts the thread.
    pub fn start(
        options: &Options,
        node_name: &str,
        pins: &Pins,
        publisher: &Publisher,
        events: Events,
    ) -> anyhow::Result<Self> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .context("starting the runtime of the servers")?;
        let Publisher {
            health,
            checks,
            metrics,
        } = publisher;
        let health_checks = health_check::Servers::new(
            node_name.to_owned(),
            checks.subscribe(),
            health.subscribe(),
            metrics.clone(),
            events,
        );
        let probes = Arc::new(Probes::new(health.subscribe(), metrics.clone()));
        let (failed, failures) = mpsc::channel(1);
        let failed = options.hard_fail.then_some(failed);
        let mut tasks = JoinSet::new();
        let handle = runtime.handle();
        tasks.spawn_on(health_checks.run(), handle);
        if let Some(address) = options.healthz {
            let server = keep_serving("healthz", address, Arc::clone(&probes), failed.clone());
            tasks.spawn_on(server, handle);
        }
        if let Some(address) = options.metrics {
            let admin = Admin {
                scraper: Scraper::start(pins.clone(), metrics.clone(), options.metrics_per_service)?,
                probes,
                configuration: options.configuration.to_string(),
            };
            tasks.spawn_on(keep_serving("metrics", address, Arc::new(admin), failed), handle);
        }
        let (stop, mut stopped) = watch::channel(());
        let serve = move || {
            // Its sender never says anything: it goes away.
            let _gone = runtime.block_on(stopped.changed());
            drop(tasks);
            runtime.shutdown_background();
        };
        let thread = thread::Builder::new()
            .name("serve".into())
            .spawn(serve)
            .context("starting the thread of the servers")?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
            failures,
        })
    }

    /// Waits until an address cannot be listened at, where that is to end the agent.
    pub async fn failure(&mut self) -> anyhow::Error {
        match self.failures.recv().await {
            Some(error) => error,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // It has said why, if it broke down.
            let _ended = thread.join();
        }
    }
}

/// Serves at an address as soon as that can be had. What keeps it from that is told once while it stays the same.
async fn keep_serving(
    what: &'static str,
    address: SocketAddr,
    pages: Arc<impl Pages>,
    failed: Option<mpsc::Sender<anyhow::Error>>,
) {
    let mut told = None;
    loop {
        match listen::listen(address) {
            Ok(listener) => {
                info!(what, %address, "serving");
                http::serve(listener, pages).await;
                return;
            }
            Err(error) => {
                let text = error.to_string();
                if let Some(failed) = &failed {
                    let error =
                        anyhow::Error::new(error).context(format!("cannot serve {what} at {address}"));
                    // Nobody waits any more when the agent ends by itself.
                    let _told = failed.send(error).await;
                    return;
                }
                if told.as_ref() != Some(&text) {
                    warn!("cannot serve {what} at {address}: {text}; tried again every {LISTEN_AGAIN:?}");
                    told = Some(text);
                }
                sleep(LISTEN_AGAIN).await;
            }
        }
    }
}
