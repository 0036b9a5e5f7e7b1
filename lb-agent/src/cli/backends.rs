//! `lb-agent backends`.
//!
//! JSON: a list of objects with `service` (`namespace/name:port/protocol`), `family` (`ipv4`, `ipv6`), `address`,
//! `port`, `state` (`active`, `no-new`, `removed`), `id`, `epoch`. Of a service that is gone `service` is `#` and its number.

use super::output::{Format, json, print, table};
use super::view::{self, BackendView, socket};
use crate::dataplane::Pins;

const HEADER: [&str; 5] = ["SERVICE", "ADDRESS", "STATE", "ID", "EPOCH"];

pub(super) fn show(pins: &Pins, format: Format) -> anyhow::Result<()> {
    let backends = view::backends(pins)?;
    match format {
        Format::Json => json(&backends),
        Format::Table if backends.is_empty() => print("No backends."),
        Format::Table => print(&table(&HEADER, &["ID", "EPOCH"], backends.iter().map(row))),
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
    } = backend;
    vec![
        service.clone(),
        socket(address, *port),
        (*state).to_owned(),
        id.to_string(),
        epoch.to_string(),
    ]
}
