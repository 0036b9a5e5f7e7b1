//! Where the BPF objects are.

use std::env;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

/// The file of an object that `cargo xtask build` has made.
pub(crate) fn object(name: &str) -> Result<PathBuf> {
    let folder = env::var_os("SLUICE_BPF_DIR").context("SLUICE_BPF_DIR is not set; `cargo xtask` sets it")?;
    Ok(PathBuf::from(folder).join(name))
}
