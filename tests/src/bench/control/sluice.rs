//! The agent.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use lb_agent::store::FamilyTables;
use lb_common::V4;

use super::{Scale, cost, percentile};
use crate::agent::Agent;
use crate::family::Pair;
use crate::maps::Protocol;
use crate::replay::{Cluster, NODE, Replay, Resource};
use crate::scratch::Folder;
use crate::topology::{Host, RpFilter};

const CHANGES: usize = 300;
/// Between two changes, so that each is one.
const PAUSE: Duration = Duration::from_millis(15);
const TIMEOUT: Duration = Duration::from_secs(10);

pub(super) fn measure(cluster: Cluster) -> Result<Scale> {
    let host = Host::new(
        NODE,
        Pair::new(Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST),
        RpFilter::Off,
    )?;
    let folder = Folder::new("control")?;
    let replay = Replay::start(&host.netns, &cluster)?;
    let kubeconfig = folder.path().join("kubeconfig");
    replay.write_kubeconfig(&kubeconfig)?;
    let mut agent = Agent::of_cluster(&kubeconfig)?;
    let sizes = [
        "--max-services",
        "65536",
        "--max-backends",
        "524288",
        "--max-slots",
        "1048576",
    ];
    let cold = agent.start(&host, &sizes)?;
    let writing = agent.number_in_log("write_ms");
    check(&agent, cluster)?;

    let process = agent.process().context("the agent has ended")?;
    let before = cost::threads(process)?;
    let mut times = (0..CHANGES)
        .map(|number| change(&agent, &replay, cluster, number))
        .collect::<Result<Vec<_>>>()?;
    let spent = cost::threads(process)?.saturating_sub(before) / u32::try_from(CHANGES)?;
    Ok(Scale {
        proxy: "sluice".to_owned(),
        services: cluster.services,
        endpoints: cluster.total(),
        cold_ms: millis(cold),
        write_ms: writing,
        change_p50_ms: percentile(&mut times, 50),
        change_p99_ms: percentile(&mut times, 99),
        changes: CHANGES,
        cpu_per_change_ms: millis(spent),
        peak_mib: cost::peak_mib(process)?,
    })
}

/// All front ends and backends are there.
fn check(agent: &Agent, cluster: Cluster) -> Result<()> {
    let maps = agent.maps();
    let count = maps.count_rows::<<V4 as FamilyTables>::Services>()?;
    // Each ClusterIP has a row of its own beside that of its port.
    ensure!(count == 2 * cluster.services, "{count} rows of front ends");
    let last = eligible(agent, cluster, cluster.services - 1)?;
    ensure!(last == cluster.endpoints, "the last Service has {last} endpoints");
    Ok(())
}

/// Takes an endpoint from a Service, or gives it back; milliseconds until its front end has it so.
fn change(agent: &Agent, replay: &Replay, cluster: Cluster, number: usize) -> Result<f64> {
    let service = (number / 2 * 7919) % cluster.services;
    let shortened = number.is_multiple_of(2);
    let expected = cluster.endpoints - usize::from(shortened);
    let text = cluster.slice(service, shortened);
    thread::sleep(PAUSE);
    let begin = Instant::now();
    replay.replace(Resource::EndpointSlices, service, &text);
    while eligible(agent, cluster, service)? != expected {
        ensure!(
            begin.elapsed() < TIMEOUT,
            "a change is not in the maps after {TIMEOUT:?}"
        );
        thread::sleep(Duration::from_micros(100));
    }
    Ok(millis(begin.elapsed()))
}

/// How many endpoints get new flows of a Service.
fn eligible(agent: &Agent, cluster: Cluster, service: usize) -> Result<usize> {
    agent
        .maps()
        .eligible_count(cluster.cluster_ip(service), 80, Protocol::Tcp)
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
