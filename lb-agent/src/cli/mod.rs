//! The command line: one file per subcommand. All but `run` and `cleanup` only read the pinned maps, and work while no
//! agent runs.

mod backends;
mod cleanup;
mod config_file;
mod configz;
mod explain;
mod flows;
mod output;
mod run;
mod serve;
mod services;
mod source;
mod status;
mod traffic;
mod view;

use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};
use tracing_subscriber::EnvFilter;

use crate::dataplane::{Pins, privileges};

pub use output::Format;

/// Sluice's agent: fills the maps of one node's data plane, and shows what is in them.
#[derive(Debug, Parser)]
#[command(name = "lb-agent", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Attach the programs and keep the maps up to date, until a signal ends it.
    Run(Box<run::RunArgs>),
    /// List services with front ends, backends and traffic.
    Services(ShowArgs),
    /// List backends with their state.
    Backends(ShowArgs),
    /// List what is remembered of connections: the entries of the flow tables.
    Flows(flows::FlowsArgs),
    /// Show how the data plane is set up: devices, maps, drops, counters.
    Status(ShowArgs),
    /// Tell step by step what becomes of a packet to a service: the programs are run on it, and no trace is left.
    Explain(Box<explain::ExplainArgs>),
    /// Remove every trace of the data plane: programs, pinned maps, and what was mounted for them.
    Cleanup(PinArgs),
}

#[derive(Debug, Args)]
struct PinArgs {
    /// Where maps and links are pinned, on a bpffs (mounted there if need be).
    #[arg(long, value_name = "DIR", default_value = Pins::DEFAULT_ROOT)]
    pin_root: PathBuf,
}

#[derive(Debug, Args)]
struct ShowArgs {
    #[command(flatten)]
    pin: PinArgs,
    /// How to print it.
    #[arg(long, short, value_enum, default_value_t = Format::Table)]
    output: Format,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

impl Cli {
    /// Reads the command line, and the configuration file that it names. Ends the process on what is no command line.
    pub fn read() -> anyhow::Result<Self> {
        let given: Vec<OsString> = std::env::args_os().collect();
        let command = Self::command();
        let mut matches = command.clone().get_matches_from(&given);
        let mut notices = Vec::new();
        if let Some(run) = matches.subcommand_matches("run")
            && let Some(path) = run.get_one::<PathBuf>("config")
            && let Some(of_run) = command.find_subcommand("run")
        {
            let (more, without_effect) = config_file::more_arguments(path, of_run, run)?;
            notices = without_effect;
            let what = format!("--config {}", path.display());
            matches = command
                .clone()
                .try_get_matches_from(given.into_iter().chain(more))
                .context(what)?;
        }
        let mut cli = Self::from_arg_matches(&matches).context("the command line")?;
        if let Command::Run(args) = &mut cli.command {
            args.notices = notices;
            if let Some((of_run, given)) = command
                .find_subcommand("run")
                .zip(matches.subcommand_matches("run"))
            {
                args.configuration = configz::configuration(of_run, given);
            }
        }
        Ok(cli)
    }

    /// Does what the command line says.
    pub fn execute(self) -> anyhow::Result<()> {
        privileges().map_err(|error| match &self.command {
            Command::Explain(_) => anyhow::Error::new(error)
                .context("the kernel itself runs the programs on the packet, also with --manifests"),
            _ => error.into(),
        })?;
        match self.command {
            Command::Run(args) => args.execute(),
            Command::Services(args) => services::show(&args.pins()?, args.output),
            Command::Backends(args) => backends::show(&args.pins()?, args.output),
            Command::Flows(args) => args.execute(),
            Command::Status(args) => tokio_runtime()?.block_on(status::show(&args.pins()?, args.output)),
            Command::Explain(args) => args.execute(),
            Command::Cleanup(args) => {
                log(LogFormat::Text);
                tokio_runtime()?.block_on(cleanup::cleanup(&args.pins()?))
            }
        }
    }
}

impl PinArgs {
    fn pins(&self) -> anyhow::Result<Pins> {
        let root = std::path::absolute(&self.pin_root).context("--pin-root")?;
        Ok(Pins::new(root))
    }
}

impl ShowArgs {
    /// The pins, if anything is pinned.
    fn pins(&self) -> anyhow::Result<Pins> {
        let pins = self.pin.pins()?;
        if !pins.has_maps() {
            bail!(
                "no data plane at {} (start one by `lb-agent run`, or name its --pin-root)",
                pins.root().display()
            );
        }
        Ok(pins)
    }
}

/// One thread is enough: everything waits for the kernel, and one writer writes.
fn tokio_runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the runtime")
}

/// What is logged unless `RUST_LOG` says otherwise: INFO. But notify tells of watches that the kernel has removed with
/// their folder, the client of the Kubernetes API tells what the source tells, and netlink-proto warns of notifications that nobody waits for any more when the agent ends.
const FILTER: &str = "info,kube_client=off,notify=warn,netlink_proto=error";

/// Logs to stderr. Colours are for terminals.
fn log(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(FILTER));
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(!plain && std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => log.with_target(false).init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
}
