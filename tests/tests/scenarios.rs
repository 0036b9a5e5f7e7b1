//! Manifests in, rows of maps out: every scenario, on maps in memory and on the kernel's.

#![expect(clippy::unwrap_used, reason = "tests panic")]

use std::fs;
use std::path::{Path, PathBuf};

use lb_agent::dataplane::{Access, KernelStore, Pins, Sizes, create_maps};
use lb_agent::store::FakeStore;
use lb_tests::scratch::Folder;
use lb_tests::{golden, need_root};

#[test]
fn scenarios_on_maps_in_memory() {
    for path in scenarios() {
        golden::check(&path, &mut FakeStore::default()).unwrap();
    }
}

#[test]
fn scenarios_on_maps_of_the_kernel() {
    need_root!();
    for path in scenarios() {
        let (_folder, mut store) = kernel_store();
        golden::check(&path, &mut store).unwrap();
    }
}

/// Maps of the kernel, empty and pinned in a folder which takes them along when it is dropped.
fn kernel_store() -> (Folder, KernelStore) {
    let folder = Folder::new("maps").unwrap();
    let pins = Pins::new(folder.pins());
    let sizes = Sizes {
        services: 64,
        slots: 16_384,
        backends: 256,
        flows: 1024,
        ipv4: true,
        ipv6: true,
    };
    create_maps(&pins, &sizes).unwrap();
    (folder, KernelStore::open(&pins, Access::ReadWrite).unwrap())
}

fn scenarios() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|end| end == "txt"))
        .collect();
    paths.sort();
    assert!(paths.len() > 10, "only {} scenarios were found", paths.len());
    paths
}
