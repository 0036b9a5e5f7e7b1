//! Sluice's own commands: `cargo xtask build | test | e2e | image | demo | conformance | bench | check`.
//!
//! Each of them finds or installs what it needs, says what it found, and leaves the output of its tools in log
//! files. Continuous integration calls nothing else.

#![forbid(unsafe_code)]

mod bench;
mod build;
mod check;
mod conformance;
mod control_plane;
mod demo;
mod e2e;
mod image;
mod not_here;
mod object_check;
mod privilege;
mod static_agent;
mod steps;
mod strip;
mod test;
mod tidy;
mod toolchain;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use workspace::{Profile, Workspace};

/// Build, try, test and measure Sluice.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build the BPF objects, check them, and build the agent.
    Build {
        /// Build the agent with optimizations (the BPF objects always are).
        #[arg(long)]
        release: bool,
        /// Build the agent as a static program, into `target/static`.
        #[arg(long = "static")]
        is_static: bool,
    },
    /// Build everything and run all tests; without root, those that need it are skipped by name.
    Test {
        /// Only tests whose name contains this text.
        #[arg(long)]
        filter: Option<String>,
    },
    /// Build everything and run the tests against a real Kubernetes control plane (needs root, and Go or
    /// `$KUBEBUILDER_ASSETS`).
    E2e {
        /// Only tests whose name contains this text.
        #[arg(long)]
        filter: Option<String>,
        /// Where no control plane can be had, say so and succeed.
        #[arg(long)]
        if_possible: bool,
    },
    /// Build the container image of deploy/Dockerfile, and test what is in it (needs root).
    Image {
        /// Where it cannot be built, say so and succeed.
        #[arg(long)]
        if_possible: bool,
    },
    /// Show a cluster of network namespaces on this machine (needs root).
    Demo {
        /// Passed on to the demo.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Compare what becomes of packets with what kube-proxy does to them (needs root).
    Conformance {
        /// Passed on: `--flows FILE`, `--snat always|needed`, `--mirror ipv6|udp|ipv6-udp`, `--output json`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Measure (needs root).
    Bench {
        /// Passed on: the group to measure, for example `packets`, or none for all; `--only TEXT`, `--beside FILE`,
        /// `--output json` (nothing else goes to standard output).
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Formatting, clippy on both sides, cargo-deny and the rules of the house.
    Check,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match Workspace::open().and_then(|workspace| run(&workspace, cli.command)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(workspace: &Workspace, command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Build { release, is_static } => {
            let profile = if release { Profile::Release } else { Profile::Dev };
            if is_static {
                build::run_static(workspace, profile)
            } else {
                build::run(workspace, profile)
            }
        }
        Command::Test { filter } => test::run(workspace, filter.as_deref()),
        Command::E2e { filter, if_possible } => e2e::run(
            workspace,
            &e2e::Wanted {
                filter: filter.as_deref(),
                if_possible,
            },
        ),
        Command::Image { if_possible } => image::run(workspace, if_possible),
        Command::Demo { args } => demo::run(workspace, &args),
        Command::Conformance { args } => conformance::run(workspace, &args),
        Command::Bench { args } => bench::run(workspace, &args),
        Command::Check => check::run(workspace),
    }
}
