//! What Rust on the host does not bring along: a compiler with the source of `core` for BPF, bpf-linker, and the
//! system tools that tests and demo call. Each is found, or else installed.

mod candidate;
mod linker;
mod packages;
mod rust;

use std::{path::PathBuf, process::Command};

use anyhow::Result;

use crate::{steps::Steps, workspace::Workspace};

use packages::Packages;
pub(crate) use rust::Compiler;

/// What BPF objects are built with.
pub(crate) struct Toolchain {
    /// The compiler.
    pub(crate) compiler: Compiler,
    linker: PathBuf,
}

impl Toolchain {
    /// The number of steps that [`Self::set_up`] takes.
    pub(crate) const STEPS: usize = 2;

    /// Finds or installs it.
    pub(crate) fn set_up(workspace: &Workspace, steps: &mut Steps) -> Result<Self> {
        let mut packages = Packages::default();
        steps.advance();
        let compiler = rust::find_or_install(steps, &mut packages)?;
        steps.advance();
        let linker = linker::find_or_build(workspace, steps, &compiler, &mut packages)?;
        Ok(Self { compiler, linker })
    }

    /// A cargo command on lb-ebpf for the BPF target, `build` or `clippy`.
    pub(crate) fn cargo(&self, workspace: &Workspace, subcommand: &str) -> Command {
        let mut command = self.compiler.cargo(subcommand);
        command
            .current_dir(workspace.root())
            .args(["--locked", "--release", "--package", "lb-ebpf"])
            .args(["-Z", "build-std=core", "--target", rust::TARGET])
            .arg("--target-dir")
            .arg(workspace.path("target/bpf-build"))
            .env("CARGO_ENCODED_RUSTFLAGS", linker::rustflags(&self.linker));
        command
    }
}

/// The folder that [`Toolchain::cargo`] leaves the objects in.
pub(crate) fn output_folder(workspace: &Workspace) -> PathBuf {
    workspace
        .path("target/bpf-build")
        .join(rust::TARGET)
        .join("release")
}

/// The number of steps that [`system_tools`] takes.
pub(crate) const SYSTEM_TOOLS_STEPS: usize = 1;

/// Finds or installs the tools that tests, demo and bench call.
pub(crate) fn system_tools(steps: &mut Steps) -> Result<()> {
    steps.advance();
    packages::system_tools(steps, &mut Packages::default())
}

/// Finds or installs the C compiler that crates with code in C need for musl.
pub(crate) fn c_compiler_for_musl(steps: &Steps) -> Result<()> {
    packages::program(steps, "C compiler for musl", "musl-gcc", "musl-tools")
}

/// Finds or installs what builds container images.
pub(crate) fn image_builder(steps: &Steps) -> Result<()> {
    packages::program(steps, "image builder", "buildah", "buildah")
}

/// Finds or installs what makes the root of a Debian.
pub(crate) fn debian_maker(steps: &Steps) -> Result<()> {
    packages::program(steps, "base", "mmdebstrap", "mmdebstrap")
}

/// What was found, too, and does not serve.
fn aside(refusals: &[String]) -> String {
    if refusals.is_empty() {
        String::new()
    } else {
        format!(" ({})", refusals.join("; "))
    }
}
