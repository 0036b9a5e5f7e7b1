//! `lb-agent run`.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::bail;
use clap::{Args, ValueEnum};
use serde_json::Value;
use tracing::warn;

use super::serve::ServeArgs;
use super::source::SourceArgs;
use super::traffic::TrafficArgs;
use super::{LogFormat, PinArgs, log, tokio_runtime};
use crate::dataplane::devices::Patterns;
use crate::dataplane::reserved::{PortRange, PortRangeError};
use crate::dataplane::xdp::XdpChoice;
use crate::dataplane::{Sizes, default_flows};
use crate::runtime::{Options, run};

/// Flags of `run`.
#[derive(Debug, Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// File with a `SluiceConfiguration`, or the `KubeProxyConfiguration` of a cluster: what flags say counts more.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// What the file says that has no effect.
    #[arg(skip)]
    pub(super) notices: Vec<String>,
    /// Every flag as it counts, for `/configz`.
    #[arg(skip)]
    pub(super) configuration: Value,
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
        for notice in &self.notices {
            warn!("{notice}");
        }
        let pins = self.pin.pins()?;
        let node_name = self.source.node_name()?;
        let folder = self.source.manifests.as_deref();
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
            traffic: self.traffic.traffic(folder, self.node_port_range.0)?,
            source: self.source.options(),
            node_name,
            reserved_ports: self.node_port_range.0,
            detach_on_exit: self.detach_on_exit,
            serve: self.serve.options(self.configuration),
        };
        let runtime = tokio_runtime()?;
        let ended = runtime.block_on(run(options));
        // Threads that the kernel keeps busy end with the process.
        runtime.shutdown_background();
        ended
    }
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

pub(super) fn duration(text: &str) -> Result<Duration, humantime::DurationError> {
    humantime::parse_duration(text)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;
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
}
