//! Manifests in, rows of maps out: every scenario, on maps in memory and on the kernel's.

use std::fs;
use std::path::{Path, PathBuf};

use lb_agent::store::FakeStore;
use lb_tests::golden;

#[test]
fn scenarios_on_maps_in_memory() {
    for path in scenarios() {
        golden::check(&path, &mut FakeStore::default());
    }
}

fn scenarios() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let entries = fs::read_dir(folder).expect("the folder of scenarios can be read");
    let paths = entries.map(|entry| entry.expect("an entry can be read").path());
    let mut paths: Vec<_> = paths.filter(|path| path.extension().is_some_and(|end| end == "txt")).collect();
    paths.sort();
    assert!(paths.len() > 10, "only {} scenarios were found", paths.len());
    paths
}
