//! What is asked: every kind of Service, at every address it has, from everywhere.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use lb_tests::control_plane::{ControlPlane, objects};
use lb_tests::family::{Family, Pair};
use lb_tests::maps::Protocol;
use lb_tests::site::{self, APP};
use lb_tests::topology::{CLIENT, NODE1, pod_address};
use serde_json::{Value, json};

use crate::stage::{TCP, UDP, at_cluster_ip, at_node_port};

/// One question.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Question {
    pub(super) service: &'static str,
    /// Which of its addresses.
    pub(super) front: &'static str,
    /// The host that asks.
    pub(super) from: &'static str,
    pub(super) protocol: Protocol,
    pub(super) to: SocketAddr,
    /// The address of the host that asks.
    pub(super) own: IpAddr,
}

/// Outside, a pod, a pod that serves, and the node itself.
const FROM: [(&str, Pair); 4] = [
    ("client", CLIENT),
    ("toolbox", pod_address(1, 100)),
    ("web-1", pod_address(1, 11)),
    ("node1", NODE1),
];

struct Service {
    name: &'static str,
    app: &'static str,
    /// The last part of its load balancer's addresses, or of its external ones; 0 when it has none.
    address: u8,
    spec: Value,
    ip_mode: &'static str,
}

fn services() -> Vec<Service> {
    let new = |name, app, address, spec| Service {
        name,
        app,
        address,
        spec,
        ip_mode: "VIP",
    };
    let balancer = json!({ "type": "LoadBalancer" });
    let local = json!({
        "type": "LoadBalancer", "externalTrafficPolicy": "Local", "internalTrafficPolicy": "Local",
    });
    let external_ips = json!({ "type": "NodePort", "externalIPs": address(27).both() });
    let ranges = json!({
        "type": "LoadBalancer", "loadBalancerSourceRanges": ["198.51.100.0/24", " 2001:db8:c::/64 "],
    });
    let mut all = vec![
        new("cluster", APP, 20, balancer.clone()),
        new("local", APP, 21, local.clone()),
        new("local-elsewhere", "far", 22, local),
        new("nobody", "nobody", 23, balancer.clone()),
        new("not-ready", "unready", 24, balancer.clone()),
        new("terminating", "ending", 25, balancer.clone()),
        new("ranges", APP, 26, ranges),
        new("external-ips", APP, 27, external_ips),
    ];
    all.push(Service {
        ip_mode: "Proxy",
        ..new("proxied", APP, 28, balancer)
    });
    all
}

fn address(number: u8) -> Pair {
    Pair::new(
        Ipv4Addr::new(203, 0, 113, number),
        Ipv6Addr::new(0x2001, 0xdb8, 0xcb, 0, 0, 0, 0, number.into()),
    )
}

/// Tells the control plane of all Services.
pub(super) fn apply_services(plane: &ControlPlane) {
    let objects: Vec<_> = services()
        .iter()
        .map(|service| site::service(service.name, service.app, &service.spec))
        .collect();
    plane.apply(&objects).unwrap();
    let statuses: Vec<_> = services()
        .iter()
        .filter(|service| service.spec["type"] == "LoadBalancer")
        .map(|service| {
            let mut status = objects::load_balancer_status(service.name, &address(service.address).both());
            for ingress in status["status"]["loadBalancer"]["ingress"]
                .as_array_mut()
                .unwrap()
            {
                ingress["ipMode"] = service.ip_mode.into();
            }
            status
        })
        .collect();
    plane.apply_status(&statuses).unwrap();
}

/// All questions.
pub(super) fn questions(plane: &ControlPlane) -> Vec<Question> {
    let mut all = Vec::new();
    for Service {
        name,
        address: number,
        ..
    } in services()
    {
        for family in Family::BOTH {
            for port in [TCP, UDP] {
                let (protocol, cluster_ip) = at_cluster_ip(plane, name, family, port);
                let (_, node_port) = at_node_port(plane, name, family, port);
                let own = SocketAddr::new(address(number).of(family), port.1);
                let fronts = [
                    ("ClusterIP", cluster_ip),
                    ("NodePort", node_port),
                    ("address", own),
                ];
                for (from, own) in FROM {
                    all.extend(fronts.map(|(front, to)| Question {
                        service: name,
                        front,
                        from,
                        protocol,
                        to,
                        own: own.of(family),
                    }));
                }
                all.push(Question {
                    service: name,
                    front: "localhost",
                    from: "node1",
                    protocol,
                    to: SocketAddr::new(loopback(family), node_port.port()),
                    own: NODE1.of(family),
                });
            }
        }
    }
    all.extend(unlisted(plane));
    all
}

/// Ports that a Service does not have.
fn unlisted(plane: &ControlPlane) -> Vec<Question> {
    let mut all = Vec::new();
    for family in Family::BOTH {
        let (protocol, at) = at_cluster_ip(plane, "cluster", family, TCP);
        let to = SocketAddr::new(at.ip(), 9);
        all.extend(FROM.map(|(from, own)| Question {
            service: "cluster",
            front: "unlisted port",
            from,
            protocol,
            to,
            own: own.of(family),
        }));
    }
    all
}

fn loopback(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::LOCALHOST.into(),
        Family::V6 => Ipv6Addr::LOCALHOST.into(),
    }
}
