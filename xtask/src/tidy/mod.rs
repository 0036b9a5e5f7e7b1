//! The rules of the house, checked on the text of all files. A plain test, so that every test run has it.

mod rules;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

/// Everything that is against the rules, with file and line.
pub(crate) fn check(root: &Path) -> Result<Vec<String>> {
    let files = files(root)?;
    let mut complaints = BTreeSet::new();
    for file in &files {
        complaints.extend(rules::top_level(file));
        let bytes = fs::read(root.join(file)).with_context(|| format!("cannot read {}", file.display()))?;
        // What is not text has no rules.
        let Ok(text) = String::from_utf8(bytes) else {
            continue;
        };
        complaints.extend(rules::text(file, &text));
    }
    let manifest = fs::read_to_string(root.join("Cargo.toml")).context("cannot read Cargo.toml")?;
    complaints.extend(rules::members(&manifest));
    Ok(complaints.into_iter().collect())
}

/// The files under version control that are still there, or all of them when this is no clone.
fn files(root: &Path) -> Result<Vec<PathBuf>> {
    // The owner of a clone may be another user than the one who runs the tests; nothing is executed from it.
    let git = Command::new("git")
        .current_dir(root)
        .args(["-c", "safe.directory=*", "ls-files", "-z"])
        .output();
    let mut files = match git {
        Ok(output) if output.status.success() && !output.stdout.is_empty() => {
            String::from_utf8_lossy(&output.stdout)
                .split_terminator('\0')
                .map(PathBuf::from)
                .collect()
        }
        _ => {
            let mut files = Vec::new();
            walk(root, Path::new(""), &mut files)?;
            files
        }
    };
    files.retain(|file| root.join(file).is_file());
    Ok(files)
}

fn walk(root: &Path, folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let place = root.join(folder);
    for entry in fs::read_dir(&place).with_context(|| format!("cannot read {}", place.display()))? {
        let entry = entry?;
        let path = folder.join(entry.file_name());
        if path == Path::new("target") || path == Path::new(".git") {
            continue;
        }
        if entry.file_type()?.is_dir() {
            walk(root, &path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
    }

    #[test]
    fn the_checkout_is_tidy() {
        let complaints = check(&root()).unwrap();
        assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    }

    #[test]
    fn a_folder_without_git_is_walked() {
        let mut files = Vec::new();
        walk(&root(), Path::new("xtask"), &mut files).unwrap();
        assert!(files.contains(&PathBuf::from("xtask/src/main.rs")));
    }
}
