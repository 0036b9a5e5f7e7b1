//! `cargo xtask bench`: the bench of lb-tests, built with optimizations.

use std::process::ExitCode;

use anyhow::Result;

use crate::{
    demo::run_program,
    privilege::require_root,
    workspace::{Profile, Workspace},
};

/// Builds everything and measures what the arguments, which are the bench's own, ask for.
pub(crate) fn run(workspace: &Workspace, args: &[String]) -> Result<ExitCode> {
    require_root("bench")?;
    run_program(workspace, "bench", Profile::Release, args)
}
