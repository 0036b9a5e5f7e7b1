//! `/healthz`, `/livez`, and the addresses of servers.

use std::net::TcpListener;

use lb_tests::agent::Agent;
use lb_tests::manifests;
use lb_tests::need_root;
use serde_json::{Value, json};

use super::{BOTH, Node, SMALL, eventually};

/// The status and the body of a page, without the times, which must be there.
#[track_caller]
fn report(node: &Node, url: &str) -> (u16, Value) {
    let page = node.page(url);
    let mut body: Value = serde_json::from_str(&page.body).unwrap();
    let times = [
        "/lastUpdated",
        "/currentTime",
        "/status/IPv4/lastUpdated",
        "/status/IPv6/lastUpdated",
    ];
    for time in times {
        let time = body.pointer_mut(time).unwrap();
        assert!(time.as_str().unwrap().ends_with('Z'), "{}", page.body);
        *time = "time".into();
    }
    (page.status, body)
}

#[test]
fn probes_tell_of_the_agent_and_of_its_node() {
    need_root!();
    let mut node = Node::new();
    node.start(&[]);
    let well = json!({"lastUpdated": "time", "healthy": true});
    let live = json!({
        "lastUpdated": "time", "currentTime": "time", "healthy": true, "status": {"IPv4": well, "IPv6": well},
    });
    let healthy = |eligible: bool| {
        let mut report = live.clone();
        report["nodeEligible"] = eligible.into();
        report
    };
    for address in BOTH {
        let url = |path: &str| format!("http://{address}:10256{path}");
        assert_eq!(report(&node, &url("/healthz")), (200, healthy(true)));
        assert_eq!(report(&node, &url("/livez")), (200, live.clone()));
        assert_eq!(node.page(&url("/")).status, 404);
    }
    let mut object = manifests::node(&node.host);
    object["spec"]["taints"] = json!([{"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}]);
    let manifests = node.agent.manifests();
    manifests.write("node.yaml", &[object]).unwrap();
    let found = || report(&node, "http://127.0.0.1:10256/healthz");
    eventually(&(503, healthy(false)), found);
    assert_eq!(report(&node, "http://127.0.0.1:10256/livez"), (200, live.clone()));
    // A folder need not hold the Node.
    manifests.remove("node.yaml").unwrap();
    eventually(&(200, healthy(true)), found);
}

#[test]
fn a_family_that_is_off_has_no_status() {
    need_root!();
    let mut node = Node::new();
    node.start(&["--ipv6", "off"]);
    let page = node.page("http://127.0.0.1:10256/livez");
    let body: Value = serde_json::from_str(&page.body).unwrap();
    let families: Vec<_> = body["status"]
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!((page.status, families), (200, vec!["IPv4"]));
}

#[test]
fn an_address_that_is_taken_is_tried_again_or_ends_the_agent() {
    need_root!();
    let mut node = Node::new();
    let listen = || Ok(TcpListener::bind("127.0.0.1:10249")?);
    let other = node.host.netns.run(listen).unwrap();
    node.start(&["--healthz-bind-address", ""]);
    let warning = "cannot serve metrics at 127.0.0.1:10249: Address already in use";
    eventually(&true, || node.agent.log().contains(warning));
    assert!(node.get("http://127.0.0.1:10256/healthz").is_none(), "it is off");

    let mut strict = Agent::new().unwrap();
    // It may be ready before it ends.
    let _started = strict.start(&node.host, &[&SMALL[..], &["--bind-address-hard-fail"]].concat());
    let error = "lb-agent: cannot serve metrics at 127.0.0.1:10249: Address already in use";
    eventually(&true, || strict.log().contains(error));
    drop(other);
    eventually(&Some("ok".to_owned()), || {
        node.get("http://127.0.0.1:10249/healthz").map(|page| page.body)
    });
}
