//! Values of single fields.

use std::net::{IpAddr, Ipv4Addr};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::ParseError;
use crate::model::{IpPrefix, NoPrefix, ObjectName, Protocol};

/// The longest label of DNS (RFC 1123).
const LABEL: usize = 63;

/// What a protocol may be.
pub(super) enum Transport {
    /// One that we balance.
    Known(Protocol),
    /// SCTP, which we do not.
    Sctp,
}

/// The name of an object; objects without namespace are in `default`, as for kubectl.
pub(super) fn object_name(metadata: &ObjectMeta) -> Result<ObjectName, ParseError> {
    let missing = || ParseError::Missing {
        field: "metadata.name".into(),
    };
    let name = metadata
        .name
        .as_deref()
        .filter(|name| !name.is_empty())
        .ok_or_else(missing)?;
    Ok(ObjectName::new(
        metadata.namespace.as_deref().unwrap_or("default"),
        name,
    ))
}

/// Refuses what cannot be a name, or would not fit the map of names.
pub(super) fn check_label(field: &str, value: &str) -> Result<(), ParseError> {
    check_name(field, value, LABEL)
}

/// Like [`check_label`], for another length.
pub(super) fn check_name(field: &str, value: &str, length: usize) -> Result<(), ParseError> {
    let letters = value
        .bytes()
        .all(|letter| letter.is_ascii_alphanumeric() || letter == b'-' || letter == b'.');
    if letters && value.len() <= length {
        return Ok(());
    }
    Err(ParseError::Name {
        field: field.into(),
        value: value.into(),
        length,
    })
}

/// A label of an object.
pub(super) fn label<'a>(metadata: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    metadata.labels.as_ref()?.get(name).map(String::as_str)
}

/// A port number.
pub(super) fn port(field: impl FnOnce() -> String, value: i32) -> Result<u16, ParseError> {
    let number = u16::try_from(value).ok().filter(|number| *number != 0);
    number.ok_or_else(|| ParseError::Port {
        field: field(),
        value,
    })
}

/// A protocol; TCP when there is none.
pub(super) fn protocol(field: impl FnOnce() -> String, value: Option<&str>) -> Result<Transport, ParseError> {
    match value.unwrap_or("TCP") {
        "TCP" => Ok(Transport::Known(Protocol::Tcp)),
        "UDP" => Ok(Transport::Known(Protocol::Udp)),
        "SCTP" => Ok(Transport::Sctp),
        other => Err(ParseError::Unknown {
            field: field(),
            value: other.into(),
            known: "TCP or UDP",
        }),
    }
}

/// An address. Leading zeros of IPv4 are decimal, as for kube-proxy.
pub(super) fn address(field: impl FnOnce() -> String, value: &str) -> Result<IpAddr, ParseError> {
    let value = value.trim();
    let parsed = value.parse().ok().or_else(|| decimal_ipv4(value).map(IpAddr::V4));
    parsed.ok_or_else(|| ParseError::Address {
        field: field(),
        value: value.into(),
    })
}

/// A prefix.
pub(super) fn prefix(field: &str, value: &str) -> Result<IpPrefix, ParseError> {
    value.parse().map_err(|_: NoPrefix| ParseError::Prefix {
        field: field.into(),
        value: value.into(),
    })
}

/// An address that may be a backend's.
pub(super) fn backend_address(field: impl Fn() -> String, value: &str) -> Result<IpAddr, ParseError> {
    let ip = address(&field, value)?;
    unfit(ip).map_or(Ok(ip), |what| {
        Err(ParseError::Unfit {
            field: field(),
            value: ip,
            what,
        })
    })
}

/// An address that may be a front end's: maps use the unspecified one for every address of the node.
pub(super) fn front_address(field: impl Fn() -> String, value: &str) -> Result<IpAddr, ParseError> {
    let ip = backend_address(&field, value)?;
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    if link_local {
        let (field, value) = (field(), ip);
        return Err(ParseError::Unfit {
            field,
            value,
            what: "a link-local address",
        });
    }
    Ok(ip)
}

/// What makes an address useless on both ends, if anything does.
fn unfit(ip: IpAddr) -> Option<&'static str> {
    match ip {
        _ if ip.is_unspecified() => Some("the unspecified address"),
        _ if ip.is_loopback() => Some("a loopback address"),
        _ if ip.is_multicast() => Some("a multicast address"),
        IpAddr::V4(ip) if ip.is_broadcast() => Some("the broadcast address"),
        IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some() => Some("an IPv4-mapped address"),
        _ => None,
    }
}

fn decimal_ipv4(value: &str) -> Option<Ipv4Addr> {
    let octets: Option<Vec<u8>> = value.split('.').map(decimal).collect();
    <[u8; 4]>::try_from(octets?).ok().map(Ipv4Addr::from)
}

fn decimal(digits: &str) -> Option<u8> {
    digits
        .bytes()
        .all(|digit| digit.is_ascii_digit())
        .then(|| digits.parse().ok())
        .flatten()
}
