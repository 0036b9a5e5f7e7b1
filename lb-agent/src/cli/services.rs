//! `lb-agent services`.
//!
//! JSON: a list of objects with `service` (`namespace/name:port/protocol`), `id`, `frontends` (each `family`, `address`,
//! `port`, `protocol`, `node_port`, `eligible`), `backends` (`active`, `no_new`, `removed`), `packets`, `bytes`,
//! `reply_packets`, `reply_bytes`, `connections`, `dropped`.

use super::output::{Format, json, print, table};
use super::view::{self, Frontend, Service, socket};
use crate::dataplane::Pins;

const HEADER: [&str; 7] = [
    "SERVICE",
    "FRONTENDS",
    "BACKENDS",
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
        backends,
        traffic,
    } = service;
    vec![
        name.clone(),
        frontends.iter().map(frontend).collect::<Vec<_>>().join(","),
        format!("{}/{}", backends.active, backends.no_new),
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
