//! Root, and saying plainly that it is missing.

use std::fmt;

/// Something that only root can do was needed, and this is not root.
#[derive(Debug)]
pub(crate) struct NeedsRoot(pub(crate) String);

impl fmt::Display for NeedsRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NeedsRoot {}

/// Whether this is root.
pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Refuses a whole command, before it does anything.
pub(crate) fn require_root(command: &str) -> Result<(), NeedsRoot> {
    if is_root() {
        return Ok(());
    }
    Err(NeedsRoot(format!(
        "`cargo xtask {command}` needs root: it makes network namespaces and loads BPF programs"
    )))
}
