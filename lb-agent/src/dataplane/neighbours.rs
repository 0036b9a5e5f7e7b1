//! Keeps neighbours fresh that XDP alone sends to.
//!
//! The kernel asks a neighbour whether it is still there when it sends a packet to it by itself. It does not see what XDP
//! sends: such a neighbour goes stale, and is forgotten or not noticed to have gone.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use futures::TryStreamExt as _;
use rtnetlink::Handle;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::neighbour::{NeighbourFlags, NeighbourMessage, NeighbourState};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tracing::debug;

use super::DataplaneError;
use super::netlink::connect;
use super::routes::destination;

/// The kernel takes a neighbour for fresh for half a minute.
const EVERY: Duration = Duration::from_secs(15);
/// How many are asked after at once: as many as the kernel keeps without looking for some to forget
/// (`net.ipv4.neigh.default.gc_thresh1`).
const MOST: usize = 128;

/// Asks after stale neighbours on these devices from now on, by a task of the current runtime which ends with the sender.
pub fn keep_fresh() -> Result<watch::Sender<BTreeSet<u32>>, DataplaneError> {
    let netlink = connect()?;
    let (sender, receiver) = watch::channel(BTreeSet::new());
    tokio::spawn(work(netlink, receiver));
    Ok(sender)
}

async fn work(netlink: Handle, devices: watch::Receiver<BTreeSet<u32>>) {
    let mut rounds = interval(EVERY);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Those that did not have their turn in the last round come first.
    let mut last = None;
    while devices.has_changed().is_ok() {
        rounds.tick().await;
        let wanted = devices.borrow().clone();
        if wanted.is_empty() {
            continue;
        }
        match stale(&netlink, &wanted).await {
            Ok(stale) => {
                let turn = turn(&stale, last);
                last = turn.last().copied();
                for (ifindex, ip) in turn {
                    ask(&netlink, ifindex, ip).await;
                }
            }
            Err(error) => debug!(%error, "listing neighbours failed"),
        }
    }
}

type Neighbour = (u32, IpAddr);

async fn stale(netlink: &Handle, devices: &BTreeSet<u32>) -> Result<BTreeSet<Neighbour>, rtnetlink::Error> {
    let mut found = BTreeSet::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let request = netlink.neighbours().get().set_address_family(family);
        let mut neighbours = std::pin::pin!(request.execute());
        while let Some(neighbour) = neighbours.try_next().await? {
            found.extend(stale_on(&neighbour, devices));
        }
    }
    Ok(found)
}

fn stale_on(neighbour: &NeighbourMessage, devices: &BTreeSet<u32>) -> Option<Neighbour> {
    let header = &neighbour.header;
    let wanted = header.state == NeighbourState::Stale && devices.contains(&header.ifindex);
    Some((header.ifindex, destination(neighbour).filter(|_| wanted)?))
}

/// At most [`MOST`] of them, beginning after the last one of the round before.
fn turn(stale: &BTreeSet<Neighbour>, last: Option<Neighbour>) -> Vec<Neighbour> {
    let is_later = |neighbour: &&Neighbour| last.is_none_or(|last| **neighbour > last);
    let later = stale.iter().filter(is_later);
    let earlier = stale.iter().filter(|neighbour| !is_later(neighbour));
    later.chain(earlier).take(MOST).copied().collect()
}

/// Does to a neighbour what sending a packet does: the kernel asks it soon, and forgets it if there is no answer.
async fn ask(netlink: &Handle, ifindex: u32, ip: IpAddr) {
    let request = netlink
        .neighbours()
        .add(ifindex, ip)
        .state(NeighbourState::None)
        .flags(NeighbourFlags::Use)
        .replace();
    if let Err(error) = request.execute().await {
        // Its device may have gone.
        debug!(%ip, ifindex, %error, "asking after a neighbour failed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everyone_has_a_turn() {
        let neighbour = |n: u32| (2, IpAddr::from((0x0a00_0000 + n).to_be_bytes()));
        let all: BTreeSet<Neighbour> = (0..300).map(neighbour).collect();
        let mut seen = BTreeSet::new();
        let mut last = None;
        for _ in 0..3 {
            let turn = turn(&all, last);
            assert_eq!(turn.len(), MOST);
            last = turn.last().copied();
            seen.extend(turn);
        }
        assert_eq!(seen, all);
        assert_eq!(turn(&BTreeSet::new(), last), []);
    }
}
