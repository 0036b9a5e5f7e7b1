//! What would become of a packet? The programs themselves are asked, one packet at a time (`BPF_PROG_TEST_RUN`).
//!
//! ```text
//! question ─ case (which packet, from whom, where it begins) ─ walk (programs and the kernel's routes) ─ words
//!                                                                |
//!                         apart: the programs loaded once more; what they write is in maps of their own
//! ```
//!
//! What the programs only read is either in the maps of a data plane at work, on its node, or in maps that the agent's own
//! pipe fills from manifests, on a node that is made up in a network namespace of its own ([`made_up`]). Either way nothing
//! is left behind.

mod apart;
mod case;
mod endpoint;
mod explanation;
mod front_end;
mod hint;
mod made_up;
mod packet;
mod question;
mod route;
mod sctp;
mod walk;
mod words;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use lb_common::{SettingsFlags, SlotRange};
use nix::net::if_::if_nameindex;
use nix::sched::{CloneFlags, unshare};
use tokio::sync::mpsc;
use tokio::time::timeout;

use apart::Apart;
use case::{Case, Place, Who};
use endpoint::Objects;
use front_end::FrontEnd;
use walk::{Walk, walk};
use words::{Findings, LeftOut, Met};

use crate::dataplane::netlink::connect;
use crate::dataplane::{Access, KernelStore, Pins};
use crate::desired::seed_words;
use crate::image::algorithm;
use crate::model::{HostState, ObjectName, Problem};
use crate::reconcile::Pipe;
use crate::runtime::first_objects;
use crate::source::{ApiAccess, ManifestSource, ServiceObjects};
use crate::store::{MapStore as _, Policies, SettingsTable};
use crate::traffic::{Traffic, known_seed};

pub use endpoint::EndpointView;
pub use explanation::{BackendView, Explanation, MasqueradeView, PacketView, ServiceView, Verdict};
pub use packet::Packet;
pub use question::{Destination, NotUnderstood, PortChoice, Question, Sender, Source};

/// How long an API server is waited for: what the programs say does not hang on it.
const PATIENCE: Duration = Duration::from_secs(3);

/// A node that exists in manifests alone.
#[derive(Clone, Debug)]
pub struct Manifests {
    /// Their folder.
    pub folder: PathBuf,
    /// The name of the node.
    pub node_name: String,
    /// How traffic is handled, as `lb-agent run` would be told.
    pub traffic: Traffic,
}

/// A data plane at work.
#[derive(Clone, Debug)]
pub struct AtWork {
    /// Where it is pinned.
    pub pins: Pins,
    /// The API that knows the objects; it need not be there.
    pub api: ApiAccess,
    /// The name of this node.
    pub node_name: String,
}

/// What the data plane that is pinned here would do with a packet.
pub async fn on_node(question: &Question, at_work: &AtWork) -> anyhow::Result<Explanation> {
    let netlink = connect()?;
    let pins = &at_work.pins;
    let live = KernelStore::open(pins, Access::Read)?;
    let place = Place {
        store: &live,
        netlink: &netlink,
        objects: None,
    };
    let case = place.case(question).await?;
    let mut apart = Apart::of_node(pins, case.packet.source.ip())?;
    let walk = walk(&mut apart, &netlink, &case.packet, case.start).await?;
    let mut findings = findings(&apart.store, case, walk, None)?;
    if let Some(met) = &mut findings.front_end {
        let asked = ask(met, at_work).await;
        findings.left_out = match asked {
            Ok(objects) => {
                findings.warnings = objects.problems;
                LeftOut::Asked(objects.server)
            }
            Err(why) => LeftOut::Unasked(why),
        };
    }
    Ok(findings.explain())
}

/// Asks the API for the objects of what was met, and says with them which endpoints there are. Why not, if it cannot.
async fn ask(met: &mut Met, at_work: &AtWork) -> Result<ServiceObjects, String> {
    let AtWork { api, node_name, .. } = at_work;
    let name = met.front_end.name.as_ref();
    let service = &name.ok_or("the maps do not name its Service")?.service;
    let asked = timeout(PATIENCE, api.ask(service, node_name)).await;
    let asked = asked.map_err(|_| format!("the API server has not answered within {PATIENCE:?}"))?;
    let objects = asked.map_err(|error| format!("{:#}", anyhow::Error::new(error)))?;
    let known = Objects {
        world: &objects.world,
        node_name,
    };
    let of_objects = endpoint::of_objects(known, &met.front_end, met.inside);
    met.endpoints = endpoint::joined(std::mem::take(&mut met.endpoints), of_objects);
    Ok(objects)
}

/// What a node would do with a packet if it had an agent with these manifests. Needs root as well: only the kernel runs the
/// programs.
pub fn by_manifests(question: &Question, manifests: &Manifests) -> anyhow::Result<Explanation> {
    thread::scope(|scope| {
        let alone = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).context("making a network namespace for the made-up node")?;
            // Its threads are in the same namespace.
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .context("starting the runtime")?;
            runtime.block_on(in_namespace(question, manifests))
        });
        alone
            .join()
            .unwrap_or_else(|panicked| std::panic::resume_unwind(panicked))
    })
}

async fn in_namespace(question: &Question, manifests: &Manifests) -> anyhow::Result<Explanation> {
    let mut apart = Apart::empty()?;
    let jiffies_per_second = apart.clock_rate().await?;
    let mut pipe = pipe(&apart.store, manifests, jiffies_per_second)?;
    let (sender, mut source) = mpsc::channel(1);
    let watch = ManifestSource::watch(&manifests.folder, sender)?;
    first_objects(&mut pipe, &mut source).await?;
    drop(watch);
    let asked = question
        .from
        .filter(|_| matches!(question.sender, Some(Sender::Pod(_))))
        .map(|from| from.ip);
    let host = made_up::lay_out(pipe.world(), &manifests.node_name, asked).await?;
    let problems = fill(&mut pipe, &mut apart.store, host);
    let netlink = connect()?;
    let objects = Objects {
        world: pipe.world(),
        node_name: &manifests.node_name,
    };
    let place = Place {
        store: &apart.store,
        netlink: &netlink,
        objects: Some(objects),
    };
    let mut case = place.case(question).await.map_err(|error| {
        let asked = match &question.to {
            Destination::Service(service, _) => Some(service),
            Destination::Address(_) => None,
        };
        let warnings = about(asked, &problems).into_iter();
        warnings.fold(error, |error, warning| {
            anyhow::anyhow!("{error:#}\nWarning: {warning}")
        })
    })?;
    if pipe.world().node(&manifests.node_name).is_none() {
        case.notes.push(format!(
            "The manifests have no Node {}: its addresses are made up.",
            manifests.node_name
        ));
    }
    if !has_seed(&pipe, &manifests.traffic) {
        case.notes.push(
            "No seed of hashes is known (--hash-seed, --hash-seed-file, or the Namespace kube-system): a real node may \
             choose another endpoint."
                .to_owned(),
        );
    }
    let walk = walk(&mut apart, &netlink, &case.packet, case.start).await?;
    let mut findings = findings(&apart.store, case, walk, Some(objects))?;
    let met = findings.front_end.as_ref();
    let service = met.and_then(|met| Some(met.front_end.name.as_ref()?.service.clone()));
    findings.warnings = about(service.as_ref(), &problems);
    Ok(findings.explain())
}

/// The agent's own way from objects to rows.
fn pipe(store: &KernelStore, manifests: &Manifests, jiffies_per_second: u32) -> anyhow::Result<Pipe> {
    let traffic = &manifests.traffic;
    let mut settings = traffic.settings(jiffies_per_second);
    settings.hash_seed = seed_words(file_seed(traffic).unwrap_or_default());
    Ok(Pipe::adopt(
        store,
        traffic.config(&manifests.node_name, settings),
    )?)
}

/// The seed of the file that `lb-agent run` would read.
fn file_seed(traffic: &Traffic) -> Option<u64> {
    traffic.seed_file.as_deref().and_then(known_seed)
}

/// Whether the choice of an endpoint is the one that a real node makes.
fn has_seed(pipe: &Pipe, traffic: &Traffic) -> bool {
    pipe.has_seed() || file_seed(traffic).is_some()
}

/// Writes the rows. What is the matter with the objects.
fn fill(pipe: &mut Pipe, store: &mut KernelStore, host: HostState) -> Vec<Problem> {
    pipe.host_changed(host);
    pipe.sync(store).problems
}

/// Those problems that are about a Service or its slices, or about no object that is known.
fn about(service: Option<&ObjectName>, problems: &[Problem]) -> Vec<String> {
    let concerns = |problem: &&Problem| match &problem.object {
        Some(object) => Some(&object.name) == service,
        None => true,
    };
    problems.iter().filter(concerns).map(Problem::to_string).collect()
}

/// What goes with what was seen on the way.
fn findings(
    store: &KernelStore,
    case: Case,
    walk: Walk,
    objects: Option<Objects<'_>>,
) -> anyhow::Result<Findings> {
    let settings = store.rows::<SettingsTable>()?.remove(&0).unwrap_or_default();
    let all = front_end::all(store)?;
    let to = case.packet.destination;
    let service = walk.entry.map(|entry| entry.service).or(walk.refused);
    let met = service
        .and_then(|service| front_end::at(&all, to, case.packet.protocol, service))
        .map(|front_end| met(store, front_end, &case, objects))
        .transpose()?;
    let near = match met {
        Some(_) => Vec::new(),
        None => all
            .into_iter()
            .filter(|other| other.address.ip() == to.ip())
            .collect(),
    };
    let devices = if_nameindex().context("listing devices")?;
    let devices: BTreeMap<u32, String> = devices
        .iter()
        .map(|device| (device.index(), device.name().to_string_lossy().into_owned()))
        .collect();
    Ok(Findings {
        case,
        walk,
        front_end: met,
        near,
        devices,
        settings: settings.flags,
        left_out: LeftOut::Known,
        warnings: Vec::new(),
    })
}

fn met(
    store: &KernelStore,
    front_end: FrontEnd,
    case: &Case,
    objects: Option<Objects<'_>>,
) -> anyhow::Result<Met> {
    let settings = store.rows::<SettingsTable>()?.remove(&0).unwrap_or_default();
    let source = case.packet.source.ip();
    let inside = is_inside(settings.flags, case, front_end::is_pod(store, source)?);
    let endpoints = match objects {
        Some(objects) => endpoint::of_objects(objects, &front_end, inside),
        None => endpoint::of_maps(store, &front_end, inside)?,
    };
    let policies = store.rows::<Policies>()?;
    let policy = policies.get(&front_end.row.service).copied().unwrap_or_default();
    let eligible = endpoints
        .iter()
        .filter(|endpoint| endpoint.reason.is_none())
        .count();
    let SlotRange { count, .. } = front_end.range(inside);
    Ok(Met {
        algorithm: algorithm(front_end.row.flags, count, eligible),
        ranges: front_end::ranges(store, front_end.row.service, source.is_ipv4())?,
        affinity_seconds: policy
            .affinity
            .checked_div(settings.jiffies_per_second)
            .unwrap_or_default(),
        inside,
        endpoints,
        front_end,
    })
}

/// Whether the sender is given the endpoints for those inside the cluster: what the programs decide in lb-ebpf's admit.rs
/// (`origin`).
fn is_inside(settings: u32, case: &Case, is_pod: bool) -> bool {
    let detects = settings & SettingsFlags::DETECTS_PODS != 0;
    let always = settings & SettingsFlags::SNAT_ALWAYS != 0;
    let by_device = case.role == Some(lb_common::DeviceRole::Pod) && !always;
    case.who == Who::Node || (detects && is_pod) || by_device
}
