//! The compilers on this machine, and whether they can build for BPF.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::workspace::find_program;

use super::linker;

const SYSTEM_BIN: &str = "/usr/bin";
const OLDEST: &str = env!("CARGO_PKG_RUST_VERSION");

/// What cargo and rustup tell the programs they run, and what would lead another toolchain astray.
const FOREIGN_ENV: [&str; 14] = [
    "CARGO",
    "CARGO_BUILD_RUSTC",
    "CARGO_BUILD_RUSTC_WRAPPER",
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_TARGET_DIR",
    "LD_LIBRARY_PATH",
    "RUSTC",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_WRAPPER",
    "RUSTDOC",
    "RUSTFLAGS",
    "RUSTUP_TOOLCHAIN",
];

/// Where a compiler comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// A toolchain of rustup, by name.
    Rustup(String),
    /// The compiler of the operating system.
    System,
}

/// A compiler on this machine, whether it serves or not.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    /// Where it comes from.
    pub(super) way: Way,
    /// What it says of itself.
    pub(super) version: Version,
    has_core: bool,
}

/// What `rustc -vV` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Version {
    /// The version, as it is written.
    pub(super) release: String,
    minor: (u32, u32),
    /// The major version of its LLVM.
    pub(super) llvm: u32,
}

/// The first candidate that serves, and what is wrong with those before it that one would have expected to.
pub(super) fn choose(candidates: &[Candidate]) -> (Option<&Candidate>, Vec<String>) {
    let mut refusals = Vec::new();
    for candidate in candidates {
        match candidate.refusal() {
            None => return (Some(candidate), refusals),
            // Nobody expects a stable toolchain to have it.
            Some(_) if candidate.way.is_stable() => {}
            Some(reason) => refusals.push(format!("{} {reason}", candidate.way.name())),
        }
    }
    (None, refusals)
}

/// The toolchains in the answer of `rustup toolchain list`, nightlies first.
pub(super) fn toolchain_names(listed: &str) -> Vec<Way> {
    let names = listed
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "no");
    let mut ways: Vec<Way> = names.map(|name| Way::Rustup(name.to_owned())).collect();
    ways.sort_by_key(Way::is_stable);
    ways
}

impl Candidate {
    /// Asks a compiler; there is none when it does not answer.
    pub(super) fn examine(way: Way) -> Option<Self> {
        let answer = |args: &[&str]| {
            let output = way
                .command("rustc")
                .args(args)
                .output()
                .ok()
                .filter(|output| output.status.success())?;
            String::from_utf8(output.stdout).ok()
        };
        let version = Version::parse(&answer(&["-vV"])?)?;
        let sysroot = answer(&["--print", "sysroot"])?;
        let has_core = Path::new(sysroot.trim())
            .join("lib/rustlib/src/rust/library/core/src/lib.rs")
            .is_file();
        Some(Self {
            way,
            version,
            has_core,
        })
    }

    fn refusal(&self) -> Option<String> {
        if !self.has_core {
            return Some("lacks rust-src".to_owned());
        }
        if Some(self.version.minor) < parse_minor(OLDEST) {
            return Some(format!("is rustc {}, older than {OLDEST}", self.version.release));
        }
        if !linker::LLVM_MAJORS.contains(&self.version.llvm) {
            return Some(format!(
                "has LLVM {}, which bpf-linker {} does not",
                self.version.llvm,
                linker::VERSION
            ));
        }
        None
    }
}

impl Way {
    /// What to call it.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Rustup(name) => format!("rustup's {name}"),
            Self::System => "the system's compiler".to_owned(),
        }
    }

    /// Its name, if it is a nightly of rustup.
    pub(super) fn nightly(&self) -> Option<String> {
        match self {
            Self::Rustup(name) if name.starts_with("nightly") => Some(name.clone()),
            _ => None,
        }
    }

    fn is_stable(&self) -> bool {
        *self != Self::System && self.nightly().is_none()
    }

    /// One of its programs, in an environment that leads to no other toolchain.
    pub(super) fn command(&self, program: &str) -> Command {
        let mut command = match self {
            Self::Rustup(name) => {
                let mut command = rustup();
                command.args(["run", name, program]);
                command
            }
            Self::System => Command::new(Path::new(SYSTEM_BIN).join(program)),
        };
        for name in FOREIGN_ENV {
            command.env_remove(name);
        }
        // On a nightly this changes nothing; elsewhere -Z build-std would be refused.
        command.env("RUSTC_BOOTSTRAP", "1");
        if *self == Self::System {
            // A rustup's proxy may come first on the path.
            command.env("RUSTC", Path::new(SYSTEM_BIN).join("rustc"));
            command.env("CARGO", Path::new(SYSTEM_BIN).join("cargo"));
        }
        command
    }
}

impl Version {
    fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
        };
        let release = field("release")?.to_owned();
        let minor = parse_minor(&release)?;
        let llvm = field("LLVM version")?.split('.').next()?.parse().ok()?;
        Some(Self { release, minor, llvm })
    }
}

fn parse_minor(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split(['.', '-']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// A rustup that only does what it is asked to: it would fetch a missing toolchain of its own accord.
pub(super) fn rustup() -> Command {
    let mut command = Command::new(find_program("rustup").unwrap_or_else(|| PathBuf::from("rustup")));
    command.env("RUSTUP_AUTO_INSTALL", "0");
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    const NIGHTLY: &str = "rustc 1.97.0-nightly (e50aa6fba 2026-05-19)\nbinary: rustc\ncommit-hash: e50a\n\
                           host: x86_64-unknown-linux-gnu\nrelease: 1.97.0-nightly\nLLVM version: 22.1.4\n";

    fn candidate(way: Way, release: &str, llvm: u32, has_core: bool) -> Candidate {
        let minor = parse_minor(release).unwrap();
        Candidate {
            way,
            version: Version {
                release: release.to_owned(),
                minor,
                llvm,
            },
            has_core,
        }
    }

    fn rustup(name: &str) -> Way {
        Way::Rustup(name.to_owned())
    }

    #[test]
    fn version_of_rustc_is_read() {
        let expected = Version {
            release: "1.97.0-nightly".to_owned(),
            minor: (1, 97),
            llvm: 22,
        };
        assert_eq!(Version::parse(NIGHTLY), Some(expected));
        assert_eq!(Version::parse("rustc 1.63.0"), None);
        assert_eq!(Version::parse("release: 1.90.0\n"), None);
    }

    #[test]
    fn nightlies_come_first() {
        let listed = "stable-x86_64-unknown-linux-gnu (active, default)\nnightly-2026-05-20-x86_64-unknown-linux-gnu\n";
        let names = toolchain_names(listed);
        assert_eq!(names[0], rustup("nightly-2026-05-20-x86_64-unknown-linux-gnu"));
        assert_eq!(names[1], rustup("stable-x86_64-unknown-linux-gnu"));
        assert!(toolchain_names("no installed toolchains\n").is_empty());
    }

    #[test]
    fn nightly_with_source_is_chosen() {
        let all = [
            candidate(rustup("nightly"), "1.97.0-nightly", 22, true),
            candidate(Way::System, "1.96.0", 22, true),
        ];
        let (chosen, refusals) = choose(&all);
        assert_eq!(chosen.unwrap().way, rustup("nightly"));
        assert!(refusals.is_empty());
    }

    #[test]
    fn nightly_without_source_is_refused_by_name() {
        let all = [
            candidate(rustup("nightly"), "1.97.0-nightly", 22, false),
            candidate(Way::System, "1.96.0", 22, true),
        ];
        let (chosen, refusals) = choose(&all);
        assert_eq!(chosen.unwrap().way, Way::System);
        assert_eq!(refusals, ["rustup's nightly lacks rust-src"]);
    }

    #[test]
    fn old_compiler_and_unknown_llvm_are_refused() {
        let all = [
            candidate(rustup("nightly"), "1.99.0-nightly", 40, true),
            candidate(Way::System, "1.63.0", 14, true),
        ];
        let (chosen, refusals) = choose(&all);
        assert!(chosen.is_none());
        assert!(refusals[0].contains("LLVM 40"), "{refusals:?}");
        assert!(refusals[1].contains("older than"), "{refusals:?}");
    }

    #[test]
    fn stable_without_source_is_passed_over_in_silence() {
        let all = [candidate(rustup("stable"), "1.95.0", 22, false)];
        let (chosen, refusals) = choose(&all);
        assert!(chosen.is_none() && refusals.is_empty());
    }
}
