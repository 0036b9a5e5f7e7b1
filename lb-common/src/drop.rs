//! Why a packet was dropped. Numbers are part of the map layout and are never used again.

/// Declares an enum of things that are counted, each with its number and its name.
macro_rules! numbered {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $number:literal $text:literal,)+ }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum $name {
            $($(#[$doc])* $variant = $number,)+
        }

        impl $name {
            /// Every one, by number.
            pub const ALL: [Self; [$($number),+].len()] = [$(Self::$variant),+];

            /// The name in metrics and in the CLI.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }
        }
    };
}
pub(crate) use numbered;

numbered! {
    /// Index into `lb_drops` (a per-CPU array).
    DropReason {
        /// The service has no eligible backend, and there are none elsewhere.
        NoBackend = 0 "no-backend",
        /// The flow's backend is gone and the packet cannot open a new flow.
        BackendGone = 1 "backend-gone",
        /// The flow table took no entry.
        FlowTableFull = 2 "flow-table-full",
        /// Every client port that was tried is taken by a live flow to the same backend.
        NoClientPort = 3 "no-client-port",
        /// A pod's packet whose source is not routed to that pod, or a wrapped one whose source is nobody's outside.
        SpoofedSource = 4 "spoofed-source",
        /// The service was being updated twice while this packet looked for a backend.
        ServiceChanging = 5 "service-changing",
        /// The packet could not be rewritten.
        RewriteFailed = 6 "rewrite-failed",
        /// The policy Local is in force, and the backends are on other nodes.
        NoLocalBackend = 7 "no-local-backend",
        /// The source is in none of the service's ranges.
        SourceNotAllowed = 8 "source-not-allowed",
        /// Every source port that was tried for masquerading is taken.
        NoSnatPort = 9 "no-snat-port",
        /// There is no address to masquerade with.
        NoSnatAddress = 10 "no-snat-address",
        /// There is no route to the backend or to the client.
        NoRoute = 11 "no-route",
        /// The service takes no more new connections for now.
        ServiceLimited = 12 "service-limited",
        /// The source may open no more connections for now.
        SourceLimited = 13 "source-limited",
        /// The address is one that services get theirs from, and is no service's.
        UnusedServiceAddress = 14 "unused-service-address",
        /// An answer of the program itself, which others before have used up the limit of.
        AnswerLimited = 15 "answer-limited",
        /// The packet would have been rejected, but no answer may be given to it (RFC 1122, section 3.2.2).
        NotAnswerable = 16 "not-answerable",
        /// The first fragment of a packet for a service ends before its ports and flags.
        TinyFragment = 17 "tiny-fragment",
        /// A fragment of a packet for a service overlaps the transport header.
        OverlappingFragment = 18 "overlapping-fragment",
        /// A later fragment for a service whose first one was not seen.
        UnknownFragment = 19 "unknown-fragment",
        /// An ICMP redirect about a translated packet.
        IcmpRedirect = 20 "icmp-redirect",
        /// A wrapped packet from somebody who is no node.
        ForeignWrapper = 21 "foreign-wrapper",
        /// A wrapped packet for no local backend of the service inside.
        WrappedForNobody = 22 "wrapped-for-nobody",
        /// A packet could not be wrapped or unwrapped.
        WrapFailed = 23 "wrap-failed",
        /// The packet's time to live ends here.
        TimeExceeded = 24 "time-exceeded",
        /// A packet that is masqueraded, is in mid-connection and has no flow.
        NoFlow = 25 "no-flow",
        /// A fragment of an SCTP packet whose ports would have to change: the checksum of the whole cannot be made right in
        /// its first part.
        SctpFragment = 26 "sctp-fragment",
    }
}
