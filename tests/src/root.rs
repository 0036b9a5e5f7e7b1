//! Tests that need root say so by name when they cannot run.

use std::env;
use std::fs::OpenOptions;
use std::io::Write as _;

use nix::unistd::geteuid;

/// Leaves the test when it is not run as root: prints `SKIPPED <test>: needs root`, appends the name to the file
/// `$SLUICE_SKIP_LOG`, and fails instead with `CI=true`.
#[macro_export]
macro_rules! need_root {
    () => {{
        fn here() {}
        if $crate::root::skipped(::std::any::type_name_of_val(&here)) {
            return;
        }
    }};
}

/// Whether the test must be left, for [`need_root!`]; `marker` is the path of a function inside the test.
///
/// # Panics
/// With `CI=true`, where a skipped test is a failure; and when the skip log cannot be written.
pub fn skipped(marker: &str) -> bool {
    if geteuid().is_root() {
        return false;
    }
    let test = marker.trim_end_matches("::here");
    assert!(
        env::var("CI").as_deref() != Ok("true"),
        "{test} needs root, and in CI no test may be skipped"
    );
    println!("SKIPPED {test}: needs root");
    if let Some(log) = env::var_os("SLUICE_SKIP_LOG") {
        let written = OpenOptions::new()
            .append(true)
            .create(true)
            .open(&log)
            .and_then(|mut file| writeln!(file, "{test}"));
        assert!(
            written.is_ok(),
            "cannot write the skip log {}: {written:?}",
            log.display()
        );
    }
    true
}
