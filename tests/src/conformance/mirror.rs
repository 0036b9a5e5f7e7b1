//! Scenarios in the other family and the other protocol: what holds for IPv4 and TCP holds for IPv6 and UDP.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde_json::Value;

use super::flows::written;

/// How a scenario is turned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mirror {
    /// IPv4 becomes IPv6.
    pub ipv6: bool,
    /// TCP and UDP change places.
    pub udp: bool,
}

impl Mirror {
    /// A scenario as it is.
    pub const PLAIN: Self = Self {
        ipv6: false,
        udp: false,
    };
    /// Every way to turn one.
    pub const ALL: [Self; 3] = [
        Self {
            ipv6: true,
            udp: false,
        },
        Self {
            ipv6: false,
            udp: true,
        },
        Self {
            ipv6: true,
            udp: true,
        },
    ];

    /// The scenario, turned; `None` for one of IPv6, when that is asked for.
    pub fn of(self, scenario: &Value) -> Option<Value> {
        if self.ipv6 && scenario["config"]["ipFamily"] == "IPv6" {
            return None;
        }
        let mut turned = scenario.clone();
        let mut turn = Turn {
            mirror: self,
            four: BTreeMap::new(),
        };
        turn.value("", &mut turned);
        let words = [(self.ipv6, "IPv6"), (self.udp, "UDP for TCP")];
        let words: Vec<_> = words
            .into_iter()
            .filter(|(set, _)| *set)
            .map(|(_, word)| word)
            .collect();
        if let (Some(name), false) = (turned["name"].as_str(), words.is_empty()) {
            turned["name"] = format!("{name} ({})", words.join(", ")).into();
        }
        Some(turned)
    }
}

struct Turn {
    mirror: Mirror,
    /// What IPv6 addresses have become: they are of the other family, and only have to stay apart.
    four: BTreeMap<Ipv6Addr, Ipv4Addr>,
}

impl Turn {
    fn value(&mut self, key: &str, value: &mut Value) {
        match value {
            Value::Object(fields) => fields.iter_mut().for_each(|(key, value)| self.value(key, value)),
            Value::Array(values) => values.iter_mut().for_each(|value| self.value(key, value)),
            Value::String(text) => {
                if let Some(turned) = self.text(key, text) {
                    *text = turned;
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn text(&mut self, key: &str, text: &str) -> Option<String> {
        match (key, text) {
            ("protocol" | "proto", "TCP") if self.mirror.udp => return Some("UDP".into()),
            ("protocol" | "proto", "UDP") if self.mirror.udp => return Some("TCP".into()),
            _ if !self.mirror.ipv6 => return None,
            (_, "IPv4") => return Some("IPv6".into()),
            (_, "IPv6") => return Some("IPv4".into()),
            _ => {}
        }
        let (blank, text) = text.split_at(text.len() - text.trim_start().len());
        let turned = if let Some(ip) = written(text) {
            self.address(ip).to_string()
        } else if let Ok(end) = text.parse::<SocketAddr>() {
            SocketAddr::new(self.address(end.ip()), end.port()).to_string()
        } else {
            let (ip, length) = text.split_once('/')?;
            self.prefix(written(ip)?, length.parse().ok()?)
        };
        Some(format!("{blank}{turned}"))
    }

    fn address(&mut self, ip: IpAddr) -> IpAddr {
        match ip {
            IpAddr::V4(ip) => six(ip).into(),
            IpAddr::V6(Ipv6Addr::LOCALHOST) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) => {
                let next = u32::try_from(self.four.len()).unwrap_or(u32::MAX);
                let first = Ipv4Addr::new(198, 18, 0, 1).to_bits();
                (*self
                    .four
                    .entry(ip)
                    .or_insert(Ipv4Addr::from_bits(first.saturating_add(next))))
                .into()
            }
        }
    }

    fn prefix(&mut self, ip: IpAddr, length: u8) -> String {
        match ip {
            IpAddr::V4(_) | IpAddr::V6(_) if length == 0 => {
                if ip.is_ipv4() { "::/0" } else { "0.0.0.0/0" }.into()
            }
            IpAddr::V4(ip) if ip.is_loopback() => "::1/128".into(),
            IpAddr::V4(ip) => format!("{}/{}", six(ip), u32::from(length) + BITS),
            IpAddr::V6(_) => format!("{}/{}", self.address(ip), if length == 128 { 32 } else { 24 }),
        }
    }
}

/// How many bits IPv6 addresses have in front of those that they are made of.
const BITS: u32 = 96;

/// An IPv6 address that ends with this one.
fn six(ip: Ipv4Addr) -> Ipv6Addr {
    match ip {
        Ipv4Addr::LOCALHOST => Ipv6Addr::LOCALHOST,
        Ipv4Addr::UNSPECIFIED => Ipv6Addr::UNSPECIFIED,
        _ => Ipv6Addr::from_bits(0xfd64 << 112 | u128::from(ip.to_bits())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn addresses_protocols_and_families_change_places() {
        let scenario = json!({"name": "a", "config": {"ipFamily": "IPv4", "serviceCIDRs": [" 10.96.0.0/12"]},
            "ips": ["192.0.2.1", "2001:db8::1", "::1", "127.0.0.1", "0.0.0.0/0", "10.0.0.1:80", "None", "010.0.0.1", "::ffff:10.0.0.1"],
            "proto": "TCP", "word": "TCP"});
        let turned = Mirror {
            ipv6: true,
            udp: true,
        }
        .of(&scenario)
        .unwrap();
        assert_eq!(
            turned,
            json!({"name": "a (IPv6, UDP for TCP)",
                "config": {"ipFamily": "IPv6", "serviceCIDRs": [" fd64::a60:0/108"]},
                "ips": ["fd64::c000:201", "198.18.0.1", "127.0.0.1", "::1", "::/0", "[fd64::a00:1]:80", "None", "fd64::a00:1", "fd64::a00:1"],
                "proto": "UDP", "word": "TCP"})
        );
        assert_eq!(Mirror::PLAIN.of(&scenario).unwrap(), scenario);
        let six = json!({"name": "a", "config": {"ipFamily": "IPv6"}});
        assert_eq!(
            Mirror {
                ipv6: true,
                udp: false
            }
            .of(&six),
            None
        );
    }
}
