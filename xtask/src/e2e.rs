//! `cargo xtask e2e`: the agent against a real Kubernetes control plane, beside the real kube-proxy.

use std::process::ExitCode;

use anyhow::{Context as _, Result};

use crate::{
    build, control_plane,
    not_here::NotHere,
    privilege::{is_root, require_root},
    static_agent,
    steps::Steps,
    toolchain,
    workspace::{Profile, Workspace, exit_code},
};

/// What the tests are told to do.
pub(crate) struct Wanted<'a> {
    /// Only tests whose name contains this text.
    pub(crate) filter: Option<&'a str>,
    /// Where no control plane can be had, say so and succeed.
    pub(crate) if_possible: bool,
}

/// Gets a control plane, builds everything, and runs the tests.
pub(crate) fn run(workspace: &Workspace, wanted: &Wanted<'_>) -> Result<ExitCode> {
    if wanted.if_possible && !is_root() {
        eprintln!("SKIPPED e2e: needs root");
        return Ok(ExitCode::SUCCESS);
    }
    require_root("e2e")?;
    let total = control_plane::STEPS
        + build::BPF_STEPS
        + toolchain::SYSTEM_TOOLS_STEPS
        + static_agent::STEPS
        + build::HOST_STEPS;
    let mut steps = Steps::new(workspace, total)?;
    let programs = match control_plane::find_or_build(workspace, &mut steps) {
        Err(error) if wanted.if_possible && error.is::<NotHere>() => {
            steps.tell(&format!("SKIPPED e2e: {error}"));
            return Ok(ExitCode::SUCCESS);
        }
        programs => programs?,
    };
    build::bpf_objects(workspace, &mut steps)?;
    toolchain::system_tools(&mut steps)?;
    // What an image carries is what is tested.
    let agent = static_agent::build(workspace, &mut steps, Profile::Dev)?;
    let targets = [&build::PROGRAMS[..], &["--test", "e2e"]].concat();
    build::host(workspace, &mut steps, "tests", Profile::Dev, &targets)?;

    let mut tests = workspace.cargo();
    tests.args([
        "test",
        "--locked",
        "--package",
        "lb-agent",
        "--package",
        "lb-tests",
    ]);
    tests.args(["--test", "e2e", "--"]).args(wanted.filter);
    // A control plane takes a core by itself; one test at a time also keeps what they tell in order.
    tests.args(["--nocapture", "--test-threads", "1"]);
    workspace.add_env(&mut tests, Profile::Dev);
    tests
        .env(control_plane::VARIABLE, programs)
        .env("SLUICE_AGENT", agent);
    let status = tests.status().context("cannot start cargo")?;
    Ok(exit_code(status))
}
