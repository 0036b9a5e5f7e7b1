//! `cargo xtask conformance`: packets of lb-tests against files that say what becomes of them.

use std::process::ExitCode;

use anyhow::Result;

use crate::{
    demo::run_program,
    privilege::require_root,
    workspace::{Profile, Workspace},
};

/// Builds everything and compares, with these arguments.
pub(crate) fn run(workspace: &Workspace, args: &[String]) -> Result<ExitCode> {
    require_root("conformance")?;
    run_program(workspace, "conformance", Profile::Dev, args)
}
