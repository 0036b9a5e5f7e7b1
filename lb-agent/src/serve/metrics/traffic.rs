//! The traffic of ports of Services.
//!
//! A port's counters begin anew with another holder of its id and go with the port; what is served in sum must never fall.
//! So it is added up here what has come since the last look.

use std::collections::BTreeMap;

use lb_common::ServiceStats;
use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{IntCounterVec, Opts};

use crate::model::PortName;

/// What came since the agent runs, and each port's counters as they were last.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    sum: ServiceStats,
    ports: BTreeMap<PortName, ServiceStats>,
    /// What the programs have counted before is no news.
    begun: bool,
}

impl Traffic {
    /// Takes the counters of every port there is, of each CPU.
    pub(super) fn update(&mut self, ports: &BTreeMap<PortName, Vec<ServiceStats>>) {
        let now: BTreeMap<_, _> = ports
            .iter()
            .map(|(name, cpus)| {
                (
                    name.clone(),
                    cpus.iter().fold(ServiceStats::default(), |sum, cpu| {
                        zip(&sum, cpu, u64::wrapping_add)
                    }),
                )
            })
            .collect();
        for (name, stats) in &now {
            let before = self.ports.get(name).copied().unwrap_or_default();
            // Counters that are smaller than before have begun anew.
            let anew = stats.packets < before.packets || stats.connections < before.connections;
            let before = if anew { ServiceStats::default() } else { before };
            let came = zip(stats, &before, u64::saturating_sub);
            if self.begun {
                self.sum = zip(&self.sum, &came, u64::wrapping_add);
            }
        }
        self.begun = true;
        self.ports = now;
    }

    /// The traffic of all Services together.
    pub(super) fn sums(&self) -> prometheus::Result<Vec<MetricFamily>> {
        families("", &[], [(Vec::new(), self.sum)].into_iter())
    }

    /// The traffic of each port.
    pub(super) fn per_service(&self) -> prometheus::Result<Vec<MetricFamily>> {
        let labels = ["namespace", "service", "port", "protocol"];
        let ports = self.ports.iter().map(|(name, stats)| {
            let PortName {
                service,
                port,
                protocol,
            } = name;
            let values = [&*service.namespace, &*service.name, &**port, protocol.as_str()];
            (values.to_vec(), *stats)
        });
        families("service_", &labels, ports)
    }
}

fn families<'a>(
    prefix: &str,
    labels: &[&str],
    all: impl Iterator<Item = (Vec<&'a str>, ServiceStats)>,
) -> prometheus::Result<Vec<MetricFamily>> {
    let counters = |name: &str, help: &str, labels: &[&str]| {
        IntCounterVec::new(Opts::new(format!("sluice_{prefix}{name}"), help), labels)
    };
    let directed = [labels, &["direction"]].concat();
    let packets = counters("packets_total", "Packets that were translated", &directed)?;
    let bytes = counters(
        "bytes_total",
        "Bytes of those packets, from the network header on",
        &directed,
    )?;
    let connections = counters("connections_total", "Flows that were opened", labels)?;
    let refused = counters(
        "refused_packets_total",
        "Packets that were dropped or rejected after their Service was known",
        labels,
    )?;
    for (values, stats) in all {
        let ServiceStats {
            packets: sent,
            bytes: sent_bytes,
            reply_packets,
            reply_bytes,
            connections: opened,
            dropped,
        } = stats;
        let directions = [
            ("request", sent, sent_bytes),
            ("reply", reply_packets, reply_bytes),
        ];
        for (direction, count, length) in directions {
            let values = [&values[..], &[direction]].concat();
            packets.with_label_values(&values).inc_by(count);
            bytes.with_label_values(&values).inc_by(length);
        }
        connections.with_label_values(&values).inc_by(opened);
        refused.with_label_values(&values).inc_by(dropped);
    }
    Ok([packets, bytes, connections, refused]
        .iter()
        .flat_map(Collector::collect)
        .collect())
}

fn zip(a: &ServiceStats, b: &ServiceStats, with: fn(u64, u64) -> u64) -> ServiceStats {
    ServiceStats {
        packets: with(a.packets, b.packets),
        bytes: with(a.bytes, b.bytes),
        reply_packets: with(a.reply_packets, b.reply_packets),
        reply_bytes: with(a.reply_bytes, b.reply_bytes),
        connections: with(a.connections, b.connections),
        dropped: with(a.dropped, b.dropped),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes the packets of ports, and compares the sum.
    #[track_caller]
    fn check(traffic: &mut Traffic, ports: &[(&str, [u64; 2])], sum: u64) {
        let stats = |packets| ServiceStats {
            packets,
            ..ServiceStats::default()
        };
        let ports = ports.iter().map(|(name, cpus)| {
            let name = PortName::parse(&format!("default/{name}:http/tcp")).unwrap();
            (name, cpus.map(stats).to_vec())
        });
        traffic.update(&ports.collect());
        assert_eq!(traffic.sum.packets, sum);
    }

    #[test]
    fn the_sum_never_falls() {
        let mut traffic = Traffic::default();
        check(&mut traffic, &[("a", [100, 10])], 0);
        check(&mut traffic, &[("a", [105, 11])], 6);
        check(&mut traffic, &[("a", [105, 11]), ("b", [3, 0])], 9);
        check(&mut traffic, &[("b", [4, 0])], 10);
        check(&mut traffic, &[("a", [2, 0]), ("b", [4, 0])], 12);
        // Begun anew.
        check(&mut traffic, &[("a", [1, 0]), ("b", [4, 0])], 13);
    }

    #[test]
    fn ports_have_labels_and_the_sum_has_none() {
        let mut traffic = Traffic::default();
        check(&mut traffic, &[("a", [1, 2])], 0);
        let text =
            |families: &[MetricFamily]| prometheus::TextEncoder::new().encode_to_string(families).unwrap();
        let sums = text(&traffic.sums().unwrap());
        assert!(
            sums.contains("\nsluice_packets_total{direction=\"reply\"} 0\n"),
            "{sums}"
        );
        assert!(sums.contains("\nsluice_connections_total 0\n"), "{sums}");
        let ports = text(&traffic.per_service().unwrap());
        let line = "\nsluice_service_packets_total{direction=\"request\",namespace=\"default\",port=\"http\",protocol=\"tcp\",service=\"a\"} 3\n";
        assert!(ports.contains(line), "{ports}");
    }
}
