//! Sluice's tests: the harness that real-traffic tests, demo and benches share.

pub mod agent;
pub mod answer;
pub mod bench;
pub mod bulk;
pub mod cases;
pub mod cluster;
pub mod demo;
pub mod dns;
pub mod echo;
pub mod engine;
pub mod family;
pub mod golden;
pub mod http;
pub mod load;
pub mod manifests;
pub mod maps;
pub mod netns;
mod object;
pub mod packet;
pub mod root;
pub mod scratch;
pub mod server;
pub mod socket;
pub mod tools;
pub mod topology;
pub mod wire;
pub mod world;
