//! Sluice's agent: `lb-agent`.

use std::process::ExitCode;

use lb_agent::cli::Cli;

fn main() -> ExitCode {
    match Cli::read().and_then(Cli::execute) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lb-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}
