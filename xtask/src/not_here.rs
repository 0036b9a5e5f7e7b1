//! What cannot be had on a machine, although nothing is broken.

use std::fmt;

/// Why something that a command needs is not here: with `--if-possible` a reason to leave it out.
#[derive(Debug)]
pub(crate) struct NotHere(pub(crate) String);

impl fmt::Display for NotHere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NotHere {}
