//! What the core keeps while it looks at one packet.
//!
//! In the kernel it is memory of the CPU, not of the stack, which has room for 512 bytes in all; and of what is read
//! back from there the verifier assumes nothing, so that it need not follow each way in which it came about.

use lb_common::{Backend, Device, Flow, FlowKey, ServiceValue, SlotRange};

use crate::answer::Span;
use crate::ctx::Ctx;
use crate::headers::{Headers, Kind};
use crate::icmp::Quoted;
use crate::snat::Search;
use crate::wire::Wire;

/// The work area for one packet.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Work<F: Wire> {
    /// The packet's headers; also the key of the entry that is looked up.
    pub packet: Headers<F>,
    /// That entry.
    pub flow: Flow<F::Addr>,
    /// 1: the first look of pre has found one.
    pub stands: u32,
    /// [`Kind`]: what the packet is.
    pub kind: u32,
    /// The key of the flow's other entry.
    pub other_key: FlowKey<F::Addr>,
    /// The flow's other entry, as it should be.
    pub other: Flow<F::Addr>,
    /// An entry that stands where one is to be put.
    pub standing: Flow<F::Addr>,
    /// The key of its other entry.
    pub partner_key: FlowKey<F::Addr>,
    /// Its other entry.
    pub partner: Flow<F::Addr>,
    /// Those of the packet around it, if it came in one.
    pub outer: Headers<F>,
    /// The packet that an ICMP error is about.
    pub quoted: Quoted<F>,
    /// What the packet is sent to.
    pub front_end: ServiceValue,
    /// The slots of backends to choose from.
    pub range: SlotRange,
    /// The backend that is chosen.
    pub backend: Backend<F::Addr>,
    /// Its index.
    pub chosen: u32,
    /// The row of the device that a packet which opens a flow arrived on; of zeros where nothing is known of it.
    pub device: Device,
    /// 1: it is the one that the client stays with.
    pub stays: u16,
    /// [`lb_common::Affinity::term`]: how often the time to stay was over.
    pub term: u16,
    /// [`Origin`].
    pub origin: u32,
    /// The packet's flow hash ([`Self::flow_hash`]); 0: not asked for yet.
    pub hash: u32,
    /// One more than the index of the backend that another node has chosen; 0: none has.
    pub given: u32,
    /// The search for a port, while there is one.
    pub search: Search,
    /// [`crate::verdict::Answer`], when one is due.
    pub answer: u32,
    /// What is being summed up for it.
    pub span: Span,
}

/// Who has sent a packet that opens a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Origin {
    /// Somebody outside the cluster.
    Outside = 0,
    /// A pod.
    Pod = 1,
    /// The node itself.
    Node = 2,
}

impl<F: Wire> Work<F> {
    /// Whether the packet is of this kind.
    #[inline(always)]
    pub fn is(&self, kind: Kind) -> bool {
        self.kind == kind as u32
    }

    /// The packet's flow hash, by which a new flow finds its backend and its ports; computed once.
    #[inline(always)]
    pub fn flow_hash<C: Ctx<F>>(&mut self, cx: &C) -> u32 {
        if self.hash == 0 {
            self.hash = cx.flow_hash(&self.packet.key);
        }
        self.hash
    }

    /// Whether the sender is this one.
    #[inline(always)]
    pub fn is_from(&self, origin: Origin) -> bool {
        self.origin == origin as u32
    }
}

impl<F: Wire> Default for Work<F> {
    fn default() -> Self {
        Self {
            packet: Headers::default(),
            kind: 0,
            flow: Flow::default(),
            stands: 0,
            other_key: FlowKey::default(),
            other: Flow::default(),
            standing: Flow::default(),
            partner_key: FlowKey::default(),
            partner: Flow::default(),
            outer: Headers::default(),
            quoted: Quoted::default(),
            front_end: ServiceValue::default(),
            range: SlotRange::default(),
            backend: Backend::default(),
            chosen: 0,
            device: Device::default(),
            stays: 0,
            term: 0,
            origin: 0,
            hash: 0,
            given: 0,
            search: Search::default(),
            answer: 0,
            span: Span::default(),
        }
    }
}
