//! How the packet's way ends.

use lb_common::{Counter, FlowFlags, SettingsFlags};

use super::super::case::Who;
use super::super::explanation::{BackendView, MasqueradeView, Verdict};
use super::super::hint;
use super::super::packet::After;
use super::super::walk::{Entry, Fate, Run};
use super::Findings;

/// The end of the way.
pub(super) struct End {
    pub(super) verdict: Verdict,
    pub(super) reason: Option<&'static str>,
    pub(super) hint: Option<String>,
    pub(super) backend: Option<BackendView>,
    pub(super) masquerade: Option<MasqueradeView>,
    pub(super) steps: Vec<String>,
}

impl Findings {
    pub(super) fn end(&self) -> End {
        let has = |fate| self.walk.runs.iter().any(|run| run.fate == fate);
        if has(Fate::Dropped) {
            self.dropped()
        } else if self.walk.counters.contains(&Counter::AnsweredReset) {
            self.rejected("tcp-reset", "a TCP reset (\"connection refused\")")
        } else if self.walk.counters.contains(&Counter::AnsweredUnreachable) {
            self.rejected(
                "port-unreachable",
                "ICMP port unreachable (\"connection refused\")",
            )
        } else if let Some(entry) = self.walk.entry {
            self.forwarded(&entry)
        } else {
            self.passed()
        }
    }

    fn dropped(&self) -> End {
        let reason = self.walk.drops.first().copied();
        let step = match reason {
            Some(reason) => format!("{} drops it: {}.", self.last(), reason.as_str()),
            None => format!("{} drops it, and does not say why.", self.last()),
        };
        End {
            verdict: Verdict::Drop,
            reason: reason.map(lb_common::DropReason::as_str),
            hint: reason.map(|reason| hint::of_drop(reason).to_owned()),
            ..End::of(Verdict::Drop, step)
        }
    }

    fn rejected(&self, reason: &'static str, answer: &str) -> End {
        let (why, hint) = if self.front_end.is_some() {
            (
                "there is no endpoint to send it to".to_owned(),
                hint::NO_ENDPOINTS.to_owned(),
            )
        } else {
            let packet = self.case.packet;
            let why = format!(
                "{} is a Service's address, but port {}/{} is not served there",
                packet.destination.ip(),
                packet.destination.port(),
                packet.protocol.as_str()
            );
            let near = self.near_hint();
            (why, near.unwrap_or_else(|| hint::NO_SUCH_PORT.to_owned()))
        };
        let step = format!("{} rejects it with {answer}: {why}.", self.last());
        End {
            reason: Some(reason),
            hint: Some(hint),
            ..End::of(Verdict::Reject, step)
        }
    }

    fn passed(&self) -> End {
        let to = self.case.packet.destination;
        let (step, hint) = if self.walk.counters.contains(&Counter::NotOpening) {
            (
                format!(
                    "{to} is a NodePort, but a socket of the node itself is connected with this client there."
                ),
                None,
            )
        } else {
            let near = self.near_hint();
            (
                format!(
                    "No Service is at {to} for {}.",
                    self.case.packet.protocol.as_str()
                ),
                Some(near.unwrap_or_else(|| hint::NOT_A_SERVICE.to_owned())),
            )
        };
        let mut end = End::of(Verdict::Pass, step);
        end.steps.push(
            "The packet goes by untouched, and the kernel does with it what it does without Sluice."
                .to_owned(),
        );
        end.hint = hint;
        end
    }

    /// What there is instead at the same address.
    fn near_hint(&self) -> Option<String> {
        let packet = self.case.packet;
        let there: Vec<_> = self
            .near
            .iter()
            .map(|front_end| {
                format!(
                    "{}/{} ({})",
                    front_end.address.port(),
                    front_end.protocol_name(),
                    front_end.text()
                )
            })
            .collect();
        (!there.is_empty()).then(|| format!("at {} there is {}", packet.destination.ip(), there.join(", ")))
    }

    fn forwarded(&self, entry: &Entry) -> End {
        let by = self.chosen_by(entry);
        let mut end = End::of(Verdict::Forward, self.choice_step(entry, by));
        let (way, device) = self.way(entry);
        end.backend = Some(BackendView {
            address: entry.backend,
            by,
            way,
            device: device.map(|device| self.device(device)),
        });
        end.masquerade = self.masquerade(entry);
        end.steps.push(self.source_step(entry, end.masquerade.as_ref()));
        match &self.walk.route {
            Some(Err(error)) => {
                let to = entry.backend.ip();
                end.steps
                    .push(format!("The kernel does not send it on to {to}: {error}."));
                (end.verdict, end.reason) = (Verdict::Drop, Some("not-routed"));
                end.hint = Some(hint::NOT_ROUTED.to_owned());
            }
            _ => end.steps.push(self.way_step(entry, way, device)),
        }
        end
    }

    /// How it gets to the backend, and by which device.
    fn way(&self, entry: &Entry) -> (&'static str, Option<u32>) {
        let device = Some(entry.hop).filter(|device| *device != 0);
        if entry.flags & FlowFlags::WRAPPED != 0 {
            ("wrapped", device)
        } else if entry.flags & FlowFlags::BOTH != 0 {
            ("direct", device)
        } else {
            let route = self.walk.route.as_ref();
            let device = route.and_then(|route| Some(route.as_ref().ok()?.device));
            ("stack", device)
        }
    }

    fn way_step(&self, entry: &Entry, way: &str, device: Option<u32>) -> String {
        let device = device.map_or_else(
            || "a device that is not known".to_owned(),
            |device| self.device(device),
        );
        let local = matches!(&self.walk.route, Some(Ok(route)) if route.local);
        match way {
            "wrapped" => format!(
                "It leaves by {device} as it is, inside another packet for {} (direct server return): the endpoint \
                 answers the client itself.",
                entry.backend.ip()
            ),
            "direct" => format!(
                "{} sends it out by {device}, past the network stack.",
                self.last()
            ),
            _ if local => "The kernel routes it to a process of the node itself.".to_owned(),
            _ => format!("The kernel routes it out by {device}."),
        }
    }

    fn masquerade(&self, entry: &Entry) -> Option<MasqueradeView> {
        let client = self.case.packet.source;
        let source = if entry.flags & FlowFlags::WRAPPED != 0 {
            client
        } else if entry.flags & FlowFlags::BOTH != 0 {
            entry.peer
        } else if let Some(After::Ends { source, .. }) = self.walk.after {
            source
        } else {
            client
        };
        if source.ip() == client.ip() {
            return None;
        }
        let reason = if self.case.who == Who::Node {
            "node"
        } else if client.ip() == entry.backend.ip() {
            "hairpin"
        } else if entry.flags & FlowFlags::OUTSIDE != 0 && self.settings & SettingsFlags::SNAT_ALWAYS == 0 {
            "remote-backend"
        } else {
            "always"
        };
        Some(MasqueradeView { source, reason })
    }

    fn source_step(&self, entry: &Entry, masquerade: Option<&MasqueradeView>) -> String {
        let to = format!("The destination becomes {}", entry.backend);
        let Some(MasqueradeView { source, reason }) = masquerade else {
            return self.kept_step(entry, &to);
        };
        let why = match *reason {
            "node" => "the endpoint could not answer the address that the process has",
            "hairpin" => "the client is the endpoint itself, and would take the answer for its own packet",
            "remote-backend" => {
                "it comes from outside and goes on to another node, whose answer has to come back by this one"
            }
            _ => "--snat always or --masquerade-all asks for it",
        };
        format!("{to} and the source {source} (masquerade): {why}.")
    }

    fn kept_step(&self, entry: &Entry, to: &str) -> String {
        if entry.flags & FlowFlags::WRAPPED != 0 {
            return "Nothing in it is rewritten: the endpoint's node does that.".to_owned();
        }
        let client = self.case.packet.source;
        let port = match self.walk.after {
            Some(After::Ends { source, .. }) if source != client && source.ip() == client.ip() => {
                format!(
                    " Its port becomes {}, because another connection to the endpoint has port {}.",
                    source.port(),
                    client.port()
                )
            }
            _ => String::new(),
        };
        let endpoint = self
            .front_end
            .iter()
            .flat_map(|met| &met.endpoints)
            .find(|endpoint| endpoint.address == entry.backend);
        let why = match self.case.who {
            Who::Node => "the node's own address is one that every endpoint answers",
            Who::Pod => "the client is a pod of this node, so the answer comes back here",
            Who::Outside if endpoint.is_some_and(|endpoint| endpoint.here) => {
                "the endpoint is on this node, so its answer comes by here anyway"
            }
            Who::Outside => "nothing asks for masquerade",
        };
        format!("{to}; the endpoint sees the client's address: {why}.{port}")
    }

    /// The program that has seen the packet last, and where.
    fn last(&self) -> String {
        match self.walk.runs.last() {
            Some(Run { program, device, .. }) => format!("{program} at {}", self.device(*device)),
            None => "Nobody".to_owned(),
        }
    }
}

impl End {
    fn of(verdict: Verdict, step: String) -> Self {
        Self {
            verdict,
            reason: None,
            hint: None,
            backend: None,
            masquerade: None,
            steps: vec![step],
        }
    }
}
