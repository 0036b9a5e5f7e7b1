//! Where programs belong: a device, its hooks, and which program runs at each.

use std::fmt;
use std::str::FromStr;

use aya::programs::TcAttachType;
use lb_common::layout::program;
use nix::net::if_::{if_indextoname, if_nametoindex};

use super::AttachError;
use crate::dataplane::xdp::XdpState;

/// Where in a packet's way a program of TC runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    /// Stage pre.
    Ingress,
    /// Stage post.
    Egress,
}

/// How a program is attached at TC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// A TCX link.
    Tcx,
    /// A filter of a clsact qdisc.
    Clsact,
}

/// What a device's packets begin with, which decides about the programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// An Ethernet header.
    Ethernet,
    /// The network header.
    Headerless,
    /// An Ethernet header that means nothing; only what the node itself sends is looked at.
    Loopback,
}

/// A device that is to have programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachPoint {
    /// Its index.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// What its packets begin with.
    pub layer: Layer,
    /// How XDP is to be tried, or why not; `None` where there is no uplink.
    pub xdp: Option<XdpState>,
}

impl AttachPoint {
    /// The device of that index, as it is named now; for removing programs.
    pub(super) fn of(ifindex: u32) -> Result<Self, AttachError> {
        let name = if_indextoname(ifindex)
            .map_err(|error| AttachError::Other(format!("no device of index {ifindex}: {error}")))?;
        Ok(Self {
            ifindex,
            name: name.to_string_lossy().into_owned(),
            layer: Layer::Ethernet,
            xdp: None,
        })
    }

    /// The hooks of TC that are to have a program.
    pub(super) const fn hooks(&self) -> &'static [Hook] {
        match self.layer {
            Layer::Ethernet | Layer::Headerless => &[Hook::Ingress, Hook::Egress],
            Layer::Loopback => &[Hook::Egress],
        }
    }

    /// The program for a hook.
    pub(super) const fn program(&self, hook: Hook) -> &'static str {
        match (hook, self.layer) {
            (Hook::Ingress, Layer::Headerless) => program::PRE_L3,
            (Hook::Ingress, Layer::Ethernet | Layer::Loopback) => program::PRE,
            // Loopback's packets have an Ethernet header, whatever stands in it.
            (Hook::Egress, Layer::Ethernet | Layer::Loopback) => program::POST,
            (Hook::Egress, Layer::Headerless) => program::POST_L3,
        }
    }

    pub(super) fn is_still_there(&self) -> bool {
        if_nametoindex(self.name.as_str()).is_ok_and(|ifindex| ifindex == self.ifindex)
    }
}

impl Hook {
    pub(super) const fn attach_type(self) -> TcAttachType {
        match self {
            Self::Ingress => TcAttachType::Ingress,
            Self::Egress => TcAttachType::Egress,
        }
    }

    /// The word in names of pins and for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Hook {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        [Self::Ingress, Self::Egress]
            .into_iter()
            .find(|hook| hook.as_str() == text)
            .ok_or(())
    }
}

impl Way {
    /// The word for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        }
    }
}
