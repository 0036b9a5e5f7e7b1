//! What the pipe is told once.

use std::time::Duration;

use lb_common::Settings;

use crate::desired::node::Prefixes;
use crate::image::maglev;
use crate::model::Forwarding;

/// What the pipe is told once.
#[derive(Clone, Debug)]
pub struct Config {
    /// The name of this node's Node object.
    pub node_name: String,
    /// The row of settings; the pipe fills in its range of NodePorts, its seed, and the flags that prefixes decide.
    pub settings: Settings,
    /// The seed of hashes; `None`: the one that names the cluster, or else that of `settings`.
    pub seed: Option<u64>,
    /// Prefixes that the flags name.
    pub prefixes: Prefixes,
    /// How packets reach other nodes, where a Service does not say.
    pub forwarding: Forwarding,
    /// The largest Maglev table.
    pub max_table: u32,
    /// After which a backend that has left is nobody's.
    pub removed_grace: Duration,
    /// How many writes are planned before those are done that may go ahead: plans are large, and memory is dear.
    pub portion: usize,
    /// Whether slices without their Service are told of: not where the Service may still be on its way, or the slices about
    /// to go.
    pub tell_orphans: bool,
    /// Whether IPv4 is on.
    pub ipv4: bool,
    /// Whether IPv6 is on.
    pub ipv6: bool,
}

impl Config {
    /// The largest Maglev table, unless something else is said: two hundred slots for each of 327 endpoints.
    pub const MAX_TABLE: u32 = maglev::SIZES[4];
    /// How long a backend that has left keeps its connections, unless something else is said.
    pub const REMOVED_GRACE: Duration = Duration::from_mins(10);
    /// Some hundred KiB of writes.
    pub const PORTION: usize = 4096;
}

impl Default for Config {
    fn default() -> Self {
        Self {
            node_name: String::new(),
            settings: Settings::default(),
            seed: None,
            prefixes: Prefixes::default(),
            forwarding: Forwarding::default(),
            max_table: Self::MAX_TABLE,
            removed_grace: Self::REMOVED_GRACE,
            portion: Self::PORTION,
            tell_orphans: true,
            ipv4: true,
            ipv6: true,
        }
    }
}
