//! Which devices get programs, and what stands behind them: a plain function of what netlink lists.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::{DeviceFlags, DeviceRole};

use super::returns::return_replies;
use super::{Patterns, flag};
use crate::dataplane::xdp::{NoXdp, XdpChoice, XdpState};

/// A device as netlink lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: LinkKind,
    /// Its hardware type (`ARPHRD_*`).
    pub hardware: u16,
    /// The bridge, bond or the like that it belongs to.
    pub master: Option<u32>,
    /// The device that it is stacked upon, in this network namespace.
    pub parent: Option<u32>,
    /// The largest network packet that it takes, in bytes.
    pub mtu: u32,
    /// Its hardware address; all zero where it has none of Ethernet's.
    pub mac: [u8; 6],
}

/// What a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LinkKind {
    /// Has no driver of the virtual kinds: a network card.
    Physical,
    /// VLAN.
    Vlan,
    /// Bond or team.
    Bond,
    /// Bridge.
    Bridge,
    /// Leads to one pod or machine: veth, netkit, tap.
    Veth,
    /// Leads to other nodes, encapsulated.
    Tunnel,
    /// The loopback device.
    Loopback,
    /// None of our business.
    Other,
}

/// A device that programs belong at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its index.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// What stands behind it.
    pub role: DeviceRole,
    /// [`DeviceFlags`].
    pub flags: u8,
    /// The device that the route back to a packet's source must name.
    pub route_ifindex: u32,
    /// Whether its packets start with the network header.
    pub l3: bool,
    /// How XDP is to be tried, or why not; `None` where there is no uplink.
    pub xdp: Option<XdpState>,
    /// The largest network packet that it takes, in bytes.
    pub mtu: u32,
    /// Its hardware address; all zero where it has none of Ethernet's.
    pub mac: [u8; 6],
}

/// `ARPHRD_ETHER`.
const ETHERNET: u16 = 1;
/// Hardware types without link-layer header: `ARPHRD_PPP`, `RAWIP`, `TUNNEL`, `TUNNEL6`, `SIT`, `IPGRE`, `IP6GRE`,
/// `NONE`.
const HEADERLESS: [u16; 8] = [512, 519, 768, 769, 776, 778, 823, 0xfffe];

impl LinkKind {
    /// From the kind that netlink tells (`ip -d link`), none for network cards.
    pub fn new(kind: Option<&str>, hardware: u16, loopback: bool) -> Self {
        match kind {
            _ if loopback => Self::Loopback,
            None => Self::Physical,
            Some("vlan") => Self::Vlan,
            Some("bond" | "team") => Self::Bond,
            Some("bridge") => Self::Bridge,
            Some("veth" | "netkit") => Self::Veth,
            // A tap carries Ethernet and leads to one machine.
            Some("tun") if hardware == ETHERNET => Self::Veth,
            Some(
                "tun" | "vxlan" | "geneve" | "ipip" | "ip6tnl" | "sit" | "gre" | "gretap" | "ip6gre"
                | "ip6gretap" | "wireguard" | "vti" | "vti6" | "xfrm" | "bareudp",
            ) => Self::Tunnel,
            Some(_) => Self::Other,
        }
    }
}

/// The devices that programs belong at, by index. `default_routes` are the devices that carry a default route.
pub fn classify(
    links: &[Link],
    default_routes: &BTreeSet<u32>,
    patterns: &Patterns,
    xdp: XdpChoice,
) -> Vec<Device> {
    let node = Node {
        links: links.iter().map(|link| (link.ifindex, link)).collect(),
        default_routes,
        patterns,
        xdp,
    };
    let mut devices: Vec<Device> = node
        .links
        .values()
        .filter(|link| node.is_selected(link))
        .map(|link| node.device(link))
        .collect();
    return_replies(&mut devices, |ifindex| {
        node.links
            .get(&ifindex)
            .is_some_and(|link| node.carries_vlans(link))
    });
    devices
}

struct Node<'a> {
    links: BTreeMap<u32, &'a Link>,
    default_routes: &'a BTreeSet<u32>,
    patterns: &'a Patterns,
    xdp: XdpChoice,
}

impl Node<'_> {
    fn is_selected(&self, link: &Link) -> bool {
        let readable = link.hardware == ETHERNET || HEADERLESS.contains(&link.hardware);
        let wanted = || {
            let known = !matches!(link.kind, LinkKind::Other);
            // A bond's packets are met at the bond.
            self.patterns
                .decide(&link.name)
                .unwrap_or(known && self.master(link) != Some(LinkKind::Bond))
        };
        readable && link.kind != LinkKind::Loopback && wanted()
    }

    fn device(&self, link: &Link) -> Device {
        let bridge = link
            .master
            .filter(|_| self.master(link) == Some(LinkKind::Bridge));
        let (stacked, l3) = (self.is_stacked(link), link.hardware != ETHERNET);
        let role = self.role(link);
        let against_xdp = || {
            let reasons = [
                (l3, NoXdp::Headerless),
                (stacked, NoXdp::Stacked),
                (bridge.is_some(), NoXdp::BridgePort),
                (self.is_virtual(link), NoXdp::Virtual),
                (self.carries_vlans(link), NoXdp::Vlans),
            ];
            let holding = reasons.into_iter().filter(|(holds, _)| *holds);
            holding.map(|(_, reason)| reason).collect::<Vec<_>>()
        };
        Device {
            ifindex: link.ifindex,
            name: link.name.clone(),
            role,
            flags: flag(stacked, DeviceFlags::STACKED) | flag(l3, DeviceFlags::L3),
            route_ifindex: bridge.unwrap_or(link.ifindex),
            l3,
            xdp: (role == DeviceRole::Uplink).then(|| self.xdp.plan(&against_xdp())),
            mtu: link.mtu,
            mac: link.mac,
        }
    }

    fn role(&self, link: &Link) -> DeviceRole {
        match link.kind {
            _ if self.is_uplink(link) => DeviceRole::Uplink,
            LinkKind::Bridge if self.ports(link).any(|port| self.is_uplink(port)) => DeviceRole::Uplink,
            LinkKind::Tunnel => DeviceRole::Tunnel,
            _ => DeviceRole::Pod,
        }
    }

    /// Without regard to a bridge's ports.
    fn is_uplink(&self, link: &Link) -> bool {
        matches!(link.kind, LinkKind::Physical | LinkKind::Vlan | LinkKind::Bond)
            || self.default_routes.contains(&link.ifindex)
            || self.patterns.is_uplink(&link.name)
    }

    /// Whether everything that arrives here has been through a lower device with programs.
    fn is_stacked(&self, link: &Link) -> bool {
        match link.kind {
            LinkKind::Bridge => {
                self.ports(link).next().is_some() && self.ports(link).all(|port| self.is_selected(port))
            }
            LinkKind::Vlan => link
                .parent
                .and_then(|parent| self.links.get(&parent))
                .is_some_and(|parent| self.is_selected(parent)),
            _ => false,
        }
    }

    /// Whether packets may arrive that no network card has seen.
    fn is_virtual(&self, link: &Link) -> bool {
        match link.kind {
            LinkKind::Physical => false,
            LinkKind::Bond => self.ports(link).any(|port| self.is_virtual(port)),
            _ => true,
        }
    }

    fn carries_vlans(&self, link: &Link) -> bool {
        let upon = |other: &&Link| other.kind == LinkKind::Vlan && other.parent == Some(link.ifindex);
        self.links.values().any(upon)
    }

    fn ports<'a>(&'a self, bridge: &'a Link) -> impl Iterator<Item = &'a Link> {
        self.links
            .values()
            .copied()
            .filter(|link| link.master == Some(bridge.ifindex))
    }

    fn master(&self, link: &Link) -> Option<LinkKind> {
        Some(self.links.get(&link.master?)?.kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::xdp::XdpMode;

    fn link(ifindex: u32, name: &str, kind: &str) -> Link {
        let hardware = match kind {
            "lo" => 772,
            "ipip" => 768,
            "wireguard" | "tun" => 0xfffe,
            "infiniband" => 32,
            _ => ETHERNET,
        };
        let netlink_kind = match kind {
            "lo" | "physical" | "infiniband" => None,
            "tap" => Some("tun"),
            kind => Some(kind),
        };
        let kind = LinkKind::new(netlink_kind, hardware, kind == "lo");
        Link {
            ifindex,
            name: name.to_owned(),
            kind,
            hardware,
            master: None,
            parent: None,
            mtu: 1500,
            mac: [0; 6],
        }
    }

    fn under(master: u32, link: Link) -> Link {
        Link {
            master: Some(master),
            ..link
        }
    }

    fn over(parent: u32, link: Link) -> Link {
        Link {
            parent: Some(parent),
            ..link
        }
    }

    fn patterns(include: &[&str], exclude: &[&str], uplinks: &[&str]) -> Patterns {
        let strings = |patterns: &[&str]| patterns.iter().map(ToString::to_string).collect::<Vec<_>>();
        Patterns::new(&strings(include), &strings(exclude), &strings(uplinks)).unwrap()
    }

    /// Compares as text: name, role, and what is special.
    fn check(links: &[Link], default_routes: &[u32], patterns: &Patterns, expected: &[&str]) {
        let default_routes = default_routes.iter().copied().collect();
        let devices = classify(links, &default_routes, patterns, XdpChoice::Auto);
        let texts: Vec<String> = devices
            .iter()
            .map(|device| {
                let mut text = format!("{} {}", device.name, device.role.as_str());
                if device.route_ifindex != device.ifindex {
                    text = format!("{text} route={}", device.route_ifindex);
                }
                if device.flags & DeviceFlags::STACKED != 0 {
                    text.push_str(" stacked");
                }
                if device.l3 {
                    text.push_str(" l3");
                }
                if device.flags & DeviceFlags::RETURNS != 0 {
                    text.push_str(" returns");
                }
                assert_eq!(device.l3, device.flags & DeviceFlags::L3 != 0);
                match device.xdp {
                    Some(Ok(XdpMode::Native)) => text.push_str(" xdp"),
                    Some(Err(reason)) if ![NoXdp::Virtual, NoXdp::Headerless].contains(&reason) => {
                        text = format!("{text} no-xdp={}", reason.code());
                    }
                    _ => {}
                }
                text
            })
            .collect();
        assert_eq!(texts, expected);
    }

    #[test]
    fn kinds_have_roles_and_some_devices_are_left_alone() {
        let links = [
            link(1, "lo", "lo"),
            link(2, "eth0", "physical"),
            link(3, "vxlan.calico", "vxlan"),
            link(4, "tunl0", "ipip"),
            link(5, "wg0", "wireguard"),
            link(6, "tun0", "tun"),
            link(7, "tap0", "tap"),
            link(8, "cali1", "veth"),
            link(9, "lxc1", "netkit"),
            link(10, "dummy0", "dummy"),
            link(11, "ifb0", "ifb"),
            link(12, "nlmon0", "nlmon"),
            link(13, "ib0", "infiniband"),
            link(14, "mac0", "macvlan"),
        ];
        let expected = [
            "eth0 uplink xdp",
            "vxlan.calico tunnel",
            "tunl0 tunnel l3",
            "wg0 tunnel l3",
            "tun0 tunnel l3",
            "tap0 pod",
            "cali1 pod",
            "lxc1 pod",
        ];
        check(&links, &[2], &Patterns::default(), &expected);
    }

    #[test]
    fn a_bridge_of_pods_is_a_pod_and_its_ports_route_by_it() {
        let links = [
            link(2, "cni0", "bridge"),
            under(2, link(3, "veth1", "veth")),
            under(2, link(4, "veth2", "veth")),
        ];
        check(
            &links,
            &[],
            &Patterns::default(),
            &["cni0 pod stacked", "veth1 pod route=2", "veth2 pod route=2"],
        );
    }

    #[test]
    fn a_bridge_with_a_card_or_a_default_route_is_an_uplink() {
        let links = [
            link(2, "br0", "bridge"),
            under(2, link(3, "eth0", "physical")),
            under(2, link(4, "vnet0", "tap")),
        ];
        check(
            &links,
            &[],
            &Patterns::default(),
            &[
                "br0 uplink stacked no-xdp=stacked",
                "eth0 uplink route=2 no-xdp=bridge-port",
                "vnet0 pod route=2",
            ],
        );
        check(
            &[link(2, "br0", "bridge")],
            &[2],
            &Patterns::default(),
            &["br0 uplink"],
        );
    }

    #[test]
    fn a_bridge_with_a_port_left_out_is_not_stacked() {
        let links = [
            link(2, "br0", "bridge"),
            under(2, link(3, "veth1", "veth")),
            under(2, link(4, "veth2", "veth")),
        ];
        check(
            &links,
            &[],
            &patterns(&[], &["veth2"], &[]),
            &["br0 pod", "veth1 pod route=2"],
        );
    }

    #[test]
    fn a_bond_stands_for_its_cards_and_a_vlan_is_stacked_upon_it() {
        let links = [
            under(4, link(2, "eth0", "physical")),
            under(4, link(3, "eth1", "physical")),
            link(4, "bond0", "bond"),
            over(4, link(5, "bond0.100", "vlan")),
        ];
        check(
            &links,
            &[5],
            &Patterns::default(),
            &[
                "bond0 uplink no-xdp=vlans",
                "bond0.100 uplink stacked no-xdp=stacked",
            ],
        );
        check(
            &links,
            &[5],
            &patterns(&["*.100"], &[], &[]),
            &["bond0.100 uplink"],
        );
    }

    #[test]
    fn patterns_choose_devices_of_any_kind_but_never_loopback() {
        let links = [
            link(1, "lo", "lo"),
            link(2, "eth0", "physical"),
            link(3, "shim0", "macvlan"),
        ];
        check(&links, &[], &patterns(&["*"], &["eth*"], &[]), &["shim0 pod"]);
        check(
            &links,
            &[],
            &patterns(&["shim*"], &[], &["shim0"]),
            &["shim0 uplink"],
        );
    }

    #[test]
    fn of_several_uplinks_each_gets_its_replies_back() {
        let links = [
            link(2, "eth0", "physical"),
            link(3, "eth1", "physical"),
            link(4, "up0", "veth"),
            link(5, "pod0", "veth"),
            link(6, "eth2", "physical"),
            over(6, link(7, "eth2.5", "vlan")),
            link(8, "br0", "bridge"),
            under(8, link(9, "eth3", "physical")),
            link(10, "wg0", "wireguard"),
        ];
        check(
            &links,
            &[4, 10],
            &Patterns::default(),
            &[
                "eth0 uplink returns xdp",
                "eth1 uplink returns xdp",
                "up0 uplink returns",
                "pod0 pod",
                "eth2 uplink no-xdp=vlans",
                "eth2.5 uplink stacked no-xdp=stacked",
                "br0 uplink stacked no-xdp=stacked",
                "eth3 uplink route=8 no-xdp=bridge-port",
                "wg0 uplink l3",
            ],
        );
        check(&links[..1], &[2], &Patterns::default(), &["eth0 uplink xdp"]);
    }

    #[test]
    fn a_veth_with_the_default_route_is_an_uplink() {
        let links = [
            link(2, "up0", "veth"),
            link(3, "pod0", "veth"),
            link(4, "wg0", "wireguard"),
        ];
        check(
            &links,
            &[2, 4],
            &Patterns::default(),
            &["up0 uplink", "pod0 pod", "wg0 uplink l3"],
        );
    }
}
