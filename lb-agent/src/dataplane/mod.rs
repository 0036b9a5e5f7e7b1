//! The kernel: maps, programs, pins, and the devices that programs are attached to.
//!
//! Everything here is I/O. What it learns of the node goes into the pipe as [`crate::model::HostState`]; what the pipe
//! wants written comes back through [`KernelStore`].

pub mod attach;
pub mod cleanup;
pub mod clock;
pub mod devices;
mod error;
mod flow_hash;
pub mod load;
pub mod loads;
mod lock;
pub mod neighbours;
pub mod netlink;
pub mod pins;
mod preflight;
pub mod reserved;
pub mod routes;
mod sizes;
mod store;
pub mod sysctl;
pub mod tally;
pub mod test_run;
mod verifier;
pub mod xdp;

pub use error::DataplaneError;
pub use load::{Programs, create_maps, load, load_apart};
pub use lock::Lock;
pub use pins::Pins;
pub use preflight::{preflight, privileges};
pub use sizes::{Sizes, default_flows};
pub use store::{Access, KernelStore, PerCpu, PinnedMap};
