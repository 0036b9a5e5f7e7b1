//! Health-check NodePorts.

use std::net::TcpListener;

use lb_tests::manifests::Condition::{self, NotReady, Ready, Terminating};
use lb_tests::need_root;

use super::{BOTH, HEALTH_CHECK_PORT, Node, eventually, service};

fn url(address: &str) -> String {
    format!("http://{address}:{HEALTH_CHECK_PORT}/any/path")
}

/// Writes endpoints and waits for this status and number on both families.
#[track_caller]
fn check(node: &Node, endpoints: &[(&str, Condition)], status: u16, local: usize) {
    node.write(&service(), endpoints);
    let body = format!(
        "{{\n\t\"service\": {{\n\t\t\"namespace\": \"default\",\n\t\t\"name\": \"web\"\n\t}},\n\
         \t\"localEndpoints\": {local},\n\t\"serviceProxyHealthy\": true\n}}"
    );
    for address in BOTH {
        let found = || node.get(&url(address)).map(|page| (page.status, page.body));
        eventually(&Some((status, body.clone())), found);
    }
}

#[test]
fn load_balancers_are_told_of_ready_endpoints_on_this_node() {
    need_root!();
    let mut node = Node::new();
    node.start(&[]);
    check(&node, &[], 503, 0);
    check(&node, &[("other", Ready)], 503, 0);
    check(&node, &[("other", Ready), ("node", Ready)], 200, 1);
    check(
        &node,
        &[("node", Ready), ("node", Ready), ("node", NotReady)],
        200,
        2,
    );
    let page = node.page(&url("127.0.0.1"));
    assert_eq!(
        page.headers,
        [
            "Content-Type: application/json",
            "X-Content-Type-Options: nosniff",
            "X-Load-Balancing-Endpoint-Weight: 2",
            &format!("Content-Length: {}", page.body.len()),
        ]
    );
    // They serve, but new clients should go elsewhere.
    check(&node, &[("node", Terminating)], 503, 0);
}

#[test]
fn the_port_is_there_for_as_long_as_the_service_wants_it() {
    need_root!();
    let mut node = Node::new();
    node.write(&service(), &[("node", Ready)]);
    node.start(&[]);
    let listens = || BOTH.map(|address| node.get(&url(address)).is_some());
    eventually(&[true; 2], listens);
    let cluster = service().with_spec("externalTrafficPolicy", "Cluster");
    node.write(&cluster, &[("node", Ready)]);
    eventually(&[false; 2], listens);
    node.write(&service(), &[("node", Ready)]);
    eventually(&[true; 2], listens);
    node.agent.manifests().remove("web.yaml").unwrap();
    eventually(&[false; 2], listens);
}

#[test]
fn a_port_that_is_taken_is_told_and_tried_again() {
    need_root!();
    let mut node = Node::new();
    let listen = || Ok(TcpListener::bind(("0.0.0.0", HEALTH_CHECK_PORT))?);
    let other = node.host.netns.run(listen).unwrap();
    node.write(&service(), &[("node", Ready)]);
    node.start(&[]);
    let expected = "Service default/web: node node failed to start healthcheck \"default/web\" on port 30999: \
                    0.0.0.0:30999: Address already in use";
    eventually(&true, || node.agent.log().contains(expected));
    // The other family is none the worse for it.
    eventually(&Some(200), || node.get(&url("[::1]")).map(|page| page.status));
    drop(other);
    eventually(&Some(200), || node.get(&url("127.0.0.1")).map(|page| page.status));
    assert_eq!(node.agent.log().matches("failed to start healthcheck").count(), 1);
}
