//! Why a packet was dropped. Numbers are part of the map layout and are never used again.

/// Index into `lb_drops` (a per-CPU array).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum DropReason {
    /// The service has no eligible backend.
    NoBackend = 0,
    /// The flow's backend is gone and the packet cannot open a new flow.
    BackendGone = 1,
    /// The flow table took no entry.
    FlowTableFull = 2,
    /// Every client port that was tried is taken by a live flow to the same backend.
    NoClientPort = 3,
    /// A pod's packet whose source is not routed to that pod.
    SpoofedSource = 4,
    /// The service was being updated twice while this packet looked for a backend.
    ServiceChanging = 5,
    /// The packet could not be rewritten.
    RewriteFailed = 6,
}

impl DropReason {
    /// Every reason, by number.
    pub const ALL: [Self; 7] = [
        Self::NoBackend,
        Self::BackendGone,
        Self::FlowTableFull,
        Self::NoClientPort,
        Self::SpoofedSource,
        Self::ServiceChanging,
        Self::RewriteFailed,
    ];

    /// The name in metrics and in the CLI.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoBackend => "no-backend",
            Self::BackendGone => "backend-gone",
            Self::FlowTableFull => "flow-table-full",
            Self::NoClientPort => "no-client-port",
            Self::SpoofedSource => "spoofed-source",
            Self::ServiceChanging => "service-changing",
            Self::RewriteFailed => "rewrite-failed",
        }
    }
}
