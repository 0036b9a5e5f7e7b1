//! `lb-agent explain`: on a node that is made up from manifests, and on one with an agent at work.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its helpers, too"
)]

mod live;
mod stories;
