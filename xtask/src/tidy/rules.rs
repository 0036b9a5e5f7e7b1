//! Each rule is a function of one text, so that each has a test with a text that must fail.

use std::path::Path;

/// The longest file that a reader takes in.
const MOST_LINES: usize = 500;
/// How far above an unsafe block its reason may begin.
const SAFETY_REACH: usize = 4;

/// All that the top of the checkout may hold.
const TOP_LEVEL: [&str; 20] = [
    ".cargo",
    ".ci",
    ".dockerignore",
    ".gitignore",
    "ARCHITECTURE.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "clippy.toml",
    "deny.toml",
    "deploy",
    "docs",
    "lb-agent",
    "lb-common",
    "lb-ebpf",
    "rustfmt.toml",
    "tests",
    "xtask",
];

/// The code of lb-ebpf that only the kernel runs: the programs, and those of the bench.
const BPF_ONLY: [&str; 2] = ["lb-ebpf/src/bpf", "lb-ebpf/src/bench"];

/// What has no place in a finished tree. Written in two halves, or this file would break its own rule.
const UNFINISHED: [&str; 3] = [
    concat!("to", "do!("),
    concat!("unimple", "mented!("),
    concat!("#[ig", "nore"),
];

/// The top level holds what everybody knows, and nothing else.
pub(super) fn top_level(path: &Path) -> Option<String> {
    let first = path.components().next()?.as_os_str();
    let known = TOP_LEVEL.iter().any(|name| first == *name);
    (!known).then(|| format!("{}: not in the list of the top level", first.display()))
}

/// The rules that this file has to follow.
pub(super) fn text(path: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let is_rust = path.extension().is_some_and(|extension| extension == "rs");
    if has_clean_lines(path) {
        found.extend(trailing_whitespace(text));
    }
    if is_rust {
        found.extend(length(text));
        found.extend(tabs(text));
        found.extend(unfinished(text));
        found.extend(unsafe_without_reason(text));
        if path.starts_with("lb-ebpf/src") && !BPF_ONLY.iter().any(|folder| path.starts_with(folder)) {
            found.extend(impure(text));
        }
    }
    if path.file_name().is_some_and(|name| name == "Cargo.toml") && path.parent() != Some(Path::new("")) {
        found.extend(own_lints(text));
    }
    let place = path.display();
    found
        .into_iter()
        .map(|Found { line, what }| match line {
            Some(line) => format!("{place}:{line}: {what}"),
            None => format!("{place}: {what}"),
        })
        .collect()
}

/// Every crate has its folder at the top level, under its own name in the list.
pub(super) fn members(manifest: &str) -> Vec<String> {
    let list = manifest
        .split_once("\nmembers = [")
        .and_then(|(_, rest)| rest.split_once(']'));
    let Some((list, _)) = list else {
        return vec!["Cargo.toml: no list of members".to_owned()];
    };
    let names = list
        .split(',')
        .map(|name| name.trim().trim_matches('"'))
        .filter(|name| !name.is_empty());
    let strangers = names.filter(|name| !TOP_LEVEL.contains(name));
    strangers
        .map(|name| format!("Cargo.toml: member {name} is not in the list of the top level"))
        .collect()
}

/// Something against a rule.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    line: Option<usize>,
    what: &'static str,
}

/// Recorded output of programs may end lines as it likes; what people write may not.
fn has_clean_lines(path: &Path) -> bool {
    const WRITTEN: [&str; 7] = ["json", "md", "rs", "sh", "toml", "yaml", "yml"];
    path.extension()
        .is_none_or(|extension| WRITTEN.iter().any(|known| extension == *known))
}

fn lines_with(text: &str, what: &'static str, is_bad: impl Fn(&str) -> bool) -> Vec<Found> {
    let numbered = text.lines().enumerate().filter(|(_, line)| is_bad(line));
    numbered
        .map(|(index, _)| Found {
            line: Some(index + 1),
            what,
        })
        .collect()
}

fn trailing_whitespace(text: &str) -> Vec<Found> {
    lines_with(text, "whitespace at the end of the line", |line| {
        line.ends_with(char::is_whitespace)
    })
}

fn tabs(text: &str) -> Vec<Found> {
    lines_with(text, "a tab", |line| line.contains('\t'))
}

fn unfinished(text: &str) -> Vec<Found> {
    lines_with(text, "unfinished or switched off", |line| {
        UNFINISHED.iter().any(|mark| line.contains(mark))
    })
}

fn length(text: &str) -> Option<Found> {
    (text.lines().count() > MOST_LINES).then_some(Found {
        line: None,
        what: "more than 500 lines",
    })
}

/// The packet core is plain Rust: whatever needs aya or unsafe code lies in the folders of programs.
fn impure(text: &str) -> Vec<Found> {
    lines_with(text, "the packet core has neither unsafe code nor aya", |line| {
        let code = line.split_once("//").map_or(line, |(code, _)| code);
        words(code).any(|word| word == "unsafe" || word == "aya" || word.starts_with("aya_"))
    })
}

fn unsafe_without_reason(text: &str) -> Vec<Found> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let code = line.split_once("//").map_or(*line, |(code, _)| code);
        let is_unsafe = ["{", "impl"].iter().any(|next| {
            code.match_indices("unsafe ")
                .any(|(at, mark)| code[at + mark.len()..].starts_with(next))
        });
        let above = &lines[index.saturating_sub(SAFETY_REACH)..index];
        if is_unsafe
            && !above
                .iter()
                .any(|line| line.trim_start().starts_with("// SAFETY:"))
        {
            found.push(Found {
                line: Some(index + 1),
                what: "unsafe without a `// SAFETY:` above it",
            });
        }
    }
    found
}

fn own_lints(manifest: &str) -> Option<Found> {
    let shares = manifest
        .split_once("[lints]")
        .is_some_and(|(_, rest)| rest.trim_start().starts_with("workspace = true"));
    (!shares).then_some(Found {
        line: None,
        what: "no `[lints] workspace = true`",
    })
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Finds exactly one thing in the bad text, on this line, and nothing in the good one.
    fn check(path: &str, bad: &str, line: Option<usize>, good: &str) {
        let found = text(Path::new(path), bad);
        let place = line.map_or_else(|| format!("{path}: "), |line| format!("{path}:{line}: "));
        assert!(found.len() == 1 && found[0].starts_with(&place), "{found:?}");
        let found = text(Path::new(path), good);
        assert!(found.is_empty(), "{found:?}");
    }

    #[test]
    fn unknown_name_at_the_top_level_is_found() {
        assert!(top_level(Path::new("notes.txt")).is_some());
        assert!(top_level(Path::new("scripts/run")).is_some());
        assert!(top_level(Path::new("xtask/src/main.rs")).is_none());
    }

    #[test]
    fn whitespace_at_the_end_is_found() {
        check("README.md", "a\nb \n", Some(2), "a\nb\n");
        assert!(text(Path::new("tests/golden/services.out"), "recorded  \n").is_empty());
    }

    #[test]
    fn tab_is_found() {
        check("xtask/src/a.rs", "fn a() {\n\ta();\n}\n", Some(2), "fn a() {}\n");
    }

    #[test]
    fn long_file_is_found() {
        check(
            "xtask/src/a.rs",
            &"// a\n".repeat(501),
            None,
            &"// a\n".repeat(500),
        );
    }

    #[test]
    fn unfinished_code_is_found() {
        for mark in UNFINISHED {
            check("lb-agent/src/a.rs", &format!("\n    {mark}"), Some(2), "\n");
        }
    }

    #[test]
    fn unsafe_without_a_reason_is_found() {
        let block = concat!("let a = uns", "afe { b() };\n");
        let good = format!("// SAFETY: b has no conditions,\n// really.\n{block}");
        check("lb-ebpf/src/bpf/a.rs", block, Some(1), &good);
        let implementation = concat!("uns", "afe impl Pod for A {}\n");
        check(
            "lb-common/src/a.rs",
            implementation,
            Some(1),
            &format!("// SAFETY: plain bytes.\n{implementation}"),
        );
        let far = format!("// SAFETY: too far away.\n\n\n\n\n{block}");
        assert_eq!(text(Path::new("lb-agent/src/a.rs"), &far).len(), 1);
    }

    #[test]
    fn impure_core_is_found() {
        let path = "lb-ebpf/src/nat.rs";
        check(
            path,
            "use aya_ebpf::EbpfContext;\n",
            Some(1),
            "// aya is not used here\n#![forbid(unsafe_code)]\n",
        );
        check(path, concat!("uns", "afe fn a() {}\n"), Some(1), "fn a() {}\n");
        assert!(
            text(
                Path::new("lb-ebpf/src/bpf/maps.rs"),
                "use aya_ebpf::EbpfContext;\n"
            )
            .is_empty()
        );
    }

    #[test]
    fn crate_with_its_own_lints_is_found() {
        check(
            "xtask/Cargo.toml",
            "[package]\n[lints.rust]\n",
            None,
            "[package]\n\n[lints]\nworkspace = true\n",
        );
    }

    #[test]
    fn unknown_member_is_found() {
        assert!(members("[workspace]\nmembers = [\"xtask\", \"tests\"]\n").is_empty());
        assert_eq!(members("[workspace]\nmembers = [\"crates/a\"]\n").len(), 1);
        assert_eq!(members("[package]\n").len(), 1);
    }
}
