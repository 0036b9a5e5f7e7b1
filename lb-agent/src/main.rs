//! Sluice's agent: `lb-agent`.

use std::process::ExitCode;

use clap::Parser as _;
use lb_agent::cli::Cli;

fn main() -> ExitCode {
    match Cli::parse().execute() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lb-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}
