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
                    127.0.0.1:30999: Address already in use";
    eventually(&true, || node.agent.log().contains(expected));
    // The other family is none the worse for it.
    eventually(&Some(200), || node.get(&url("[::1]")).map(|page| page.status));
    drop(other);
    eventually(&Some(200), || node.get(&url("127.0.0.1")).map(|page| page.status));
    assert_eq!(node.agent.log().matches("failed to start healthcheck").count(), 1);
}

#[test]
fn the_port_is_open_where_node_ports_are() {
    need_root!();
    let all = [
        "127.0.0.1",
        "[::1]",
        "192.0.2.1",
        "[2001:db8::1]",
        "192.0.2.9",
        "[2001:db8::9]",
    ];
    let cases: [(&[&str], &[&str]); 5] = [
        (&[], &["127.0.0.1", "[::1]", "192.0.2.1", "[2001:db8::1]"]),
        (&["primary"], &["192.0.2.1", "[2001:db8::1]"]),
        (&["all"], &all),
        // Without a prefix of IPv6, all its addresses are meant.
        (
            &["192.0.2.8/30"],
            &["[::1]", "[2001:db8::1]", "192.0.2.9", "[2001:db8::9]"],
        ),
        (
            &["192.0.2.8/30", "localhost", "2001:db8:1::/64"],
            &["127.0.0.1", "[::1]", "192.0.2.9"],
        ),
    ];
    for (words, expected) in cases {
        let mut node = Node::new();
        add_addresses(
            &node,
            &["192.0.2.1/24", "2001:db8::1/64", "192.0.2.9/24", "2001:db8::9/64"],
        );
        node.write(&service(), &[("node", Ready)]);
        let flags = words.iter().flat_map(|word| ["--nodeport-addresses", word]);
        node.start(&flags.collect::<Vec<_>>());
        eventually(&expected.to_vec(), || open_at(&node, &all));
    }
}

#[test]
fn the_port_follows_the_nodes_addresses() {
    need_root!();
    let mut node = Node::new();
    add_addresses(&node, &["192.0.2.1/24"]);
    node.write(&service(), &[("node", Ready)]);
    node.start(&["--nodeport-addresses", "192.0.2.0/24,2001:db8::/64"]);
    let all = ["192.0.2.1", "192.0.2.9", "[2001:db8::9]"];
    eventually(&all[..1].to_vec(), || open_at(&node, &all));
    add_addresses(&node, &["192.0.2.9/24", "2001:db8::9/64"]);
    eventually(&all.to_vec(), || open_at(&node, &all));
    node.host.netns.ip("addr del 192.0.2.1/24 dev up-0").unwrap();
    // Without it, what is in its subnet is gone as well, unless it is added again.
    add_addresses(&node, &["192.0.2.9/24"]);
    eventually(&all[1..].to_vec(), || open_at(&node, &all));
}

fn add_addresses(node: &Node, addresses: &[&str]) {
    let netns = &node.host.netns;
    netns.ip("link set up-0 up\nlink set peer up").unwrap();
    for address in addresses {
        let nodad = if address.contains(':') { "nodad" } else { "" };
        netns
            .ip(&format!("addr replace {address} dev up-0 {nodad}"))
            .unwrap();
    }
}

/// At which of these addresses the port answers.
fn open_at<'a>(node: &Node, addresses: &[&'a str]) -> Vec<&'a str> {
    let open = addresses
        .iter()
        .filter(|address| node.get(&url(address)).is_some_and(|page| page.status == 200));
    open.copied().collect()
}
