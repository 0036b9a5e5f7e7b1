//! What is asked: where a packet goes, and who sends it, as it is typed.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use thiserror::Error;

use crate::model::{ObjectName, Protocol};

/// What is asked.
#[derive(Clone, Debug)]
pub struct Question {
    /// Where the packet goes.
    pub to: Destination,
    /// The address, and perhaps the port, that it comes from.
    pub from: Option<Source>,
    /// Who sends it, where that is said.
    pub sender: Option<Sender>,
    /// Its protocol; `None`: that of the Service's port, or else TCP.
    pub protocol: Option<Protocol>,
    /// The device that it comes in by, where that is said.
    pub device: Option<String>,
}

/// Where a packet goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// To an address.
    Address(SocketAddr),
    /// To a front end of a Service, by one of its ports.
    Service(ObjectName, Option<PortChoice>),
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortChoice {
    /// By its number.
    Number(u16),
    /// By its name.
    Name(String),
}

/// An address, and perhaps a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// The address.
    pub ip: IpAddr,
    /// The port.
    pub port: Option<u16>,
}

/// Who sends a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sender {
    /// A pod of this node.
    Pod(ObjectName),
    /// A process of the node itself, or a pod in its network.
    Node,
    /// Somebody outside of the node.
    Outside,
}

/// What was typed is nothing of the kind.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NotUnderstood {
    /// As a destination.
    #[error("{0:?} is no destination: give IP:PORT, [IPv6]:PORT, or NAMESPACE/SERVICE[:PORT]")]
    Destination(String),
    /// An address alone.
    #[error("{0} has no port: give {1}")]
    NoPort(IpAddr, String),
    /// As a source.
    #[error("{0:?} is no source: give IP, IP:PORT or [IPv6]:PORT")]
    Source(String),
    /// As a pod.
    #[error("{0:?} names no pod: give NAMESPACE/NAME")]
    Pod(String),
}

impl FromStr for Destination {
    type Err = NotUnderstood;

    fn from_str(text: &str) -> Result<Self, NotUnderstood> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        if let Ok(ip) = text.parse() {
            return Err(NotUnderstood::NoPort(ip, SocketAddr::new(ip, 80).to_string()));
        }
        let (service, port) = match text.split_once(':') {
            Some((service, port)) => (service, Some(port)),
            None => (text, None),
        };
        let not_understood = || NotUnderstood::Destination(text.to_owned());
        let name = ObjectName::parse(service).ok_or_else(not_understood)?;
        let port = match port {
            Some("") => return Err(not_understood()),
            Some(port) => Some(match port.parse() {
                Ok(number) => PortChoice::Number(number),
                Err(_) => PortChoice::Name(port.to_owned()),
            }),
            None => None,
        };
        Ok(Self::Service(name, port))
    }
}

impl FromStr for Source {
    type Err = NotUnderstood;

    fn from_str(text: &str) -> Result<Self, NotUnderstood> {
        let with_port = text.parse::<SocketAddr>().map(|address| Self {
            ip: address.ip(),
            port: Some(address.port()),
        });
        let bare = text.trim_start_matches('[').trim_end_matches(']');
        with_port
            .or_else(|_| bare.parse().map(|ip| Self { ip, port: None }))
            .map_err(|_| NotUnderstood::Source(text.to_owned()))
    }
}

impl Sender {
    /// A pod, from `namespace/name`.
    pub fn pod(text: &str) -> Result<ObjectName, NotUnderstood> {
        ObjectName::parse(text).ok_or_else(|| NotUnderstood::Pod(text.to_owned()))
    }
}

impl fmt::Display for PortChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_are_addresses_or_services() {
        let web = || ObjectName::new("shop", "web");
        for (text, expected) in [
            (
                "10.96.0.1:443",
                Destination::Address("10.96.0.1:443".parse().unwrap()),
            ),
            (
                "[fd00::1]:53",
                Destination::Address("[fd00::1]:53".parse().unwrap()),
            ),
            ("shop/web", Destination::Service(web(), None)),
            (
                "shop/web:80",
                Destination::Service(web(), Some(PortChoice::Number(80))),
            ),
            (
                "shop/web:http",
                Destination::Service(web(), Some(PortChoice::Name("http".into()))),
            ),
        ] {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
        for text in [
            "",
            "web",
            "web:80",
            "/web",
            "shop/",
            "shop/web:",
            "a/b/c",
            "10.96.0.1:http",
        ] {
            assert!(text.parse::<Destination>().is_err(), "{text}");
        }
        let error = "10.96.0.1".parse::<Destination>().unwrap_err();
        assert_eq!(error.to_string(), "10.96.0.1 has no port: give 10.96.0.1:80");
    }

    #[test]
    fn a_source_need_not_have_a_port() {
        for (text, ip, port) in [
            ("10.244.1.5", "10.244.1.5", None),
            ("10.244.1.5:1234", "10.244.1.5", Some(1234)),
            ("fd00::5", "fd00::5", None),
            ("[fd00::5]", "fd00::5", None),
            ("[fd00::5]:1234", "fd00::5", Some(1234)),
        ] {
            let ip = ip.parse().unwrap();
            assert_eq!(text.parse(), Ok(Source { ip, port }), "{text}");
        }
        assert!("web".parse::<Source>().is_err());
    }
}
