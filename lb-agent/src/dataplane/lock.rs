//! One agent at a time on a pin root, whatever its version.
//!
//! The lock is flock(2) on the pin root, which is a folder of bpffs. So all who see these pins see it, from whatever
//! mount or network namespace, and it goes with the process that holds it, however that ends.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::sys::stat::{major, minor};

use super::DataplaneError;

/// The file in which the kernel lists locks with their holders.
const LOCKS: &str = "/proc/locks";

/// The right to change what is pinned, until it is dropped.
#[derive(Debug)]
pub struct Lock {
    /// Closing it is what unlocks.
    _folder: File,
}

impl Lock {
    /// Takes the lock of a pin root; `None` when there is no such folder, and so nothing to lock.
    pub(super) fn take(root: &Path) -> Result<Option<Self>, DataplaneError> {
        let failed = |source| DataplaneError::Pin {
            action: "lock",
            path: root.into(),
            source,
        };
        loop {
            let folder = match File::open(root) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                folder => folder.map_err(failed)?,
            };
            let id = identity(&folder.metadata().map_err(failed)?);
            match folder.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let locks = fs::read_to_string(LOCKS).unwrap_or_default();
                    return Err(DataplaneError::Locked {
                        root: root.into(),
                        holder: holder(&locks, &id).map_or("unknown".to_owned(), |pid| pid.to_string()),
                    });
                }
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
            // A cleanup may have removed the folder after we opened it, and somebody made another.
            if fs::metadata(root).is_ok_and(|metadata| identity(&metadata) == id) {
                return Ok(Some(Self { _folder: folder }));
            }
        }
    }
}

/// A file as the kernel's list of locks names it: device and inode.
fn identity(metadata: &fs::Metadata) -> String {
    let (device, inode) = (metadata.dev(), metadata.ino());
    format!("{:02x}:{:02x}:{inode}", major(device), minor(device))
}

/// The process that holds a lock by flock(2) on that file.
fn holder(locks: &str, id: &str) -> Option<u32> {
    locks.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let is_flock = words.next() == Some("FLOCK");
        let (pid, file) = (words.nth(2)?, words.next()?);
        (is_flock && file == id).then(|| pid.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lock_is_refused_and_names_the_holder() {
        let root = std::env::temp_dir().join(format!("sluice-lock-{}", std::process::id()));
        assert!(Lock::take(&root).unwrap().is_none());
        fs::create_dir(&root).unwrap();
        let first = Lock::take(&root).unwrap();
        assert!(first.is_some());
        let refused = Lock::take(&root).unwrap_err().to_string();
        drop(first);
        assert!(Lock::take(&root).unwrap().is_some());
        fs::remove_dir(&root).unwrap();
        assert!(refused.starts_with("another lb-agent runs on "), "{refused}");
    }

    #[test]
    fn the_holder_is_found_by_device_and_inode() {
        let locks = "\
            1: POSIX  ADVISORY  WRITE 11 00:29:77 0 EOF\n\
            2: FLOCK  ADVISORY  WRITE 22 00:2a:77 0 EOF\n\
            3: FLOCK  ADVISORY  WRITE 33 00:29:77 0 EOF\n\
            3: -> FLOCK  ADVISORY  WRITE 44 00:29:77 0 EOF\n";
        assert_eq!(holder(locks, "00:29:77"), Some(33));
        assert_eq!(holder(locks, "00:29:78"), None);
    }
}
