//! `lb-agent explain`.
//!
//! JSON: an [`Explanation`], whose fields docs/explain.md describes.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::bail;
use clap::{ArgGroup, Args, ValueEnum};

use super::output::{Format, json, print, table};
use super::source::{API_FLAGS, ApiArgs, name, node_name};
use super::traffic::TrafficArgs;
use super::{PinArgs, tokio_runtime};
use crate::model::{ObjectName, Protocol};
use crate::trial::{
    AtWork, Destination, EndpointView, Explanation, Manifests, Question, Sender, Source, Verdict,
    by_manifests, on_node,
};

/// Flags of `explain`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("sender").args(["from_pod", "from_node", "from_outside"]))]
pub(super) struct ExplainArgs {
    /// Where the packet goes: IP:PORT, [IPv6]:PORT, or NAMESPACE/SERVICE[:PORT], with the port's number or name.
    #[arg(long, value_name = "DESTINATION")]
    to: Destination,
    /// Where it comes from: IP, IP:PORT or [IPv6]:PORT. Who that is, is told by the address, unless another flag says it.
    #[arg(long, value_name = "SOURCE")]
    from: Option<Source>,
    /// A pod of this node sends it.
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = Sender::pod)]
    from_pod: Option<ObjectName>,
    /// The node itself sends it, or a pod in its network.
    #[arg(long)]
    from_node: bool,
    /// Somebody outside of the node sends it.
    #[arg(long)]
    from_outside: bool,
    /// Its protocol; by default that of the Service's port, or else TCP.
    #[arg(long, value_enum)]
    proto: Option<Proto>,
    /// The device that it comes in by; by default the one that leads back to its source.
    #[arg(long, value_name = "NAME")]
    device: Option<String>,
    /// Ask for a node that is made up from this folder of manifests, not for the data plane that is at work here.
    #[arg(long, value_name = "DIR", requires = "node_name", conflicts_with_all = API_FLAGS)]
    manifests: Option<PathBuf>,
    /// The name of the node. Without --manifests and without it, the host's name.
    #[arg(long, value_name = "NAME", env = "NODE_NAME", value_parser = name)]
    node_name: Option<String>,
    #[command(flatten)]
    pin: PinArgs,
    /// How to print it.
    #[arg(long, short, value_enum, default_value_t = Format::Table)]
    output: Format,
    /// Who is asked for objects, without --manifests.
    #[command(flatten)]
    api: ApiArgs,
    /// With --manifests: what `lb-agent run` would be told.
    #[command(flatten)]
    traffic: TrafficArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Proto {
    Tcp,
    Udp,
    Sctp,
}

impl ExplainArgs {
    pub(super) fn execute(self) -> anyhow::Result<()> {
        let question = Question {
            to: self.to,
            from: self.from,
            sender: match (self.from_pod, self.from_node, self.from_outside) {
                (Some(pod), _, _) => Some(Sender::Pod(pod)),
                (None, true, _) => Some(Sender::Node),
                (None, false, true) => Some(Sender::Outside),
                (None, false, false) => None,
            },
            protocol: self.proto.map(Proto::protocol),
            device: self.device,
        };
        let node_name = node_name(self.node_name)?;
        let explanation = if let Some(folder) = self.manifests {
            let manifests = Manifests {
                traffic: self.traffic.traffic(Some(&folder), None)?,
                folder,
                node_name,
            };
            by_manifests(&question, &manifests)?
        } else {
            let pins = self.pin.pins()?;
            if !pins.has_maps() {
                bail!(
                    "no data plane at {} (name its --pin-root, start one by `lb-agent run`, or ask what manifests would \
                     do: --manifests DIR --node-name NAME)",
                    pins.root().display()
                );
            }
            let at_work = AtWork {
                pins,
                api: self.api.access(),
                node_name,
            };
            tokio_runtime()?.block_on(on_node(&question, &at_work))?
        };
        match self.output {
            Format::Json => json(&explanation),
            Format::Table => print(&text(&explanation)),
        }
    }
}

impl Proto {
    const fn protocol(self) -> Protocol {
        match self {
            Self::Tcp => Protocol::Tcp,
            Self::Udp => Protocol::Udp,
            Self::Sctp => Protocol::Sctp,
        }
    }
}

const HEADER: [&str; 5] = ["ENDPOINT", "POD", "NODE", "NEW CONNECTIONS", "WHY NOT"];

/// For people: the verdict, the steps, the endpoints, what to do.
fn text(explanation: &Explanation) -> String {
    let mut text = format!("{}\n\n", verdict(explanation));
    for (number, step) in (1..).zip(&explanation.steps) {
        _ = writeln!(text, "{number:2}. {step}");
    }
    let endpoints = explanation.eligible.iter().chain(&explanation.left_out);
    if endpoints.clone().next().is_some() {
        text += "\n";
        text += &table(&HEADER, &[], endpoints.map(|endpoint| row(explanation, endpoint)));
    }
    if let Some(hint) = &explanation.hint {
        _ = writeln!(text, "\nWhat to do: {hint}.");
    }
    for warning in &explanation.warnings {
        _ = writeln!(text, "\nWarning: {warning}");
    }
    text
}

fn verdict(explanation: &Explanation) -> String {
    let reason = explanation.reason.unwrap_or("no reason");
    match (explanation.verdict, &explanation.backend) {
        (Verdict::Forward, Some(backend)) => format!("FORWARDED to {}", backend.address),
        (Verdict::Forward, None) => "FORWARDED".to_owned(),
        (Verdict::Reject, _) => format!("REJECTED: {reason}"),
        (Verdict::Drop, _) => format!("DROPPED: {reason}"),
        (Verdict::Pass, _) => "NOT FOR A SERVICE".to_owned(),
    }
}

fn row(explanation: &Explanation, endpoint: &EndpointView) -> Vec<String> {
    let EndpointView {
        address,
        pod,
        node,
        here,
        service,
        reason,
        why,
    } = endpoint;
    let unknown = || "-".to_owned();
    let chosen = explanation
        .backend
        .as_ref()
        .is_some_and(|backend| backend.address == *address);
    let node = match (node, here) {
        (Some(node), true) => format!("{node} (this)"),
        (Some(node), false) => node.clone(),
        (None, true) => "(this)".to_owned(),
        (None, false) => unknown(),
    };
    let gets = match (reason, chosen) {
        (None, true) => "yes, chosen",
        (None, false) => "yes",
        (Some(_), true) => "no, but this one goes on",
        (Some(_), false) => "no",
    };
    let of = service.as_ref().map(|service| format!("endpoint of {service}"));
    let why = of.into_iter().chain(why.map(str::to_owned)).collect::<Vec<_>>();
    vec![
        address.to_string(),
        pod.clone().unwrap_or_else(unknown),
        node,
        gets.to_owned(),
        why.join("; "),
    ]
}
