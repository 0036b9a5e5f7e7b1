//! Backends: the endpoints that packets are sent to.

use crate::addr::Port;

/// Value of `lb_backends4`, `lb_backends6` (arrays): one endpoint of one service port.
///
/// A flow remembers index *and* epoch: both must still be right, or the backend is another one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C, align(4))]
pub struct Backend<A> {
    /// The pod's address.
    pub addr: A,
    /// The target port.
    pub port: Port,
    /// Raised each time that the row is given to another endpoint, or its address and port to another pod.
    pub epoch: u16,
    /// The service port that it belongs to; 0 in a free row, which so matches no flow.
    pub service: u32,
    /// [`BackendState`].
    pub state: u8,
    /// [`BackendFlags`].
    pub flags: u8,
    /// Always 0.
    pub pad: [u8; 2],
}

/// Bits of [`Backend::flags`].
#[derive(Clone, Copy, Debug)]
pub struct BackendFlags;

impl BackendFlags {
    /// The endpoint is on this node.
    pub const LOCAL: u8 = 1;
    /// Of all policies only Local leads to it.
    pub const LOCAL_ONLY: u8 = 1 << 1;
}

/// Key of `lb_locals4`, `lb_locals6` (hash; value: index into `lb_backends4`, `lb_backends6`): a local endpoint of a
/// service port that is served by direct server return. A packet that another node has wrapped names only the pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C, align(4))]
pub struct LocalKey<A> {
    /// The pod's address.
    pub addr: A,
    /// The service port.
    pub service: u32,
}

/// What may be done with a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum BackendState {
    /// The row is nobody's, and its service is 0.
    Free = 0,
    /// Gets new flows.
    Active = 1,
    /// Keeps its flows and gets no new ones: terminating, for example.
    NoNew = 2,
    /// Left the slices, or its service port is gone: established TCP lives on until the row, or the service port's
    /// number, is needed again; UDP is chosen anew.
    Removed = 3,
    /// In the slices, but it does not serve, while others of its service port do: TCP lives on, UDP is chosen anew.
    NotServing = 4,
}

impl BackendState {
    /// From the number in a row; `None` for a number that no version wrote.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Free),
            1 => Some(Self::Active),
            2 => Some(Self::NoNew),
            3 => Some(Self::Removed),
            4 => Some(Self::NotServing),
            _ => None,
        }
    }

    /// Whether the datagrams of its flows stay with a backend that is in this state.
    #[inline(always)]
    pub const fn keeps_datagrams(state: u8) -> bool {
        state == Self::Active as u8 || state == Self::NoNew as u8
    }

    /// The word for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Active => "active",
            Self::NoNew => "no-new",
            Self::Removed => "removed",
            Self::NotServing => "not-serving",
        }
    }
}
