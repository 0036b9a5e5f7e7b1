//! kube-proxy, which tells in its metrics when it has written everything.

use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};

use super::stage::{Measured, Stage};
use super::{Scale, cost};
use crate::control_plane::programs;
use crate::replay::Cluster;
use crate::site::{KubeProxy, Mode};
use crate::topology::Host;

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
    let stage = Stage::new(cluster)?;
    let begin = SystemTime::now();
    let proxy = KubeProxy::start(&stage.kubeconfig, &stage.host, mode)?;
    let mut measured = Measured {
        cold: wait_for_pass(&stage.host, &proxy, begin)?,
        ..Measured::default()
    };
    let process = proxy.process();
    let spent = || anyhow::Ok(cost::threads(process)? + cost::children(process)?);
    for number in 0..CHANGES {
        thread::sleep(PAUSE);
        let change = stage.change(number);
        let (before, begin) = (spent()?, SystemTime::now());
        stage.tell(&change);
        measured.times.push(wait_for_pass(&stage.host, &proxy, begin)?);
        measured.cpu += spent()?.saturating_sub(before);
    }
    measured.peak_mib = cost::peak_mib(process)?;
    Ok(stage.scale(format!("kube-proxy {}", mode.name()), measured))
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
