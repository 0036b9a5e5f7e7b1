//! The agent as one static program, for images without anything else: by musl, whose `getaddrinfo` needs no files
//! beside the program.

use std::{
    env::consts::ARCH,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    steps::Steps,
    toolchain,
    workspace::{Profile, Workspace, find_program},
};

/// The number of steps that [`build`] takes.
pub(crate) const STEPS: usize = 2;

const RUSTUP_LIMIT: Duration = Duration::from_mins(2);

/// Gets what it takes, builds it, and says where it is: always at the same place, whatever the machine.
pub(crate) fn build(workspace: &Workspace, steps: &mut Steps, profile: Profile) -> Result<PathBuf> {
    let target = target();
    steps.advance();
    add_target(workspace, steps)?;
    toolchain::c_compiler_for_musl(steps)?;

    steps.advance();
    let mut cargo = workspace.cargo();
    cargo
        .args(["build", "--locked", "--package", "lb-agent", "--bin", "lb-agent"])
        .args(["--target", &target])
        .args(profile.flags())
        // Five sixths of the program would be about source lines; the names of functions stay.
        .env("CARGO_PROFILE_RELEASE_DEBUG", "false")
        .env("CARGO_PROFILE_RELEASE_STRIP", "debuginfo");
    steps.run("static agent: building", "static-build", &mut cargo)?;
    let built = workspace.target_binary("lb-agent", &target, profile);
    let place = workspace.static_agent(profile);
    put(&built, &place).with_context(|| format!("cannot make {}", workspace.shown(&place)))?;
    Ok(place)
}

fn target() -> String {
    format!("{ARCH}-unknown-linux-musl")
}

fn put(from: &Path, to: &Path) -> std::io::Result<()> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder)?;
    }
    let draft = to.with_extension("new");
    fs::copy(from, &draft)?;
    fs::rename(draft, to)
}

/// Finds or installs the standard library for it.
pub(crate) fn add_target(workspace: &Workspace, steps: &Steps) -> Result<()> {
    let target = target();
    if has_target(workspace, &target)? {
        return Ok(());
    }
    let Some(rustup) = find_program("rustup") else {
        bail!("this Rust has no target {target}, and there is no rustup to add it");
    };
    let mut add = Command::new(rustup);
    add.args(["target", "add", &target]).current_dir(workspace.root());
    steps.run_within(
        Some(RUSTUP_LIMIT),
        &format!("static agent: rustup target add {target}"),
        "rustup-target",
        &mut add,
    )
}

fn has_target(workspace: &Workspace, target: &str) -> Result<bool> {
    let output = Command::new("rustc")
        .current_dir(workspace.root())
        .args(["--print", "target-libdir", "--target", target])
        .output()
        .context("cannot start rustc")?;
    let folder = String::from_utf8_lossy(&output.stdout);
    Ok(output.status.success() && Path::new(folder.trim()).is_dir())
}
