//! `lb-agent services`.
//!
//! JSON: a list of objects with `service` (`namespace/name:port/protocol`), `id`, `frontends` (each `family`, `address`,
//! `port`, `protocol`, `node_port`, `eligible`, `eligible_inside`, `algorithm`, `algorithm_inside` (`maglev`, `hash`,
//! `round-robin`, `least-connections`), `forwarding` (`dsr`, `snat`), `source_ranges`), `affinity_seconds`,
//! `connections_per_second`, `connections_per_second_per_source` (null: none), `source_ranges`, `backends` (`active`,
//! `no_new`, `removed`), `packets`, `bytes`, `reply_packets`, `reply_bytes`, `connections`, `dropped`.

use std::collections::BTreeSet;

use super::output::{Format, json, print, table};
use super::view::{self, Frontend, Service, socket};
use crate::dataplane::Pins;

const HEADER: [&str; 8] = [
    "SERVICE",
    "FRONTENDS",
    "BACKENDS",
    "HOW",
    "PACKETS",
    "BYTES",
    "CONNECTIONS",
    "DROPPED",
];
const NUMBERS: [&str; 4] = ["PACKETS", "BYTES", "CONNECTIONS", "DROPPED"];

pub(super) fn show(pins: &Pins, format: Format) -> anyhow::Result<()> {
    let services = view::services(pins)?;
    match format {
        Format::Json => json(&services),
        Format::Table if services.is_empty() => print("No services."),
        Format::Table => print(&table(&HEADER, &NUMBERS, services.iter().map(row))),
    }
}

fn row(service: &Service) -> Vec<String> {
    let Service {
        name,
        id: _,
        frontends,
        affinity_seconds: _,
        connections_per_second: _,
        connections_per_second_per_source: _,
        source_ranges: _,
        backends,
        traffic,
    } = service;
    vec![
        name.clone(),
        frontends.iter().map(frontend).collect::<Vec<_>>().join(","),
        format!("{}/{}", backends.active, backends.no_new),
        how(service),
        traffic.packets.to_string(),
        traffic.bytes.to_string(),
        traffic.connections.to_string(),
        traffic.dropped.to_string(),
    ]
}

fn frontend(frontend: &Frontend) -> String {
    if frontend.node_port {
        let any = if frontend.family == "ipv4" { "*4" } else { "*6" };
        format!("{any}:{}", frontend.port)
    } else {
        socket(&frontend.address, frontend.port)
    }
}

/// How connections are handled, in few words.
fn how(service: &Service) -> String {
    let frontends = || service.frontends.iter();
    let chosen = frontends().flat_map(|frontend| [frontend.algorithm, frontend.algorithm_inside]);
    let chosen: BTreeSet<&str> = chosen.collect();
    let mut words: Vec<String> = chosen.into_iter().map(str::to_owned).collect();
    if frontends().any(|frontend| frontend.forwarding == "dsr") {
        words.push("dsr".to_owned());
    }
    words.extend(
        service
            .affinity_seconds
            .map(|seconds| format!("affinity={seconds}s")),
    );
    let limits = [
        ("limit", service.connections_per_second),
        ("source-limit", service.connections_per_second_per_source),
    ];
    let limits = limits.into_iter().filter_map(|(name, rate)| Some((name, rate?)));
    words.extend(limits.map(|(name, rate)| format!("{name}={rate}/s")));
    if !service.source_ranges.is_empty() {
        words.push(format!("ranges={}", service.source_ranges.join("+")));
    }
    words.join(",")
}

#[cfg(test)]
mod tests {
    use super::super::view::{BackendCounts, Traffic};
    use super::*;

    #[test]
    fn what_is_special_about_a_service_is_told_in_few_words() {
        let frontend = |algorithm, forwarding| Frontend {
            family: "ipv4",
            address: "10.96.0.1".to_owned(),
            port: 80,
            protocol: "tcp",
            node_port: false,
            eligible: 2,
            eligible_inside: 2,
            algorithm,
            algorithm_inside: "hash",
            forwarding,
            source_ranges: false,
        };
        let mut service = Service {
            name: "default/web:http/tcp".to_owned(),
            id: 1,
            frontends: vec![frontend("hash", "snat")],
            affinity_seconds: None,
            connections_per_second: None,
            connections_per_second_per_source: None,
            source_ranges: Vec::new(),
            backends: BackendCounts::default(),
            traffic: Traffic::default(),
        };
        assert_eq!(how(&service), "hash");
        service.frontends.push(frontend("maglev", "dsr"));
        service.affinity_seconds = Some(60);
        service.connections_per_second_per_source = Some(10);
        service.source_ranges = vec!["192.0.2.0/24".to_owned(), "198.51.100.0/24".to_owned()];
        assert_eq!(
            how(&service),
            "hash,maglev,dsr,affinity=60s,source-limit=10/s,ranges=192.0.2.0/24+198.51.100.0/24"
        );
    }
}
