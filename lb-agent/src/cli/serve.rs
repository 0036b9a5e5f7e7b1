//! Flags of `run` about what is served by HTTP.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use clap::Args;
use serde_json::Value;
use thiserror::Error;

use crate::serve::Options;

/// kube-proxy's ports.
const HEALTHZ_PORT: u16 = 10256;
const METRICS_PORT: u16 = 10249;

/// Flags about what is served by HTTP.
#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    /// Where `/healthz` and `/livez` are served (an address, with or without port); nowhere if empty, or if the port is 0.
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:10256", value_parser = healthz)]
    healthz_bind_address: Bind,
    /// Where metrics are served (an address, with or without port); nowhere if empty, or if the port is 0.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:10249", value_parser = metrics)]
    metrics_bind_address: Bind,
    /// End when an address of these cannot be listened at, instead of trying again.
    #[arg(long)]
    bind_address_hard_fail: bool,
    /// Serve metrics of the traffic of each port of a Service, too: six values for each.
    #[arg(long)]
    metrics_per_service: bool,
}

/// Where to listen, if anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bind(Option<SocketAddr>);

/// No address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("use an IP address, with or without port, such as 0.0.0.0:10256 or [::]:10256")]
struct NoAddress;

impl ServeArgs {
    pub(super) fn options(&self, configuration: Value) -> Options {
        Options {
            healthz: self.healthz_bind_address.0,
            metrics: self.metrics_bind_address.0,
            hard_fail: self.bind_address_hard_fail,
            metrics_per_service: self.metrics_per_service,
            configuration,
        }
    }
}

fn healthz(text: &str) -> Result<Bind, NoAddress> {
    bind(text, HEALTHZ_PORT)
}

fn metrics(text: &str) -> Result<Bind, NoAddress> {
    bind(text, METRICS_PORT)
}

fn bind(text: &str, default_port: u16) -> Result<Bind, NoAddress> {
    if text.is_empty() {
        return Ok(Bind(None));
    }
    let address = if let Ok(ip) = text.parse::<IpAddr>() {
        SocketAddr::new(ip, default_port)
    } else if let Some(port) = text.strip_prefix(':') {
        SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port.parse().map_err(|_| NoAddress)?)
    } else {
        text.parse().map_err(|_| NoAddress)?
    };
    Ok(Bind(Some(address).filter(|address| address.port() != 0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<Option<&str>, NoAddress>) {
        let expected = expected.map(|address| Bind(address.map(|address| address.parse().unwrap())));
        assert_eq!(healthz(text), expected, "{text}");
    }

    #[test]
    fn addresses_are_read_as_kube_proxy_reads_them() {
        check("0.0.0.0:10256", Ok(Some("0.0.0.0:10256")));
        check("192.0.2.1", Ok(Some("192.0.2.1:10256")));
        check("::1", Ok(Some("[::1]:10256")));
        check("[::]:8080", Ok(Some("[::]:8080")));
        check(":8080", Ok(Some("[::]:8080")));
        for off in ["", ":0", "127.0.0.1:0"] {
            check(off, Ok(None));
        }
        for bad in ["localhost:1", "8080", "1.2.3.4:99999", "[::1]"] {
            check(bad, Err(NoAddress));
        }
    }
}
