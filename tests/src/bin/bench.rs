//! What Sluice costs: run by `cargo xtask bench`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use lb_tests::bench::control::{self, Scale};
use lb_tests::bench::throughput::{self, Throughput};
use lb_tests::bench::timings::{self, Timing};
use lb_tests::bench::{packets, table};
use serde::Serialize;

/// Measures Sluice; without a group, everything.
#[derive(Debug, Parser)]
struct Arguments {
    /// What to measure.
    group: Option<Group>,
    /// Of the cases of `packets`, only those whose name contains this text.
    #[arg(long, default_value = "")]
    only: String,
    /// Nothing but the cases of `packets`, and beside them those of another build: its `sluice.o`.
    #[arg(long, value_name = "FILE")]
    beside: Option<PathBuf>,
    /// How to print it.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Group {
    /// Nanoseconds per packet.
    Packets,
    /// Bulk TCP through a service beside plain routing.
    Throughput,
    /// How soon the agent is ready, and how soon an edit is in the maps.
    Agent,
    /// A large cluster: start, changes, memory; beside kube-proxy.
    Control,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// One object for all groups; a group that was not asked for is absent.
#[derive(Debug, Default, Serialize)]
struct Report {
    #[serde(flatten)]
    packets: Option<packets::Report>,
    #[serde(skip_serializing_if = "Option::is_none")]
    beside: Option<Vec<packets::Compared>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    throughput: Option<Vec<Throughput>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<Vec<Timing>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    control: Option<Vec<Scale>>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match measure(&arguments).and_then(|report| print(&report, arguments.output)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &Arguments) -> Result<Report> {
    let wants = |group| arguments.group.is_none_or(|asked| asked == group);
    let (only, progress) = (&arguments.only, |what: &str| eprintln!("measuring {what} ..."));
    let mut report = Report::default();
    if let Some(other) = &arguments.beside {
        report.beside = Some(packets::compare(only, other, progress)?);
        return Ok(report);
    }
    if wants(Group::Packets) {
        report.packets = Some(packets::run(only, progress)?);
    }
    if wants(Group::Throughput) {
        eprintln!("measuring throughput ...");
        report.throughput = Some(throughput::measure()?);
    }
    if wants(Group::Agent) {
        eprintln!("measuring the agent ...");
        report.agent = Some(timings::measure()?);
    }
    if wants(Group::Control) {
        report.control = Some(control::measure(|line| eprintln!("{line}"))?);
    }
    Ok(report)
}

#[expect(clippy::print_stdout, reason = "the report is what is asked for")]
fn print(report: &Report, output: Output) -> Result<()> {
    match output {
        Output::Table => {
            for text in [
                report.packets.as_ref().map(packets::Report::table),
                report.beside.as_deref().map(packets::beside_text),
                report.throughput.as_deref().map(table::throughput),
                report.agent.as_deref().map(table::timings),
                report.control.as_deref().map(control::text),
            ]
            .into_iter()
            .flatten()
            {
                println!("{text}");
            }
        }
        Output::Json => println!("{}", serde_json::to_string_pretty(report)?),
    }
    Ok(())
}
