//! Settings of the kernel that the data plane needs, of the network namespace that the agent works in. What was there before
//! is remembered in the pin folder and given back by cleanup.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{DataplaneError, Pins};

const ROOT: &str = "/proc/sys";

/// What is needed: names below [`ROOT`], and values.
///
/// Both on loopback, to which nobody but the node itself sends. `accept_local`: a reply to a process of the node that asked
/// one of the node's own addresses (a NodePort) comes in there with that address as its source, which the kernel takes for a
/// forged one otherwise. `route_localnet`: the same where the process asked localhost. Set there alone, it opens 127.0.0.0/8
/// to no other host (CVE-2020-8558).
const NEEDED: [(&str, &str); 2] = [
    ("net/ipv4/conf/lo/accept_local", "1"),
    ("net/ipv4/conf/lo/route_localnet", "1"),
];

/// A setting that we changed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Changed {
    name: String,
    /// What it was before.
    before: String,
    /// What we made of it.
    ours: String,
}

/// Sets what is needed. Says whether anything had to be changed.
pub fn set(pins: &Pins) -> Result<bool, DataplaneError> {
    apply(pins, Path::new(ROOT), &NEEDED.into())
}

/// Gives back what was changed, as far as nobody has changed it since. Says whether anything was.
pub fn give_back(pins: &Pins) -> Result<bool, DataplaneError> {
    apply(pins, Path::new(ROOT), &BTreeMap::new())
}

fn apply(pins: &Pins, root: &Path, wanted: &BTreeMap<&str, &str>) -> Result<bool, DataplaneError> {
    let mut written = false;
    for mark in pins.marked_sysctls() {
        let Some(changed) = Changed::from_mark(&mark) else {
            continue;
        };
        if !wanted.contains_key(changed.name.as_str()) {
            written |= undo(root, &changed)?;
            pins.unmark_sysctl(&mark);
        }
    }
    for (name, value) in wanted {
        let path = root.join(name);
        let Some(before) = read(&path)? else { continue };
        if before == *value {
            continue;
        }
        let known = pins
            .marked_sysctls()
            .into_iter()
            .filter_map(|mark| Changed::from_mark(&mark));
        if !known.into_iter().any(|changed| changed.name == *name) {
            let changed = Changed {
                name: (*name).to_owned(),
                before,
                ours: (*value).to_owned(),
            };
            // Marked first: rather give back too much later than leave something behind.
            pins.mark_sysctl(&changed.mark())?;
        }
        write(&path, value)?;
        written = true;
    }
    Ok(written)
}

fn undo(root: &Path, changed: &Changed) -> Result<bool, DataplaneError> {
    let path = root.join(&changed.name);
    let still_ours = read(&path)?.is_some_and(|now| now == changed.ours);
    if still_ours {
        write(&path, &changed.before)?;
    }
    Ok(still_ours)
}

/// `None` when the kernel has no such setting: the device or the address family is not there.
fn read(path: &Path) -> Result<Option<String>, DataplaneError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(failed("read", path)(source)),
    }
}

fn write(path: &Path, value: &str) -> Result<(), DataplaneError> {
    fs::write(path, value).map_err(failed("write", path))
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DataplaneError {
    let path = PathBuf::from(path);
    move |source| DataplaneError::Pin { action, path, source }
}

impl Changed {
    /// A name for a folder of bpffs, which takes neither slashes nor dots.
    fn mark(&self) -> String {
        let Self { name, before, ours } = self;
        let name = name.replace('%', "%25").replace('/', "%2f").replace('.', "%2e");
        format!("{name}={before}={ours}")
    }

    fn from_mark(mark: &str) -> Option<Self> {
        let mut parts = mark.rsplitn(3, '=');
        let (ours, before, name) = (parts.next()?, parts.next()?, parts.next()?);
        let name = name.replace("%2e", ".").replace("%2f", "/").replace("%25", "%");
        Some(Self {
            name,
            before: before.to_owned(),
            ours: ours.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_read_back_and_fit_a_pin_folder() {
        for name in [
            "net/ipv4/conf/eth0.100/accept_local",
            "net/ipv4/conf/a=b%2f/rp_filter",
        ] {
            let changed = Changed {
                name: name.to_owned(),
                before: "0".to_owned(),
                ours: "1".to_owned(),
            };
            let mark = changed.mark();
            assert!(!mark.contains(['/', '.']), "{mark}");
            assert_eq!(Changed::from_mark(&mark), Some(changed));
        }
        assert_eq!(Changed::from_mark("nonsense"), None);
    }

    #[test]
    fn what_somebody_changed_since_stays() {
        let folder = std::env::temp_dir().join(format!("sluice-sysctl-{}", std::process::id()));
        let (root, pins) = (folder.join("sys"), Pins::new(folder.join("pins")));
        fs::create_dir_all(&root).unwrap();
        let value = |name: &str| fs::read_to_string(root.join(name)).unwrap().trim().to_owned();
        for name in ["a", "b", "c"] {
            fs::write(root.join(name), "0\n").unwrap();
        }
        fs::write(root.join("c"), "1\n").unwrap();
        let wanted = BTreeMap::from([("a", "1"), ("b", "1"), ("c", "1"), ("not-there", "1")]);
        assert!(apply(&pins, &root, &wanted).unwrap());
        assert!(!apply(&pins, &root, &wanted).unwrap());
        assert_eq!(["a", "b", "c"].map(value), ["1", "1", "1"]);

        fs::write(root.join("b"), "2\n").unwrap();
        assert!(apply(&pins, &root, &BTreeMap::new()).unwrap());
        assert_eq!(["a", "b", "c"].map(value), ["0", "2", "1"]);
        assert!(!apply(&pins, &root, &BTreeMap::new()).unwrap());
        fs::remove_dir_all(folder).unwrap();
    }
}
