//! `lb-agent backends`.
//!
//! JSON: a list of objects with `service` (`namespace/name:port/protocol`), `family` (`ipv4`, `ipv6`), `address`,
//! `port`, `state` (`active`, `no-new`, `not-serving`, `removed`), `id`, `epoch`, `local` (on this node), and `share`, `share_inside`: its
//! part of the new flows of clients from outside, and of pods and the node itself, in percent. Of a service that is gone
//! `service` is `#` and its number.

use super::output::{Format, json, print, table};
use super::view::{self, BackendView, socket};
use crate::dataplane::Pins;

const HEADER: [&str; 8] = [
    "SERVICE", "ADDRESS", "STATE", "LOCAL", "SHARE", "INSIDE", "ID", "EPOCH",
];
const NUMBERS: [&str; 4] = ["SHARE", "INSIDE", "ID", "EPOCH"];

pub(super) fn show(pins: &Pins, format: Format) -> anyhow::Result<()> {
    let backends = view::backends(pins)?;
    match format {
        Format::Json => json(&backends),
        Format::Table if backends.is_empty() => print("No backends."),
        Format::Table => print(&table(&HEADER, &NUMBERS, backends.iter().map(row))),
    }
}

fn row(backend: &BackendView) -> Vec<String> {
    let BackendView {
        service,
        family: _,
        address,
        port,
        state,
        id,
        epoch,
        local,
        share,
        share_inside,
    } = backend;
    vec![
        service.clone(),
        socket(address, *port),
        (*state).to_owned(),
        if *local { "yes" } else { "no" }.to_owned(),
        format!("{share:.1}%"),
        format!("{share_inside:.1}%"),
        id.to_string(),
        epoch.to_string(),
    ]
}
