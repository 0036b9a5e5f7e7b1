//! A rolling update under load.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::Duration;

use lb_tests::control_plane::objects;
use lb_tests::dns::Resolver;
use lb_tests::echo::Echo;
use lb_tests::family::Family;
use lb_tests::load::Load;
use lb_tests::site::{self, APP};
use lb_tests::topology::{Host, web_address, web_name, web_node};
use serde_json::json;

use super::stage::{Kind, Stage, TCP, UDP, at_cluster_ip, at_node_port, cases};

cases!(no_request_fails_during_a_rolling_update);

const PAUSE: Duration = Duration::from_millis(2);
/// Load goes on for as long between two steps.
const BETWEEN: Duration = Duration::from_millis(300);

/// Pods 0 and 2 are replaced by 1 and 3, one after the other, as a Deployment does: a new one becomes ready, an old one
/// terminates, serves for a while, and is gone.
fn no_request_fails_during_a_rolling_update(kind: Kind) {
    let stage = Stage::new(kind, &[0, 2]);
    let (plane, client, toolbox) = (&stage.plane, stage.client(), stage.toolbox());
    stage.set_service("web", &json!({ "type": "NodePort" }));
    let mut loads = Vec::new();
    let mut connections = Vec::new();
    for family in Family::BOTH {
        for port in [TCP, UDP] {
            let inside = at_cluster_ip(plane, "web", family, port);
            stage.expect("before", toolbox, inside, &["web-1", "web-3"]);
        }
        let outside = at_node_port(plane, "web", family, TCP).1;
        stage.expect("before", client, (TCP.0, outside), &["web-1", "web-3"]);
        let connection = client.netns.run(|| Echo::open(outside, None)).unwrap();
        connections.push(connection);
        loads.push(tcp(client, outside));
        loads.push(tcp(toolbox, at_cluster_ip(plane, "web", family, TCP).1));
        loads.push(udp(toolbox, at_cluster_ip(plane, "web", family, UDP).1));
    }
    for (old, new) in [(0, 1), (2, 3)] {
        thread::sleep(BETWEEN);
        plane
            .apply(&[objects::pod(&web_name(new), web_node(new), APP)])
            .unwrap();
        plane
            .apply_status(&[objects::pod_status(&web_name(new), web_address(new), false)])
            .unwrap();
        thread::sleep(BETWEEN);
        site::set_ready(plane, &[new], true).unwrap();
        thread::sleep(BETWEEN);
        plane.delete("pod", &[&web_name(old)]).unwrap();
        thread::sleep(BETWEEN);
        for connection in &mut connections {
            connection.say("still here").unwrap();
        }
        plane
            .kubectl(&["delete", "pod", &web_name(old), "--force", "--grace-period=0"])
            .unwrap();
    }
    let inside = at_cluster_ip(plane, "web", Family::V4, TCP);
    stage.expect("after", toolbox, inside, &["web-2", "web-4"]);
    thread::sleep(BETWEEN);
    for connection in &mut connections {
        connection.say("still here").unwrap();
    }
    let mut requests = 0;
    for load in loads {
        let answers = load.answers().unwrap();
        let answered = |name: &str| answers.iter().filter(|answer| answer.backend == name).count();
        assert!(
            answered("web-1") > 0 && answered("web-4") > 0,
            "the load saw no update"
        );
        requests += answers.len();
    }
    eprintln!("    {requests} requests during the update, none failed");
}

fn tcp(from: &Host, to: SocketAddr) -> Load {
    Load::start(from, PAUSE, move || Ok(Echo::open(to, None)?.answer().clone())).unwrap()
}

/// Each request from another port: a port that is used again would go on with its old flow.
fn udp(from: &Host, to: SocketAddr) -> Load {
    let own = from.addresses.of(Family::of(to.ip()));
    let port = AtomicU16::new(10_000);
    let new_flow = move || SocketAddr::new(own, port.fetch_add(1, Ordering::Relaxed));
    Load::start(from, PAUSE, move || Resolver::open(to, Some(new_flow()))?.ask()).unwrap()
}
