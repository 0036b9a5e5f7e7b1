//! What is in the image, and what is not.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use object::elf::FileHeader64;
use object::read::elf::{FileHeader as _, ProgramHeader as _};
use object::{Endianness, elf};

use super::{config, root, words};

#[test]
fn it_holds_one_program_that_needs_no_other_file() {
    let root = root();
    assert_eq!(paths(&root), [root.join("lb-agent")]);
    let program = root.join("lb-agent");
    let about = fs::symlink_metadata(&program).unwrap();
    assert!(about.is_file());
    assert_eq!(about.permissions().mode() & 0o7777, 0o755);

    let bytes = fs::read(&program).unwrap();
    let header = FileHeader64::<Endianness>::parse(&*bytes).unwrap();
    let endian = header.endian().unwrap();
    let segments = header.program_headers(endian, &*bytes).unwrap();
    assert!(!segments.is_empty());
    for segment in segments {
        assert!(
            segment.interpreter(endian, &*bytes).unwrap().is_none(),
            "it asks for a dynamic linker"
        );
        let dynamic = segment.dynamic(endian, &*bytes).unwrap().unwrap_or_default();
        assert!(
            dynamic
                .iter()
                .all(|entry| entry.d_tag.get(endian) != elf::DT_NEEDED),
            "it asks for a library"
        );
    }
    println!("image: /lb-agent and nothing else, {} kB", about.len() / 1000);
}

#[test]
fn a_container_of_it_is_the_agent() {
    let config = config();
    assert_eq!(words(&config, "Entrypoint"), ["/lb-agent"]);
    assert_eq!(words(&config, "Cmd"), ["run"]);
    // Root: what the agent does takes root's rights, and the DaemonSet asks for them.
    for unset in ["User", "WorkingDir", "Volumes", "ExposedPorts"] {
        let value = &config[unset];
        assert!(value.is_null() || value == "" || value == "/", "{unset}: {value}");
    }
}

/// Everything below a folder, of whatever kind.
fn paths(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap();
    let mut found = Vec::new();
    for path in entries.map(|entry| entry.unwrap().path()) {
        if fs::symlink_metadata(&path).unwrap().is_dir() {
            found.extend(paths(&path));
        }
        found.push(path);
    }
    found
}
