//! How traffic is handled, as the flags of `lb-agent run` say.

mod seed_file;

use std::path::PathBuf;
use std::time::Duration;

use lb_common::{Settings, SettingsFlags};

use crate::dataplane::reserved::PortRange;
use crate::desired::interval;
use crate::desired::node::Prefixes;
use crate::model::Forwarding;
use crate::reconcile::Config;

pub use seed_file::{known_seed, seed};

/// How traffic is handled.
#[derive(Clone, Debug)]
pub struct Traffic {
    /// After which flows are finished.
    pub timeouts: Timeouts,
    /// The seed of hashes; `None`: the one that names the cluster, or else that of `seed_file`.
    pub seed: Option<u64>,
    /// The file that has a seed; it is made if there is none.
    pub seed_file: Option<PathBuf>,
    /// Masquerade exactly when kube-proxy does.
    pub snat_always: bool,
    /// Masquerade everything.
    pub masquerade_all: bool,
    /// Source ports for masquerading.
    pub snat_ports: PortRange,
    /// Prefixes of pods, services and other nodes.
    pub prefixes: Prefixes,
    /// How packets reach other nodes, where a Service does not say.
    pub forwarding: Forwarding,
    /// Answers that the programs give in a second, at most; 0: any number.
    pub answers_per_second: u32,
    /// The largest Maglev table.
    pub max_table: u32,
    /// After which a backend that has left is nobody's.
    pub removed_grace: Duration,
}

/// After which times without packets a flow is finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP, established.
    pub tcp_established: Duration,
    /// TCP, in its handshake.
    pub tcp_handshake: Duration,
    /// TCP, closing.
    pub tcp_closing: Duration,
    /// UDP and SCTP.
    pub udp_idle: Duration,
}

impl Traffic {
    /// What the pipe of that node is told, with this row of settings. Both families are on.
    pub fn config(&self, node_name: &str, settings: Settings) -> Config {
        Config {
            node_name: node_name.to_owned(),
            settings,
            seed: self.seed,
            prefixes: self.prefixes.clone(),
            forwarding: self.forwarding,
            max_table: self.max_table,
            removed_grace: self.removed_grace,
            portion: Config::PORTION,
            tell_orphans: true,
            ipv4: true,
            ipv6: true,
        }
    }

    /// The row of settings, as far as flags decide it.
    pub fn settings(&self, jiffies_per_second: u32) -> Settings {
        let jiffies = |duration| jiffies(duration, jiffies_per_second);
        let Timeouts {
            tcp_established,
            tcp_handshake,
            tcp_closing,
            udp_idle,
        } = self.timeouts;
        let flags = [
            (SettingsFlags::SNAT_ALWAYS, self.snat_always),
            (SettingsFlags::MASQUERADE_ALL, self.masquerade_all),
        ];
        let set = flags.into_iter().filter(|(_, set)| *set);
        Settings {
            jiffies_per_second,
            tcp_established: jiffies(tcp_established),
            tcp_handshake: jiffies(tcp_handshake),
            tcp_closing: jiffies(tcp_closing),
            udp_idle: jiffies(udp_idle),
            answer_interval: match self.answers_per_second {
                0 => 0,
                rate => interval(rate, jiffies_per_second),
            },
            flags: set.fold(0, |flags, (flag, _)| flags | flag),
            snat_port_min: self.snat_ports.first(),
            snat_port_max: self.snat_ports.last(),
            ..Settings::default()
        }
    }
}

fn jiffies(duration: Duration, per_second: u32) -> u32 {
    let jiffies = duration.as_millis() * u128::from(per_second) / 1000;
    // The programs compare 32-bit clocks, whose difference is good up to half of that.
    u32::try_from(jiffies)
        .unwrap_or(u32::MAX)
        .min(i32::MAX.cast_unsigned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_become_the_row_of_settings() {
        let traffic = Traffic {
            timeouts: Timeouts {
                tcp_established: Duration::from_hours(24),
                tcp_handshake: Duration::from_mins(1),
                tcp_closing: Duration::from_secs(u64::MAX / 2),
                udp_idle: Duration::from_millis(1500),
            },
            seed: Some(7),
            seed_file: None,
            snat_always: true,
            masquerade_all: false,
            snat_ports: "10000-29999".parse().unwrap(),
            prefixes: Prefixes::default(),
            forwarding: Forwarding::Snat,
            answers_per_second: 1000,
            max_table: 251,
            removed_grace: Duration::ZERO,
        };
        let row = traffic.settings(250);
        let expected = Settings {
            jiffies_per_second: 250,
            tcp_established: 21_600_000,
            tcp_handshake: 15_000,
            // Long times stay within half of the clock.
            tcp_closing: i32::MAX.cast_unsigned(),
            udp_idle: 375,
            answer_interval: 16_384,
            flags: SettingsFlags::SNAT_ALWAYS,
            snat_port_min: 10_000,
            snat_port_max: 29_999,
            ..Settings::default()
        };
        assert_eq!(row, expected);
    }
}
