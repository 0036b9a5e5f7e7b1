//! Sluice's tests: the harness that real-traffic tests, demo and benches share.

pub mod family;
pub mod netns;
pub mod root;
pub mod scratch;
pub mod topology;
