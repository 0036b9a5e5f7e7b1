//! Is what became of a packet what should have? And where Sluice differs on purpose: how, and why.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;

use lb_common::DropReason;

use super::Snat;
use super::flows::{Backend, Fate, Packet, Scenario, Word, written};
use super::node::{Place, Places};
use super::walk::{Entry, Found};

/// A judgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// As expected.
    AsExpected,
    /// Otherwise, on purpose: why.
    OnPurpose(&'static str),
    /// Otherwise.
    Otherwise,
}

/// What the judgement is about.
pub(super) struct Case<'a> {
    pub(super) scenario: &'a Scenario,
    pub(super) packet: &'a Packet,
    pub(super) places: &'a Places,
    pub(super) snat: Snat,
    pub(super) entry: Entry,
}

const NO_LOCAL: &str = DropReason::NoLocalBackend.as_str();
const NOT_ALLOWED: &str = DropReason::SourceNotAllowed.as_str();
const UNUSED: &str = DropReason::UnusedServiceAddress.as_str();

/// The reasons for which a service's policy drops packets; every other one is a failure.
const POLICY_DROPS: [&str; 3] = [NO_LOCAL, NOT_ALLOWED, UNUSED];

/// A difference on purpose: what is expected there, what is found instead, and where else it must be.
struct Difference {
    reason: &'static str,
    expected: fn(&Fate) -> bool,
    found: fn(&Found) -> bool,
    only: fn(&Case<'_>) -> bool,
}

/// Every difference of the fate of packets; docs/kube-proxy-differences.md has the same. Those of masquerade follow from
/// [`Case::masquerade`].
const DIFFERENCES: [Difference; 6] = [
    Difference {
        reason: "hints for nodes count in any case, as in Kubernetes from 1.35 on",
        expected: |fate| matches!(fate, Fate::Backends(_)),
        found: |found| matches!(found, Found::Backend { .. }),
        only: |case| case.scenario.config.prefer_same_traffic_distribution == Some(false),
    },
    Difference {
        reason: "a ClusterIP rejects what is for none of its ports, as kube-proxy's nftables mode does",
        expected: |fate| *fate == Fate::Word(Word::None),
        found: |found| *found == Found::Reject,
        only: |case| case.is_of(Backend::Iptables) && case.is_for_cluster_ip(),
    },
    Difference {
        reason: "an address of services that is no service's drops, as in kube-proxy's nftables mode",
        expected: |fate| *fate == Fate::Word(Word::None),
        found: |found| *found == Found::Drop(UNUSED),
        only: |case| case.is_of(Backend::Iptables),
    },
    Difference {
        reason: "source ranges count also while there are no endpoints, as in kube-proxy's nftables mode",
        expected: |fate| *fate == Fate::Word(Word::Reject),
        found: |found| *found == Found::Drop(NOT_ALLOWED),
        only: |case| case.is_of(Backend::Iptables),
    },
    Difference {
        reason: "NodePorts listen at localhost on IPv6 as they do on IPv4",
        expected: |fate| *fate == Fate::Word(Word::None),
        found: |found| matches!(found, Found::Backend { .. } | Found::Reject),
        only: |case| {
            case.scenario.config.localhost_node_ports
                && case.packet.dst.is_loopback()
                && case.packet.dst.is_ipv6()
        },
    },
    Difference {
        reason: "a load balancer's address answers like a host: what comes from outside for none of its ports is rejected, \
                 so that it cannot go round in circles",
        expected: |fate| *fate == Fate::Word(Word::None),
        found: |found| *found == Found::Reject,
        only: |case| case.is_for_vip() && matches!(case.entry, Entry::UplinkTc | Entry::UplinkXdp),
    },
];

/// Why kube-proxy masquerades and we need not.
const KEPT: &str =
    "the client keeps its address, because the reply passes this node in any case (--snat needed)";
/// Why kube-proxy does not masquerade and we have to.
const NEEDED: &str = "masqueraded, because the reply would not pass this node (--snat needed)";

impl Case<'_> {
    /// Compares what became of many packets, each of a connection of its own, with what should.
    pub(super) fn judge(&self, found: &BTreeSet<Found>) -> Judgement {
        let (expected, reason) = self.expected();
        let is_as_expected = match &self.packet.expect.backends {
            Fate::Word(Word::Drop) => {
                let is_policy =
                    |found: &Found| matches!(found, Found::Drop(reason) if POLICY_DROPS.contains(reason));
                !found.is_empty() && found.iter().all(is_policy)
            }
            Fate::Backends(_) | Fate::Word(_) => *found == expected,
        };
        if is_as_expected {
            return reason.map_or(Judgement::AsExpected, Judgement::OnPurpose);
        }
        let mut differences = DIFFERENCES.iter().filter(|difference| {
            (difference.expected)(&self.packet.expect.backends)
                && !found.is_empty()
                && found.iter().all(difference.found)
                && (difference.only)(self)
        });
        differences.next().map_or(Judgement::Otherwise, |difference| {
            Judgement::OnPurpose(difference.reason)
        })
    }

    /// What should become of the packets; with a reason when that is not what kube-proxy does.
    fn expected(&self) -> (BTreeSet<Found>, Option<&'static str>) {
        let mut why = None;
        let expected = match &self.packet.expect.backends {
            Fate::Word(Word::Reject) => [Found::Reject].into(),
            Fate::Word(Word::None | Word::Accept) => [Found::None].into(),
            // For which reason is not said.
            Fate::Word(Word::Drop) => BTreeSet::new(),
            Fate::Backends(backends) => {
                let theirs = self.packet.expect.masquerade;
                let backend = |to: &std::net::SocketAddr| {
                    let masquerade = self.masquerade(to.ip());
                    if masquerade != theirs {
                        why = Some(if theirs { KEPT } else { NEEDED });
                    }
                    Found::Backend { to: *to, masquerade }
                };
                backends.iter().map(backend).collect()
            }
        };
        (expected, why)
    }

    /// Whether the packet is to be masqueraded on its way to a backend: as kube-proxy does it, or only where it is needed.
    fn masquerade(&self, backend: IpAddr) -> bool {
        let theirs = self.packet.expect.masquerade;
        if self.snat == Snat::Always || backend == self.packet.src {
            return theirs;
        }
        match self.entry {
            // It is asked for, and a policy that keeps the client's address says no.
            _ if self.scenario.config.masquerade_all && theirs => true,
            Entry::UplinkTc | Entry::UplinkXdp => self.places.place(backend) == Place::Outside,
            Entry::Pod => false,
            Entry::Node => self.packet.src.is_loopback() || self.places.place(backend) == Place::Node,
        }
    }

    fn is_of(&self, backend: Backend) -> bool {
        self.scenario.config.backend == backend
    }

    fn is_for_cluster_ip(&self) -> bool {
        self.scenario.cluster_ips().contains(&self.packet.dst)
    }

    fn is_for_vip(&self) -> bool {
        let ingress = self
            .scenario
            .services
            .iter()
            .filter_map(|service| service["status"]["loadBalancer"]["ingress"].as_array());
        let mut ips = ingress
            .flatten()
            .filter_map(|ingress| written(ingress["ip"].as_str()?));
        ips.any(|ip| ip == self.packet.dst)
    }

    /// What should become of the packets, for people.
    pub(super) fn wanted(&self) -> String {
        match &self.packet.expect.backends {
            Fate::Word(word) => format!("{word:?}").to_lowercase(),
            Fate::Backends(_) => words(&self.expected().0),
        }
    }
}

/// What became of packets, for people.
pub(super) fn words(found: &BTreeSet<Found>) -> String {
    let mut text = String::new();
    for found in found {
        let separator = if text.is_empty() { "" } else { ", " };
        text += separator;
        // Writing to a String cannot fail.
        _ = match found {
            Found::Backend { to, masquerade: true } => write!(text, "{to} masqueraded"),
            Found::Backend {
                to,
                masquerade: false,
            } => write!(text, "{to}"),
            Found::Reject => write!(text, "reject"),
            Found::Drop(reason) => write!(text, "drop ({reason})"),
            Found::None => write!(text, "none"),
            Found::Wrong(what) => write!(text, "wrong: {what}"),
        };
    }
    text
}
