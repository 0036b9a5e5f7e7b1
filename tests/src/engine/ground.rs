//! The network namespace in which the kernel engine runs: devices, addresses, neighbours and routes; and the same for
//! the host engine.
//!
//! Addresses are those of [`super::rows`]; IPv6 ones end with the same four octets.
//!
//! ```text
//!   client 8.0.0.10 … (everything else) --- 8.0.2.254 --- UPLINK 8.0.2.1, 8.0.2.2
//!   far backends 8.0.4.x, and the narrow way to 8.0.7.x -'
//!   a gateway that does not answer 8.0.2.99 (8.0.8.x)    -'
//!   far backends 8.0.6.x --- 8.0.5.254 --- OTHER_UPLINK 8.0.5.1
//!   backends 8.0.1.10 … 8.0.1.19 --- WEB
//!   whatever is from 8.0.96.3 leaves by OTHER_UPLINK
//!   pod 8.0.1.50 --- POD
//!   pod 8.0.1.60 --- BRIDGE over BRIDGE_PORT
//! ```

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::Result;
use lb_common::addr::Address as _;
use lb_common::{Family, Hop, V4, V6};
use lb_ebpf::testkit::Way;

use super::{TestFamily, end};
use crate::netns::Netns;

/// The ifindex of the device to the outside, which has the default route and the node's addresses.
pub const UPLINK: u32 = 10;
/// The ifindex of a pod's device: the route to 8.0.1.50 leads there.
pub const POD: u32 = 12;
/// The ifindex of a bridge over other devices: the route to 8.0.1.60 leads there.
pub const BRIDGE: u32 = 14;
/// The ifindex of a port of the bridge.
pub const BRIDGE_PORT: u32 = 16;
/// The ifindex of the device that the routes to the node's own backends lead to.
pub const WEB: u32 = 18;
/// The ifindex of another device to the outside, with routes to some far backends.
pub const OTHER_UPLINK: u32 = 20;
/// The ifindex of the loopback device.
pub const LOOPBACK: u32 = 1;

/// The hardware address that all devices of the node have but [`OTHER_UPLINK`]; packets are built for it.
pub const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// The hardware address of the gateway behind [`UPLINK`]; packets are built as coming from it.
pub const GATEWAY_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// The hardware address of [`OTHER_UPLINK`].
pub const OTHER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 20];
/// The hardware address of the gateway behind [`OTHER_UPLINK`].
pub const OTHER_GATEWAY_MAC: [u8; 6] = [2, 0, 0, 0, 0, 21];
/// The hardware address of everybody in a pod.
pub const POD_MAC: [u8; 6] = [2, 0, 0, 0, 1, 0];

/// The size of the usual ways.
pub const MTU: u16 = 1500;
/// The size of the narrow way, to 8.0.7.x: the least that IPv6 has.
pub const NARROW_MTU: u16 = 1280;

/// A routing table for packets from [`RULED_SOURCE`].
const RULED: u32 = 100;
/// Routes depend on this source: the address of a service.
const RULED_SOURCE: [u8; 2] = [96, 3];

/// Where the routes to the other pods' addresses lead: last two octets, and device.
const PODS: [([u8; 2], u32); 2] = [([1, 50], POD), ([1, 60], BRIDGE)];
/// How many backends of the node's own there are.
const BACKENDS: u8 = 10;

/// The namespace.
#[derive(Debug)]
pub struct Ground {
    namespace: Netns,
}

impl Ground {
    /// Makes it.
    pub fn new() -> Result<Self> {
        let namespace = Netns::new("packets")?;
        let devices = [
            ("uplink", UPLINK, MAC),
            ("pod", POD, MAC),
            ("bridge", BRIDGE, MAC),
            ("port", BRIDGE_PORT, MAC),
            ("web", WEB, MAC),
            ("other", OTHER_UPLINK, OTHER_MAC),
        ];
        for (name, index, mac) in devices {
            namespace.ip(&format!(
                "link add name {name} index {index} address {} type veth peer name {name}-peer\n\
                 link set {name} up\n\
                 link set {name}-peer up",
                text(mac)
            ))?;
        }
        namespace.sysctls(&[
            ("ipv4/ip_forward", "1"),
            ("ipv6/conf/all/forwarding", "1"),
            ("ipv6/conf/all/accept_dad", "0"),
        ])?;
        connect::<V4>(&namespace)?;
        connect::<V6>(&namespace)?;
        Ok(Self { namespace })
    }

    /// Runs `work` inside, on a thread of its own.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.namespace.run(work)
    }
}

/// Addresses, neighbours and routes of a family.
fn connect<F: TestFamily>(namespace: &Netns) -> Result<()> {
    let ip = |octets| end::<F>(octets, 0).ip();
    let (subnet, host) = if F::SUFFIX == '4' { (24, 32) } else { (120, 128) };
    let mut lines = Vec::new();
    for (octets, device) in [([2, 1], "uplink"), ([2, 2], "uplink"), ([5, 1], "other")] {
        lines.push(format!(
            "addr add {}/{subnet} dev {device}{}",
            ip(octets),
            nodad::<F>()
        ));
    }
    let mut neighbour = |octets, mac, device| {
        lines.push(format!(
            "neigh add {} lladdr {} nud permanent dev {device}",
            ip(octets),
            text(mac)
        ));
    };
    neighbour([2, 254], GATEWAY_MAC, "uplink");
    neighbour([5, 254], OTHER_GATEWAY_MAC, "other");
    for (octets, device) in PODS {
        neighbour(octets, POD_MAC, if device == POD { "pod" } else { "bridge" });
    }
    for number in 0..BACKENDS {
        neighbour([1, 10 + number], POD_MAC, "web");
    }
    let default = if F::SUFFIX == '4' { "0.0.0.0/0" } else { "::/0" };
    lines.push(format!("route add {default} via {} dev uplink", ip([2, 254])));
    for (prefix, via, more) in [
        ([6, 0], [5, 254], "dev other"),
        ([7, 0], [2, 254], "dev uplink mtu lock 1280"),
        ([8, 0], [2, 99], "dev uplink"),
    ] {
        lines.push(format!(
            "route add {}/{subnet} via {} {more}",
            ip(prefix),
            ip(via)
        ));
    }
    lines.push(format!("route add unreachable {}/{subnet}", ip([9, 0])));
    for (octets, device) in PODS {
        let device = if device == POD { "pod" } else { "bridge" };
        lines.push(format!("route add {}/{host} dev {device}", ip(octets)));
    }
    for number in 0..BACKENDS {
        lines.push(format!("route add {}/{host} dev web", ip([1, 10 + number])));
    }
    lines.push(format!(
        "route add {default} via {} dev other table {RULED}",
        ip([5, 254])
    ));
    namespace.ip(&lines.join("\n"))?;
    // Which family a rule is for, `ip` does not see by itself.
    let family = if F::SUFFIX == '4' { "-4" } else { "-6" };
    let (source, table) = (ip(RULED_SOURCE).to_string(), RULED.to_string());
    namespace.command("ip", &[family, "rule", "add", "from", &source, "lookup", &table])?;
    Ok(())
}

/// The same for the host engine: prefixes and where they lead.
pub(super) fn ways<F: TestFamily>() -> Vec<Way<F::Addr>> {
    let bits = |rest: u32| if F::SUFFIX == '4' { 32 - rest } else { 128 - rest };
    let way = |octets: [u8; 2], rest, hop| Way {
        addr: address::<F>(end::<F>(octets, 0)),
        bits: bits(rest),
        hop,
    };
    let uplink = hop(UPLINK, MTU, GATEWAY_MAC);
    let other = hop(OTHER_UPLINK, MTU, OTHER_GATEWAY_MAC);
    let silent = hop(UPLINK, MTU, [0; 6]);
    let nowhere = Hop::default();
    let mut ways = vec![
        Way {
            addr: F::Addr::default(),
            bits: 0,
            hop: uplink,
        },
        // Neighbours that nobody knows, but for the gateway.
        way([2, 0], 8, silent),
        way([2, 254], 0, uplink),
        way([5, 0], 8, hop(OTHER_UPLINK, MTU, [0; 6])),
        way([5, 254], 0, other),
        way([6, 0], 8, other),
        way([7, 0], 8, hop(UPLINK, NARROW_MTU, GATEWAY_MAC)),
        way([8, 0], 8, silent),
        way([9, 0], 8, nowhere),
    ];
    // The node itself.
    ways.extend([[2, 1], [2, 2], [5, 1]].map(|octets| way(octets, 0, nowhere)));
    ways.extend(PODS.map(|(octets, device)| way(octets, 0, hop(device, MTU, POD_MAC))));
    ways.extend((0..BACKENDS).map(|number| way([1, 10 + number], 0, hop(WEB, MTU, POD_MAC))));
    ways
}

/// The rules for sources.
pub(super) fn rules<F: TestFamily>() -> BTreeMap<F::Addr, Hop> {
    let other = hop(OTHER_UPLINK, MTU, OTHER_GATEWAY_MAC);
    [(address::<F>(end::<F>(RULED_SOURCE, 0)), other)].into()
}

const fn hop(ifindex: u32, mtu: u16, dst: [u8; 6]) -> Hop {
    Hop {
        ifindex,
        epoch: 0,
        mtu,
        dst,
    }
}

fn address<F: Family>(end: SocketAddr) -> F::Addr {
    F::Addr::from_ip(end.ip()).unwrap()
}

fn nodad<F: Family>() -> &'static str {
    if F::SUFFIX == '4' { "" } else { " nodad" }
}

fn text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
