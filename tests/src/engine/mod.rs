//! Two engines that run the data plane on single packets: the core on the host, and the BPF object in the kernel.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::missing_panics_doc,
    clippy::cast_possible_truncation,
    reason = "what cannot be set up fails the test"
)]

mod bed;
mod ground;
mod host;
mod kernel;
mod rows;
mod step;
mod tables;
mod test_run;
mod written;

use lb_common::Family;
use lb_ebpf::testkit::{Counts, Frame, Program};

pub use bed::Bed;
pub use ground::{
    BRIDGE, BRIDGE_PORT, GATEWAY_MAC, Ground, LOOPBACK, MAC, MTU, NARROW_MTU, OTHER_GATEWAY_MAC, OTHER_MAC,
    OTHER_UPLINK, POD, POD_MAC, UPLINK, WEB,
};
pub use kernel::Kernel;
pub use rows::{Rows, TestFamily, UNIT, backend, end, far, other_far};
pub use step::Step;
pub use written::Written;

/// What becomes of a packet, as far as every engine can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on: `TCX_NEXT`, `XDP_PASS`.
    On,
    /// It is dropped: `TC_ACT_SHOT`, `XDP_DROP`.
    Dropped,
    /// It leaves by the device that it came in by: `XDP_TX`.
    Back,
    /// It leaves by a device, or comes in there: `TC_ACT_REDIRECT`, `XDP_REDIRECT`.
    Redirected,
}

/// A verdict, and what the host engine alone can tell: the device of [`Verdict::Back`] and [`Verdict::Redirected`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The verdict; `None` when the packet has become an answer, which this engine cannot show.
    pub verdict: Option<Verdict>,
    /// The device.
    pub device: Option<u32>,
}

/// Runs programs over tables of its own.
pub trait Engine<F: Family> {
    /// What people call it.
    fn name(&self) -> &'static str;

    /// Forgets all that the programs have written, and all sockets.
    fn forget(&mut self);

    /// Puts exactly these rows into the tables that the agent writes.
    fn write(&mut self, rows: &Rows<F>);

    /// Runs a program on a packet, which is changed as the program changes it.
    fn run(&mut self, program: Program, frame: &mut Frame) -> Outcome;

    /// What was counted so far.
    fn counts(&mut self) -> Counts;

    /// What the programs have written.
    fn written(&mut self) -> Written<F::Addr>;

    /// Replaces it.
    fn set_written(&mut self, written: &Written<F::Addr>);

    /// The clock, of which the low 31 bits count.
    fn now(&mut self) -> u32;

    /// Connects a UDP socket of the node.
    fn connect(&mut self, local: (F::Addr, u16), peer: (F::Addr, u16));

    /// Opens a socket of the node that listens, or is bound.
    fn listen(&mut self, protocol: u8, local: (F::Addr, u16));

    /// Whether this is the host engine: some things cannot be done to the kernel.
    fn host(&mut self) -> Option<&mut lb_ebpf::testkit::Host> {
        None
    }
}
