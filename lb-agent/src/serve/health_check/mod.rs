//! Health-check NodePorts: a load balancer asks every node of a Service with the external policy Local whether it has
//! endpoints of it. Each family of a Service has a server of its own, with its own number, as with kube-proxy.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::StatusCode;
use hyper::header::{HeaderName, HeaderValue};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::info;

use super::health::Health;
use super::http::{self, JSON, Pages, Response, not_found, page, set};
use super::listen::listen_within_family;
use super::metrics::Metrics;
use crate::desired::health_check::HealthCheck;
use crate::events::Events;
use crate::model::{IpFamily, Kind, ObjectName, ObjectRef, Origin, Problem, Reason};

/// What cloud load balancers may weigh nodes by (KEP-4004 has the like of it).
const WEIGHT: HeaderName = HeaderName::from_static("x-load-balancing-endpoint-weight");
/// When a port that could not be opened is tried again: first, and at last.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Every health check, and where the ports are to be opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HealthChecks {
    /// By Service.
    pub services: BTreeMap<ObjectName, HealthCheck>,
    /// Where; the unspecified address of a family means all its addresses.
    pub at: BTreeSet<IpAddr>,
}

/// Who has a server.
type Owner = (ObjectName, IpFamily);

/// Opens and closes the ports.
pub(super) struct Servers {
    node_name: String,
    checks: watch::Receiver<HealthChecks>,
    health: watch::Receiver<Health>,
    metrics: Metrics,
    events: Events,
    open: BTreeMap<Owner, Open>,
    failing: BTreeMap<Owner, String>,
    retry: Duration,
}

/// An open port. Dropping it ends the server and its connections a moment later.
struct Open {
    at: Vec<SocketAddr>,
    servers: JoinSet<()>,
}

/// What is said at the port of one family of a Service.
struct Answer {
    owner: Owner,
    checks: watch::Receiver<HealthChecks>,
    health: watch::Receiver<Health>,
}

impl HealthChecks {
    /// Every port that is to be open, with its addresses, of which there is one at least.
    fn wanted(&self) -> BTreeMap<Owner, Vec<SocketAddr>> {
        let mut wanted = BTreeMap::new();
        for (service, check) in &self.services {
            for family in check.endpoints.keys() {
                let ips = self.at.iter().filter(|ip| IpFamily::of(**ip) == *family);
                let at: Vec<_> = ips.map(|ip| SocketAddr::new(*ip, check.port)).collect();
                if !at.is_empty() {
                    wanted.insert((service.clone(), *family), at);
                }
            }
        }
        wanted
    }
}

impl Servers {
    pub(super) fn new(
        node_name: String,
        checks: watch::Receiver<HealthChecks>,
        health: watch::Receiver<Health>,
        metrics: Metrics,
        events: Events,
    ) -> Self {
        Self {
            node_name,
            checks,
            health,
            metrics,
            events,
            open: BTreeMap::new(),
            failing: BTreeMap::new(),
            retry: RETRY.0,
        }
    }

    /// Keeps the ports as they should be, for as long as anybody says how.
    pub(super) async fn run(mut self) {
        loop {
            let wanted = self.checks.borrow_and_update().wanted();
            self.sync(&wanted).await;
            let again = async {
                if self.failing.is_empty() {
                    std::future::pending::<()>().await;
                } else {
                    sleep(self.retry).await;
                }
            };
            tokio::select! {
                changed = self.checks.changed() => if changed.is_err() { return },
                () = again => self.retry = RETRY.1.min(self.retry * 2),
            }
        }
    }

    /// Closes first, because one Service may have got the port of another.
    async fn sync(&mut self, wanted: &BTreeMap<Owner, Vec<SocketAddr>>) {
        let gone = self
            .open
            .extract_if(.., |owner, open| wanted.get(owner) != Some(&open.at));
        for (owner, mut open) in gone.collect::<Vec<_>>() {
            open.servers.shutdown().await;
            info!(service = %owner.0, family = %owner.1, "health check closed");
        }
        self.failing.retain(|owner, _| wanted.contains_key(owner));
        for (owner, at) in wanted {
            if self.open.contains_key(owner) {
                continue;
            }
            match self.serve(owner, at) {
                Ok(servers) => {
                    let at = at.clone();
                    info!(service = %owner.0, family = %owner.1, ?at, "health check opened");
                    self.open.insert(owner.clone(), Open { at, servers });
                    self.failing.remove(owner);
                }
                Err((at, error)) => self.failed(owner, at, &error),
            }
        }
        if self.failing.is_empty() {
            self.retry = RETRY.0;
        }
        self.metrics
            .agent
            .set_health_check_ports(self.open.len(), self.failing.len());
    }

    /// Opens a port at all its addresses, or at none.
    fn serve(&self, owner: &Owner, at: &[SocketAddr]) -> Result<JoinSet<()>, (SocketAddr, io::Error)> {
        let listen = |at: &SocketAddr| listen_within_family(*at).map_err(|error| (*at, error));
        let listeners: Vec<_> = at.iter().map(listen).collect::<Result<_, _>>()?;
        let answer = Arc::new(Answer {
            owner: owner.clone(),
            checks: self.checks.clone(),
            health: self.health.clone(),
        });
        let serve = |listener| http::serve(listener, Arc::clone(&answer));
        Ok(listeners.into_iter().map(serve).collect())
    }

    /// Tells what is the matter, once.
    fn failed(&mut self, owner: &Owner, at: SocketAddr, error: &io::Error) {
        let text = format!(
            "node {} failed to start healthcheck \"{}\" on port {}: {at}: {error}; tried again",
            self.node_name,
            owner.0,
            at.port()
        );
        if self.failing.get(owner) == Some(&text) {
            return;
        }
        self.events.tell(&Problem {
            object: Some(ObjectRef {
                kind: Kind::Service,
                name: owner.0.clone(),
            }),
            origin: Origin::default(),
            reason: Reason::FailedToStartServiceHealthcheck,
            text: text.clone(),
        });
        self.failing.insert(owner.clone(), text);
    }
}

impl Pages for Answer {
    /// The same at every path.
    async fn page(&self, _path: &str) -> Response {
        let (service, family) = &self.owner;
        let endpoints = self
            .checks
            .borrow()
            .services
            .get(service)
            .and_then(|check| check.endpoints.get(family).copied());
        // It is just being closed.
        let Some(endpoints) = endpoints else {
            return not_found();
        };
        let healthy = self.health.borrow().is_healthy(Instant::now());
        answer(service, endpoints, healthy)
    }
}

/// Byte for byte what kube-proxy says.
fn answer(service: &ObjectName, endpoints: usize, healthy: bool) -> Response {
    let status = if endpoints > 0 && healthy {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let ObjectName { namespace, name } = service;
    let body = format!(
        "{{\n\t\"service\": {{\n\t\t\"namespace\": \"{namespace}\",\n\t\t\"name\": \"{name}\"\n\t}},\n\
         \t\"localEndpoints\": {endpoints},\n\t\"serviceProxyHealthy\": {healthy}\n}}"
    );
    let mut response = page(status, JSON, body);
    set(&mut response, WEIGHT, HeaderValue::from(endpoints));
    response
}

#[cfg(test)]
mod tests;
