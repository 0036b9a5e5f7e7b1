//! Which way the kernel sends a packet: `ip route get`.

use std::io;
use std::net::IpAddr;

use futures::TryStreamExt as _;
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use rtnetlink::{Handle, RouteMessageBuilder};

use crate::dataplane::DataplaneError;

/// A way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Route {
    /// The device that packets leave by; loopback's for what is for the node itself.
    pub(super) device: u32,
    /// It is for the node itself.
    pub(super) local: bool,
    /// The address that packets of the node have there.
    pub(super) source: Option<IpAddr>,
}

/// The way to `to`, for a packet from that address that has come in by that device, or for one of the node's own. An
/// error is why the kernel has none.
pub(super) async fn route(
    netlink: &Handle,
    to: IpAddr,
    came: Option<(IpAddr, u32)>,
) -> Result<Result<Route, io::Error>, DataplaneError> {
    let bits = if to.is_ipv4() { 32 } else { 128 };
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| DataplaneError::Netlink {
        what: "asking for a route",
        source,
    };
    let mut wanted = RouteMessageBuilder::<IpAddr>::new()
        .destination_prefix(to, bits)
        .map_err(|error| failed(Box::new(error)))?;
    if let Some((from, ifindex)) = came {
        wanted = wanted
            .source_prefix(from, bits)
            .map_err(|error| failed(Box::new(error)))?
            .input_interface(ifindex);
    }
    let mut answer = std::pin::pin!(netlink.route().get(wanted.build()).execute());
    match answer.try_next().await {
        Ok(Some(message)) => Ok(way(&message)),
        Ok(None) => Ok(Err(io::Error::other("the kernel does not answer"))),
        Err(rtnetlink::Error::NetlinkError(error)) => Ok(Err(error.to_io())),
        Err(error) => Err(failed(Box::new(error))),
    }
}

fn way(message: &RouteMessage) -> Result<Route, io::Error> {
    let local = match message.header.kind {
        RouteType::Local => true,
        RouteType::Unicast => false,
        RouteType::BlackHole => return Err(io::Error::other("the route is a black hole")),
        RouteType::Prohibit => return Err(io::Error::other("the route prohibits it")),
        _ => return Err(io::Error::from_raw_os_error(libc::EHOSTUNREACH)),
    };
    let device = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(ifindex) => Some(*ifindex),
        RouteAttribute::MultiPath(hops) => hops.first().map(|hop| hop.interface_index),
        _ => None,
    });
    let source = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::PrefSource(RouteAddress::Inet(ip)) => Some(IpAddr::V4(*ip)),
        RouteAttribute::PrefSource(RouteAddress::Inet6(ip)) => Some(IpAddr::V6(*ip)),
        _ => None,
    });
    let unreachable = || io::Error::from_raw_os_error(libc::EHOSTUNREACH);
    Ok(Route {
        device: device.ok_or_else(unreachable)?,
        local,
        source,
    })
}
