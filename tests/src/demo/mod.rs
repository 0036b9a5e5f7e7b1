//! The demo: hosts in network namespaces, the agent on one of them, the example manifests, and real traffic.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use lb_common::layout::map;
use serde_json::Value;

use crate::agent::Agent;
use crate::server::Server;
use crate::topology::Topology;

mod asking;
mod plan;
mod report;
mod scaling;

pub use report::Report;

use plan::{FrontEnd, Kind, Talk};
use scaling::{Change, Scaled};

/// The manifest that is edited.
const SCALED_FILE: &str = "web.yaml";
/// How many backends the examples' services have.
const BACKENDS: usize = 3;
/// The fields that a dump of a service map must name.
const FIELDS: [&str; 4] = ["service", "flags", "outside", "inside"];

/// Runs the demo on a copy of these manifests; tells what it does by `progress`.
pub fn run(examples: &Path, progress: impl Fn(&str)) -> Result<Report> {
    progress(
        "laying out hosts: client, node1 with pods web-1, web-2, toolbox, router, node2 with pods web-3, web-4",
    );
    let topology = Topology::new()?;
    let _servers = topology
        .web
        .iter()
        .map(Server::start)
        .collect::<Result<Vec<_>>>()?;

    let mut agent = Agent::new()?;
    copy(examples, agent.manifests().folder())?;
    progress(&format!(
        "starting lb-agent on node1 with a copy of {}",
        examples.display()
    ));
    let ready = agent.start(&topology.node1, &[])?;

    let front_ends = plan::front_ends(agent.manifests().folder())?;
    let mut rows = Vec::new();
    for from in [&topology.client, &topology.toolbox] {
        progress(&format!(
            "asking {} addresses from {}",
            front_ends.len(),
            from.name
        ));
        for front_end in &front_ends {
            rows.push(asking::ask(from, front_end, BACKENDS)?);
        }
    }

    let changes = scale(&topology, &agent, &front_ends, &progress)?;

    progress("dumping a service map");
    let path = agent.maps().path(map::SERVICES4);
    let dump_command = format!("bpftool map dump pinned {}", path.display());
    let mut failures = Vec::new();
    let dump = dump(&path).unwrap_or_else(|error| {
        failures.push(format!("{dump_command}: {error:#}"));
        Vec::new()
    });
    let services = agent
        .command(&topology.node1, &["services"])
        .unwrap_or_else(|error| {
            failures.push(format!("lb-agent services: {error:#}"));
            String::new()
        });
    progress("cleaning up");
    let agent_ready_ms = ready.as_secs_f64() * 1000.0;
    Ok(Report {
        agent_ready_ms,
        rows,
        changes,
        dump_command,
        dump,
        services,
        failures,
    }
    .with_all_failures())
}

fn scale(
    topology: &Topology,
    agent: &Agent,
    front_ends: &[FrontEnd],
    progress: impl Fn(&str),
) -> Result<Vec<Change>> {
    let front_end = front_ends
        .iter()
        .find(|front_end| front_end.kind == Kind::LoadBalancer && front_end.talk == Talk::Http)
        .context("the examples have no load balancer over TCP")?;
    let scaled = Scaled {
        manifests: agent.manifests(),
        file: SCALED_FILE,
        from: &topology.client,
        front_end,
    };
    let pod = topology.web.last().context("no pod is left")?;
    progress(&format!("adding {} to {SCALED_FILE} under load", pod.name));
    let out = scaled.out(pod, BACKENDS + 1)?;
    progress(&format!("taking {} out of {SCALED_FILE} under load", pod.name));
    Ok(vec![out, scaled.in_(pod, BACKENDS)?])
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        fs::copy(entry.path(), to.join(entry.file_name())).context("cannot copy the examples")?;
    }
    Ok(())
}

/// The entries of a map with their fields by name.
fn dump(path: &Path) -> Result<Vec<Value>> {
    // Debian keeps bpftool where only root's search path looks.
    let program = ["/usr/sbin/bpftool", "/sbin/bpftool"]
        .into_iter()
        .find(|program| Path::new(program).exists());
    let output = Command::new(program.unwrap_or("bpftool"))
        .args(["--json", "map", "dump", "pinned"])
        .arg(path)
        .output()
        .context("cannot run bpftool")?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let entries: Vec<Value> = serde_json::from_slice(&output.stdout).context("bpftool's dump is no list")?;
    let entries: Vec<Value> = entries
        .into_iter()
        .map(|mut entry| entry["formatted"].take())
        .collect();
    let named = |entry: &Value| FIELDS.iter().all(|field| !entry["value"][field].is_null());
    ensure!(
        !entries.is_empty() && entries.iter().all(named),
        "the fields {FIELDS:?} are not named in the dump"
    );
    Ok(entries)
}
