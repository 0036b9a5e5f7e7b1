//! The demo, run by `cargo xtask demo`.

use std::path::PathBuf;
use std::process::{self, ExitCode};
use std::thread;
use std::time::Instant;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use lb_tests::{demo, scratch};
use nix::unistd::geteuid;
use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};

/// Shows services reached through eBPF: hosts in network namespaces, the agent, real traffic.
#[derive(Debug, Parser)]
struct Arguments {
    /// The folder of manifests to show.
    #[arg(long, default_value = "deploy/examples/demo")]
    manifests: PathBuf,
    /// How to print the results.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if !geteuid().is_root() {
        eprintln!("The demo needs root: it makes network namespaces and loads BPF programs.");
        return ExitCode::FAILURE;
    }
    clean_up_on_signals();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Shows everything; whether it was as expected.
fn run(arguments: &Arguments) -> Result<bool> {
    let begin = Instant::now();
    let progress = |step: &str| eprintln!("[{:4.1} s] {step}", begin.elapsed().as_secs_f64());
    let report = demo::run(&arguments.manifests, progress)?;
    match arguments.output {
        Output::Table => println!("\n{report}"),
        Output::Json => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    Ok(report.failures.is_empty())
}

/// A demo that is interrupted leaves nothing behind either.
fn clean_up_on_signals() {
    thread::spawn(|| -> Result<()> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut interrupt = signal(SignalKind::interrupt())?;
            let mut terminate = signal(SignalKind::terminate())?;
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            scratch::sweep_own();
            process::exit(130)
        })
    });
}
