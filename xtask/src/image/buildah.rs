//! buildah, which builds images without a service of its own.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{self, Command},
};

use anyhow::{Context as _, Result, ensure};
use nix::mount::{MntFlags, umount2};

use crate::workspace::Workspace;

/// Where storages lie, one for each process that is at work.
const STORAGES: &str = "target/image";

/// buildah with a storage of its own, which goes with this value, images and all.
pub(super) struct Buildah {
    folder: PathBuf,
}

impl Buildah {
    /// An empty storage. What a run that was ended has left behind is removed.
    pub(super) fn new(workspace: &Workspace) -> Result<Self> {
        let storages = workspace.path(STORAGES);
        for folder in left_behind(&storages) {
            drop(Self { folder });
        }
        let folder = storages.join(process::id().to_string());
        fs::create_dir_all(&folder)
            .with_context(|| format!("cannot make the folder {}", folder.display()))?;
        Ok(Self { folder })
    }

    /// Where there is room for other files, too.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Pulls an image from its registry.
    pub(super) fn pull(&self, image: &str) -> Command {
        let mut command = self.command("pull");
        command.arg(image);
        command
    }

    /// Builds an image of this name; what from is still to say. Nothing of a build is kept but the image.
    pub(super) fn build(&self, image: &str) -> Command {
        let mut command = self.command("build");
        command
            // Root's own rights do: no container runtime, and the network as it is here.
            .args(["--isolation", "chroot"])
            .args(["--layers=false", "--force-rm", "--tag", image]);
        command
    }

    /// What an image says of itself, as JSON.
    pub(super) fn describe(&self, image: &str) -> Result<String> {
        self.answer("inspect", &["--type", "image", image])
    }

    /// The folder with what an image holds.
    pub(super) fn mount(&self, image: &str) -> Result<PathBuf> {
        let container = self.answer("from", &["--pull-never", image])?;
        self.answer("mount", &[&container]).map(PathBuf::from)
    }

    fn command(&self, subcommand: &str) -> Command {
        let mut command = Command::new("buildah");
        command
            .arg("--root")
            .arg(self.storage())
            .arg("--runroot")
            .arg(self.folder.join("run"))
            .arg(subcommand)
            .env("TMPDIR", &self.folder);
        command
    }

    fn answer(&self, subcommand: &str, arguments: &[&str]) -> Result<String> {
        let output = self
            .command(subcommand)
            .args(arguments)
            .output()
            .context("cannot start buildah")?;
        ensure!(
            output.status.success(),
            "buildah {subcommand}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    fn storage(&self) -> PathBuf {
        self.folder.join("storage")
    }
}

impl Drop for Buildah {
    fn drop(&mut self) {
        // Containers first, as they are mounted. What is not there need not be removed.
        let _containers = self.answer("rm", &["--all"]);
        // The driver leaves its own folder mounted upon itself.
        let _mounted = umount2(&self.storage().join("overlay"), MntFlags::MNT_DETACH);
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            eprintln!("cannot remove {}: {error}", self.folder.display());
        }
    }
}

/// Folders whose process is gone. One of this process's number is an earlier process's.
fn left_behind(storages: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(storages) else {
        return Vec::new();
    };
    let is_at_work =
        |name: &OsStr| name != &*process::id().to_string() && Path::new("/proc").join(name).exists();
    entries
        .flatten()
        .filter(|entry| !is_at_work(&entry.file_name()))
        .map(|entry| entry.path())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::env;

    use super::*;

    #[test]
    fn a_storage_is_left_behind_when_its_process_is_gone() {
        let storages = env::temp_dir().join(format!("xtask-buildah-{}", process::id()));
        let (own, gone) = (process::id().to_string(), u32::MAX.to_string());
        for name in ["1", &own, &gone] {
            fs::create_dir_all(storages.join(name)).unwrap();
        }
        let mut found = left_behind(&storages);
        found.sort();
        let mut expected = [storages.join(own), storages.join(gone)];
        expected.sort();
        assert_eq!(found, expected);
        fs::remove_dir_all(&storages).unwrap();
        assert!(left_behind(&storages).is_empty());
    }
}
