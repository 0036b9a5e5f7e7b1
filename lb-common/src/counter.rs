//! Things that happen to packets and are no drops. Numbers are part of the map layout.

use crate::drop::numbered;

numbered! {
    /// Index into `lb_counters` (a per-CPU array).
    Counter {
        /// A flow was opened.
        FlowOpened = 0 "flow-opened",
        /// A finished flow of the same addresses and ports was opened anew.
        FlowReopened = 1 "flow-reopened",
        /// One entry of a flow had been evicted and was made again from the other.
        FlowRestored = 2 "flow-restored",
        /// A client's port was replaced, because its own was taken by a live flow to the same backend.
        PortReplaced = 3 "port-replaced",
        /// A dead reverse entry stood in the way of a direct connection and was deleted.
        DeadReverseDeleted = 4 "dead-reverse-deleted",
        /// A SYN-ACK that answers no translated SYN went by unchanged.
        ForeignSynAck = 5 "foreign-syn-ack",
        /// A later fragment of no known packet went by unchanged.
        Fragment = 6 "fragment",
        /// A slot was missing, and the service was looked up once more.
        SlotRetried = 7 "slot-retried",
        /// A packet without state to a NodePort that may not open a flow went by to the node.
        NotOpening = 8 "not-opening",
        /// A packet was sent on by XDP.
        XdpSent = 9 "xdp-sent",
        /// XDP left a packet of a service to TC: too long for the way, in fragments, with options, or no neighbour.
        XdpPassed = 10 "xdp-passed",
        /// A packet was sent on by TC without the stack.
        TcSent = 11 "tc-sent",
        /// The next hop of a flow was looked up, in the kernel's routes or among the ways that this CPU knows.
        HopLooked = 12 "hop-looked",
        /// A flow was masqueraded.
        SnatOpened = 13 "snat-opened",
        /// The first source port for masquerading was taken, and another was found.
        SnatRetried = 14 "snat-retried",
        /// A packet was answered with a TCP reset.
        AnsweredReset = 15 "answered-reset",
        /// A packet was answered with ICMP port unreachable.
        AnsweredUnreachable = 16 "answered-unreachable",
        /// A packet was answered with ICMP packet too big.
        AnsweredTooBig = 17 "answered-too-big",
        /// A packet was answered with ICMP time exceeded.
        AnsweredTimeExceeded = 18 "answered-time-exceeded",
        /// An echo request was answered.
        AnsweredEcho = 19 "answered-echo",
        /// An ICMP error about a translated packet was translated.
        IcmpTranslated = 20 "icmp-translated",
        /// A packet was wrapped for another node.
        Wrapped = 21 "wrapped",
        /// A packet of another node was unwrapped.
        Unwrapped = 22 "unwrapped",
        /// A client was sent to the backend that it stays with.
        AffinityHit = 23 "affinity-hit",
        /// A flow in mid-connection was opened without a SYN: evicted here, or moved from another node.
        FlowAdopted = 24 "flow-adopted",
        /// An entry of an open flow made room for another: its bucket of the flow table was full of open flows.
        FlowEvicted = 25 "flow-evicted",
    }
}
