//! The folder in bpffs where maps and links outlive the agent.
//!
//! `<root>/v4/maps/<map>`, `<root>/v4/links/<ifindex>-<ingress|egress|xdp>`. bpffs holds no plain files, so what else has to
//! be remembered is an empty folder: `<root>/v4/mounted` (the bpffs was mounted by us), `<root>/v4/qdiscs/<ifindex>` (the
//! clsact qdisc of that device was made by us), `<root>/v4/no-xdp/<ifindex>-<reason>` (why that uplink has no XDP program),
//! `<root>/v4/ports/<range>` (those ports were reserved by us), `<root>/v4/sysctls/<name>=<value>` (that setting of the
//! kernel was changed by us, and had this value).

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use lb_common::layout::VERSION;
use nix::mount::{MsFlags, mount, umount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use super::attach::Hook;
use super::reserved::PortRange;
use super::store::detach_link;
use super::xdp::NoXdp;
use super::{DataplaneError, Lock};

/// Where distributions mount bpffs.
const SYSTEM_BPFFS: &str = "/sys/fs/bpf";

/// The folders in a layout's folder that tell of attached programs.
const LINKS: &str = "links";
const QDISCS: &str = "qdiscs";
/// What the name of an XDP link's pin ends with.
const XDP: &str = "-xdp";

/// The pin folder of one data plane.
#[derive(Clone, Debug)]
pub struct Pins {
    root: PathBuf,
    version: PathBuf,
}

impl Pins {
    /// The default of `--pin-root`.
    pub const DEFAULT_ROOT: &str = "/sys/fs/bpf/sluice";

    /// The pin folder under `root`; nothing is touched yet.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        let version = root.join(layout_folder(VERSION));
        Self { root, version }
    }

    /// The pin root.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The pin of a map.
    pub fn map(&self, name: &str) -> PathBuf {
        self.maps().join(name)
    }

    /// The pin of the link that holds a program at a device.
    pub fn link(&self, ifindex: u32, hook: Hook) -> PathBuf {
        self.links().join(format!("{ifindex}-{hook}"))
    }

    /// Every link that is pinned.
    pub fn pinned_links(&self) -> Vec<(u32, Hook)> {
        names(&self.links())
            .filter_map(|name| {
                let (ifindex, hook) = name.split_once('-')?;
                Some((ifindex.parse().ok()?, hook.parse().ok()?))
            })
            .collect()
    }

    /// Whether maps are pinned here: a data plane is, or was, at work.
    pub fn has_maps(&self) -> bool {
        names(&self.maps()).next().is_some()
    }

    /// Fails when there is no folder for links any more.
    pub fn check_links(&self) -> Result<(), DataplaneError> {
        let path = self.links();
        if path.is_dir() {
            Ok(())
        } else {
            Err(DataplaneError::Unpinned { path })
        }
    }

    /// Detaches a link, whoever else holds it, and removes its pin. True when there was one.
    pub fn unlink(&self, ifindex: u32, hook: Hook) -> Result<bool, DataplaneError> {
        unlink(&self.link(ifindex, hook))
    }

    /// The pin of the link that holds the XDP program at a device.
    pub fn xdp_link(&self, ifindex: u32) -> PathBuf {
        self.links().join(format!("{ifindex}{XDP}"))
    }

    /// The devices whose XDP links are pinned.
    pub fn pinned_xdp(&self) -> Vec<u32> {
        names(&self.links())
            .filter_map(|name| name.strip_suffix(XDP)?.parse().ok())
            .collect()
    }

    /// Detaches an XDP link, whoever else holds it, and removes its pin. True when there was one.
    pub fn unlink_xdp(&self, ifindex: u32) -> Result<bool, DataplaneError> {
        unlink(&self.xdp_link(ifindex))
    }

    /// Remembers why an uplink has no XDP program; with `None` that there is nothing to tell.
    pub fn mark_no_xdp(&self, ifindex: u32, reason: Option<NoXdp>) -> Result<(), DataplaneError> {
        let marked = self.no_xdp(ifindex);
        if marked == reason {
            return Ok(());
        }
        if let Some(marked) = marked {
            let _ = fs::remove_dir(self.reasons().join(format!("{ifindex}-{}", marked.code())));
        }
        match reason {
            Some(reason) => create(&self.reasons().join(format!("{ifindex}-{}", reason.code()))),
            None => Ok(()),
        }
    }

    /// Why an uplink has no XDP program, as far as that was remembered.
    pub fn no_xdp(&self, ifindex: u32) -> Option<NoXdp> {
        let reasons = self.marked_no_xdp().into_iter();
        reasons
            .filter(|(marked, _)| *marked == ifindex)
            .map(|(_, reason)| reason)
            .next()
    }

    /// Every uplink that is remembered to have no XDP program.
    pub fn marked_no_xdp(&self) -> Vec<(u32, NoXdp)> {
        names(&self.reasons())
            .filter_map(|name| {
                let (ifindex, reason) = name.split_once('-')?;
                Some((ifindex.parse().ok()?, reason.parse().ok()?))
            })
            .collect()
    }

    /// Remembers what `name` says; for what is changed in the kernel and is to be given back.
    pub(super) fn mark_sysctl(&self, name: &str) -> Result<(), DataplaneError> {
        create(&self.sysctls().join(name))
    }

    /// Forgets what [`Self::mark_sysctl`] remembered.
    pub(super) fn unmark_sysctl(&self, name: &str) {
        let _ = fs::remove_dir(self.sysctls().join(name));
    }

    /// What [`Self::mark_sysctl`] remembered.
    pub(super) fn marked_sysctls(&self) -> Vec<String> {
        names(&self.sysctls()).collect()
    }

    /// Remembers that the clsact qdisc of this device was made by us.
    pub fn mark_qdisc(&self, ifindex: u32) -> Result<(), DataplaneError> {
        create(&self.qdiscs().join(ifindex.to_string()))
    }

    /// Forgets what [`Self::mark_qdisc`] remembered.
    pub fn unmark_qdisc(&self, ifindex: u32) {
        let _ = fs::remove_dir(self.qdiscs().join(ifindex.to_string()));
    }

    /// The devices whose clsact qdisc was made by us.
    pub fn marked_qdiscs(&self) -> Vec<u32> {
        names(&self.qdiscs())
            .filter_map(|name| name.parse().ok())
            .collect()
    }

    /// Remembers that these ports were reserved by us.
    pub fn mark_ports(&self, range: PortRange) -> Result<(), DataplaneError> {
        create(&self.ports().join(range.to_string()))
    }

    /// Forgets what [`Self::mark_ports`] remembered.
    pub fn unmark_ports(&self, range: PortRange) {
        let _ = fs::remove_dir(self.ports().join(range.to_string()));
    }

    /// The ports that were reserved by us.
    pub fn marked_ports(&self) -> Vec<PortRange> {
        names(&self.ports())
            .filter_map(|name| name.parse().ok())
            .collect()
    }

    /// The right to change what is pinned here; `None` when nothing is here, not even the pin root.
    pub fn lock(&self) -> Result<Option<Lock>, DataplaneError> {
        Lock::take(&self.root)
    }

    /// Refuses to go on where programs of another map layout are attached: two layouts' programs at one hook would
    /// translate every packet twice.
    pub fn check_layouts(&self) -> Result<(), DataplaneError> {
        for name in names(&self.root).filter(|name| is_other_layout(name)) {
            let folder = self.root.join(&name);
            // Links, or the marks of clsact filters.
            let attached = [LINKS, QDISCS].map(|kind| names(&folder.join(kind)).next().is_some());
            if attached.contains(&true) {
                return Err(DataplaneError::OtherLayout { layout: name, folder });
            }
        }
        Ok(())
    }

    /// Makes the folders, locked against other agents, and mounts a bpffs for them if there is none.
    pub fn prepare(&self) -> Result<Lock, DataplaneError> {
        let mounted = self.mount()?;
        create(&self.root)?;
        let lock = self.lock()?.ok_or_else(|| DataplaneError::Pin {
            action: "lock",
            path: self.root.clone(),
            source: io::ErrorKind::NotFound.into(),
        })?;
        for folder in [self.maps(), self.links()].into_iter().chain(self.marks()) {
            create(&folder)?;
        }
        if mounted {
            create(&self.mounted())?;
        }
        Ok(lock)
    }

    /// Mounts a bpffs unless the pin root is on one already; true when it did.
    fn mount(&self) -> Result<bool, DataplaneError> {
        if is_bpffs(&self.root) || self.root.parent().is_some_and(is_bpffs) {
            return Ok(false);
        }
        let place = if self.root.starts_with(SYSTEM_BPFFS) {
            Path::new(SYSTEM_BPFFS)
        } else {
            &self.root
        };
        if !is_bpffs(place) {
            fs::create_dir_all(place)
                .and_then(|()| {
                    Ok(mount(
                        Some("bpf"),
                        place,
                        Some("bpf"),
                        MsFlags::empty(),
                        Some("mode=0700"),
                    )?)
                })
                .map_err(|source| DataplaneError::Bpffs {
                    path: place.into(),
                    source,
                })?;
            return Ok(true);
        }
        Ok(false)
    }

    /// Detaches every link, and removes every pin, and the bpffs if we mounted it. Says what it removed.
    pub fn remove(&self, lock: Option<Lock>) -> Result<Vec<String>, DataplaneError> {
        let mut removed = Vec::new();
        for link in names(&self.links()).map(|name| self.links().join(name)) {
            unlink(&link)?;
            removed.push(link.display().to_string());
        }
        for map in names(&self.maps()).map(|name| self.maps().join(name)) {
            remove(&map)?;
            removed.push(map.display().to_string());
        }
        let mounted = self.mounted().exists();
        for folder in self.marks() {
            for name in names(&folder) {
                remove_folder(&folder.join(name))?;
            }
            remove_folder(&folder)?;
        }
        for folder in [self.links(), self.maps(), self.mounted(), self.version.clone()] {
            remove_folder(&folder)?;
        }
        // What is open cannot be unmounted.
        drop(lock);
        if is_mount_point(&self.root) {
            if mounted {
                removed.push(unmount(&self.root)?);
            }
        } else {
            // Other versions of the layout may stand beside ours.
            let _ = fs::remove_dir(&self.root);
            let system = Path::new(SYSTEM_BPFFS);
            // The kernel's own files are in every bpffs.
            let unused = names(system).all(|name| ["maps.debug", "progs.debug"].contains(&name.as_str()));
            if mounted && self.root.starts_with(system) && unused {
                removed.push(unmount(system)?);
            }
        }
        Ok(removed)
    }

    fn maps(&self) -> PathBuf {
        self.version.join("maps")
    }

    fn links(&self) -> PathBuf {
        self.version.join(LINKS)
    }

    fn qdiscs(&self) -> PathBuf {
        self.version.join(QDISCS)
    }

    fn ports(&self) -> PathBuf {
        self.version.join("ports")
    }

    fn reasons(&self) -> PathBuf {
        self.version.join("no-xdp")
    }

    fn sysctls(&self) -> PathBuf {
        self.version.join("sysctls")
    }

    /// The folders whose folders remember something.
    fn marks(&self) -> [PathBuf; 4] {
        [self.qdiscs(), self.ports(), self.reasons(), self.sysctls()]
    }

    fn mounted(&self) -> PathBuf {
        self.version.join("mounted")
    }
}

/// What the folder of a map layout is called.
fn layout_folder(version: u32) -> String {
    format!("v{version}")
}

/// Whether a folder of that name under the pin root is of another map layout than ours.
fn is_other_layout(name: &str) -> bool {
    let version = name.strip_prefix('v').and_then(|number| number.parse().ok());
    version.is_some_and(|version: u32| version != VERSION)
}

fn is_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|stat| stat.filesystem_type() == BPF_FS_MAGIC)
}

fn is_mount_point(path: &Path) -> bool {
    let device = |path: &Path| fs::metadata(path).map(|metadata| metadata.dev()).ok();
    path.parent()
        .is_some_and(|parent| is_bpffs(path) && device(path) != device(parent))
}

fn unmount(path: &Path) -> Result<String, DataplaneError> {
    umount(path).map_err(|errno| DataplaneError::Pin {
        action: "unmount",
        path: path.into(),
        source: errno.into(),
    })?;
    Ok(format!("bpffs at {}", path.display()))
}

fn create(folder: &Path) -> Result<(), DataplaneError> {
    fs::create_dir_all(folder).map_err(|source| DataplaneError::Pin {
        action: "create the folder",
        path: folder.into(),
        source,
    })
}

/// Detaches a link and removes its pin. Without its pin it would go, too, but only some time later.
fn unlink(pin: &Path) -> Result<bool, DataplaneError> {
    match detach_link(pin) {
        Ok(()) => remove(pin).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        // No link, or one that cannot be detached but by removing it.
        Err(_) => remove(pin).map(|()| true),
    }
}

/// Removes a pin; that there is none is no error.
fn remove(pin: &Path) -> Result<(), DataplaneError> {
    absent_is_fine(fs::remove_file(pin), "remove", pin)
}

fn remove_folder(folder: &Path) -> Result<(), DataplaneError> {
    absent_is_fine(fs::remove_dir(folder), "remove the folder", folder)
}

fn absent_is_fine(result: io::Result<()>, action: &'static str, path: &Path) -> Result<(), DataplaneError> {
    match result {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(DataplaneError::Pin {
            action,
            path: path.into(),
            source,
        }),
        _ => Ok(()),
    }
}

/// The names in a folder; none when it is not there.
fn names(folder: &Path) -> impl Iterator<Item = String> + use<> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    names.sort();
    names.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_other_layouts_are_told_by_their_names() {
        assert!(is_other_layout(&layout_folder(VERSION + 1)));
        assert!(is_other_layout("v0"));
        for name in [&layout_folder(VERSION), "v", "vx", "maps", "1"] {
            assert!(!is_other_layout(name), "{name}");
        }
    }
}
