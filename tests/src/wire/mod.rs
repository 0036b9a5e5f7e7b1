//! Frames as they are on the wire: seen at a device, and sent out of one.
//!
//! What XDP sends out of a device is not seen there, but at the other end of the link.

mod capture;
mod flood;
mod link;

pub use capture::{Capture, Seen};
pub use flood::{FLOOD_SOURCES, syn_flood};
pub use link::Link;
