//! Flags of `lb-agent run` about traffic.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::bail;
use clap::{Args, ValueEnum};

use super::run::duration;
use crate::dataplane::reserved::PortRange;
use crate::desired::node::Prefixes;
use crate::desired::node_ports::NodePortWord;
use crate::image::maglev;
use crate::model::{Forwarding, IpPrefix};
use crate::traffic::{Timeouts, Traffic};

/// How traffic is handled.
#[derive(Debug, Args)]
#[command(next_help_heading = "Traffic")]
pub(super) struct TrafficArgs {
    /// Prefix that pods get their addresses from (may be repeated); without any, the podCIDRs of this node's Node.
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    cluster_cidr: Vec<IpPrefix>,
    /// Prefix that services get their addresses from (may be repeated): packets to addresses in it that are no service's
    /// are dropped.
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    service_cidr: Vec<IpPrefix>,
    /// Where NodePorts listen: at the node's primary addresses (`primary`), at localhost for its own processes
    /// (`localhost`), at all its addresses (`all`), at those in prefixes (may be listed).
    #[arg(
        long,
        value_name = "ADDRESSES",
        value_delimiter = ',',
        default_value = "primary,localhost"
    )]
    nodeport_addresses: Vec<NodePortWord>,
    /// When connections are masqueraded.
    #[arg(long, value_enum, default_value_t = Snat::Needed)]
    snat: Snat,
    /// Masquerade the connections of every service.
    #[arg(long)]
    masquerade_all: bool,
    /// Source ports for masquerading.
    #[arg(long, value_name = "LOW-HIGH", default_value = "10000-29999")]
    snat_ports: PortRange,
    /// How packets from outside reach backends on other nodes, where a Service does not say.
    #[arg(long, value_enum, default_value_t = ForwardingFlag::Snat)]
    forwarding: ForwardingFlag,
    /// Prefix that may send wrapped packets, beside the internal addresses of Nodes (may be repeated).
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    dsr_peer: Vec<IpPrefix>,
    /// Resets, unreachables, echo replies and the like that are sent in a second, at most; 0 for any number.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    answers_per_second: u32,
    /// An established TCP flow without packets is finished after this time.
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = duration)]
    tcp_established: Duration,
    /// A TCP flow in its handshake without packets is finished after this time.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    tcp_handshake: Duration,
    /// A closing TCP flow without packets is finished after this time.
    #[arg(long, value_name = "DURATION", default_value = "120s", value_parser = duration)]
    tcp_closing: Duration,
    /// A UDP or SCTP flow without packets is finished after this time.
    #[arg(long, value_name = "DURATION", default_value = "120s", value_parser = duration)]
    udp_idle: Duration,
    /// Established TCP connections of an endpoint that has left its slices live on for this time.
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration)]
    removed_grace: Duration,
    /// Seed of the hashes that choose backends; the same on all nodes. Without it, the UID of the Namespace
    /// kube-system, or else the seed file, decides.
    #[arg(long, value_name = "N", conflicts_with = "hash_seed_file")]
    hash_seed: Option<u64>,
    /// File whose text gives the seed; it is made if there is none. Without it, `hash-seed` in the folder of manifests, if
    /// there is one.
    #[arg(long, value_name = "FILE")]
    hash_seed_file: Option<PathBuf>,
    /// Slots of the largest Maglev table.
    #[arg(long, value_name = "N", default_value = "65521", value_parser = table_size)]
    max_maglev_table: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Snat {
    /// Only where the reply would not come back by this node.
    Needed,
    /// Exactly when kube-proxy does.
    Always,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ForwardingFlag {
    /// Wrapped: the backend's node answers the client itself.
    Dsr,
    /// Translated.
    Snat,
}

impl TrafficArgs {
    /// What they mean. NodePorts come from `node_ports`, if they are known.
    pub(super) fn traffic(
        self,
        manifests: Option<&Path>,
        node_ports: Option<PortRange>,
    ) -> anyhow::Result<Traffic> {
        if let Some(node_ports) = node_ports.filter(|range| range.overlaps(self.snat_ports)) {
            bail!(
                "--snat-ports {} overlap the NodePorts {node_ports} (--node-port-range): replies to the node would be \
                 taken for connections to services. Choose ports that do not",
                self.snat_ports
            );
        }
        Ok(Traffic {
            timeouts: Timeouts {
                tcp_established: self.tcp_established,
                tcp_handshake: self.tcp_handshake,
                tcp_closing: self.tcp_closing,
                udp_idle: self.udp_idle,
            },
            seed: self.hash_seed,
            seed_file: self.hash_seed_file.or_else(|| Some(manifests?.join("hash-seed"))),
            snat_always: self.snat == Snat::Always,
            masquerade_all: self.masquerade_all,
            snat_ports: self.snat_ports,
            prefixes: Prefixes {
                cluster: self.cluster_cidr,
                service: self.service_cidr,
                peers: self.dsr_peer,
                node_ports: self.nodeport_addresses.into_iter().collect(),
            },
            forwarding: match self.forwarding {
                ForwardingFlag::Dsr => Forwarding::Dsr,
                ForwardingFlag::Snat => Forwarding::Snat,
            },
            answers_per_second: self.answers_per_second,
            max_table: self.max_maglev_table,
            removed_grace: self.removed_grace,
        })
    }
}

/// A size that a Maglev table can have.
fn table_size(text: &str) -> Result<u32, String> {
    let sizes = maglev::SIZES;
    let size = text.parse().ok().filter(|size| sizes.contains(size));
    size.ok_or_else(|| {
        format!(
            "use one of the primes {}",
            sizes.map(|size| size.to_string()).join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::desired::node_ports::NodePortAddresses;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        traffic: TrafficArgs,
    }

    fn parse(flags: &[&str]) -> Result<Traffic, String> {
        let command =
            Command::try_parse_from([&["run"], flags].concat()).map_err(|error| error.to_string())?;
        let node_ports = "30000-32767".parse().ok();
        let traffic = command.traffic.traffic(Some(Path::new("/manifests")), node_ports);
        traffic.map_err(|error| error.to_string())
    }

    #[test]
    fn flags_have_their_defaults() {
        let traffic = parse(&[]).unwrap();
        assert_eq!(
            (traffic.seed, traffic.max_table, traffic.answers_per_second),
            (None, 65_521, 1000)
        );
        assert_eq!(
            traffic.seed_file.as_deref(),
            Some(Path::new("/manifests/hash-seed"))
        );
        assert_eq!(
            (traffic.snat_ports.first(), traffic.snat_ports.last()),
            (10_000, 29_999)
        );
        assert_eq!(traffic.removed_grace, crate::reconcile::Config::REMOVED_GRACE);
        assert_eq!(traffic.max_table, crate::reconcile::Config::MAX_TABLE);
    }

    #[test]
    fn prefixes_may_be_repeated_or_listed() {
        let flags = [
            "--cluster-cidr",
            "10.244.0.0/16,fd00:244::/48",
            "--cluster-cidr",
            "10.245.0.0/16",
        ];
        assert_eq!(parse(&flags).unwrap().prefixes.cluster.len(), 3);
        assert!(parse(&["--service-cidr", "10.96.0.0"]).is_err());
    }

    #[test]
    fn node_ports_listen_where_kube_proxy_lets_them_and_at_localhost() {
        let found = |flags: &[&str]| parse(flags).unwrap().prefixes.node_ports;
        assert_eq!(found(&[]), NodePortAddresses::default());
        let listed = found(&["--nodeport-addresses", "primary,192.0.2.0/24"]);
        assert_eq!(
            (listed.primary, listed.localhost, listed.prefixes.len()),
            (true, false, 1)
        );
        let error = parse(&["--nodeport-addresses", "some"]).unwrap_err();
        assert!(
            error.contains("use primary, localhost, all, or prefixes"),
            "{error}"
        );
    }

    #[test]
    fn source_ports_are_no_node_ports() {
        let error = parse(&["--snat-ports", "20000-30000"]).unwrap_err();
        assert!(
            error.contains("--snat-ports 20000-30000 overlap the NodePorts 30000-32767"),
            "{error}"
        );
        assert!(parse(&["--snat-ports", "20000-29999"]).is_ok());
        assert!(parse(&["--snat-ports", "32768-60000"]).is_ok());
    }

    #[test]
    fn tables_have_prime_sizes() {
        assert_eq!(
            parse(&["--max-maglev-table", "131071"]).unwrap().max_table,
            131_071
        );
        assert!(parse(&["--max-maglev-table", "65536"]).is_err());
    }
}
