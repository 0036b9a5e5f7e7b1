//! Sluice agent
fn main() {}
