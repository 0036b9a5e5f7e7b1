//! The routers on the way, by `traceroute`.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, ensure};

use crate::topology::Host;

/// What is sent to find them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Echo requests; the port is not used.
    Icmp,
    /// TCP SYNs.
    Tcp,
    /// UDP datagrams, always to the same port.
    Udp,
}

/// Who answered a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Its address; `None` when nobody answered.
    pub address: Option<IpAddr>,
    /// What it said other than "time exceeded", e.g. `!X`; empty when nothing.
    pub remark: String,
}

/// The hops to an address, the last one included if it answers; at most 8.
pub fn traceroute(from: &Host, to: SocketAddr, probe: Probe) -> Result<Vec<Hop>> {
    let (address, port) = (to.ip().to_string(), to.port().to_string());
    let probe: &[&str] = match probe {
        Probe::Icmp => &["-I"],
        Probe::Tcp => &["-T", "-p", &port],
        Probe::Udp => &["-U", "-p", &port],
    };
    // One probe for each hop, one after the other, and a second for each.
    let arguments = [
        &["-n", "-q", "1", "-N", "1", "-w", "1", "-m", "8"],
        probe,
        &[&address],
    ]
    .concat();
    let output = from.netns.output("traceroute", &arguments, &[])?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "traceroute {arguments:?}: {errors}");
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().filter_map(hop).collect())
}

/// From ` 2  10.0.0.1  0.046 ms !X`, or ` 2  *`; the headline has no number at its beginning.
fn hop(line: &str) -> Option<Hop> {
    let mut words = line.split_whitespace();
    let _number: u8 = words.next()?.parse().ok()?;
    let address = words.next()?.parse().ok();
    Some(Hop {
        address,
        remark: words.skip(2).collect::<Vec<_>>().join(" "),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hops_are_read() {
        assert_eq!(hop("traceroute to 10.0.0.2 (10.0.0.2), 8 hops max"), None);
        let silent = Hop {
            address: None,
            remark: String::new(),
        };
        assert_eq!(hop(" 3  *"), Some(silent));
        let refusing = Hop {
            address: Some("fd00::1".parse().unwrap()),
            remark: "!X".to_owned(),
        };
        assert_eq!(hop(" 2  fd00::1  0.046 ms !X"), Some(refusing));
    }
}
