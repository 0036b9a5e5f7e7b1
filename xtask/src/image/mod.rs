//! `cargo xtask image`: the image of deploy/Dockerfile, built as a user builds it, and tested.

mod base;
mod buildah;

use std::{fs, process::ExitCode};

use anyhow::{Context as _, Result};

use crate::{
    build,
    not_here::NotHere,
    privilege::{is_root, require_root},
    steps::Steps,
    toolchain,
    workspace::{Profile, Workspace, exit_code},
};

use base::Base;
use buildah::Buildah;

const DOCKERFILE: &str = "deploy/Dockerfile";
const NAME: &str = "localhost/sluice";
/// Tools, base, image.
const STEPS: usize = 1 + base::STEPS + 1;

/// Builds the image and runs its tests. With `if_possible`, an image that cannot be built here is said and no failure.
pub(crate) fn run(workspace: &Workspace, if_possible: bool) -> Result<ExitCode> {
    if if_possible && !is_root() {
        eprintln!("SKIPPED image: needs root");
        return Ok(ExitCode::SUCCESS);
    }
    require_root("image")?;
    let total = STEPS + toolchain::SYSTEM_TOOLS_STEPS + build::HOST_STEPS;
    let mut steps = Steps::new(workspace, total)?;
    steps.advance();
    match with_builder(workspace, &mut steps) {
        Err(error) if if_possible && error.is::<NotHere>() => {
            let text = format!("{error:#}");
            // What follows are the last lines of a log.
            let reason = text.lines().next().unwrap_or_default();
            steps.tell(&format!("SKIPPED image: {reason}"));
            Ok(ExitCode::SUCCESS)
        }
        result => result,
    }
}

fn with_builder(workspace: &Workspace, steps: &mut Steps) -> Result<ExitCode> {
    toolchain::image_builder(steps).context(NotHere("nothing to build images with".to_owned()))?;
    let buildah = Buildah::new(workspace)?;
    let base = base::find_or_make(workspace, steps, &buildah)?;
    steps.advance();
    build(workspace, steps, &buildah, &base)?;
    test(workspace, steps, &buildah)
}

fn build(workspace: &Workspace, steps: &Steps, buildah: &Buildah, base: &Base) -> Result<()> {
    let mut build = buildah.build(NAME);
    build
        .args(base.arguments())
        .arg("--file")
        .arg(workspace.path(DOCKERFILE));
    steps.run(
        "image: building, with everything that it takes",
        "image",
        build.arg(workspace.root()),
    )
}

/// The tests see what the image holds as a folder, and what it says of itself as a file.
fn test(workspace: &Workspace, steps: &mut Steps, buildah: &Buildah) -> Result<ExitCode> {
    let root = buildah.mount(NAME)?;
    let description = buildah.folder().join("image.json");
    fs::write(&description, buildah.describe(NAME)?)
        .with_context(|| format!("cannot write {}", description.display()))?;
    toolchain::system_tools(steps)?;
    let targets = [&build::PROGRAMS[..], &["--bin", "lb-agent", "--test", "image"]].concat();
    build::host(workspace, steps, "tests", Profile::Dev, &targets)?;

    let mut tests = workspace.cargo();
    tests.args(["test", "--locked"]).args(build::PROGRAMS);
    tests.args(["--test", "image", "--", "--nocapture"]);
    workspace.add_env(&mut tests, Profile::Dev);
    tests
        .env("SLUICE_IMAGE_ROOT", root)
        .env("SLUICE_IMAGE_DESCRIPTION", description);
    Ok(exit_code(tests.status().context("cannot start cargo")?))
}
