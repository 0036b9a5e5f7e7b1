//! The agent as an image carries it.

use std::env;
use std::fs;
use std::process::Command;

use lb_tests::scratch::Folder;

#[test]
fn the_agent_runs_in_a_folder_without_anything_else() {
    let root = Folder::new("root").unwrap();
    fs::copy(env::var("SLUICE_AGENT").unwrap(), root.path().join("lb-agent")).unwrap();
    let output = Command::new("chroot")
        .arg(root.path())
        .args(["/lb-agent", "--version"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(
        String::from_utf8_lossy(&output.stdout).starts_with("lb-agent "),
        "{output:?}"
    );
}
