//! `cargo xtask build`: the BPF objects, checked, and then what is built around them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    object_check, static_agent,
    steps::Steps,
    strip,
    toolchain::{self, Toolchain},
    workspace::{Profile, Workspace},
};

/// The number of steps that [`bpf_objects`] takes.
pub(crate) const BPF_STEPS: usize = Toolchain::STEPS + 2;
/// The packages that programs of the host's side come from. Always both, also for one program: with one of them
/// alone, the common dependencies would have other features, and be compiled anew.
pub(crate) const PROGRAMS: [&str; 4] = ["--package", "lb-agent", "--package", "lb-tests"];
/// The number of steps that [`host`] takes.
pub(crate) const HOST_STEPS: usize = 1;

/// Builds the objects and the agent.
pub(crate) fn run(workspace: &Workspace, profile: Profile) -> Result<ExitCode> {
    let mut steps = Steps::new(workspace, BPF_STEPS + HOST_STEPS)?;
    bpf_objects(workspace, &mut steps)?;
    host(
        workspace,
        &mut steps,
        "agent",
        profile,
        &[&PROGRAMS[..], &["--bin", "lb-agent"]].concat(),
    )?;
    steps.tell(&format!(
        "agent: {}",
        workspace.shown(&workspace.host_binary("lb-agent", profile))
    ));
    Ok(ExitCode::SUCCESS)
}

/// Builds the objects and a static agent that carries them.
pub(crate) fn run_static(workspace: &Workspace, profile: Profile) -> Result<ExitCode> {
    let mut steps = Steps::new(workspace, BPF_STEPS + static_agent::STEPS)?;
    bpf_objects(workspace, &mut steps)?;
    let agent = static_agent::build(workspace, &mut steps, profile)?;
    steps.tell(&format!("static agent: {}", workspace.shown(&agent)));
    Ok(ExitCode::SUCCESS)
}

/// Builds the programs of lb-ebpf into `target/bpf`, and refuses objects that the kernel would refuse.
pub(crate) fn bpf_objects(workspace: &Workspace, steps: &mut Steps) -> Result<()> {
    let toolchain = Toolchain::set_up(workspace, steps)?;
    steps.advance();
    let mut cargo = toolchain.cargo(workspace, "build");
    steps.run("BPF objects: building", "bpf-build", cargo.arg("--bins"))?;

    steps.advance();
    let folder = workspace.bpf_dir();
    fs::create_dir_all(&folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let mut news = Vec::new();
    let mut complaints = Vec::new();
    for name in bpf_programs(workspace)? {
        let built = toolchain::output_folder(workspace).join(&name);
        let object = fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
        let found = object_check::check(&object).with_context(|| format!("{name} is not an object"))?;
        if found.is_empty() {
            let object = strip::without_lines(&object).with_context(|| name.clone())?;
            let target = folder.join(&name).with_extension("o");
            let state = if replace(&target, &object)? {
                "new"
            } else {
                "unchanged"
            };
            news.push(format!("{} ({state})", workspace.shown(&target)));
        }
        complaints.extend(found.into_iter().map(|complaint| format!("{name}: {complaint}")));
    }
    if !complaints.is_empty() {
        bail!(
            "the kernel would refuse these objects\n    {}",
            complaints.join("\n    ")
        );
    }
    steps.tell(&format!("BPF objects: checked {}", news.join(", ")));
    Ok(())
}

/// Builds programs or tests of the host's side.
pub(crate) fn host(
    workspace: &Workspace,
    steps: &mut Steps,
    what: &str,
    profile: Profile,
    targets: &[&str],
) -> Result<()> {
    steps.advance();
    let mut build = workspace.cargo();
    build
        .args(["build", "--locked"])
        .args(profile.flags())
        .args(targets);
    steps.run(&format!("{what}: building"), "host-build", &mut build)
}

/// The names of lb-ebpf's programs, as its manifest has them.
fn bpf_programs(workspace: &Workspace) -> Result<Vec<String>> {
    let output = workspace
        .cargo()
        .args(["metadata", "--locked", "--no-deps", "--format-version", "1"])
        .output()
        .context("cannot start cargo")?;
    ensure!(
        output.status.success(),
        "cargo metadata: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).context("cargo metadata is not JSON")?;
    let programs = programs_of(&metadata, "lb-ebpf");
    ensure!(!programs.is_empty(), "lb-ebpf has no programs");
    Ok(programs)
}

fn programs_of(metadata: &serde_json::Value, package: &str) -> Vec<String> {
    let list = |value: &serde_json::Value| value.as_array().cloned().unwrap_or_default();
    let packages = list(&metadata["packages"])
        .into_iter()
        .filter(|each| each["name"] == package);
    let targets = packages.flat_map(|package| list(&package["targets"]));
    let programs = targets.filter(|target| list(&target["kind"]).iter().any(|kind| kind == "bin"));
    programs
        .filter_map(|target| target["name"].as_str().map(str::to_owned))
        .collect()
}

/// Writes a file unless it has these bytes already, so that what depends on its time is not built anew.
fn replace(path: &Path, bytes: &[u8]) -> Result<bool> {
    if fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(false);
    }
    let fresh: PathBuf = path.with_extension("new");
    fs::write(&fresh, bytes)
        .and_then(|()| fs::rename(&fresh, path))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_programs_of_the_package_are_listed() {
        let metadata = serde_json::json!({ "packages": [
            { "name": "lb-ebpf", "targets": [
                { "kind": ["lib"], "name": "lb_ebpf" },
                { "kind": ["bin"], "name": "sluice" },
                { "kind": ["bin"], "name": "bench" },
            ] },
            { "name": "xtask", "targets": [{ "kind": ["bin"], "name": "xtask" }] },
        ] });
        assert_eq!(programs_of(&metadata, "lb-ebpf"), ["sluice", "bench"]);
    }

    #[test]
    fn same_bytes_are_not_written_again() {
        let path = std::env::temp_dir().join(format!("xtask-replace-{}.o", std::process::id()));
        assert!(replace(&path, b"one").unwrap());
        assert!(!replace(&path, b"one").unwrap());
        assert!(replace(&path, b"two").unwrap());
        fs::remove_file(path).unwrap();
    }
}
