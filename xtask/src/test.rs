//! `cargo xtask test`: everything that can be tested here, and the names of what could not.

use std::{env, fs, io::Write as _, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result};

use crate::{
    build,
    privilege::{NeedsRoot, is_root},
    steps::Steps,
    toolchain,
    workspace::{Profile, Workspace, exit_code},
};

/// Builds and runs all tests, or those with a name that contains the filter.
pub(crate) fn run(workspace: &Workspace, filter: Option<&str>) -> Result<ExitCode> {
    let tools = if is_root() {
        toolchain::SYSTEM_TOOLS_STEPS
    } else {
        0
    };
    let mut steps = Steps::new(workspace, build::BPF_STEPS + tools + build::HOST_STEPS)?;
    let skipped = SkipLog::new(workspace)?;

    match build::bpf_objects(workspace, &mut steps) {
        // The host's tests need no object; those that load one need root anyway.
        Err(error) if error.is::<NeedsRoot>() => {
            steps.tell(&format!("SKIPPED BPF objects: {error}"));
            skipped.add("BPF objects")?;
            steps.skip_to(build::BPF_STEPS);
        }
        result => result?,
    }
    if is_root() {
        toolchain::system_tools(&mut steps)?;
    }
    build::host(
        workspace,
        &mut steps,
        "agent and tests",
        Profile::Dev,
        &["--workspace", "--bin", "lb-agent", "--tests"],
    )?;

    let mut tests = workspace.cargo();
    tests
        .args(["test", "--locked", "--workspace", "--no-fail-fast"])
        .args(filter);
    workspace.add_env(&mut tests, Profile::Dev);
    tests.env(SkipLog::VARIABLE, &skipped.path);
    let status = tests.status().context("cannot start cargo")?;

    let skipped = skipped.read()?;
    if skipped.is_empty() {
        return Ok(exit_code(status));
    }
    eprintln!("skipped here: {}", skipped.join(", "));
    if env::var("CI").is_ok_and(|value| value == "true") {
        eprintln!("error: with CI=true, nothing may be skipped");
        return Ok(ExitCode::FAILURE);
    }
    Ok(exit_code(status))
}

/// The file in which tests write down, one line each, that they were skipped.
struct SkipLog {
    path: PathBuf,
}

impl SkipLog {
    const VARIABLE: &str = "SLUICE_SKIP_LOG";

    fn new(workspace: &Workspace) -> Result<Self> {
        let path = workspace.path("target/xtask/skipped");
        fs::write(&path, "").with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self { path })
    }

    fn add(&self, name: &str) -> Result<()> {
        let file = fs::OpenOptions::new().append(true).open(&self.path);
        file.and_then(|mut file| writeln!(file, "{name}"))
            .with_context(|| format!("cannot write {}", self.path.display()))
    }

    fn read(&self) -> Result<Vec<String>> {
        let text =
            fs::read_to_string(&self.path).with_context(|| format!("cannot read {}", self.path.display()))?;
        Ok(names(&text))
    }
}

fn names(log: &str) -> Vec<String> {
    let mut names: Vec<String> = log
        .lines()
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect();
    names.sort();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_skipped_test_is_named_once() {
        assert_eq!(names("b\na\n\nb\n"), ["a", "b"]);
    }
}
