//! Brings the BPF object that `cargo xtask build` left behind into the agent.
//!
//! When there is none the agent is built with an empty one, so that the workspace builds without the BPF tool chain;
//! such an agent says so when it is to load programs.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// Where the object is, unless `SLUICE_BPF_DIR` says otherwise: below the workspace's root.
const DEFAULT_DIR: &str = "target/bpf";

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-env-changed=SLUICE_BPF_DIR");
    let object = bpf_dir().join("sluice.o");
    // A path that is not there counts as changed, each time: watch the nearest folder that is.
    println!("cargo::rerun-if-changed={}", nearest_existing(&object).display());

    let bytes = match fs::read(&object) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    fs::write(out.join("sluice.o"), bytes)
}

fn bpf_dir() -> PathBuf {
    let dir = env::var_os("SLUICE_BPF_DIR").map_or_else(|| PathBuf::from(DEFAULT_DIR), PathBuf::from);
    // An absolute `dir` replaces what it is joined to.
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(dir)
}

fn nearest_existing(path: &Path) -> &Path {
    path.ancestors()
        .find(|ancestor| ancestor.exists())
        .unwrap_or(path)
}
