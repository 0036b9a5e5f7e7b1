//! bpf-linker. It reads the bitcode of the compiler, so its LLVM must not be older than the compiler's.

use std::{
    env,
    ffi::OsString,
    fs,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    steps::Steps,
    workspace::{Workspace, find_program},
};

use super::{aside, packages::Packages, rust, rust::Compiler};

/// The version that the objects are linked with.
pub(crate) const VERSION: &str = "0.13.0";

/// The LLVMs that this version can be built with.
pub(super) const LLVM_MAJORS: RangeInclusive<u32> = 21..=23;

/// Type information for maps and programs; and copies and fills as stores: LLVM's way for BPF, which bpf-linker turns
/// on by itself, gives up early and calls a loop over bytes.
const LINKED_FLAGS: [&str; 3] = [
    "-Cdebuginfo=2",
    "-Clink-arg=--btf",
    "-Clink-arg=--disable-expand-memcpy-in-order",
];
/// What stands between flags, as they may hold spaces.
const SEPARATOR: &str = "\u{1f}";

const NAME: &str = "bpf-linker";
const TOOLS: &str = "target/tools";
const PROBE: &str = "target/xtask/probe";

/// Finds a linker that understands this compiler, or builds one.
pub(super) fn find_or_build(
    workspace: &Workspace,
    steps: &Steps,
    compiler: &Compiler,
    packages: &mut Packages,
) -> Result<PathBuf> {
    let own = workspace.path(TOOLS).join("bin").join(NAME);
    let mut refusals = Vec::new();
    for linker in [find_program(NAME), cargo_home_linker(), Some(own.clone())]
        .into_iter()
        .flatten()
    {
        if !linker.is_file() {
            continue;
        }
        match refusal(workspace, compiler, &linker)? {
            None => {
                let aside = aside(&refusals);
                steps.tell(&format!("{NAME} {VERSION}: {}{aside}", workspace.shown(&linker)));
                return Ok(linker);
            }
            Some(reason) => refusals.push(format!("{} {reason}", workspace.shown(&linker))),
        }
    }
    let llvm = compiler.llvm;
    let prefix = llvm_prefix(steps, packages, llvm)?;
    let what = format!(
        "{NAME} {VERSION} for LLVM {llvm}: building into {TOOLS} (about a minute){}",
        aside(&refusals)
    );
    let mut install = workspace.cargo();
    install
        .args([
            "install",
            NAME,
            "--version",
            VERSION,
            "--locked",
            "--force",
            "--no-default-features",
        ])
        .args(["--features", &format!("llvm-{llvm}"), "--root"])
        .arg(workspace.path(TOOLS))
        .env("LLVM_PREFIX", prefix);
    steps.run(&what, NAME, &mut install)?;
    match refusal(workspace, compiler, &own)? {
        None => Ok(own),
        Some(reason) => bail!("{} was just built, yet it {reason}", workspace.shown(&own)),
    }
}

/// The compiler flags for objects, in the form of `CARGO_ENCODED_RUSTFLAGS`.
pub(super) fn rustflags(linker: &Path) -> OsString {
    let mut flags = concat_os("-Clinker=", linker);
    for flag in LINKED_FLAGS {
        flags.push(SEPARATOR);
        flags.push(flag);
    }
    flags
}

/// Why this linker does not serve: its version, or an LLVM that cannot read what the compiler writes. The latter is
/// found out by linking an empty program, as a linker does not tell.
fn refusal(workspace: &Workspace, compiler: &Compiler, linker: &Path) -> Result<Option<String>> {
    let output = Command::new(linker).arg("--version").output();
    let answer = output
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        .unwrap_or_default();
    if answer != format!("{NAME} {VERSION}") {
        return Ok(Some(format!("says {answer:?}")));
    }
    let folder = workspace.path(PROBE);
    let source = folder.join("empty.rs");
    fs::create_dir_all(&folder)
        .and_then(|()| fs::write(&source, "#![feature(no_core)]\n#![no_core]\n"))
        .with_context(|| format!("cannot write {}", source.display()))?;
    let output = compiler
        .rustc()
        .args(["--target", rust::TARGET, "--crate-type", "cdylib", "-o"])
        .arg(folder.join("empty.o"))
        .arg("-C")
        .arg(concat_os("linker=", linker))
        .arg(&source)
        .output()
        .context("cannot start rustc")?;
    Ok((!output.status.success()).then(|| format!("cannot read the bitcode of LLVM {}", compiler.llvm)))
}

fn concat_os(prefix: &str, path: &Path) -> OsString {
    let mut text = OsString::from(prefix);
    text.push(path);
    text
}

fn cargo_home_linker() -> Option<PathBuf> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")))?;
    Some(home.join("bin").join(NAME))
}

/// The folder of an LLVM to build against: the one that the user names, Debian's, or the one on the path.
fn llvm_prefix(steps: &Steps, packages: &mut Packages, major: u32) -> Result<PathBuf> {
    if let Some(prefix) = env::var_os("LLVM_PREFIX") {
        return Ok(prefix.into());
    }
    if Packages::available() {
        let (llvm, polly) = (format!("llvm-{major}-dev"), format!("libpolly-{major}-dev"));
        packages.install(steps, &format!("{NAME} {VERSION}"), &[&llvm, &polly])?;
        return Ok(PathBuf::from(format!("/usr/lib/llvm-{major}")));
    }
    let answer = |argument: &str| {
        let output = Command::new("llvm-config").arg(argument).output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    if answer("--version").is_some_and(|version| version.split('.').next() == Some(&major.to_string())) {
        return answer("--prefix")
            .map(PathBuf::from)
            .context("llvm-config does not tell its folder");
    }
    bail!(
        "{NAME} {VERSION} is not here: install it, or LLVM {major} to build it against (LLVM_PREFIX names its folder)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_with_a_space_is_one_flag() {
        let flags = rustflags(Path::new("/a b/bpf-linker"));
        let flags = flags.into_string().unwrap();
        let mut parts = flags.split(SEPARATOR);
        assert_eq!(parts.next(), Some("-Clinker=/a b/bpf-linker"));
        assert!(parts.eq(LINKED_FLAGS));
    }
}
