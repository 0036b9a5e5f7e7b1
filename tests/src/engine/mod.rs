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
mod test_run;

use lb_common::Family;
use lb_ebpf::testkit::{Counts, Flows, Frame, Program};

pub use bed::Bed;
pub use ground::{BRIDGE, BRIDGE_PORT, Ground, POD, UPLINK};
pub use kernel::Kernel;
pub use rows::{Rows, TestFamily, UNIT, backend, end};
pub use step::Step;

/// The verdict that lets a packet go on: `TCX_NEXT`.
pub const NEXT: i32 = -1;
/// The verdict that drops a packet: `TC_ACT_SHOT`.
pub const SHOT: i32 = 2;

/// Runs programs over tables of its own.
pub trait Engine<F: Family> {
    /// What people call it.
    fn name(&self) -> &'static str;

    /// Forgets all flows and sockets.
    fn forget(&mut self);

    /// Puts exactly these rows into the tables that the agent writes.
    fn write(&mut self, rows: &Rows<F>);

    /// Runs a program on a packet, which is changed as the program changes it; returns the verdict.
    fn run(&mut self, program: Program, frame: &mut Frame) -> i32;

    /// What was counted so far.
    fn counts(&mut self) -> Counts;

    /// The flow table.
    fn flows(&mut self) -> Flows<F::Addr>;

    /// Replaces the flow table.
    fn set_flows(&mut self, flows: &Flows<F::Addr>);

    /// The clock, of which the low 31 bits count.
    fn now(&mut self) -> u32;

    /// Connects a UDP socket of the node.
    fn connect(&mut self, local: (F::Addr, u16), peer: (F::Addr, u16));

    /// Whether this is the host engine: some things cannot be done to the kernel.
    fn host(&mut self) -> Option<&mut lb_ebpf::testkit::Host> {
        None
    }
}
