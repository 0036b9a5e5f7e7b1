//! Things that happen to packets and are no drops. Numbers are part of the map layout.

/// Index into `lb_counters` (a per-CPU array).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Counter {
    /// A flow was opened.
    FlowOpened = 0,
    /// A finished flow of the same addresses and ports was opened anew.
    FlowReopened = 1,
    /// One entry of a flow had been evicted and was made again from the other.
    FlowRestored = 2,
    /// A client's port was replaced, because its own was taken by a live flow to the same backend.
    PortReplaced = 3,
    /// A dead reverse entry stood in the way of a direct connection and was deleted.
    DeadReverseDeleted = 4,
    /// A SYN-ACK that answers no translated SYN went by unchanged.
    ForeignSynAck = 5,
    /// A TCP or UDP fragment went by unchanged, whether of a service or not.
    Fragment = 6,
    /// A slot was missing, and the service was looked up once more.
    SlotRetried = 7,
    /// A packet without state to a NodePort that may not open a flow went by to the node.
    NotOpening = 8,
}

impl Counter {
    /// Every counter, by number.
    pub const ALL: [Self; 9] = [
        Self::FlowOpened,
        Self::FlowReopened,
        Self::FlowRestored,
        Self::PortReplaced,
        Self::DeadReverseDeleted,
        Self::ForeignSynAck,
        Self::Fragment,
        Self::SlotRetried,
        Self::NotOpening,
    ];

    /// The name in metrics and in the CLI.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FlowOpened => "flow-opened",
            Self::FlowReopened => "flow-reopened",
            Self::FlowRestored => "flow-restored",
            Self::PortReplaced => "port-replaced",
            Self::DeadReverseDeleted => "dead-reverse-deleted",
            Self::ForeignSynAck => "foreign-syn-ack",
            Self::Fragment => "fragment",
            Self::SlotRetried => "slot-retried",
            Self::NotOpening => "not-opening",
        }
    }
}
