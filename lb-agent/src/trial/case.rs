//! From what was asked to one packet, its sender, and the device where its way begins.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context as _, bail};
use lb_common::{Device, DeviceRole};
use nix::net::if_::if_nametoindex;
use rtnetlink::Handle;

use super::endpoint::Objects;
use super::front_end::{self, FrontEnd, Kind};
use super::packet::Packet;
use super::question::{Destination, PortChoice, Question, Sender, Source};
use super::route::route;
use super::walk::Start;
use crate::dataplane::KernelStore;
use crate::model::{ObjectName, Protocol};
use crate::store::{DevicesTable, MapStore as _};

/// A source port that nobody has asked for.
const PORT: u16 = 40_000;
/// Clients outside: of the prefixes for documentation (RFC 5737, RFC 3849).
const OUTSIDE: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 7)),
];

/// Where answers to questions are looked up.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) store: &'a KernelStore,
    pub(super) netlink: &'a Handle,
    /// The objects, where they are known.
    pub(super) objects: Option<Objects<'a>>,
}

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    Pod,
    Node,
    Outside,
}

/// One packet, from somebody.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) packet: Packet,
    pub(super) who: Who,
    pub(super) pod: Option<ObjectName>,
    pub(super) start: Start,
    pub(super) role: Option<DeviceRole>,
    /// What was made up, or chosen among several.
    pub(super) notes: Vec<String>,
}

impl Who {
    /// For people and programs.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Pod => "pod",
            Self::Node => "node",
            Self::Outside => "outside",
        }
    }
}

impl Place<'_> {
    /// Settles what a question leaves open.
    pub(super) async fn case(self, question: &Question) -> anyhow::Result<Case> {
        let mut notes = Vec::new();
        let mut sources = self.sources(question)?;
        let (destination, protocol) = self.destination(question, &sources, &mut notes)?;
        sources.retain(|ip| ip.is_ipv4() == destination.is_ipv4());
        let who = self.who(question, sources.first().copied()).await?;
        let ip = match sources.first() {
            Some(ip) => *ip,
            None => self.made_up(who, destination.ip(), &mut notes).await?,
        };
        let start = self.start(question, who, ip, destination.ip()).await?;
        let devices = self.store.rows::<DevicesTable>()?;
        let port = question.from.and_then(|from| from.port).unwrap_or(PORT);
        Ok(Case {
            packet: Packet {
                protocol,
                source: SocketAddr::new(ip, port),
                destination,
            },
            who,
            pod: match &question.sender {
                Some(Sender::Pod(pod)) => Some(pod.clone()),
                _ => None,
            },
            start,
            role: devices.get(&start.ifindex).and_then(role),
            notes,
        })
    }

    /// The addresses that the sender has, as far as that is said.
    fn sources(self, question: &Question) -> anyhow::Result<Vec<IpAddr>> {
        if let Some(Source { ip, .. }) = question.from {
            return Ok(vec![ip]);
        }
        match &question.sender {
            Some(Sender::Pod(pod)) => self.pod(pod),
            Some(Sender::Node | Sender::Outside) => Ok(Vec::new()),
            None => bail!(
                "who sends the packet? Give --from IP, --from-pod NAMESPACE/NAME, --from-node or --from-outside"
            ),
        }
    }

    fn pod(self, pod: &ObjectName) -> anyhow::Result<Vec<IpAddr>> {
        let Some(Objects { world, node_name }) = self.objects else {
            bail!(
                "the maps do not know pods by name: give the address of pod {pod} with --from as well (`kubectl get pod \
                 -n {} {} -o wide` shows it)",
                pod.namespace,
                pod.name
            );
        };
        let services = world.services();
        let slices = services.flat_map(|service| world.slices(&service.name));
        let endpoints = slices.flat_map(|slice| &slice.object.endpoints);
        let endpoints = endpoints.filter(|endpoint| endpoint.pod_name.as_deref() == Some(pod));
        let mut found = BTreeSet::new();
        for endpoint in endpoints {
            if let Some(node) = endpoint.node.as_deref().filter(|node| *node != node_name) {
                bail!(
                    "pod {pod} is on node {node}, and packets to services are translated on the sender's node: ask for \
                     that one (--node-name {node})"
                );
            }
            found.insert(endpoint.address);
        }
        if found.is_empty() {
            bail!(
                "no EndpointSlice names pod {pod}, and Pods themselves are not looked at: give its address with --from \
                 as well"
            );
        }
        Ok(found.into_iter().collect())
    }

    /// Where the packet goes, and its protocol.
    fn destination(
        self,
        question: &Question,
        sources: &[IpAddr],
        notes: &mut Vec<String>,
    ) -> anyhow::Result<(SocketAddr, Protocol)> {
        let all = front_end::all(self.store)?;
        match &question.to {
            Destination::Address(address) => {
                if let Some(ip) = sources.first()
                    && !sources.iter().any(|ip| ip.is_ipv4() == address.is_ipv4())
                {
                    bail!("{ip} and {address} are of different families");
                }
                let protocol = question.protocol;
                let protocol = protocol.unwrap_or_else(|| served_protocol(&all, *address, notes));
                Ok((*address, protocol))
            }
            Destination::Service(service, port) => {
                let ours = front_end::of_service(&all, service);
                if ours.is_empty() {
                    bail!("{}", self.no_front_ends(service, &all));
                }
                let outside = question.sender == Some(Sender::Outside);
                let mut fitting: Vec<_> = ours
                    .iter()
                    .filter(|front_end| fits(front_end, port.as_ref(), question.protocol))
                    .filter(|front_end| {
                        let v4 = front_end.address.is_ipv4();
                        sources.is_empty() || sources.iter().any(|ip| ip.is_ipv4() == v4)
                    })
                    .collect();
                fitting.sort_by_key(|front_end| {
                    let address = front_end.address;
                    (
                        front_end.protocol,
                        preference(front_end.kind, outside),
                        !address.is_ipv4(),
                        address,
                    )
                });
                let Some(first) = fitting.first() else {
                    bail!("Service {service} has no such front end; it has {}", list(&ours));
                };
                notes.extend(asked_by(service, first, &ours));
                let protocol = Protocol::from_number(first.protocol)
                    .with_context(|| format!("protocol {} is unknown", first.protocol))?;
                Ok((first.address, protocol))
            }
        }
    }

    fn no_front_ends(self, service: &ObjectName, all: &[FrontEnd]) -> String {
        let is_known = self
            .objects
            .is_some_and(|Objects { world, .. }| world.service(service).is_some());
        if is_known {
            return format!(
                "Service {service} has no front ends: it is headless, an ExternalName or another proxy's, or others \
                 have its addresses"
            );
        }
        let names = all.iter().filter_map(|front_end| front_end.name.as_ref());
        let names: BTreeSet<String> = names.map(|name| name.service.to_string()).collect();
        let near: Vec<_> = names
            .into_iter()
            .filter(|name| {
                name.contains(&*service.name) || name.starts_with(&format!("{}/", service.namespace))
            })
            .take(5)
            .collect();
        if near.is_empty() {
            format!("there is no Service {service} here; `lb-agent services` lists those that there are")
        } else {
            format!("there is no Service {service} here; there is {}", near.join(", "))
        }
    }

    async fn who(self, question: &Question, ip: Option<IpAddr>) -> anyhow::Result<Who> {
        match (&question.sender, ip) {
            (Some(Sender::Pod(_)), _) => Ok(Who::Pod),
            (Some(Sender::Node), _) => Ok(Who::Node),
            (Some(Sender::Outside), _) | (None, None) => Ok(Who::Outside),
            (None, Some(ip)) if front_end::is_own(self.store, ip)? => Ok(Who::Node),
            (None, Some(ip)) => {
                let ifindex = match &question.device {
                    Some(name) => Some(ifindex(name)?),
                    None => route(self.netlink, ip, None).await?.ok().map(|back| back.device),
                };
                let devices = self.store.rows::<DevicesTable>()?;
                let device = ifindex.and_then(|ifindex| devices.get(&ifindex));
                Ok(match device.and_then(role) {
                    Some(DeviceRole::Pod) => Who::Pod,
                    _ => Who::Outside,
                })
            }
        }
    }

    /// A source for somebody whose address was not said.
    async fn made_up(self, who: Who, to: IpAddr, notes: &mut Vec<String>) -> anyhow::Result<IpAddr> {
        if who == Who::Node
            && let Ok(way) = route(self.netlink, to, None).await?
            && let Some(source) = way.source
        {
            notes.push(format!(
                "{source} is the address that the kernel gives the node's own packets there."
            ));
            return Ok(source);
        }
        if who == Who::Node {
            bail!(
                "the node has no route to {to}, so a process that asks it gets an error at once: add a default route, or \
                 one to the addresses of services"
            );
        }
        let [v4, v6] = OUTSIDE;
        let source = if to.is_ipv4() { v4 } else { v6 };
        notes.push(format!(
            "The client's address {source} is made up; --from says another."
        ));
        Ok(source)
    }

    /// Where the way begins: for what comes in, the device that leads back to its source; for the node's own, the one that
    /// the kernel picks.
    async fn start(self, question: &Question, who: Who, from: IpAddr, to: IpAddr) -> anyhow::Result<Start> {
        let own = who == Who::Node;
        if let Some(name) = &question.device {
            return Ok(Start {
                ifindex: ifindex(name)?,
                own,
            });
        }
        let asked = if own { to } else { from };
        match route(self.netlink, asked, None).await? {
            Ok(way) if way.local && !own => bail!("{asked} is the node's own address: ask with --from-node"),
            Ok(way) => Ok(Start {
                ifindex: way.device,
                own,
            }),
            Err(error) if own => bail!("the node has no route to {asked}: {error}"),
            Err(error) => bail!(
                "the node has no route to {asked} ({error}), so the device that its packets come in by is not known: name \
                 it with --device"
            ),
        }
    }
}

fn ifindex(name: &str) -> anyhow::Result<u32> {
    if_nametoindex(name).with_context(|| format!("there is no device {name}"))
}

fn role(device: &Device) -> Option<DeviceRole> {
    DeviceRole::from_number(device.role)
}

/// The protocol that a packet to an address probably has: TCP, unless others alone are served there.
fn served_protocol(all: &[FrontEnd], address: SocketAddr, notes: &mut Vec<String>) -> Protocol {
    let is_served = |protocol: &Protocol| {
        let mut same = all
            .iter()
            .filter(|front_end| front_end.protocol == protocol.number());
        same.any(|front_end| front_end.address == address)
    };
    let first = Protocol::ALL.into_iter().find(is_served);
    let protocol = first.unwrap_or(Protocol::Tcp);
    if protocol != Protocol::Tcp {
        notes.push(format!(
            "The protocol was not said; at {address} {} is served, TCP is not.",
            protocol.object_name()
        ));
    }
    protocol
}

fn fits(front_end: &FrontEnd, port: Option<&PortChoice>, protocol: Option<Protocol>) -> bool {
    let right_port = match port {
        None => true,
        Some(PortChoice::Number(number)) => front_end.address.port() == *number,
        Some(PortChoice::Name(name)) => front_end.name.as_ref().is_some_and(|port| *port.port == **name),
    };
    right_port && protocol.is_none_or(|protocol| front_end.protocol == protocol.number())
}

/// From within a cluster one asks the ClusterIP; from outside what is meant for that.
const fn preference(kind: Kind, outside: bool) -> u8 {
    match (kind, outside) {
        (Kind::ClusterIp, false) | (Kind::External, true) => 0,
        (Kind::External, false) | (Kind::NodePort, true) => 1,
        (Kind::NodePort, false) | (Kind::ClusterIp, true) => 2,
    }
}

/// Which of a Service's front ends was taken, where there are others of its family.
fn asked_by(service: &ObjectName, taken: &FrontEnd, all: &[&FrontEnd]) -> Option<String> {
    let is_other = |other: &&&FrontEnd| {
        other.address.is_ipv4() == taken.address.is_ipv4()
            && (other.address, other.protocol) != (taken.address, taken.protocol)
    };
    let others: Vec<_> = all.iter().filter(is_other).copied().collect();
    let others = (!others.is_empty()).then(|| list(&others))?;
    Some(format!(
        "Service {service} is asked at {}; it could be asked at {others} as well.",
        name(taken)
    ))
}

fn list(front_ends: &[&FrontEnd]) -> String {
    let names: Vec<_> = front_ends.iter().map(|front_end| name(front_end)).collect();
    names.join(", ")
}

fn name(front_end: &FrontEnd) -> String {
    format!(
        "{}/{} ({})",
        front_end.address,
        front_end.protocol_name(),
        front_end.kind.as_str()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_protocol_that_was_not_said_is_tcp_unless_others_alone_are_served() {
        let address = "10.96.0.1:80".parse().unwrap();
        let front_end = |protocol: Protocol, address| FrontEnd {
            address,
            protocol: protocol.number(),
            kind: Kind::ClusterIp,
            name: None,
            row: lb_common::ServiceValue::default(),
        };
        let cases: [(&[Protocol], Protocol, Option<&str>); 5] = [
            (&[], Protocol::Tcp, None),
            (
                &[Protocol::Sctp, Protocol::Udp, Protocol::Tcp],
                Protocol::Tcp,
                None,
            ),
            (&[Protocol::Sctp, Protocol::Udp], Protocol::Udp, Some("UDP")),
            (&[Protocol::Udp], Protocol::Udp, Some("UDP")),
            (&[Protocol::Sctp], Protocol::Sctp, Some("SCTP")),
        ];
        for (served, expected, told) in cases {
            let mut all = vec![front_end(Protocol::Tcp, "10.96.0.1:81".parse().unwrap())];
            all.extend(served.iter().map(|protocol| front_end(*protocol, address)));
            let mut notes = Vec::new();
            assert_eq!(served_protocol(&all, address, &mut notes), expected, "{served:?}");
            let note =
                |name| format!("The protocol was not said; at 10.96.0.1:80 {name} is served, TCP is not.");
            assert_eq!(notes, Vec::from_iter(told.map(note)));
        }
    }

    #[test]
    fn front_ends_are_listed_with_their_protocols() {
        for (protocol, expected) in [
            (Protocol::Tcp, "192.0.2.10:30412/tcp (NodePort)"),
            (Protocol::Udp, "192.0.2.10:30412/udp (NodePort)"),
            (Protocol::Sctp, "192.0.2.10:30412/sctp (NodePort)"),
        ] {
            let front_end = FrontEnd {
                address: "192.0.2.10:30412".parse().unwrap(),
                protocol: protocol.number(),
                kind: Kind::NodePort,
                name: None,
                row: lb_common::ServiceValue::default(),
            };
            assert_eq!(name(&front_end), expected);
        }
    }
}
