//! The tools that people try a network with, run on a host of the tests, and what they found.

mod curl;
mod ping;
mod traceroute;

pub use curl::{Page, download, get, upload};
pub use ping::{Ping, PingReport};
pub use traceroute::{Hop, Probe, traceroute};
