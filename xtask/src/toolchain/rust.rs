//! The compiler for BPF. Its target has no prebuilt `core`, so it must come with the source of its own `core`.
//!
//! Two ways lead there: a toolchain of rustup that has the component rust-src (a nightly, as a rule), or a compiler
//! of the system with its source, as Debian's packages give it.

use std::{process::Command, time::Duration};

use anyhow::{Result, anyhow, ensure};

use crate::{
    privilege::{NeedsRoot, is_root},
    steps::Steps,
    workspace::find_program,
};

use super::{
    aside,
    candidate::{Candidate, Way, choose, rustup, toolchain_names},
    packages::Packages,
};

/// The target: programs for the kernel, little endian.
pub(crate) const TARGET: &str = "bpfel-unknown-none";

const DEBIAN_PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];
const RUSTUP_LIMIT: Duration = Duration::from_mins(2);

/// A compiler that can build for BPF.
pub(crate) struct Compiler {
    way: Way,
    /// The major version of its LLVM, which bpf-linker has to match.
    pub(crate) llvm: u32,
}

/// Finds a compiler, or installs one.
pub(crate) fn find_or_install(steps: &Steps, packages: &mut Packages) -> Result<Compiler> {
    let mut failures = match found(steps) {
        Ok(compiler) => return Ok(compiler),
        Err(refusals) => refusals,
    };
    // Debian's packages first: rustup would change the user's own toolchains.
    for install in [install_packages, install_by_rustup] {
        match install(steps, packages) {
            Ok(()) => match found(steps) {
                Ok(compiler) => return Ok(compiler),
                Err(refusals) => failures = refusals,
            },
            Err(error) => failures.push(first_line(&error)),
        }
    }
    let text = format!("no compiler for BPF:\n    {}", failures.join("\n    "));
    Err(if is_root() {
        anyhow!(text)
    } else {
        NeedsRoot(text).into()
    })
}

/// The first compiler here that serves, or why none does.
fn found(steps: &Steps) -> Result<Compiler, Vec<String>> {
    let candidates = survey();
    let (chosen, refusals) = choose(&candidates);
    let Some(Candidate { way, version, .. }) = chosen else {
        return Err(refusals);
    };
    steps.tell(&format!(
        "eBPF compiler: {}, rustc {}, LLVM {}, with the source of core{}",
        way.name(),
        version.release,
        version.llvm,
        aside(&refusals),
    ));
    Ok(Compiler {
        way: way.clone(),
        llvm: version.llvm,
    })
}

fn survey() -> Vec<Candidate> {
    let listed = rustup()
        .args(["toolchain", "list"])
        .output()
        .map(|output| output.stdout)
        .unwrap_or_default();
    let mut ways = toolchain_names(&String::from_utf8_lossy(&listed));
    ways.push(Way::System);
    ways.into_iter().filter_map(Candidate::examine).collect()
}

impl Compiler {
    /// The compiler itself.
    pub(crate) fn rustc(&self) -> Command {
        self.way.command("rustc")
    }

    /// Its cargo. Clippy is called by its own name: a cargo would look for it in rustup's folder first.
    pub(super) fn cargo(&self, subcommand: &str) -> Command {
        let mut command = match (&self.way, subcommand) {
            (Way::System, "clippy") => self.way.command("cargo-clippy"),
            _ => self.way.command("cargo"),
        };
        command.arg(subcommand);
        command
    }

    /// Whether clippy came with it.
    pub(crate) fn has_clippy(&self) -> bool {
        let driver = match self.way {
            Way::Rustup(_) => "cargo-clippy",
            Way::System => "clippy-driver",
        };
        self.way
            .command(driver)
            .arg("--version")
            .output()
            .is_ok_and(|output| output.status.success())
    }
}

fn install_packages(steps: &Steps, packages: &mut Packages) -> Result<()> {
    packages.install(steps, "eBPF compiler", &DEBIAN_PACKAGES)
}

/// Completes a nightly, or fetches one. Without a network rustup may wait for long, so it has a limit.
fn install_by_rustup(steps: &Steps, _: &mut Packages) -> Result<()> {
    ensure!(
        find_program("rustup").is_some(),
        "no rustup to install a nightly with rust-src"
    );
    let mut command = rustup();
    match survey().into_iter().find_map(|candidate| candidate.way.nightly()) {
        Some(name) => command.args(["component", "add", "rust-src", "--toolchain", &name]),
        None => command.args([
            "toolchain",
            "install",
            "nightly",
            "--profile",
            "minimal",
            "--component",
            "rust-src",
        ]),
    };
    let what = format!(
        "eBPF compiler: rustup's nightly with rust-src (at most {} s)",
        RUSTUP_LIMIT.as_secs()
    );
    steps.run_within(Some(RUSTUP_LIMIT), &what, "rustup", &mut command)
}

/// The rest, the end of a log, would hide the other ways.
fn first_line(error: &anyhow::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}
