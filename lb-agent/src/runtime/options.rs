//! What `lb-agent run` is told.

use crate::dataplane::devices::Patterns;
use crate::dataplane::reserved::PortRange;
use crate::dataplane::xdp::XdpChoice;
use crate::dataplane::{Pins, Sizes};
use crate::serve;
use crate::source::SourceOptions;
use crate::traffic::Traffic;

/// What `lb-agent run` is told.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where objects come from.
    pub source: SourceOptions,
    /// The name of this node's Node object.
    pub node_name: String,
    /// Where maps and links are pinned.
    pub pins: Pins,
    /// How large the maps are.
    pub sizes: Sizes,
    /// Which devices.
    pub devices: Patterns,
    /// Where XDP is tried.
    pub xdp: XdpChoice,
    /// How traffic is handled.
    pub traffic: Traffic,
    /// Ports to keep from the node's own connections.
    pub reserved_ports: Option<PortRange>,
    /// Leave nothing behind.
    pub detach_on_exit: bool,
    /// What is served by HTTP.
    pub serve: serve::Options,
}
