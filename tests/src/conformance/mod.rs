//! Does Sluice do to packets what kube-proxy does?
//!
//! A file of flows has scenarios: objects, a node, and packets with what becomes of them. The objects of each go through
//! the agent's whole pipe into the kernel's maps, and the packets through the loaded programs (`BPF_PROG_TEST_RUN`), from
//! many source ports, so that all backends are seen. Packets from outside are tried at TC and at XDP.

mod flows;
mod judge;
mod mirror;
mod node;
mod proxy;
mod report;
mod walk;

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use lb_common::{Affinity, V4, V6};
use serde_json::Value;

pub use flows::Flows;
pub use mirror::Mirror;
pub use report::{Deviation, Failure, Report};

use crate::engine::{Engine, Kernel, TestFamily};
use flows::{Fate, Packet, Scenario};
use judge::{Case, Judgement, words};
use node::{Ground, Place, Places};
use proxy::{Filled, JIFFIES, Proxy};
use walk::{Entry, Found, Walker};

/// When connections are masqueraded (`--snat`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Snat {
    /// Exactly when kube-proxy does it.
    Always,
    /// Only where the reply would not come back.
    Needed,
}

/// The first source port; those after it are free for the packets, too.
const FIRST_PORT: u16 = 33_000;
/// How many packets are sent where all have the same fate.
const FEW: u16 = 8;
/// How many packets are sent for each backend: that one is missed then has a chance of less than 10^-12.
const FOR_EACH_BACKEND: usize = 32;
/// The longest time of session affinity that Kubernetes takes, in seconds.
const LONGEST_AFFINITY: u32 = 86_400;

/// Tries every packet of every scenario, turned as `mirror` says.
pub fn run(flows: &Flows, snat: Snat, mirror: Mirror) -> Result<Report> {
    let mut proxy = Proxy::new().context("cannot load the programs")?;
    let mut report = Report::default();
    let mut ground = None;
    for value in flows.scenarios.iter().filter_map(|scenario| mirror.of(scenario)) {
        if let Err(error) = try_scenario(&value, &mut ground, &mut proxy, snat, &mut report) {
            report.cannot_try(&value, &format!("{error:#}"));
        }
    }
    Ok(report)
}

fn try_scenario(
    value: &Value,
    ground: &mut Option<(Places, Ground)>,
    proxy: &mut Proxy,
    snat: Snat,
    report: &mut Report,
) -> Result<()> {
    let scenario = Scenario::parse(value)?;
    let pods = scenario.config.pods()?;
    let places = Places::of(&scenario, &pods);
    let mut filled = proxy.fill(&scenario, &pods, snat)?;
    let ground = ground_of(&places, ground)?;
    let outcomes = ground.run(|| send_all(&mut filled, &scenario, &places))?;
    for (packet, outcomes) in scenario.packets.iter().zip(outcomes) {
        let mut on_purpose = BTreeSet::new();
        let mut failures = Vec::new();
        for (entry, found) in outcomes {
            let case = Case {
                scenario: &scenario,
                packet,
                places: &places,
                snat,
                entry,
            };
            match case.judge(&found) {
                Judgement::AsExpected => {}
                Judgement::OnPurpose(reason) => _ = on_purpose.insert(reason),
                Judgement::Otherwise => failures.push(Failure {
                    scenario: scenario.name.clone(),
                    packet: format!("{} ({packet})", packet.name),
                    entry: Some(entry),
                    expected: case.wanted(),
                    found: words(&found),
                    warnings: filled.warnings.clone(),
                }),
            }
        }
        report.add(&scenario.name, packet, on_purpose, failures);
    }
    Ok(())
}

/// The namespace of these places: that of the scenario before, when it is for the same ones.
fn ground_of<'a>(places: &Places, before: &'a mut Option<(Places, Ground)>) -> Result<&'a Ground> {
    if before.as_ref().is_none_or(|(others, _)| others != places) {
        *before = None;
        let ground = Ground::new(places).context("cannot make a network namespace")?;
        *before = Some((places.clone(), ground));
    }
    let (_, ground) = before.as_ref().context("there is no namespace")?;
    Ok(ground)
}

/// What became of a packet, by how it met the programs.
type Outcomes = Vec<(Entry, BTreeSet<Found>)>;

/// What became of each packet of a scenario.
fn send_all(filled: &mut Filled<'_>, scenario: &Scenario, places: &Places) -> Result<Vec<Outcomes>> {
    let mut outcomes = vec![Vec::new(); scenario.packets.len()];
    for xdp in [false, true] {
        filled.set_xdp(xdp)?;
        for (packet, outcomes) in scenario.packets.iter().zip(&mut outcomes) {
            let Some(entry) = entry(places.place(packet.src), xdp) else {
                continue;
            };
            let found = send(filled, packet, places, entry, scenario.has_affinity())?;
            outcomes.push((entry, found));
        }
    }
    Ok(outcomes)
}

/// How a packet from there meets the programs; `None` when that was tried already without XDP.
fn entry(from: Place, xdp: bool) -> Option<Entry> {
    match (from, xdp) {
        (Place::Outside, false) => Some(Entry::UplinkTc),
        (Place::Outside, true) => Some(Entry::UplinkXdp),
        (Place::Pod, false) => Some(Entry::Pod),
        (Place::Node, false) => Some(Entry::Node),
        (Place::Pod | Place::Node, true) => None,
    }
}

/// Sends a packet from many ports; what became of them.
fn send(
    filled: &mut Filled<'_>,
    packet: &Packet,
    places: &Places,
    entry: Entry,
    has_affinity: bool,
) -> Result<BTreeSet<Found>> {
    let kernel = filled.kernel();
    Engine::<V4>::forget(kernel);
    Engine::<V6>::forget(kernel);
    let mut walker = Walker::new(kernel, places, entry);
    let backends = match &packet.expect.backends {
        Fate::Backends(backends) => backends.len(),
        Fate::Word(_) => 0,
    };
    let tries = u16::try_from(backends * FOR_EACH_BACKEND)
        .unwrap_or(u16::MAX / 4)
        .max(FEW);
    let mut found = BTreeSet::new();
    for port in (FIRST_PORT..).take(usize::from(tries)) {
        let first = walker.send(packet, port)?;
        if has_affinity {
            let again = walker.send(packet, port ^ 0x4000)?;
            if first != again {
                found.insert(Found::Wrong(format!(
                    "the client does not stay: {first:?}, then {again:?}"
                )));
            }
            expire::<V4>(walker.kernel);
            expire::<V6>(walker.kernel);
        }
        found.insert(first);
    }
    Ok(found)
}

/// Lets the time of all session affinity go by, after which another backend may be chosen.
fn expire<F: TestFamily>(kernel: &mut Kernel)
where
    Kernel: Engine<F>,
{
    let mut written = Engine::<F>::written(kernel);
    for Affinity { last_used, .. } in written.affinity.values_mut() {
        *last_used = last_used.wrapping_sub((LONGEST_AFFINITY + 1) * JIFFIES);
    }
    Engine::<F>::set_written(kernel, &written);
}
