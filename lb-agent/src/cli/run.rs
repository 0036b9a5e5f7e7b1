//! `lb-agent run`.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::bail;
use clap::{Args, CommandFactory as _, ValueEnum};
use serde_json::Value;

use super::serve::ServeArgs;
use super::traffic::TrafficArgs;
use super::{Cli, LogFormat, PinArgs, configz, log, tokio_runtime};
use crate::dataplane::devices::Patterns;
use crate::dataplane::reserved::{PortRange, PortRangeError};
use crate::dataplane::xdp::XdpChoice;
use crate::dataplane::{Sizes, default_flows};
use crate::runtime::{Options, run};

/// Flags of `run`.
#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// Folder of manifests to follow: the YAML or JSON that `kubectl apply` takes.
    #[arg(long, value_name = "DIR")]
    manifests: PathBuf,
    /// Name of this node's Node object.
    #[arg(long, value_name = "NAME", env = "NODE_NAME", value_parser = node_name)]
    node_name: String,
    #[command(flatten)]
    pin: PinArgs,
    /// Attach to devices of these names only, of whatever kind (`*`, `?`, `[...]`; may be repeated).
    #[arg(long, value_name = "GLOB")]
    devices: Vec<String>,
    /// Never attach to devices of these names (may be repeated).
    #[arg(long, value_name = "GLOB")]
    exclude_devices: Vec<String>,
    /// Devices of these names lead out of the node, beside those that look like it (may be repeated).
    #[arg(long, value_name = "GLOB")]
    uplinks: Vec<String>,
    /// Where XDP handles packets before the network stack does.
    #[arg(long, value_enum, default_value_t = XdpFlag::Auto)]
    xdp: XdpFlag,
    /// Serve IPv4.
    #[arg(long, value_enum, default_value_t = Switch::On)]
    ipv4: Switch,
    /// Serve IPv6.
    #[arg(long, value_enum, default_value_t = Switch::On)]
    ipv6: Switch,
    /// Room for service ports.
    #[arg(long, value_name = "N", default_value_t = Sizes::default().services, value_parser = at_least_one())]
    max_services: u32,
    /// Room for eligible backends of front ends, per family.
    #[arg(long, value_name = "N", default_value_t = Sizes::default().slots, value_parser = at_least_one())]
    max_slots: u32,
    /// Room for endpoints, per family.
    #[arg(long, value_name = "N", default_value_t = Sizes::default().backends, value_parser = at_least_one())]
    max_backends: u32,
    /// Room for connections, per family; each has two entries in the flow table. By default what the pinned maps were made
    /// for; without any 32768 for each CPU, and at least 131072.
    #[arg(long, value_name = "N", value_parser = at_least_one())]
    max_flows: Option<u32>,
    /// Keep these ports from the node's own connections, in `net.ipv4.ip_local_reserved_ports`: the range that NodePorts
    /// come from, or `none`.
    #[arg(long, value_name = "RANGE", default_value = "30000-32767")]
    node_port_range: NodePortRange,
    /// Remove programs and maps when the agent ends.
    #[arg(long)]
    detach_on_exit: bool,
    /// How log lines look.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    #[command(flatten)]
    traffic: TrafficArgs,
    #[command(flatten)]
    serve: ServeArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum XdpFlag {
    /// At uplinks with a network card whose driver takes it.
    Auto,
    /// At every uplink whose driver takes it, whatever is behind it.
    Native,
    /// At every uplink, in the network stack: slower than TC alone, for tests.
    Generic,
    /// Nowhere: TC does everything.
    Off,
}

/// A range of ports, or the word `none`.
#[derive(Clone, Copy, Debug)]
struct NodePortRange(Option<PortRange>);

impl FromStr for NodePortRange {
    type Err = PortRangeError;

    fn from_str(text: &str) -> Result<Self, PortRangeError> {
        Ok(Self(if text == "none" { None } else { Some(text.parse()?) }))
    }
}

impl RunArgs {
    pub(super) fn execute(self) -> anyhow::Result<()> {
        log(self.log_format);
        if [self.ipv4, self.ipv6] == [Switch::Off; 2] {
            bail!("--ipv4 off --ipv6 off leaves nothing to serve. Switch one of them on");
        }
        let pins = self.pin.pins()?;
        let options = Options {
            sizes: Sizes {
                services: self.max_services,
                slots: self.max_slots,
                backends: self.max_backends,
                flows: self.max_flows.unwrap_or_else(|| default_flows(&pins)),
                ipv4: self.ipv4 == Switch::On,
                ipv6: self.ipv6 == Switch::On,
            },
            pins,
            devices: Patterns::new(&self.devices, &self.exclude_devices, &self.uplinks)?,
            xdp: self.xdp.choice(),
            traffic: self.traffic.traffic(&self.manifests, self.node_port_range.0)?,
            manifests: self.manifests,
            node_name: self.node_name,
            reserved_ports: self.node_port_range.0,
            detach_on_exit: self.detach_on_exit,
            serve: self.serve.options(configuration()),
        };
        let runtime = tokio_runtime()?;
        let ended = runtime.block_on(run(options));
        // Threads that the kernel keeps busy end with the process.
        runtime.shutdown_background();
        ended
    }
}

/// What `run` was told, flag by flag.
fn configuration() -> Value {
    let command = Cli::command();
    let matches = command.clone().get_matches();
    let run = command
        .find_subcommand("run")
        .zip(matches.subcommand_matches("run"));
    run.map_or(Value::Null, |(command, matches)| {
        configz::configuration(command, matches)
    })
}

impl XdpFlag {
    fn choice(self) -> XdpChoice {
        match self {
            Self::Auto => XdpChoice::Auto,
            Self::Native => XdpChoice::Native,
            Self::Generic => XdpChoice::Generic,
            Self::Off => XdpChoice::Off,
        }
    }
}

fn at_least_one() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..)
}

/// An empty name would be no node's, and no endpoint local.
fn node_name(text: &str) -> Result<String, &'static str> {
    if text.trim().is_empty() {
        return Err("the name is empty; give that of this node's Node object (is NODE_NAME set?)");
    }
    Ok(text.to_owned())
}

pub(super) fn duration(text: &str) -> Result<Duration, humantime::DurationError> {
    humantime::parse_duration(text)
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};
    use lb_common::layout::map;

    use crate::cli::Cli;
    use crate::store::size_flag;

    #[test]
    fn flags_that_messages_name_are_flags_of_run() {
        let cli = Cli::command();
        let run = cli.find_subcommand("run").unwrap();
        for flag in map::ALL.into_iter().filter_map(size_flag) {
            assert!(
                run.get_arguments()
                    .any(|argument| argument.get_long() == flag.strip_prefix("--")),
                "{flag}"
            );
        }
    }

    #[test]
    fn an_empty_node_name_is_refused() {
        let parse = |name| Cli::try_parse_from(["lb-agent", "run", "--manifests", ".", "--node-name", name]);
        parse("node-a").unwrap();
        for name in ["", " "] {
            let error = parse(name).unwrap_err().to_string();
            assert!(error.contains("the name is empty"), "{error}");
        }
    }
}
