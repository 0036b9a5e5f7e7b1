//! A node's entries, made by hand as the programs make them, and what is shown of them.

use std::net::IpAddr;

use lb_common::addr::Address;
use lb_common::{Family, Flow, FlowFlags, FlowKey, Ip4, Ip6, Port, Stage, TcpState, V6, protocol};
use serde_json::{Value, json};

use super::listing::{Listing, Wanted};
use super::text;
use crate::model::ObjectName;

const NODE: &str = "10.0.0.1:20000";
const CLIENT: &str = "198.51.100.10:40000";
const VIP: &str = "203.0.113.10:80";
const LOCAL: &str = "10.244.1.11:8080";
const REMOTE: &str = "10.244.2.11:8080";
const POD: &str = "10.244.1.100:40000";
const NOW: u32 = 5_000;

const OPEN: u8 = TcpState::ESTABLISHED;
const REPLY: u8 = FlowFlags::REPLY;

/// The entries of a node.
#[derive(Default)]
struct Node {
    v4: Vec<(FlowKey<Ip4>, Flow<Ip4>)>,
    v6: Vec<(FlowKey<Ip6>, Flow<Ip6>)>,
}

/// An entry of service 1 that was seen 3 seconds ago.
struct Entry {
    stage: Stage,
    from: &'static str,
    to: &'static str,
    own: &'static str,
    /// The other endpoint; its address counts with [`FlowFlags::BOTH`] alone.
    peer: &'static str,
    tcp: u8,
    flags: u8,
}

impl Entry {
    fn row<A: Address>(&self) -> (FlowKey<A>, Flow<A>) {
        let [(src, src_port), (dst, dst_port)] = [end(self.from), end(self.to)];
        let [(addr, port), (peer, peer_port)] = [end(self.own), end(self.peer)];
        let has_peer = self.flags & (FlowFlags::BOTH | FlowFlags::WRAPPED) != 0;
        let key = FlowKey {
            src,
            dst,
            src_port,
            dst_port,
            protocol: protocol::TCP,
            stage: self.stage as u8,
            pad: [0; 2],
        };
        let flow = Flow {
            addr,
            port,
            peer_addr: if has_peer { peer } else { A::default() },
            peer_port,
            service: 1,
            backend: 7,
            epoch: 2,
            tcp: self.tcp,
            flags: self.flags,
            last_seen: NOW - 300,
            ..Flow::default()
        };
        (key, flow)
    }
}

fn end<A: Address>(text: &str) -> (A, Port) {
    let end: std::net::SocketAddr = text.parse().unwrap();
    (A::from_ip(end.ip()).unwrap(), Port::new(end.port()))
}

impl Node {
    fn with(mut self, entry: &Entry) -> Self {
        self.v4.push(entry.row());
        self
    }

    /// With an entry that somebody has changed.
    fn with_changed(mut self, entry: &Entry, change: impl FnOnce(&mut FlowKey<Ip4>, &mut Flow<Ip4>)) -> Self {
        let (mut key, mut flow) = entry.row();
        change(&mut key, &mut flow);
        self.v4.push((key, flow));
        self
    }

    fn shown(&self, address: Option<&str>, service: Option<&str>, limit: usize) -> (String, Vec<Value>) {
        let names = [(1, "shop/web:http/tcp"), (2, "shop/web-2:http/tcp")];
        let names = names.map(|(id, name)| (id, name.to_owned())).into();
        let address: Option<IpAddr> = address.map(|address| address.parse().unwrap());
        let service = service.map(|service| ObjectName::parse(service).unwrap());
        let wanted = Wanted::new(address, service.as_ref(), &names).unwrap();
        let mut listing = Listing::select(
            &names,
            &wanted,
            limit,
            |take| {
                self.v4.iter().for_each(|(key, flow)| take(*key, *flow));
                Ok(())
            },
            |take| {
                self.v6.iter().for_each(|(key, flow)| take(*key, *flow));
                Ok(())
            },
        )
        .unwrap();
        listing.clock = Some((NOW, 100));
        let Value::Array(rows) = serde_json::to_value(&listing).unwrap() else {
            panic!("a list");
        };
        (text(&listing, None), rows)
    }

    fn all(&self) -> (String, Vec<Value>) {
        self.shown(None, None, usize::MAX)
    }

    /// What is shown of the only entry.
    fn row(&self) -> Vec<String> {
        let text = self.all().0;
        let row = text.lines().nth(1).unwrap().split_whitespace();
        row.map(str::to_owned).collect()
    }
}

fn pre(to: &'static str, own: &'static str, flags: u8) -> Entry {
    Entry {
        stage: Stage::Pre,
        from: CLIENT,
        to,
        own,
        peer: CLIENT,
        tcp: OPEN,
        flags,
    }
}

fn post_reply() -> Entry {
    Entry {
        stage: Stage::Post,
        from: LOCAL,
        to: CLIENT,
        own: VIP,
        peer: CLIENT,
        tcp: OPEN,
        flags: REPLY,
    }
}

#[test]
fn a_row_says_what_becomes_of_the_packet() {
    const OTHER: &str = "198.51.100.10:50000";
    let plain = || pre(VIP, LOCAL, 0);
    let snat = FlowFlags::MASQUERADE;
    let both = FlowFlags::BOTH | FlowFlags::OUTSIDE;
    let cases: [(Entry, &str, &str); 10] = [
        (plain(), "dst=10.244.1.11:8080", "-"),
        (post_reply(), "src=203.0.113.10:80", "reply"),
        (
            Entry {
                peer: OTHER,
                ..plain()
            },
            "src=198.51.100.10:50000,dst=10.244.1.11:8080",
            "-",
        ),
        (
            Entry {
                to: OTHER,
                ..post_reply()
            },
            "src=203.0.113.10:80,dst=198.51.100.10:40000",
            "reply",
        ),
        (
            Entry {
                peer: NODE,
                ..pre(VIP, REMOTE, both)
            },
            "src=10.0.0.1:20000,dst=10.244.2.11:8080",
            "both,outside",
        ),
        // The node's own, of which the backend sees the address.
        (
            pre(VIP, REMOTE, FlowFlags::BOTH | FlowFlags::NODE),
            "dst=10.244.2.11:8080",
            "both,node",
        ),
        (
            Entry {
                peer: NODE,
                ..pre(VIP, REMOTE, FlowFlags::WRAPPED)
            },
            "outer-dst=10.244.2.11",
            "wrapped",
        ),
        // In post, before a source is found, and after.
        (
            Entry {
                stage: Stage::Post,
                ..pre(LOCAL, LOCAL, snat)
            },
            "-",
            "masqueraded",
        ),
        (
            Entry {
                stage: Stage::Post,
                own: NODE,
                peer: LOCAL,
                ..pre(LOCAL, LOCAL, 0)
            },
            "src=10.0.0.1:20000",
            "-",
        ),
        (
            pre(VIP, LOCAL, snat | FlowFlags::COUNTED),
            "dst=10.244.1.11:8080",
            "masqueraded,counted",
        ),
    ];
    for (entry, put_in, flags) in cases {
        let row = Node::default().with(&entry).row();
        let stage = if entry.stage == Stage::Pre { "pre" } else { "post" };
        let ends = [stage, "tcp", entry.from, entry.to];
        let rest = ["shop/web:http/tcp", "7", "established", flags, "3s"];
        assert_eq!(row, [&ends[..], &[put_in], &rest].concat());
    }
}

#[test]
fn a_state_is_told_in_the_words_of_the_protocol() {
    let cases = [
        (0, "opening", "new"),
        (OPEN, "established", "assured"),
        (OPEN | TcpState::FIN, "closing", "assured"),
        (OPEN | TcpState::FIN | TcpState::RST, "reset", "assured"),
    ];
    for (tcp, of_tcp, of_others) in cases {
        for (number, name, state) in [
            (protocol::TCP, "tcp", of_tcp),
            (protocol::UDP, "udp", of_others),
            (protocol::SCTP, "sctp", of_others),
        ] {
            let entry = Entry {
                tcp,
                ..pre(VIP, LOCAL, 0)
            };
            let node = Node::default().with_changed(&entry, |key, _| key.protocol = number);
            let row = node.row();
            assert_eq!((&*row[1], &*row[7]), (name, state), "{tcp}");
            let json = &node.all().1[0];
            assert_eq!((&json["protocol"], &json["state"]), (&json!(name), &json!(state)));
        }
    }
}

#[test]
fn a_direct_connection_has_no_service_and_no_backend() {
    let entry = Entry {
        peer: "198.51.100.10:50000",
        ..pre(LOCAL, LOCAL, FlowFlags::DIRECT)
    };
    let no_service = |_: &mut _, flow: &mut Flow<_>| (flow.service, flow.backend) = (0, 0);
    let (text, rows) = Node::default().with_changed(&entry, no_service).all();
    let row: Vec<_> = text.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(
        row[4..9],
        ["src=198.51.100.10:50000", "-", "-", "established", "direct"]
    );
    assert_eq!([&rows[0]["service"], &rows[0]["backend"]], [&Value::Null; 2]);
}

#[test]
fn json_has_every_field_and_leaves_out_none_that_is_empty() {
    let mut node = Node::default();
    let entry = Entry {
        stage: Stage::Post,
        from: "[fd00::11]:8080",
        to: "[2001:db8::10]:40000",
        own: "[fd00:96::10]:80",
        peer: "[2001:db8::10]:40000",
        tcp: 0,
        flags: REPLY,
    };
    let (key, mut flow) = entry.row();
    flow.service = 9;
    node.v6.push((key, flow));
    let expected = json!([{
        "service": "#9", "family": V6::NAME, "stage": "post", "protocol": "tcp",
        "source": "[fd00::11]:8080", "destination": "[2001:db8::10]:40000",
        "new_source": "[fd00:96::10]:80", "new_destination": null, "outer_destination": null,
        "backend": 7, "epoch": 2, "state": "opening", "flags": ["reply"], "last_seen": NOW - 300, "age_seconds": 3,
    }]);
    assert_eq!(Value::Array(node.all().1), expected);
}

/// Two clients of one service, one of another, of which the entries stand in no order.
fn three_flows() -> Node {
    let other = "192.0.2.1:40000";
    let of_other = |_: &mut _, flow: &mut Flow<_>| flow.service = 2;
    let back = || Entry {
        to: other,
        peer: other,
        ..post_reply()
    };
    let there = || Entry {
        from: other,
        peer: other,
        ..pre(VIP, LOCAL, 0)
    };
    Node::default()
        .with_changed(&back(), of_other)
        .with(&post_reply())
        .with(&back())
        .with(&there())
        .with(&pre(VIP, LOCAL, 0))
        .with_changed(&there(), of_other)
}

#[test]
fn entries_of_a_flow_stand_together_by_service_and_client() {
    let rows = three_flows().all().1;
    let told = rows.iter().map(|row| {
        let word = |field: &str| row[field].as_str().unwrap().to_owned();
        [word("service"), word("source"), word("destination")]
    });
    let told: Vec<_> = told.collect();
    let web = ["shop/web:http/tcp"; 4].into_iter();
    let services = web.chain(["shop/web-2:http/tcp"; 2]);
    let ends = [
        ("192.0.2.1:40000", VIP),
        (LOCAL, "192.0.2.1:40000"),
        (CLIENT, VIP),
        (LOCAL, CLIENT),
        ("192.0.2.1:40000", VIP),
        (LOCAL, "192.0.2.1:40000"),
    ];
    let mut expected: Vec<_> = services
        .zip(ends)
        .map(|(service, (from, to))| [service, from, to].map(str::to_owned))
        .collect();
    // "-" is before ":".
    expected.rotate_left(4);
    assert_eq!(told, expected);
}

#[test]
fn an_address_is_found_wherever_it_stands() {
    let node = three_flows().with(&Entry {
        peer: NODE,
        ..pre(VIP, REMOTE, FlowFlags::BOTH)
    });
    let count = |address| node.shown(Some(address), None, usize::MAX).1.len();
    let addresses = [
        "192.0.2.1",
        "198.51.100.10",
        "203.0.113.10",
        "10.244.1.11",
        "10.244.2.11",
        "10.0.0.1",
    ];
    assert_eq!(addresses.map(count), [4, 3, 7, 6, 1, 1]);
    assert_eq!(["10.244.1.100", "0.0.0.1", "::ffff:192.0.2.1"].map(count), [0; 3]);
    let direct = Node::default().with(&Entry {
        from: POD,
        peer: POD,
        ..pre(VIP, LOCAL, 0)
    });
    assert_eq!(direct.shown(Some("10.244.1.11"), None, usize::MAX).1.len(), 1);
}

#[test]
fn a_service_is_found_by_its_whole_name() {
    let node = three_flows();
    let count = |service| node.shown(None, Some(service), usize::MAX).1.len();
    assert_eq!(["shop/web", "shop/web-2"].map(count), [4, 2]);
    let names = [(1, "shop/web:http/tcp".to_owned())].into();
    let unknown = ObjectName::new("shop", "we");
    let error = Wanted::new(None, Some(&unknown), &names).unwrap_err();
    assert!(error.to_string().contains("no Service shop/we"), "{error}");
}

#[test]
fn the_first_are_shown_and_the_rest_is_counted() {
    let node = three_flows();
    let (_, all) = node.all();
    for limit in 1..6 {
        let (text, first) = node.shown(None, None, limit);
        assert_eq!(first, all[..limit], "{limit}");
        assert!(text.contains(&format!("\n\n{limit} of 6 entries.")), "{text}");
        assert_eq!(text.lines().count(), 1 + limit + 2, "{text}");
    }
    let (text, first) = node.shown(None, None, 6);
    assert!(first == all && !text.contains("entries"), "{text}");
    assert_eq!(Node::default().all().0, "No entries.");
}
