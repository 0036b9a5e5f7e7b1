//! Where things lie in the checkout, and the cargo that this command was started by.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Command, ExitCode, ExitStatus},
};

use anyhow::{Context as _, Result};

/// The checkout.
pub(crate) struct Workspace {
    root: PathBuf,
}

/// How the host's side is compiled.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Quick to compile.
    Dev,
    /// Quick to run.
    Release,
}

impl Workspace {
    /// Finds the checkout that this command belongs to.
    pub(crate) fn open() -> Result<Self> {
        // Cargo tells a program it runs where its package is; the path from the build covers a direct start.
        let package = env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = package
            .parent()
            .context("xtask is not in a workspace")?
            .to_path_buf();
        Ok(Self { root })
    }

    /// The top of the checkout.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// A path inside the checkout.
    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    /// A path as people read it: without the place of the checkout.
    pub(crate) fn shown<'a>(&self, path: &'a Path) -> std::path::Display<'a> {
        path.strip_prefix(&self.root).unwrap_or(path).display()
    }

    /// Where the checked BPF objects lie (`.cargo/config.toml` says the same).
    pub(crate) fn bpf_dir(&self) -> PathBuf {
        self.path("target/bpf")
    }

    /// A program of the workspace, built for the host.
    pub(crate) fn host_binary(&self, name: &str, profile: Profile) -> PathBuf {
        self.target_folder().join(profile.folder()).join(name)
    }

    /// A program of the workspace, built for a target of this name.
    pub(crate) fn target_binary(&self, name: &str, target: &str, profile: Profile) -> PathBuf {
        self.target_folder()
            .join(target)
            .join(profile.folder())
            .join(name)
    }

    /// The agent as a static program (deploy/Dockerfile says the same).
    pub(crate) fn static_agent(&self, profile: Profile) -> PathBuf {
        self.path("target/static").join(profile.folder()).join("lb-agent")
    }

    fn target_folder(&self) -> PathBuf {
        let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
        self.root.join(target)
    }

    /// The cargo that runs this command, for the host's side.
    pub(crate) fn cargo(&self) -> Command {
        let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command
            .current_dir(&self.root)
            .env("SLUICE_BPF_DIR", self.bpf_dir());
        command
    }

    /// What the tests, the demo and the bench need to know.
    pub(crate) fn add_env(&self, command: &mut Command, profile: Profile) {
        command
            .env("SLUICE_AGENT", self.host_binary("lb-agent", profile))
            .env("SLUICE_BPF_DIR", self.bpf_dir())
            .env("PATH", path_with_sbin());
    }
}

impl Profile {
    /// The flags that choose it.
    pub(crate) fn flags(self) -> &'static [&'static str] {
        match self {
            Self::Dev => &[],
            Self::Release => &["--release"],
        }
    }

    fn folder(self) -> &'static str {
        match self {
            Self::Dev => "debug",
            Self::Release => "release",
        }
    }
}

/// Looks for a program, also where only root's shell does: bpftool and ip often lie in `/usr/sbin`.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    env::split_paths(&path_with_sbin())
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}

/// What a child answered, as the exit code of this command.
pub(crate) fn exit_code(status: ExitStatus) -> ExitCode {
    status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .map_or(ExitCode::FAILURE, ExitCode::from)
}

fn path_with_sbin() -> OsString {
    let mut path = env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/sbin:/sbin");
    path
}
