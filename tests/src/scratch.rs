//! What a run leaves on the machine: unique names, folders, and the sweeping up after runs that were killed.
//!
//! Every name starts with `sl-<pid>-`, so two runs never collide and a later one knows what belongs to no one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, io};

use anyhow::{Context as _, Result};
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::netns;

const PREFIX: &str = "sl-";

/// In a scratch folder: the id of a process that works with it.
const PID_FILE: &str = "pid";

/// In a scratch folder: where a process may mount a bpffs.
const PIN_FOLDER: &str = "pins";

/// A name that no other test of this machine uses: `sl-<pid>-<n>-<role>`.
pub fn unique_name(role: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!(
        "{PREFIX}{}-{}-{role}",
        process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

/// A folder of its own, removed on drop together with the mount in it.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Makes the folder.
    pub fn new(role: &str) -> Result<Self> {
        let path = env::temp_dir().join(unique_name(role));
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self { path })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder in it that may become a mount point of a bpffs.
    pub fn pins(&self) -> PathBuf {
        self.path.join(PIN_FOLDER)
    }

    /// Notes the process that works with this folder, so that a sweep ends it.
    pub fn note_process(&self, pid: u32) -> Result<()> {
        fs::write(self.path.join(PID_FILE), pid.to_string()).context("cannot note the process of a folder")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        remove_folder(&self.path);
    }
}

/// Removes what runs left behind whose process is gone.
pub fn sweep_dead() {
    sweep(|owner| !is_alive(owner));
}

/// A process that is dead but that its parent has not waited for yet counts as gone.
fn is_alive(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // `<pid> (<name>) <state> ...`, and the name may hold anything.
    status
        .rsplit_once(") ")
        .is_some_and(|(_, state)| !state.starts_with(['Z', 'X']))
}

/// Removes everything of this process, for a run that is about to be ended by a signal.
pub fn sweep_own() {
    sweep(|owner| owner == process::id());
}

fn sweep(is_rubbish: impl Fn(u32) -> bool) {
    for folder in leftovers(&env::temp_dir(), &is_rubbish) {
        end_process(&folder);
        remove_folder(&folder);
    }
    for namespace in leftovers(Path::new(netns::FOLDER), &is_rubbish) {
        if let Some(name) = namespace.file_name() {
            netns::remove(&name.to_string_lossy());
        }
    }
}

fn leftovers(folder: &Path, is_rubbish: impl Fn(u32) -> bool) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter(|entry| owner(&entry.file_name().to_string_lossy()).is_some_and(&is_rubbish))
        .map(|entry| entry.path())
        .collect()
}

/// The process that made a thing of this name.
fn owner(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()
}

/// Ends the process noted in a folder, if it is still the one whose command line names that folder.
fn end_process(folder: &Path) {
    let Ok(noted) = fs::read_to_string(folder.join(PID_FILE)) else {
        return;
    };
    let Ok(pid) = noted.trim().parse::<i32>() else {
        return;
    };
    let command_line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    if String::from_utf8_lossy(&command_line).contains(&*folder.to_string_lossy()) {
        // It may be gone already, which is as good.
        let _gone = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

fn remove_folder(folder: &Path) {
    // Twice mounted is twice to unmount; a folder that is no mount point answers EINVAL.
    while umount2(&folder.join(PIN_FOLDER), MntFlags::MNT_DETACH).is_ok() {}
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            eprintln!("cannot remove {}: {error}", folder.display());
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_its_owner() {
        assert_eq!(owner(&unique_name("client")), Some(process::id()));
        assert_eq!(owner("sl-12-0-a"), Some(12));
        assert_eq!(owner("slow-12"), None);
        assert_eq!(owner("sl-x-0"), None);
    }

    #[test]
    fn this_process_lives_and_others_do_not() {
        assert!(is_alive(process::id()));
        assert!(!is_alive(u32::MAX));
    }

    #[test]
    fn a_folder_goes_with_its_value() {
        let folder = Folder::new("folder").unwrap();
        let path = folder.path().to_owned();
        fs::write(path.join("file"), "text").unwrap();
        drop(folder);
        assert!(!path.exists());
    }
}
