//! The agent.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use lb_agent::store::FamilyTables;
use lb_common::V4;

use super::stage::{Measured, Stage};
use super::{Scale, cost};
use crate::agent::Agent;
use crate::maps::Protocol;
use crate::replay::Cluster;

const CHANGES: usize = 300;
/// Between two changes, so that each is one.
const PAUSE: Duration = Duration::from_millis(15);
const TIMEOUT: Duration = Duration::from_secs(10);
/// Room for the largest cluster.
const SIZES: [&str; 6] = [
    "--max-services",
    "65536",
    "--max-backends",
    "524288",
    "--max-slots",
    "1048576",
];

pub(super) fn measure(cluster: Cluster) -> Result<Scale> {
    let stage = Stage::new(cluster)?;
    let mut agent = Agent::of_cluster(&stage.kubeconfig)?;
    let cold = agent.start(&stage.host, &SIZES)?;
    let write_ms = agent.number_in_log("write_ms");
    check(&agent, cluster)?;

    let process = agent.process().context("the agent has ended")?;
    let before = cost::threads(process)?;
    let times = (0..CHANGES).map(|number| change(&agent, &stage, cluster, number));
    let times = times.collect::<Result<_>>()?;
    let measured = Measured {
        cold,
        write_ms,
        times,
        cpu: cost::threads(process)?.saturating_sub(before),
        peak_mib: cost::peak_mib(process)?,
    };
    Ok(stage.scale("sluice".to_owned(), measured))
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

/// Makes a change; how long until the front end has it so.
fn change(agent: &Agent, stage: &Stage, cluster: Cluster, number: usize) -> Result<Duration> {
    let change = stage.change(number);
    thread::sleep(PAUSE);
    let begin = Instant::now();
    stage.tell(&change);
    while eligible(agent, cluster, change.service)? != change.endpoints {
        ensure!(
            begin.elapsed() < TIMEOUT,
            "a change is not in the maps after {TIMEOUT:?}"
        );
        thread::sleep(Duration::from_micros(100));
    }
    Ok(begin.elapsed())
}

/// How many endpoints get new flows of a Service.
fn eligible(agent: &Agent, cluster: Cluster, service: usize) -> Result<usize> {
    let ip = cluster.cluster_ip(service);
    agent.maps().eligible_count(ip, 80, Protocol::Tcp)
}
