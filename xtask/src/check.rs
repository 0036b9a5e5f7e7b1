//! `cargo xtask check`: what a reviewer should not have to look for.

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::{
    privilege::NeedsRoot,
    steps::Steps,
    tidy,
    toolchain::Toolchain,
    workspace::{Workspace, find_program},
};

const STEPS: usize = 4 + Toolchain::STEPS + 1;

/// Runs all checks, also when one of them fails, and tells at the end which did.
pub(crate) fn run(workspace: &Workspace) -> Result<ExitCode> {
    let mut checks = Checks {
        steps: Steps::new(workspace, STEPS)?,
        failures: Vec::new(),
    };

    let mut fmt = workspace.cargo();
    checks.run(
        "formatting",
        "fmt",
        fmt.args(["fmt", "--all", "--", "--check", "--color=never"]),
    );
    let mut clippy = workspace.cargo();
    clippy.args([
        "clippy",
        "--locked",
        "--workspace",
        "--all-targets",
        // `--all-targets` leaves out what `cargo test` does.
        "--test",
        "e2e",
        "--",
        "-D",
        "warnings",
    ]);
    checks.run("clippy", "clippy", &mut clippy);
    checks.deny(workspace);
    checks.tidy(workspace);
    checks.bpf_clippy(workspace);

    if checks.failures.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    for failure in &checks.failures {
        eprintln!("error: {failure}");
    }
    Ok(ExitCode::FAILURE)
}

struct Checks {
    steps: Steps,
    failures: Vec<String>,
}

impl Checks {
    fn run(&mut self, what: &str, log: &str, command: &mut Command) {
        self.steps.advance();
        if let Err(error) = self.steps.run(what, log, command) {
            self.failures.push(format!("{error:#}"));
        }
    }

    fn deny(&mut self, workspace: &Workspace) {
        if find_program("cargo-deny").is_none() {
            self.steps.advance();
            self.steps
                .tell("SKIPPED cargo-deny: `cargo install --locked cargo-deny` gets it");
            return;
        }
        let mut deny = workspace.cargo();
        self.run("cargo-deny", "deny", deny.args(["deny", "--locked", "check"]));
    }

    fn tidy(&mut self, workspace: &Workspace) {
        self.steps.advance();
        match tidy::check(workspace.root()) {
            Ok(complaints) if complaints.is_empty() => self.steps.tell("tidy: nothing found"),
            Ok(complaints) => self
                .failures
                .push(format!("tidy\n    {}", complaints.join("\n    "))),
            Err(error) => self.failures.push(format!("tidy: {error:#}")),
        }
    }

    fn bpf_clippy(&mut self, workspace: &Workspace) {
        match Toolchain::set_up(workspace, &mut self.steps) {
            Ok(toolchain) if toolchain.compiler.has_clippy() => {
                let mut clippy = toolchain.cargo(workspace, "clippy");
                clippy.args(["--lib", "--bins", "--", "-D", "warnings"]);
                self.run("BPF clippy", "bpf-clippy", &mut clippy);
            }
            Ok(_) => {
                self.steps.advance();
                self.steps
                    .tell("SKIPPED BPF clippy: this compiler for BPF came without clippy");
            }
            Err(error) if error.is::<NeedsRoot>() => self.steps.tell(&format!("SKIPPED BPF clippy: {error}")),
            Err(error) => self.failures.push(format!("BPF clippy: {error:#}")),
        }
    }
}
