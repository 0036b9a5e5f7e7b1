//! Values of single fields.

use std::net::{IpAddr, Ipv4Addr};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::ParseError;
use crate::model::{IpPrefix, ObjectName, Protocol};

/// The longest label of DNS (RFC 1123).
const LABEL: usize = 63;

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

/// A protocol; TCP when there is none. Of a port with one that we do not balance, people are told.
pub(super) fn protocol(
    field: impl FnOnce() -> String,
    value: Option<&str>,
    notices: &mut Vec<String>,
) -> Option<Protocol> {
    let value = value.unwrap_or(Protocol::Tcp.object_name());
    let found = Protocol::ALL
        .into_iter()
        .find(|protocol| protocol.object_name() == value);
    if found.is_none() {
        let error = ParseError::Unknown {
            field: field(),
            value: value.into(),
            known: "TCP, UDP or SCTP",
        };
        notices.push(format!("{error}; this port is left out"));
    }
    found
}

/// What a word means; an empty or unknown one means what the first one does. An unknown one may be of a newer Kubernetes;
/// kube-proxy would not look at it either.
pub(super) fn word<T: Copy>(
    field: &str,
    value: Option<&str>,
    [first, other]: &[(&str, T); 2],
    notices: &mut Vec<String>,
) -> T {
    match value {
        Some(value) if value == other.0 => other.1,
        Some(value) if !value.is_empty() && value != first.0 => {
            notices.push(format!(
                "{field}: \"{value}\" is unknown; use {} or {}. It is taken for {}",
                first.0, other.0, first.0
            ));
            first.1
        }
        _ => first.1,
    }
}

/// An address as kube-proxy reads it: leading zeros of IPv4 are decimal, and an IPv4-mapped IPv6 address is an IPv4 one.
pub(super) fn address(field: impl FnOnce() -> String, value: &str) -> Result<IpAddr, ParseError> {
    let value = value.trim();
    sloppy(value).ok_or_else(|| ParseError::Address {
        field: field(),
        value: value.into(),
    })
}

/// A prefix, whose address is read as by [`address`].
pub(super) fn prefix(field: &str, value: &str) -> Result<IpPrefix, ParseError> {
    sloppy_prefix(value).ok_or_else(|| ParseError::Prefix {
        field: field.into(),
        value: value.into(),
    })
}

/// What of a list can be used; of the rest, people are told.
pub(super) fn usable<T>(
    values: impl Iterator<Item = Result<T, ParseError>>,
    notices: &mut Vec<String>,
) -> Vec<T> {
    values.filter_map(|value| or_left_out(value, notices)).collect()
}

/// A value that can be used; of another, people are told.
pub(super) fn or_left_out<T>(value: Result<T, ParseError>, notices: &mut Vec<String>) -> Option<T> {
    value
        .map_err(|error| notices.push(format!("{error}; left out")))
        .ok()
}

fn sloppy(value: &str) -> Option<IpAddr> {
    let parsed = value.parse::<IpAddr>().ok();
    parsed
        .or_else(|| decimal_ipv4(value).map(IpAddr::V4))
        .map(|ip| ip.to_canonical())
}

fn sloppy_prefix(value: &str) -> Option<IpPrefix> {
    let (text, length) = value.trim().split_once('/')?;
    let (ip, length) = (sloppy(text)?, length.parse::<u8>().ok()?);
    let is_mapped = ip.is_ipv4() && text.contains(':');
    let length = if is_mapped {
        length.checked_sub(MAPPED)?
    } else {
        length
    };
    IpPrefix::new(ip, length)
}

/// How many bits stand before the address in an IPv4-mapped IPv6 address.
const MAPPED: u8 = 96;

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
