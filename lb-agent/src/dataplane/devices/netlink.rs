//! Devices, addresses and default routes by netlink.
//!
//! Notifications only say *that* something changed; what is there now is listed anew. So a lost notification cannot
//! leave a wrong picture, and a burst of them costs one listing.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage, RouteType};
use rtnetlink::sys::AsyncSocket as _;
use rtnetlink::{Handle, MulticastGroup, RouteMessageBuilder};
use tokio::sync::watch;
use tracing::{debug, warn};

use super::{Host, Link, LinkKind, Loopback, Patterns, classify};
use crate::dataplane::DataplaneError;
use crate::dataplane::netlink::connect;
use crate::dataplane::xdp::XdpChoice;
use crate::model::HostAddress;

const GROUPS: [MulticastGroup; 6] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    // Filters that others put on our devices.
    MulticastGroup::Tc,
];
/// Room for notifications that wait: a node that starts a hundred pods sends thousands.
const RECEIVE_BUFFER: u32 = 4 << 20;
/// How long to wait before asking for notifications anew, after the kernel ended them.
const RECONNECT: Duration = Duration::from_millis(100);

/// How often something changed so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Devices, addresses or filters.
    pub links: u64,
    /// Default routes.
    pub routes: u64,
}

/// Lists the node's devices and addresses.
#[derive(Debug)]
pub struct Devices {
    netlink: Handle,
    patterns: Patterns,
    xdp: XdpChoice,
    default_routes: BTreeSet<u32>,
    /// [`Changes::routes`] at the last listing of routes.
    routes_seen: Option<u64>,
}

impl Devices {
    /// Opens a netlink connection, which a task of the current runtime drives.
    pub fn connect(patterns: Patterns, xdp: XdpChoice) -> Result<Self, DataplaneError> {
        Ok(Self {
            netlink: connect()?,
            patterns,
            xdp,
            default_routes: BTreeSet::new(),
            routes_seen: None,
        })
    }

    /// Tells of changes from now on, by a task of the current runtime.
    pub fn follow(&self) -> Result<watch::Receiver<Changes>, DataplaneError> {
        let (sender, receiver) = watch::channel(Changes::default());
        let notifications = notifications().map_err(failed("asking for notifications"))?;
        tokio::spawn(follow(notifications, sender));
        Ok(receiver)
    }

    /// Lists what is there now; routes only when `changes` says that a default route changed since.
    pub async fn look(&mut self, changes: Changes) -> Result<Host, DataplaneError> {
        if self.routes_seen != Some(changes.routes) {
            self.default_routes = self
                .list_default_routes()
                .await
                .map_err(failed("listing routes"))?;
            self.routes_seen = Some(changes.routes);
        }
        let messages: Vec<LinkMessage> = self
            .netlink
            .link()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(failed("listing devices"))?;
        let links: Vec<Link> = messages.iter().filter_map(link).collect();
        let loopback = links.iter().find(|link| link.kind == LinkKind::Loopback);
        let loopback = loopback.map(|link| Loopback {
            ifindex: link.ifindex,
            name: link.name.clone(),
        });
        let on_loopback =
            |address: &HostAddress| loopback.as_ref().is_some_and(|lo| lo.ifindex == address.ifindex);

        let messages: Vec<AddressMessage> = self
            .netlink
            .address()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(failed("listing addresses"))?;
        let mut addresses: Vec<HostAddress> = messages
            .iter()
            .filter_map(address)
            .filter(|address| !on_loopback(address))
            .collect();
        addresses.sort_by_key(|address| (address.ip, address.ifindex));
        Ok(Host {
            devices: classify(&links, &self.default_routes, &self.patterns, self.xdp),
            loopback,
            addresses,
        })
    }

    async fn list_default_routes(&self) -> Result<BTreeSet<u32>, rtnetlink::Error> {
        let mut devices = BTreeSet::new();
        let families = [
            RouteMessageBuilder::<std::net::Ipv4Addr>::new().build(),
            RouteMessageBuilder::<std::net::Ipv6Addr>::new().build(),
        ];
        for family in families {
            let mut routes = std::pin::pin!(self.netlink.route().get(family).execute());
            while let Some(route) = routes.try_next().await? {
                if is_default(&route) {
                    devices.extend(devices_of(&route));
                }
            }
        }
        Ok(devices)
    }
}

type Notifications = futures::channel::mpsc::UnboundedReceiver<(
    rtnetlink::packet_core::NetlinkMessage<RouteNetlinkMessage>,
    rtnetlink::sys::SocketAddr,
)>;

fn notifications() -> std::io::Result<Notifications> {
    let (mut connection, _, messages) = rtnetlink::new_multicast_connection(&GROUPS)?;
    connection
        .socket_mut()
        .socket_mut()
        .set_rx_buf_sz(RECEIVE_BUFFER)?;
    tokio::spawn(connection);
    Ok(messages)
}

async fn follow(mut notifications: Notifications, changes: watch::Sender<Changes>) {
    loop {
        let message = tokio::select! {
            message = notifications.next() => message,
            () = changes.closed() => return,
        };
        if let Some((message, _)) = message {
            changes.send_if_modified(|changes| note(&message.payload, changes));
            continue;
        }
        // The kernel drops what does not fit the buffer and says so once; anything may have changed.
        debug!("netlink notifications ended; asking for them again");
        tokio::time::sleep(RECONNECT).await;
        match self::notifications() {
            Ok(anew) => notifications = anew,
            Err(error) => warn!(%error, "devices are not followed; trying again"),
        }
        changes.send_modify(|changes| {
            changes.links += 1;
            changes.routes += 1;
        });
    }
}

fn note(payload: &NetlinkPayload<RouteNetlinkMessage>, changes: &mut Changes) -> bool {
    match payload {
        NetlinkPayload::InnerMessage(
            RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route),
        ) => {
            let relevant = is_default(route);
            changes.routes += u64::from(relevant);
            relevant
        }
        NetlinkPayload::InnerMessage(_) => {
            changes.links += 1;
            true
        }
        _ => {
            changes.links += 1;
            changes.routes += 1;
            true
        }
    }
}

fn is_default(route: &RouteMessage) -> bool {
    route.header.destination_prefix_length == 0 && route.header.kind == RouteType::Unicast
}

fn devices_of(route: &RouteMessage) -> Vec<u32> {
    let mut devices = Vec::new();
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(ifindex) => devices.push(*ifindex),
            RouteAttribute::MultiPath(hops) => devices.extend(hops.iter().map(|hop| hop.interface_index)),
            _ => {}
        }
    }
    devices
}

fn link(message: &LinkMessage) -> Option<Link> {
    let (mut name, mut kind, mut master, mut parent, mut parent_is_elsewhere) =
        (None, None, None, None, false);
    let (mut mtu, mut mac) = (0, [0; 6]);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(value) => name = Some(value.clone()),
            LinkAttribute::Controller(ifindex) => master = Some(*ifindex),
            LinkAttribute::Link(ifindex) => parent = Some(*ifindex),
            LinkAttribute::Mtu(value) => mtu = *value,
            // A tunnel's is its end's IP address.
            LinkAttribute::Address(value) => mac = value.as_slice().try_into().unwrap_or_default(),
            LinkAttribute::LinkNetNsId(_) => parent_is_elsewhere = true,
            LinkAttribute::LinkInfo(infos) => {
                kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    let hardware = u16::from(message.header.link_layer_type);
    let loopback = message.header.flags.contains(LinkFlags::Loopback);
    Some(Link {
        ifindex: message.header.index,
        name: name?,
        kind: LinkKind::new(kind.as_deref(), hardware, loopback),
        hardware,
        master: master.filter(|master| *master != 0),
        parent: parent.filter(|_| !parent_is_elsewhere),
        mtu,
        mac,
    })
}

/// An address of global scope; not one that another machine turned out to have.
fn address(message: &AddressMessage) -> Option<HostAddress> {
    let header = &message.header;
    if header.scope != AddressScope::Universe || header.flags.contains(AddressHeaderFlags::Dadfailed) {
        return None;
    }
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(ip) => Some(*ip),
        _ => None,
    });
    let address = || {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(ip) => Some(*ip),
            _ => None,
        })
    };
    // On a point-to-point device the other attribute is the peer's.
    Some(HostAddress {
        ip: local.or_else(address)?,
        ifindex: header.index,
    })
}

fn failed<E: std::error::Error + Send + Sync + 'static>(
    what: &'static str,
) -> impl FnOnce(E) -> DataplaneError {
    move |source| DataplaneError::Netlink {
        what,
        source: Box::new(source),
    }
}
