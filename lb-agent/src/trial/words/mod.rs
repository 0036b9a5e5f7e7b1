//! From what was found to what is told. No I/O.

mod choice;
mod end;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use lb_common::{DeviceRole, ServiceFlags};

use super::case::{Case, Who};
use super::endpoint::EndpointView;
use super::explanation::{Explanation, PacketView, ServiceView};
use super::front_end::{FrontEnd, Kind};
use super::walk::Walk;
use crate::model::{IpPrefix, Protocol, TrafficPolicy};

/// Everything that was found.
pub(super) struct Findings {
    pub(super) case: Case,
    pub(super) walk: Walk,
    /// The front end that the packet met.
    pub(super) front_end: Option<Met>,
    /// Front ends at the same address and port, or at the same address, when the packet met none.
    pub(super) near: Vec<FrontEnd>,
    /// Names of devices.
    pub(super) devices: BTreeMap<u32, String>,
    /// [`lb_common::SettingsFlags`].
    pub(super) settings: u32,
    /// How the endpoints that are in no map are known.
    pub(super) left_out: LeftOut,
    /// What is wrong with the objects.
    pub(super) warnings: Vec<String>,
}

/// How the endpoints that are in no map are known.
pub(super) enum LeftOut {
    /// All objects are known, or none is needed.
    Known,
    /// This API server was asked.
    Asked(String),
    /// They are not, for this reason.
    Unasked(String),
}

/// A front end, and what goes with it.
pub(super) struct Met {
    pub(super) front_end: FrontEnd,
    /// The sender counts as one inside the cluster.
    pub(super) inside: bool,
    pub(super) endpoints: Vec<EndpointView>,
    /// `maglev`, `hash`, `round-robin` or `least-connections`.
    pub(super) algorithm: &'static str,
    pub(super) affinity_seconds: u32,
    pub(super) ranges: Vec<IpPrefix>,
}

impl Findings {
    /// Puts it into words.
    pub(super) fn explain(self) -> Explanation {
        let mut steps = vec![self.packet_step()];
        steps.extend(self.case.notes.iter().cloned());
        steps.extend(self.service_steps());
        let end = self.end();
        steps.extend(end.steps.iter().cloned());
        let endpoints = self.front_end.iter().flat_map(|met| &met.endpoints);
        let (eligible, left_out) = endpoints.cloned().partition(|endpoint| endpoint.reason.is_none());
        let packet = self.case.packet;
        Explanation {
            verdict: end.verdict,
            reason: end.reason,
            hint: end.hint,
            packet: PacketView {
                protocol: packet.protocol.as_str(),
                source: packet.source,
                destination: packet.destination,
                sender: self.case.who.as_str(),
                pod: self.case.pod.as_ref().map(ToString::to_string),
                device: self.device(self.case.start.ifindex),
            },
            service: self.front_end.as_ref().map(Met::view),
            eligible,
            left_out,
            backend: end.backend,
            masquerade: end.masquerade,
            steps,
            warnings: self.warnings,
        }
    }

    fn packet_step(&self) -> String {
        let Case {
            packet,
            who,
            pod,
            start,
            role,
            notes: _,
        } = &self.case;
        let what = match packet.protocol {
            Protocol::Tcp => "A TCP connection begins",
            Protocol::Udp => "A UDP datagram goes",
            Protocol::Sctp => "An SCTP association begins",
        };
        let sender = match (who, pod) {
            (Who::Pod, Some(pod)) => format!("pod {pod}"),
            (Who::Pod, None) => "a pod of this node".to_owned(),
            (Who::Node, _) => "the node itself".to_owned(),
            (Who::Outside, _) => "outside of this node".to_owned(),
        };
        let device = self.device(start.ifindex);
        let place = match (start.own, role.map(DeviceRole::as_str)) {
            (true, _) => format!("the kernel sends it out by {device}, where lb_post sees it first"),
            (false, Some(role)) => format!("it comes in by {device} ({role})"),
            (false, None) => format!("it comes in by {device}, which has no programs"),
        };
        format!(
            "{what} from {} to {}; from {sender}: {place}.",
            packet.source, packet.destination
        )
    }

    fn service_steps(&self) -> Vec<String> {
        let Some(met) = &self.front_end else {
            return Vec::new();
        };
        let FrontEnd { address, kind, .. } = met.front_end;
        let name = met.front_end.text();
        let what = match kind {
            Kind::NodePort => format!(
                "{} is the NodePort of {name}, which listens at {}",
                address.port(),
                address.ip()
            ),
            Kind::ClusterIp => format!("{address} is the ClusterIP of {name}"),
            Kind::External => format!("{address} is a load balancer's or external address of {name}"),
        };
        let mut steps = vec![format!("{what}.")];
        if met.front_end.has(ServiceFlags::SOURCE_RANGES) {
            steps.push(self.ranges_step(met));
        }
        steps.push(policy_step(self.case.who, met));
        steps.push(endpoints_step(met));
        steps.extend(self.left_out.step());
        steps
    }

    fn ranges_step(&self, met: &Met) -> String {
        let source = self.case.packet.source.ip();
        let within = met.ranges.iter().any(|range| range.contains(source));
        let ranges: Vec<_> = met.ranges.iter().map(ToString::to_string).collect();
        format!(
            "Only sources in {} may use it (loadBalancerSourceRanges): {source} is {}.",
            ranges.join(", "),
            if within { "one of them" } else { "none of them" }
        )
    }

    /// What a device is called.
    fn device(&self, ifindex: u32) -> String {
        let name = self.devices.get(&ifindex).cloned();
        name.unwrap_or_else(|| format!("device {ifindex}"))
    }
}

impl Met {
    fn view(&self) -> ServiceView {
        ServiceView {
            name: self.front_end.text(),
            front_end: self.front_end.kind.code(),
            policy: policy_name(self.front_end.policy(self.inside)),
        }
    }
}

impl LeftOut {
    fn step(&self) -> Option<String> {
        match self {
            Self::Known => None,
            Self::Asked(server) => Some(format!(
                "The API server {server} was asked for names, and for endpoints that are in no map."
            )),
            Self::Unasked(why) => Some(format!(
                "Endpoints that were never ready are in no map, and could not be asked for: {why}. `kubectl get \
                 endpointslices` shows them."
            )),
        }
    }
}

fn endpoints_step(met: &Met) -> String {
    let out = met
        .endpoints
        .iter()
        .filter(|endpoint| endpoint.reason.is_some())
        .count();
    let eligible = match met.endpoints.len() - out {
        0 => "No endpoint gets new connections".to_owned(),
        1 => "One endpoint gets new connections".to_owned(),
        many => format!("{many} endpoints get new connections"),
    };
    match out {
        0 => format!("{eligible}, and none is left out."),
        1 => format!("{eligible}, one is left out."),
        many => format!("{eligible}, {many} are left out."),
    }
}

fn policy_step(who: Who, met: &Met) -> String {
    let policy = met.front_end.policy(met.inside);
    let field = if met.front_end.kind == Kind::ClusterIp {
        "internalTrafficPolicy"
    } else {
        "externalTrafficPolicy"
    };
    let leads = match policy {
        TrafficPolicy::Cluster => "endpoints on all nodes",
        TrafficPolicy::Local => "endpoints on this node alone",
    };
    let exempt = met.inside && met.front_end.has(ServiceFlags::OUTSIDE_LOCAL);
    if exempt {
        let sender = match who {
            Who::Node => "the node itself",
            Who::Pod | Who::Outside => "pods",
        };
        return format!(
            "The policy is {field} Local, which does not bind {sender}: it leads to endpoints on all nodes."
        );
    }
    format!(
        "The policy is {field} {}: it leads to {leads}.",
        policy_name(policy)
    )
}

const fn policy_name(policy: TrafficPolicy) -> &'static str {
    match policy {
        TrafficPolicy::Cluster => "Cluster",
        TrafficPolicy::Local => "Local",
    }
}
