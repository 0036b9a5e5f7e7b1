//! What chooses a backend, as rows tell it.

use lb_common::ServiceFlags;

use super::maglev;

/// The name of what chooses among `backends` on `slots` slots of a front end with these flags ([`ServiceFlags`]):
/// `round-robin`, `least-connections`, `maglev` or `hash`.
///
/// A table is told by its size, which plain slots have only where weights add up to it.
pub fn algorithm(flags: u32, slots: u32, backends: usize) -> &'static str {
    if flags & ServiceFlags::ROUND_ROBIN != 0 {
        "round-robin"
    } else if flags & ServiceFlags::LEAST_CONNECTIONS != 0 {
        "least-connections"
    } else if maglev::SIZES.contains(&slots) && backends < slots as usize {
        "maglev"
    } else {
        "hash"
    }
}
