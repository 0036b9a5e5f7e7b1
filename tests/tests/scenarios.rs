//! Manifests in, rows of maps out: every scenario, on maps in memory and on the kernel's.

#![expect(clippy::unwrap_used, reason = "tests panic")]

use std::path::PathBuf;

use lb_agent::dataplane::{Access, KernelStore, Pins, Sizes, create_maps};
use lb_agent::store::FakeStore;
use lb_tests::scratch::Folder;
use lb_tests::{golden, need_root, story};

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
    let paths = story::all("scenarios").unwrap();
    assert!(paths.len() > 10, "only {} scenarios were found", paths.len());
    paths
}
