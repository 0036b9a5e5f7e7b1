//! What Sluice costs: run by `cargo xtask bench`.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use lb_tests::bench::packets;

/// Measures Sluice; without a group, everything.
#[derive(Debug, Parser)]
struct Arguments {
    /// What to measure.
    group: Option<Group>,
    /// How to print it.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Group {
    /// Nanoseconds per packet.
    Packets,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "the report is what is asked for")]
fn run(arguments: &Arguments) -> Result<()> {
    let report = packets::run(|what| eprintln!("measuring {what} ..."))?;
    match arguments.output {
        Output::Table => println!("{}", report.table()),
        Output::Json => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    Ok(())
}
