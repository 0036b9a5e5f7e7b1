//! Packets as kube-proxy treats them: run by `cargo xtask conformance`.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};
use lb_tests::conformance::{self, Flows, Mirror, Report};
use lb_tests::scratch;

/// Compares what becomes of packets with a file that says what should.
#[derive(Debug, Parser)]
struct Arguments {
    /// The file of flows.
    #[arg(long, default_value = "tests/data/flows/kube-proxy.json")]
    flows: PathBuf,
    /// When connections are masqueraded.
    #[arg(long, value_enum, default_value_t = Snat::Always)]
    snat: Snat,
    /// Turn every scenario to another family or protocol first.
    #[arg(long, value_enum, default_value_t = MirrorFlag::None)]
    mirror: MirrorFlag,
    /// How to print it.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Snat {
    /// Exactly when kube-proxy does it.
    Always,
    /// Only where the reply would not come back by this node.
    Needed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum MirrorFlag {
    /// As they are.
    None,
    /// To IPv6.
    Ipv6,
    /// To UDP from TCP, and to TCP from UDP.
    Udp,
    /// Both.
    Ipv6Udp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    scratch::sweep_dead();
    match run(&arguments).and_then(|report| print(&report, arguments.output).map(|()| report.failed)) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<Report> {
    let path = arguments.flows.display();
    let text = fs::read_to_string(&arguments.flows).with_context(|| format!("cannot read {path}"))?;
    let flows = Flows::parse(&text).with_context(|| path.to_string())?;
    let snat = match arguments.snat {
        Snat::Always => conformance::Snat::Always,
        Snat::Needed => conformance::Snat::Needed,
    };
    let mirror = match arguments.mirror {
        MirrorFlag::None => Mirror::PLAIN,
        MirrorFlag::Ipv6 => Mirror {
            ipv6: true,
            udp: false,
        },
        MirrorFlag::Udp => Mirror {
            ipv6: false,
            udp: true,
        },
        MirrorFlag::Ipv6Udp => Mirror {
            ipv6: true,
            udp: true,
        },
    };
    conformance::run(&flows, snat, mirror)
}

#[expect(clippy::print_stdout, reason = "the report is what is asked for")]
fn print(report: &Report, output: Output) -> Result<()> {
    match output {
        Output::Text => println!("{report}"),
        Output::Json => println!("{}", serde_json::to_string_pretty(report)?),
    }
    Ok(())
}
