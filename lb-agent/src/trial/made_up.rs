//! A node that is made up from manifests: in a network namespace of its own, with devices, addresses and routes as the node
//! would have them, because the programs ask the kernel for routes.
//!
//! ```text
//! everybody else ---- uplink: the node's internal addresses, the default routes
//! pods of the node --- pods:  routes to their addresses and to the Node's podCIDRs
//! ```

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Context as _;
use nix::net::if_::if_nametoindex;
use rtnetlink::packet_route::address::AddressHeaderFlags;
use rtnetlink::packet_route::route::{RouteScope, RouteType};
use rtnetlink::{Handle, LinkUnspec, LinkVeth, RouteMessageBuilder};

use crate::dataplane::devices::{Changes, Devices, Patterns};
use crate::dataplane::netlink::connect;
use crate::dataplane::xdp::XdpChoice;
use crate::model::{HostState, IpPrefix, World};

const UPLINK: &str = "uplink";
const PODS: &str = "pods";
/// What the names of the devices' other ends end with.
const END: &str = "-end";

/// The node's address in a family where the manifests say none: of the prefixes for documentation (RFC 5737, RFC 3849).
const NO_ADDRESS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
];

/// Settings of a node that forwards, and asks nothing about its own addresses.
const SETTINGS: [(&str, &str); 6] = [
    ("ipv4/ip_forward", "1"),
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    ("ipv6/conf/all/forwarding", "1"),
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv6/conf/all/accept_dad", "0"),
];

/// Makes the node of this name in the calling thread's network namespace, which must be a new one. `pod` is the address of
/// one more pod on it.
pub(super) async fn lay_out(
    world: &World,
    node_name: &str,
    pod: Option<IpAddr>,
) -> anyhow::Result<HostState> {
    for (name, value) in SETTINGS {
        let path = format!("/proc/sys/net/{name}");
        match fs::write(&path, value) {
            // A kernel without IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => result.with_context(|| format!("cannot set {path} of the made-up node"))?,
        }
    }
    let netlink = connect()?;
    build(&netlink, world, (node_name, pod))
        .await
        .context("cannot lay out the made-up node")?;
    let patterns = Patterns::new(&[], &[format!("*{END}")], &[UPLINK.to_owned()])?;
    let mut devices = Devices::connect(patterns, XdpChoice::Off)?;
    let host = devices.look(Changes::default()).await?;
    Ok(host.state(&std::collections::BTreeMap::new()))
}

async fn build(
    netlink: &Handle,
    world: &World,
    (node_name, pod): (&str, Option<IpAddr>),
) -> anyhow::Result<()> {
    set_up(netlink, "lo").await?;
    for name in [UPLINK, PODS] {
        let end = format!("{name}{END}");
        netlink
            .link()
            .add(LinkVeth::new(name, &end).build())
            .execute()
            .await?;
        set_up(netlink, name).await?;
        set_up(netlink, &end).await?;
    }
    let (uplink, pods) = (if_nametoindex(UPLINK)?, if_nametoindex(PODS)?);
    let own = addresses(world, node_name);
    for ip in &own {
        let mut request = netlink.address().add(uplink, *ip, host_bits(*ip));
        request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        request.execute().await.with_context(|| format!("address {ip}"))?;
    }
    for default in [
        IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    ] {
        add_route(netlink, default, 0, uplink).await?;
    }
    let mut prefixes = pod_prefixes(world, node_name, &own);
    prefixes.extend(pod.filter(|ip| !own.contains(ip)).map(IpPrefix::host));
    for prefix in prefixes {
        add_route(netlink, prefix.ip(), prefix.length(), pods).await?;
    }
    Ok(())
}

async fn set_up(netlink: &Handle, name: &str) -> anyhow::Result<()> {
    let up = LinkUnspec::new_with_name(name).up().build();
    netlink
        .link()
        .set(up)
        .execute()
        .await
        .with_context(|| format!("device {name}"))
}

async fn add_route(netlink: &Handle, ip: IpAddr, bits: u8, device: u32) -> anyhow::Result<()> {
    let route = RouteMessageBuilder::<IpAddr>::new()
        .destination_prefix(ip, bits)?
        .output_interface(device)
        .scope(if ip.is_ipv4() {
            RouteScope::Link
        } else {
            RouteScope::Universe
        })
        .kind(RouteType::Unicast)
        .build();
    let added = netlink.route().add(route).execute().await;
    added.with_context(|| format!("route to {ip}/{bits}"))
}

/// The addresses that the node has: its internal ones, and in a family without one that is made up.
fn addresses(world: &World, node_name: &str) -> BTreeSet<IpAddr> {
    let node = world.node(node_name);
    let known: BTreeSet<IpAddr> = node
        .into_iter()
        .flat_map(|node| &node.internal_ips)
        .copied()
        .collect();
    let missing = NO_ADDRESS.into_iter().filter(|made_up| {
        let mut same = known.iter();
        !same.any(|ip| ip.is_ipv4() == made_up.is_ipv4())
    });
    known.iter().copied().chain(missing).collect()
}

/// Where the node's pods are: the prefixes of its Node, and the endpoints on it, but for those in the node's own network.
fn pod_prefixes(world: &World, node_name: &str, own: &BTreeSet<IpAddr>) -> BTreeSet<IpPrefix> {
    let services = world.services();
    let slices = services.flat_map(|service| world.slices(&service.name));
    let endpoints = slices.flat_map(|slice| &slice.object.endpoints);
    let here = endpoints.filter(|endpoint| endpoint.node.as_deref() == Some(node_name));
    let pods = here
        .map(|endpoint| endpoint.address)
        .filter(|ip| !own.contains(ip))
        .map(IpPrefix::host);
    let node = world.node(node_name);
    let prefixes = node.into_iter().flat_map(|node| node.pod_cidrs.iter().copied());
    pods.chain(prefixes).collect()
}

const fn host_bits(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}
