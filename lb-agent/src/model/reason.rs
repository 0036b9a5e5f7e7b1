//! What kind of problem a problem is.

/// What kind of problem a problem is: the reason of its Event, and a label of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// The object cannot be used.
    InvalidObject,
    /// Something in the object has no effect; the rest is used.
    FieldIgnored,
    /// The object is there more than once.
    DuplicateObject,
    /// Another Service has the address and port.
    FrontendConflict,
    /// Endpoints that no Service uses.
    EndpointsIgnored,
    /// A part of a split leads nowhere.
    SplitIncomplete,
    /// What the object asks for could not be written to the maps.
    NotProgrammed,
    /// The health-check port cannot be opened; kube-proxy's word.
    FailedToStartServiceHealthcheck,
    /// How the node and the agent's flags go together.
    NodeSetup,
    /// The source of objects cannot be read.
    SourceUnavailable,
}

impl Reason {
    /// Every one.
    pub const ALL: [Self; 10] = [
        Self::InvalidObject,
        Self::FieldIgnored,
        Self::DuplicateObject,
        Self::FrontendConflict,
        Self::EndpointsIgnored,
        Self::SplitIncomplete,
        Self::NotProgrammed,
        Self::FailedToStartServiceHealthcheck,
        Self::NodeSetup,
        Self::SourceUnavailable,
    ];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidObject => "InvalidObject",
            Self::FieldIgnored => "FieldIgnored",
            Self::DuplicateObject => "DuplicateObject",
            Self::FrontendConflict => "FrontendConflict",
            Self::EndpointsIgnored => "EndpointsIgnored",
            Self::SplitIncomplete => "SplitIncomplete",
            Self::NotProgrammed => "NotProgrammed",
            Self::FailedToStartServiceHealthcheck => "FailedToStartServiceHealthcheck",
            Self::NodeSetup => "NodeSetup",
            Self::SourceUnavailable => "SourceUnavailable",
        }
    }
}
