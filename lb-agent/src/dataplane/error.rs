//! What can keep the data plane from being set up: what failed, on which object, and what to do.

use std::io;
use std::path::PathBuf;

use aya::EbpfError;
use aya::maps::MapError;
use aya::programs::ProgramError;
use thiserror::Error;

/// The data plane cannot be set up.
#[derive(Debug, Error)]
pub enum DataplaneError {
    /// Not root, and not given what it takes.
    #[error(
        "this needs root: {missing} missing. Run it as root, or grant that by capabilities (setcap, or the pod's securityContext)"
    )]
    Unprivileged {
        /// Names of the capabilities.
        missing: String,
    },
    /// Older than what the programs need.
    #[error("kernel {release} is too old: Sluice needs Linux 5.15 or newer. Boot a newer kernel")]
    KernelTooOld {
        /// As `uname -r` says it.
        release: String,
    },
    /// The kernel does not describe its types.
    #[error("the kernel has no BTF ({path} is not there). Boot a kernel with CONFIG_DEBUG_INFO_BTF=y", path = path.display())]
    NoBtf {
        /// Where it should be.
        path: PathBuf,
    },
    /// The binary holds no programs.
    #[error("this lb-agent was built without its BPF programs. Run `cargo xtask build`, which builds both")]
    NoPrograms,
    /// The embedded object is not what this version expects.
    #[error(
        "the embedded BPF object has no {what}. Run `cargo xtask build` to build agent and programs from one source"
    )]
    Incomplete {
        /// The map or program.
        what: String,
    },
    /// The embedded object cannot be read.
    #[error("the embedded BPF object cannot be read. Run `cargo xtask build` to build it anew")]
    Object(#[source] EbpfError),
    /// There is no place for pins.
    #[error("no bpffs at {path}, and it cannot be mounted. Mount one (mount -t bpf bpf {path}) or choose another --pin-root", path = path.display())]
    Bpffs {
        /// Where it was to be mounted.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A folder or file under the pin root.
    #[error("cannot {action} {path}", path = path.display())]
    Pin {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Somebody else works on these pins.
    #[error(
        "another lb-agent runs on {root} (pid {holder}). Stop it first; an agent in another network namespace needs another --pin-root", root = root.display()
    )]
    Locked {
        /// The pin root.
        root: PathBuf,
        /// Its process id, if known.
        holder: String,
    },
    /// Somebody removed what was pinned.
    #[error(
        "{path} is gone, or another's: pins were removed, or the bpffs unmounted, while the agent ran. Start it again, \
         which builds the data plane anew", path = path.display()
    )]
    Unpinned {
        /// The pin or folder.
        path: PathBuf,
    },
    /// Another version's programs are still attached.
    #[error(
        "programs of map layout {layout} are attached ({folder}), and this lb-agent has another one; they must not meet on \
         a device. Run `lb-agent cleanup` of the version that attached them (this ends every flow)", folder = folder.display()
    )]
    OtherLayout {
        /// The layout.
        layout: String,
        /// Its folder.
        folder: PathBuf,
    },
    /// A pinned map was made with another size.
    #[error(
        "pinned map {map} ({path}) holds {pinned} rows, but {flag} asks for {wanted}. Start with the {flag} that it was \
         made with, or remove the old maps (`lb-agent cleanup`; this ends every flow)", path = path.display()
    )]
    Resized {
        /// The map's name.
        map: &'static str,
        /// Its pin.
        path: PathBuf,
        /// Rows that it has.
        pinned: u32,
        /// Rows that are asked for.
        wanted: u32,
        /// The flag that decides the size.
        flag: &'static str,
    },
    /// A pinned map has rows of another shape, or is of another kind.
    #[error(
        "pinned map {map} ({path}) has {pinned}, but this version wants {wanted}. It was made by another build: remove \
         the old maps (`lb-agent cleanup`; this ends every flow)", path = path.display()
    )]
    Reshaped {
        /// The map's name.
        map: &'static str,
        /// Its pin.
        path: PathBuf,
        /// Its row sizes, type and flags.
        pinned: String,
        /// What this version makes.
        wanted: String,
    },
    /// The kernel made no map.
    #[error("map {map} ({rows} rows) cannot be created; if memory is short, make it smaller by {flag}")]
    CreateMap {
        /// The map's name.
        map: String,
        /// Rows that were asked for.
        rows: u32,
        /// The flag that decides the size.
        flag: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A map cannot be used.
    #[error("map {map} cannot be used")]
    Map {
        /// The map's name, or its pin.
        map: String,
        /// What aya said.
        #[source]
        source: MapError,
    },
    /// The verifier refused a program.
    #[error(
        "the kernel's verifier rejects program {program} ({cause}):\n{summary}\nThis is a bug; report it with the kernel's version and the whole log (RUST_LOG=debug)"
    )]
    Verifier {
        /// The program's name.
        program: String,
        /// The last lines of the verifier's log.
        summary: String,
        /// What the kernel said.
        cause: io::Error,
    },
    /// The thread that loads programs ended early.
    #[error("loading the programs was broken off. This is a bug; report it with the message above")]
    BrokenOff,
    /// A program cannot be loaded or run, for another reason.
    #[error("program {program} cannot be {action}")]
    Program {
        /// The program's name.
        program: String,
        /// What was tried.
        action: &'static str,
        /// What aya said.
        #[source]
        source: ProgramError,
    },
    /// The kernel does not tell us about its devices.
    #[error("netlink: {what} failed")]
    Netlink {
        /// What was asked.
        what: &'static str,
        /// What the kernel said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
