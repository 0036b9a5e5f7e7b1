//! kube-proxy, which tells in its metrics when it has written everything.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};

use super::{Scale, cost, percentile};
use crate::control_plane::programs;
use crate::family::Pair;
use crate::replay::{Cluster, NODE, Replay, Resource};
use crate::scratch::Folder;
use crate::site::{KubeProxy, Mode};
use crate::topology::{Host, RpFilter};

const CHANGES: usize = 8;
/// Longer than the least time between two of its passes, which is a second unless it is told otherwise.
const PAUSE: Duration = Duration::from_millis(2500);
const TIMEOUT: Duration = Duration::from_mins(3);
/// When the last pass ended, in seconds since 1970.
const LAST_PASS: &str = "kubeproxy_sync_proxy_rules_last_timestamp_seconds";

/// Whether the program is there.
pub(super) fn is_there() -> bool {
    programs::path("kube-proxy").is_ok()
}

pub(super) fn measure(cluster: Cluster, mode: Mode) -> Result<Scale> {
    let host = Host::new(
        NODE,
        Pair::new(Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST),
        RpFilter::Off,
    )?;
    // It takes the node's addresses from its Node, and wants to see them.
    host.netns.ip("addr add 192.0.2.1/24 dev lo")?;
    let folder = Folder::new("control")?;
    let replay = Replay::start(&host.netns, &cluster)?;
    let kubeconfig = folder.path().join("kubeconfig");
    replay.write_kubeconfig(&kubeconfig)?;
    let begin = SystemTime::now();
    let proxy = KubeProxy::start(&kubeconfig, &host, mode)?;
    let cold = wait_for_pass(&host, &proxy, begin)?;

    let process = proxy.process();
    let spent = || Ok::<_, anyhow::Error>(cost::threads(process)? + cost::children(process)?);
    let mut times = Vec::new();
    let mut costs = Duration::ZERO;
    for number in 0..CHANGES {
        thread::sleep(PAUSE);
        let (service, shortened) = ((number / 2 * 7919) % cluster.services, number.is_multiple_of(2));
        let text = cluster.slice(service, shortened);
        let (before, begin) = (spent()?, SystemTime::now());
        replay.replace(Resource::EndpointSlices, service, &text);
        times.push(millis(wait_for_pass(&host, &proxy, begin)?));
        costs += spent()?.saturating_sub(before);
    }
    Ok(Scale {
        proxy: format!("kube-proxy {}", mode.name()),
        services: cluster.services,
        endpoints: cluster.total(),
        cold_ms: millis(cold),
        write_ms: None,
        change_p50_ms: percentile(&mut times, 50),
        change_p99_ms: percentile(&mut times, 99),
        changes: CHANGES,
        cpu_per_change_ms: millis(costs) / f64::from(u32::try_from(CHANGES)?),
        peak_mib: cost::peak_mib(process)?,
    })
}

/// The time from `begin` to the end of the first pass that ended later.
fn wait_for_pass(host: &Host, proxy: &KubeProxy, begin: SystemTime) -> Result<Duration> {
    let (since, started) = (begin.duration_since(UNIX_EPOCH)?, Instant::now());
    loop {
        // Its own page of metrics costs it some milliseconds.
        thread::sleep(Duration::from_millis(50));
        if let Some(ended) = last_pass(host)?.and_then(|ended| ended.checked_sub(since)) {
            return Ok(ended);
        }
        ensure!(
            started.elapsed() < TIMEOUT,
            "no pass of kube-proxy within {TIMEOUT:?}\n{}",
            proxy.log()
        );
    }
}

/// When the last pass over IPv4 ended, since 1970.
fn last_pass(host: &Host) -> Result<Option<Duration>> {
    let arguments = ["--silent", "--noproxy", "*", "http://127.0.0.1:10249/metrics"];
    let page = host.netns.output("curl", &arguments, &[])?;
    let page = String::from_utf8_lossy(&page.stdout);
    let line = page
        .lines()
        .find(|line| line.starts_with(LAST_PASS) && line.contains("IPv4"));
    let seconds = line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    Ok(seconds.map(Duration::from_secs_f64))
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
