//! What both are measured on: a host, and the stand-in for an API server that it asks.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use super::{Scale, percentile};
use crate::family::Pair;
use crate::replay::{Cluster, NODE, Replay, Resource};
use crate::scratch::Folder;
use crate::topology::{Host, RpFilter};

/// A host whose API server tells of a cluster.
pub(super) struct Stage {
    pub(super) host: Host,
    pub(super) kubeconfig: PathBuf,
    cluster: Cluster,
    replay: Replay,
    _folder: Folder,
}

/// One endpoint that goes or comes.
pub(super) struct Change {
    /// The Service that it belongs to.
    pub(super) service: usize,
    /// How many endpoints that one has afterwards.
    pub(super) endpoints: usize,
    text: String,
}

/// Times and costs of what was done.
#[derive(Debug, Default)]
pub(super) struct Measured {
    pub(super) cold: Duration,
    pub(super) write_ms: Option<f64>,
    /// Of each change.
    pub(super) times: Vec<Duration>,
    /// Of all changes together.
    pub(super) cpu: Duration,
    pub(super) peak_mib: f64,
}

impl Stage {
    pub(super) fn new(cluster: Cluster) -> Result<Self> {
        let loopback = Pair::new(Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST);
        let host = Host::new(NODE, loopback, RpFilter::Off)?;
        // kube-proxy takes the node's addresses from its Node, and wants to see them.
        host.netns.ip("addr add 192.0.2.1/24 dev lo")?;
        let folder = Folder::new("control")?;
        let replay = Replay::start(&host.netns, &cluster)?;
        let kubeconfig = folder.path().join("kubeconfig");
        replay.write_kubeconfig(&kubeconfig)?;
        Ok(Self {
            host,
            kubeconfig,
            cluster,
            replay,
            _folder: folder,
        })
    }

    /// The change of this number: one endpoint of a Service goes, and comes back with the next change.
    pub(super) fn change(&self, number: usize) -> Change {
        let service = (number / 2 * 7919) % self.cluster.services;
        let shortened = number.is_multiple_of(2);
        Change {
            service,
            endpoints: self.cluster.endpoints - usize::from(shortened),
            text: self.cluster.slice(service, shortened),
        }
    }

    /// Tells of a change.
    pub(super) fn tell(&self, change: &Change) {
        self.replay
            .replace(Resource::EndpointSlices, change.service, &change.text);
    }

    /// A row of the report.
    pub(super) fn scale(&self, proxy: String, measured: Measured) -> Scale {
        let changes = measured.times.len();
        let mut times: Vec<_> = measured.times.into_iter().map(millis).collect();
        let each = f64::from(u32::try_from(changes.max(1)).unwrap_or(u32::MAX));
        Scale {
            proxy,
            services: self.cluster.services,
            endpoints: self.cluster.total(),
            cold_ms: millis(measured.cold),
            write_ms: measured.write_ms,
            change_p50_ms: percentile(&mut times, 50),
            change_p99_ms: percentile(&mut times, 99),
            changes,
            cpu_per_change_ms: millis(measured.cpu) / each,
            peak_mib: measured.peak_mib,
        }
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
