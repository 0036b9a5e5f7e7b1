//! Sluice's agent, one per node: fills the maps of the data plane from Kubernetes objects.
//!
//! Modules stand in the order in which an event travels: a *source* yields objects, the *model* is the node's view
//! of them, *desired* applies Kubernetes' rules, *image* is the exact rows of every map, *reconcile* writes what
//! differs into a *store*, and the *dataplane* is the kernel: programs, pins, devices.

pub mod cli;
pub mod dataplane;
pub mod desired;
pub mod events;
pub mod image;
pub mod model;
pub mod reconcile;
pub mod runtime;
pub mod serve;
pub mod source;
pub mod store;
#[cfg(test)]
mod testkit;
pub mod traffic;
pub mod trial;
