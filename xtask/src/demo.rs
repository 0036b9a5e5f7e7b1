//! `cargo xtask demo`: the demo of lb-tests on what was just built.

use std::os::unix::process::CommandExt as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use crate::{
    build, control_plane,
    privilege::require_root,
    steps::Steps,
    toolchain,
    workspace::{Profile, Workspace},
};

/// Builds everything and runs the demo with these arguments.
pub(crate) fn run(workspace: &Workspace, args: &[String]) -> Result<ExitCode> {
    require_root("demo")?;
    run_program(workspace, "demo", Profile::Dev, args)
}

/// Sets up, builds, and runs a program of lb-tests beside the agent.
pub(crate) fn run_program(
    workspace: &Workspace,
    name: &str,
    profile: Profile,
    args: &[String],
) -> Result<ExitCode> {
    let total = build::BPF_STEPS + toolchain::SYSTEM_TOOLS_STEPS + build::HOST_STEPS;
    let mut steps = Steps::new(workspace, total)?;
    build::bpf_objects(workspace, &mut steps)?;
    toolchain::system_tools(&mut steps)?;
    let what = format!("agent and {name}");
    let programs = [&build::PROGRAMS[..], &["--bin", "lb-agent", "--bin", name]].concat();
    build::host(workspace, &mut steps, &what, profile, &programs)?;

    let program = workspace.host_binary(name, profile);
    let mut command = std::process::Command::new(&program);
    command.args(args).current_dir(workspace.root());
    workspace.add_env(&mut command, profile);
    if let Some(folder) = control_plane::found(workspace) {
        command.env(control_plane::VARIABLE, folder);
    }
    // In place of this process, so that a signal reaches the one that has to clean up.
    let error = command.exec();
    Err(error).with_context(|| format!("cannot start {}", program.display()))
}
