//! The seed of hashes where nothing names the cluster: a file beside the manifests, which all nodes share as they share
//! these.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use tracing::warn;

use crate::desired::seed_of;

/// Octets of chance in a new file.
const CHANCE: usize = size_of::<u128>();

/// What is said where no seed is shared.
const OWN: &str = "the seed of hashes is this node's own, and other nodes choose other backends for the same flow: give all \
                   nodes the same --hash-seed or --hash-seed-file";

/// The seed of the file, which is made if there is none; where there is none, `before`, the one in use, or a new one.
pub fn seed(path: Option<&Path>, before: u64) -> u64 {
    let Some(path) = path else {
        warn!("nothing names the cluster; {OWN}");
        return own(before);
    };
    let read = read(path).or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => make(path),
        _ => Err(error),
    });
    match read {
        Ok(text) => seed_of(text.trim()),
        Err(error) => {
            warn!("{}: {error}; {OWN}", path.display());
            own(before)
        }
    }
}

/// The seed in use, or a new one.
fn own(before: u64) -> u64 {
    // Without chance from the kernel there is none; then the clock is better than nothing.
    Some(before)
        .filter(|seed| *seed != 0)
        .unwrap_or_else(|| seed_of(&chance().unwrap_or_else(|_| format!("{:?}", std::time::Instant::now()))))
}

/// The seed of the file, if there is one.
pub fn known_seed(path: &Path) -> Option<u64> {
    read(path).ok().map(|text| seed_of(text.trim()))
}

/// What the file says; an empty one is being made just now.
fn read(path: &Path) -> io::Result<String> {
    let text = fs::read_to_string(path)?;
    if text.trim().is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is empty"));
    }
    Ok(text)
}

/// Makes the file whole under another name: another agent may make it at the same time, and the first one counts.
fn make(path: &Path) -> io::Result<String> {
    let text = chance()? + "\n";
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let draft = path.with_file_name(name);
    let result = write(&draft, &text).and_then(|()| fs::hard_link(&draft, path));
    // It is only a draft.
    let _removed = fs::remove_file(&draft);
    match result {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => read(path),
        result => result.map(|()| text),
    }
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    // Whoever knows the seed can aim at one backend.
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())
}

fn chance() -> io::Result<String> {
    let mut octets = [0; CHANCE];
    File::open("/dev/urandom")?.read_exact(&mut octets)?;
    Ok(format!("{:032x}", u128::from_ne_bytes(octets)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_made_once_and_read_from_then_on() {
        let folder = std::env::temp_dir().join(format!("sluice-seed-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let path = folder.join("hash-seed");
        let first = seed(Some(&path), 0);
        assert_eq!(seed(Some(&path), 5), first);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "no draft is left");
        fs::write(&path, "one for all\n").unwrap();
        assert_eq!(seed(Some(&path), 5), seed_of("one for all"));
        fs::write(&path, "").unwrap();
        assert_eq!(seed(Some(&path), 5), 5);
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(seed(Some(&path), 5), 5);
        assert_ne!(seed(Some(&path), 0), 0);
        assert_eq!(seed(None, 5), 5);
    }
}
