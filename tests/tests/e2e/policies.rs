//! Who gets which endpoints: traffic policies, hints, and load balancers' addresses.

use std::net::{IpAddr, SocketAddr};

use lb_tests::control_plane::objects::load_balancer_status;
use lb_tests::family::Family;
use lb_tests::site::{self, Outcome};
use lb_tests::topology::CLIENT;
use lb_tests::world::VIP;
use serde_json::json;

use super::stage::{Kind, Stage, TCP, UDP, at_cluster_ip, at_node_port, cases};

cases!(local_policies, traffic_distribution, load_balancers_get_addresses,);

const ALL: [&str; 4] = ["web-1", "web-2", "web-3", "web-4"];
const LOCAL: [&str; 2] = ["web-1", "web-2"];

fn local_policies(kind: Kind) {
    let stage = Stage::new(kind, &[0, 1, 2, 3]);
    let (plane, client, toolbox) = (&stage.plane, stage.client(), stage.toolbox());
    let local = json!({
        "type": "NodePort", "externalTrafficPolicy": "Local", "internalTrafficPolicy": "Local",
    });
    stage.set_service("web", &local);
    for family in Family::BOTH {
        for port in [TCP, UDP] {
            let inside = at_cluster_ip(plane, "web", family, port);
            stage.expect("local, from a pod", toolbox, inside, &LOCAL);
            let outside = at_node_port(plane, "web", family, port);
            stage.expect_outcome(&"local, from outside", client, outside, |outcome| {
                outcome.backends() == LOCAL
                    && matches!(outcome, Outcome::Answered { clients, .. } if clients.iter().eq([&CLIENT.of(family)]))
            });
            stage.expect("short-circuit of a pod", toolbox, outside, &ALL);
        }
    }
    site::set_ready(plane, &[0, 1], false).unwrap();
    let silent = |outcome: &Outcome| *outcome == Outcome::Silent;
    for family in Family::BOTH {
        let inside = at_cluster_ip(plane, "web", family, TCP);
        stage.expect_outcome(&"none here, from a pod", toolbox, inside, silent);
        let outside = at_node_port(plane, "web", family, TCP);
        stage.expect_outcome(&"none here, from outside", client, outside, silent);
    }
    let cluster = json!({ "externalTrafficPolicy": "Cluster", "internalTrafficPolicy": "Cluster" });
    stage.patch("web", &cluster);
    for family in Family::BOTH {
        let outside = at_node_port(plane, "web", family, TCP);
        stage.expect("those elsewhere", client, outside, &["web-3", "web-4"]);
    }
}

fn traffic_distribution(kind: Kind) {
    let stage = Stage::new(kind, &[0, 1, 2, 3]);
    let (plane, toolbox) = (&stage.plane, stage.toolbox());
    for (distribution, near) in [("PreferSameZone", &LOCAL), ("PreferSameNode", &LOCAL)] {
        let spec = json!({ "type": "NodePort", "trafficDistribution": distribution });
        stage.set_service("web", &spec);
        let inside = at_cluster_ip(plane, "web", Family::V4, TCP);
        stage.expect(distribution, toolbox, inside, near);
        site::set_ready(plane, &[0, 1], false).unwrap();
        stage.expect("none is near", toolbox, inside, &["web-3", "web-4"]);
        site::set_ready(plane, &[0, 1], true).unwrap();
        stage.expect("near again", toolbox, inside, near);
        plane.kubectl(&["delete", "service", "web"]).unwrap();
    }
}

fn load_balancers_get_addresses(kind: Kind) {
    let stage = Stage::new(kind, &[0, 1, 2, 3]);
    let (plane, client) = (&stage.plane, stage.client());
    stage.set_service("web", &json!({ "type": "LoadBalancer" }));
    let give = |addresses: &[IpAddr]| {
        plane
            .apply_status(&[load_balancer_status("web", addresses)])
            .unwrap();
    };
    let nobody = |outcome: &Outcome| outcome.backends().is_empty();
    give(&VIP.both());
    for family in Family::BOTH {
        for (protocol, port) in [TCP, UDP] {
            let vip = (protocol, SocketAddr::new(VIP.of(family), port));
            stage.expect("with an address", client, vip, &ALL);
        }
    }
    let vip = (TCP.0, SocketAddr::new(VIP.of(Family::V4), TCP.1));
    stage.patch(
        "web",
        &json!({ "loadBalancerSourceRanges": ["192.0.2.0/24", "2001:db8:1::/64"] }),
    );
    stage.expect_outcome(&"not for this client", client, vip, |outcome| {
        *outcome == Outcome::Silent
    });
    stage.patch(
        "web",
        &json!({ "loadBalancerSourceRanges": ["198.51.100.0/24", "2001:db8:c::/64"] }),
    );
    stage.expect("for this client", client, vip, &ALL);

    let mut proxied = load_balancer_status("web", &VIP.both());
    for ingress in proxied["status"]["loadBalancer"]["ingress"]
        .as_array_mut()
        .unwrap()
    {
        ingress["ipMode"] = json!("Proxy");
    }
    plane.apply_status(&[proxied]).unwrap();
    stage.expect_outcome(&"the load balancer's own", client, vip, nobody);
    give(&VIP.both());
    stage.expect("ours again", client, vip, &ALL);
    give(&[]);
    stage.expect_outcome(&"without address", client, vip, nobody);
}
