//! What `lb-agent flows` shows of connections, on a node with an agent and without.

use std::net::SocketAddr;

use lb_tests::dns::Resolver;
use lb_tests::family::Family;
use lb_tests::http::Connection;
use lb_tests::manifests::{Condition, DNS, HTTP, Port, Service};
use lb_tests::need_root;
use lb_tests::topology::{CLIENT, web_address};
use lb_tests::world::{OTHER_CLUSTER_IP, OTHER_VIP, World};
use serde_json::Value;

use super::{on, vip};

const LOCAL: usize = 0;

fn table(world: &World, flags: &str) -> Vec<Vec<String>> {
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect();
    flows(world, flags).lines().map(words).collect()
}

fn json(world: &World, flags: &str) -> Vec<Value> {
    let text = flows(world, &format!("{flags} --output json"));
    serde_json::from_str(&text).unwrap()
}

fn flows(world: &World, flags: &str) -> String {
    let flags: Vec<_> = ["flows"].into_iter().chain(flags.split_whitespace()).collect();
    world.agent.command(&world.topology.node1, &flags).unwrap()
}

#[test]
fn a_connection_is_shown_as_its_two_entries() {
    need_root!();
    let mut world = World::new(&[LOCAL]).unwrap();
    let http = Port {
        node_port: None,
        ..HTTP
    };
    let other = Service::new("other", OTHER_CLUSTER_IP, OTHER_VIP, &[http]);
    world.add_service(&other, &[(LOCAL, Condition::Ready)]).unwrap();
    assert_eq!(flows(&world, ""), "No entries.\n");
    let from = |family: Family, port| SocketAddr::new(CLIENT.of(family), port);
    let ask = |from, to| {
        on(&world.topology.client, || {
            let mut connection = Connection::open_from(to, Some(from))?;
            connection.ask()?;
            Ok(connection)
        })
    };
    let mut open = Vec::new();
    for family in Family::BOTH {
        open.push(ask(from(family, 41_000), vip(family, HTTP)));
        let to_other = SocketAddr::new(OTHER_VIP.of(family), HTTP.port);
        open.push(ask(from(family, 41_001), to_other));
        on(&world.topology.client, || {
            Resolver::open(vip(family, DNS), Some(from(family, 41_002)))?.ask()
        });
    }
    let every_entry = json(&world, "");
    assert_eq!(every_entry.len(), 2 * 2 * 3, "{every_entry:#?}");

    // What is remembered outlives the agent.
    world.agent.stop().unwrap();
    for family in Family::BOTH {
        let (client, vip) = (from(family, 41_000), vip(family, HTTP));
        let pod = SocketAddr::new(web_address(LOCAL).of(family), HTTP.target);
        let flags = format!("--service default/web --address {}", client.ip());
        let rows = table(&world, &flags);
        let [header, udp @ .., there, back] = &rows[..] else {
            panic!("{rows:?}");
        };
        assert_eq!((&*header[0], &*header[header.len() - 1]), ("STAGE", "AGE"));
        assert!(
            udp.len() == 2 && udp.iter().all(|row| row[1] == "udp"),
            "{rows:?}"
        );
        let row = |stage: &str, from: SocketAddr, to: SocketAddr, put_in: String, flags: &str| {
            let ends = [
                stage.to_owned(),
                "tcp".to_owned(),
                from.to_string(),
                to.to_string(),
            ];
            let rest = ["default/web:http/tcp", "established", flags].map(str::to_owned);
            [&ends[..], &[put_in], &rest].concat()
        };
        let expected = [
            row("pre", client, vip, format!("dst={pod}"), "-"),
            row("post", pod, client, format!("src={vip}"), "reply"),
        ];
        for (found, expected) in [there, back].into_iter().zip(expected) {
            let [words @ .., age] = &found[..] else {
                panic!("{found:?}");
            };
            // Whichever row of the map of backends it was given.
            let without_backend = [&words[..6], &words[7..]].concat();
            assert_eq!(without_backend, expected);
            let age: u32 = age.strip_suffix('s').unwrap().parse().unwrap();
            // The test itself has not taken longer.
            assert!(age < 60, "{found:?}");
        }
        let told = json(&world, &flags);
        let tcp: Vec<_> = told.iter().filter(|entry| entry["protocol"] == "tcp").collect();
        let text = |end: SocketAddr| Value::from(end.to_string());
        let [pre, post] = tcp[..] else {
            panic!("{told:#?}");
        };
        assert_eq!(pre["new_destination"], text(pod), "{pre:#}");
        assert_eq!(
            (&pre["new_source"], &post["new_source"]),
            (&Value::Null, &text(vip))
        );
        assert_eq!(pre["backend"], post["backend"]);
        assert_eq!(pre["family"], *family.name().to_lowercase());
        assert!(pre["age_seconds"].is_u64(), "{pre:#}");
    }
    let limited = flows(&world, "--limit 5");
    assert!(
        limited.ends_with("5 of 12 entries. --limit 0 shows all of them.\n"),
        "{limited}"
    );
    assert_eq!(flows(&world, "--address 192.0.2.99"), "No entries.\n");
    let unknown = ["flows", "--service", "default/we"];
    let error = world.agent.command(&world.topology.node1, &unknown).unwrap_err();
    assert!(
        format!("{error:#}").contains("no Service default/we here"),
        "{error:#}"
    );
}
