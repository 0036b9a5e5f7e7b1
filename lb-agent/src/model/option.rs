//! What a Service asks for beyond Kubernetes' fields, by annotations.

use std::sync::Arc;

/// What the annotations of a Service say; all is optional.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceOptions {
    /// How backends are chosen.
    pub algorithm: Option<Algorithm>,
    /// How packets reach backends on other nodes.
    pub forwarding: Option<Forwarding>,
    /// The Services whose backends share its traffic, instead of its own.
    pub split: Vec<Share>,
    /// New connections in a second, at most.
    pub limit: Option<u32>,
    /// New connections of one source in a second, at most.
    pub source_limit: Option<u32>,
}

/// How backends are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Algorithm {
    /// By a Maglev table: when backends come and go, other flows stay where they are.
    Maglev,
    /// By the hash of the flow.
    Hash,
    /// In turn.
    RoundRobin,
    /// Of two, the one with fewer connections.
    LeastConnections,
}

/// How packets reach backends on other nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Forwarding {
    /// Translated, and masqueraded where the reply would not come back.
    #[default]
    Snat,
    /// Wrapped; the backend's node answers the client itself (direct server return).
    Dsr,
}

/// A Service's part of another's traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// Its name, in the same namespace.
    pub service: Arc<str>,
    /// Its part, in relation to the others'.
    pub weight: u32,
}

impl Algorithm {
    /// Every one, with the word for it.
    pub const ALL: [(&'static str, Self); 4] = [
        ("maglev", Self::Maglev),
        ("hash", Self::Hash),
        ("round-robin", Self::RoundRobin),
        ("least-connections", Self::LeastConnections),
    ];
}

impl Forwarding {
    /// Every one, with the word for it.
    pub const ALL: [(&'static str, Self); 2] = [("dsr", Self::Dsr), ("snat", Self::Snat)];
}
