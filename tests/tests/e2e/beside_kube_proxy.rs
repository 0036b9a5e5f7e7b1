//! x

use std::time::Duration;

use lb_tests::control_plane::ControlPlane;
use lb_tests::family::Family;
use lb_tests::maps::Protocol;
use lb_tests::site::{self, Mode, Site};
use serde_json::json;

#[test]
fn try_kube_proxy() {
    let plane = ControlPlane::start().unwrap();
    site::register_nodes(&plane).unwrap();
    site::register_pods(&plane, &[0, 1, 2, 3]).unwrap();
    plane
        .apply(&[site::service("plain", site::APP, &json!({"type": "NodePort"}))])
        .unwrap();
    let service = plane.get("service", "plain").unwrap();
    let ip = service["spec"]["clusterIP"].as_str().unwrap().parse().unwrap();
    let to = std::net::SocketAddr::new(ip, 7);
    let site = Site::kube_proxy(&plane, Mode::Nftables).unwrap();
    let took = site
        .wait_for_backends(
            &site.topology.client,
            (Protocol::Tcp, to),
            Duration::from_secs(10),
            &["web-1", "web-2", "web-3", "web-4"],
        )
        .unwrap();
    println!("{took:?} {}", Family::V4);
}
