//! Tells that the way of packets may have changed: a route, a rule, a neighbour, a link or an address.
//!
//! Flows remember their next hops, so this has to be told within milliseconds. Messages are not understood but for
//! neighbours, whose state changes all the time without changing anybody's way.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use rtnetlink::MulticastGroup as Group;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{AsyncSocket as _, AsyncSocketExt as _, SocketAddr, TokioSocket};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

use super::DataplaneError;

const GROUPS: [Group; 11] = [
    Group::Link,
    Group::Neigh,
    Group::Nexthop,
    Group::Ipv4Ifaddr,
    Group::Ipv6Ifaddr,
    Group::Ipv4Route,
    Group::Ipv6Route,
    Group::Ipv4Rule,
    Group::Ipv6Rule,
    // Whether a device forwards.
    Group::Ipv4Netconf,
    Group::Ipv6Netconf,
];
/// Room for notifications that wait. What does not fit is lost, which is told and taken for a change.
const RECEIVE_BUFFER: u32 = 1 << 20;
/// The least time between two tellings: a routing daemon changes thousands of routes at once, and after each telling every
/// flow's next hop is looked up anew.
const APART: Duration = Duration::from_millis(5);
/// How long to wait when the kernel tells nothing at all.
const AGAIN: Duration = Duration::from_secs(1);

/// Counts changes from now on, by a task of the current runtime.
pub fn follow() -> Result<watch::Receiver<u64>, DataplaneError> {
    let socket = socket().map_err(|source| DataplaneError::Netlink {
        what: "asking for changes of routes",
        source: Box::new(source),
    })?;
    let (sender, receiver) = watch::channel(0);
    tokio::spawn(tell(socket, sender));
    Ok(receiver)
}

fn socket() -> io::Result<TokioSocket> {
    let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
    let inner = socket.socket_mut();
    inner.bind(&SocketAddr::new(0, 0))?;
    inner.set_rx_buf_sz(RECEIVE_BUFFER)?;
    for group in GROUPS {
        match inner.add_membership(group as u32) {
            // An older kernel has no such group, and what it would tell of.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => debug!(?group, "no such group"),
            result => result?,
        }
    }
    Ok(socket)
}

async fn tell(mut socket: TokioSocket, changes: watch::Sender<u64>) {
    let mut neighbours = Neighbours::default();
    // Whether there is something to tell, and when it may be told.
    let (mut untold, mut next) = (false, Instant::now());
    loop {
        let received = tokio::select! {
            biased;
            () = changes.closed() => return,
            () = sleep_until(next), if untold => {
                changes.send_modify(|count| *count += 1);
                (untold, next) = (false, Instant::now() + APART);
                continue;
            }
            received = socket.recv_from_full() => received,
        };
        untold |= match received {
            Ok((datagram, _)) => matters(&datagram, &mut neighbours),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                debug!("notifications of routes were lost");
                neighbours = Neighbours::default();
                true
            }
            Err(error) => {
                warn!(%error, "routes are not followed; trying again");
                tokio::time::sleep(AGAIN).await;
                if let Ok(anew) = self::socket() {
                    socket = anew;
                }
                neighbours = Neighbours::default();
                true
            }
        };
    }
}

/// Whether any message of a datagram changes the way of packets.
fn matters(datagram: &[u8], neighbours: &mut Neighbours) -> bool {
    let mut changed = false;
    let mut rest = datagram;
    while let Some((message, after)) = first_message(rest) {
        changed |= match kind(message) {
            libc::RTM_NEWNEIGH | libc::RTM_DELNEIGH => neighbours.matters(message),
            _ => true,
        };
        rest = after;
    }
    changed
}

/// The first message of a datagram, and what comes after it.
fn first_message(datagram: &[u8]) -> Option<(&[u8], &[u8])> {
    const HEADER: usize = 16;
    let length = u32::from_ne_bytes(*datagram.first_chunk()?) as usize;
    let message = datagram.get(..length).filter(|_| length >= HEADER)?;
    let after = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((message, after))
}

/// The type of a message, `RTM_*`.
fn kind(message: &[u8]) -> u16 {
    let bytes = message.get(4..6).and_then(<[u8]>::first_chunk);
    bytes.copied().map_or(0, u16::from_ne_bytes)
}

/// The hardware addresses of neighbours that packets can be sent to.
#[derive(Debug, Default)]
struct Neighbours {
    valid: BTreeMap<(u32, IpAddr), Vec<u8>>,
}

impl Neighbours {
    /// Whether a message says more than that a neighbour is, or is not, known to be there of late.
    fn matters(&mut self, message: &[u8]) -> bool {
        match NetlinkMessage::<RouteNetlinkMessage>::deserialize(message).map(|message| message.payload) {
            Ok(NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNeighbour(neighbour))) => {
                self.update(&neighbour, is_valid(neighbour.header.state))
            }
            Ok(NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelNeighbour(neighbour))) => {
                self.update(&neighbour, false)
            }
            _ => true,
        }
    }

    fn update(&mut self, neighbour: &NeighbourMessage, valid: bool) -> bool {
        // An entry of a bridge has no address of a network.
        let Some(ip) = destination(neighbour) else {
            return false;
        };
        let key = (neighbour.header.ifindex, ip);
        if valid {
            let hardware = hardware_address(neighbour);
            let before = self.valid.insert(key, hardware.clone());
            before != Some(hardware)
        } else {
            self.valid.remove(&key).is_some()
        }
    }
}

/// `NUD_VALID`.
fn is_valid(state: NeighbourState) -> bool {
    use NeighbourState::{Delay, Noarp, Permanent, Probe, Reachable, Stale};
    matches!(state, Permanent | Noarp | Reachable | Probe | Stale | Delay)
}

/// The address of a network that a neighbour has.
pub(super) fn destination(neighbour: &NeighbourMessage) -> Option<IpAddr> {
    neighbour.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => Some((*ip).into()),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => Some((*ip).into()),
        _ => None,
    })
}

fn hardware_address(neighbour: &NeighbourMessage) -> Vec<u8> {
    let address = neighbour.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(address) => Some(address.clone()),
        _ => None,
    });
    address.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_route::AddressFamily;
    use rtnetlink::packet_route::route::RouteMessage;

    use super::*;

    fn bytes(payload: RouteNetlinkMessage) -> Vec<u8> {
        let mut message = NetlinkMessage::from(payload);
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    }

    fn neighbour(state: NeighbourState, mac: u8) -> NeighbourMessage {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.ifindex = 2;
        message.header.state = state;
        let ip = NeighbourAddress::Inet([192, 0, 2, 1].into());
        message.attributes = vec![
            NeighbourAttribute::Destination(ip),
            NeighbourAttribute::LinkLayerAddress(vec![2, 0, 0, 0, 0, mac]),
        ];
        message
    }

    #[test]
    fn a_neighbour_matters_when_its_address_or_validity_changes() {
        use NeighbourState::{Delay, Failed, Incomplete, Reachable, Stale};
        let mut known = Neighbours::default();
        let mut new = |state, mac| {
            let message = bytes(RouteNetlinkMessage::NewNeighbour(neighbour(state, mac)));
            matters(&message, &mut known)
        };
        assert!(!new(Incomplete, 0));
        assert!(new(Reachable, 1));
        for state in [Stale, Delay, Reachable] {
            assert!(!new(state, 1), "{state:?}");
        }
        assert!(new(Reachable, 2));
        assert!(new(Failed, 2));
        assert!(!new(Failed, 2));
        assert!(new(Stale, 2));
        let gone = bytes(RouteNetlinkMessage::DelNeighbour(neighbour(Stale, 2)));
        assert!(matters(&gone, &mut known));
        assert!(!matters(&gone, &mut known));
    }

    #[test]
    fn each_message_of_a_datagram_is_looked_at() {
        let mut known = Neighbours::default();
        let quiet = bytes(RouteNetlinkMessage::NewNeighbour(neighbour(
            NeighbourState::None,
            0,
        )));
        assert!(!matters(&quiet, &mut known));
        let route = bytes(RouteNetlinkMessage::NewRoute(RouteMessage::default()));
        assert!(matters(&[quiet.clone(), route].concat(), &mut known));
        assert!(!matters(&[], &mut known));
        assert!(!matters(&[7; 3], &mut known));
        let cut_off = &quiet[..quiet.len() - 1];
        assert!(!matters(cut_off, &mut known));
    }
}
