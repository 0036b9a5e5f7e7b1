//! On a node with an agent at work: the answer is what the next packet meets, and no trace is left.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr, TcpListener};

use lb_agent::dataplane::{Access, KernelStore, PinnedMap, Pins};
use lb_agent::image::render::render;
use lb_agent::store::{FamilyTables, Limits, MapStore as _, Rows};
use lb_common::layout::map;
use lb_common::{Counter, DropReason, ServiceStats, V4, V6};
use lb_tests::family::Family;
use lb_tests::http::Connection;
use lb_tests::manifests::{Condition, HTTP, Service};
use lb_tests::need_root;
use lb_tests::scratch::Folder;
use lb_tests::topology::{CLIENT, NODE1};
use lb_tests::world::{OTHER_CLUSTER_IP, OTHER_VIP, VIP, World};
use serde_json::{Value, json};

/// Without objects.
fn ask(world: &World, flags: &str) -> Value {
    ask_with(world, "/nonexistent", flags)
}

fn ask_with(world: &World, kubeconfig: &str, flags: &str) -> Value {
    let flags: Vec<_> = ["explain", "--output", "json", "--kubeconfig", kubeconfig]
        .into_iter()
        .chain(flags.split(' '))
        .collect();
    let text = world.agent.command(&world.topology.node1, &flags).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn questions_leave_no_trace() {
    need_root!();
    let world = world();
    let before = contents(&world);
    let mut verdicts = BTreeMap::<String, usize>::new();
    for family in Family::BOTH {
        let to = |ip: IpAddr, port| SocketAddr::new(ip, port);
        let (vip, sticky) = (VIP.of(family), OTHER_CLUSTER_IP.of(family));
        let pod = world.topology.toolbox.addresses.of(family);
        for flags in [
            format!("--from-outside --to {}", to(vip, HTTP.port)),
            format!("--from-outside --to {} --proto udp", to(vip, 53)),
            format!("--from-outside --to {}", to(vip, 81)),
            format!("--from-outside --to {}", to(NODE1.of(family), 30_080)),
            format!("--from {pod} --to {}", to(sticky, HTTP.port)),
            format!("--from-node --to {}", to(sticky, HTTP.port)),
            format!("--from-node --to {}", to(CLIENT.of(family), 22)),
        ] {
            let told = ask(&world, &flags);
            *verdicts.entry(told["verdict"].to_string()).or_default() += 1;
        }
    }
    let counted: Vec<_> = verdicts
        .iter()
        .map(|(verdict, count)| (&**verdict, *count))
        .collect();
    assert_eq!(counted, [("\"forward\"", 10), ("\"pass\"", 2), ("\"reject\"", 2)]);
    assert_eq!(contents(&world), before);
}

#[test]
fn the_answer_is_what_the_next_packet_meets() {
    need_root!();
    let world = world();
    for family in Family::BOTH {
        let to = SocketAddr::new(VIP.of(family), HTTP.port);
        for port in 41_000..41_002 {
            let from = SocketAddr::new(CLIENT.of(family), port);
            let told = ask(&world, &format!("--to {to} --from {from}"));
            assert_eq!(told["backend"]["by"], "maglev", "{told:#}");
            let chosen = told["backend"]["address"].as_str().unwrap().to_owned();
            let (_open, backend) = answers(&world, from, to);
            assert_eq!(chosen, backend, "{told:#}");
            // There is such a connection, as long as it is held.
            let told = ask(&world, &format!("--to {to} --from {from}"));
            assert_eq!(told["backend"]["by"], "existing-flow", "{told:#}");
            assert_eq!(told["backend"]["address"], *backend);
        }
    }
}

#[test]
fn affinity_is_that_of_the_client() {
    need_root!();
    let world = world();
    for family in Family::BOTH {
        let to = SocketAddr::new(OTHER_VIP.of(family), HTTP.port);
        let client = CLIENT.of(family);
        let told = ask(&world, &format!("--to {to} --from {client}"));
        assert_eq!(told["backend"]["by"], "affinity-hash", "{told:#}");
        let (_open, backend) = answers(&world, SocketAddr::new(client, 42_000), to);
        let told = ask(&world, &format!("--to {to} --from {client}"));
        assert_eq!(told["backend"]["by"], "affinity", "{told:#}");
        assert_eq!(told["backend"]["address"], *backend);
        let other = ask(&world, &format!("--to {to} --from-outside"));
        assert_eq!(other["backend"]["by"], "affinity-hash", "{other:#}");
    }
}

#[test]
fn endpoints_that_left_are_named() {
    need_root!();
    let world = world();
    world
        .set_endpoints(&[(0, Condition::Ready), (1, Condition::NotReady)])
        .unwrap();
    let to = SocketAddr::new(VIP.of(Family::V4), HTTP.port);
    let told = ask(&world, &format!("--to {to} --from-outside"));
    let reasons = told["left_out"].as_array().unwrap().iter();
    let mut reasons: Vec<_> = reasons
        .map(|endpoint| endpoint["reason"].as_str().unwrap())
        .collect();
    reasons.sort_unstable();
    assert_eq!(reasons, ["not-serving", "removed"]);
    check_unasked(&told, "kubeconfig /nonexistent cannot be used: ");
    assert_eq!(told["eligible"].as_array().unwrap().len(), 1);
    assert_eq!(told["backend"]["device"], "pod-web-1", "{told:#}");
}

#[test]
fn an_api_server_that_is_silent_is_not_waited_for_long() {
    need_root!();
    let world = world();
    let listen = || Ok(TcpListener::bind("127.0.0.1:0")?);
    let silent = world.topology.node1.netns.run(listen).unwrap();
    let folder = Folder::new("explain").unwrap();
    let kubeconfig = folder.path().join("kubeconfig");
    let server = format!("http://{}", silent.local_addr().unwrap());
    let text = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "silent",
        "clusters": [{ "name": "silent", "cluster": { "server": server } }],
        "users": [{ "name": "agent", "user": {} }],
        "contexts": [{ "name": "silent", "context": { "cluster": "silent", "user": "agent" } }],
    });
    fs::write(&kubeconfig, text.to_string()).unwrap();
    let to = SocketAddr::new(VIP.of(Family::V4), HTTP.port);
    let flags = format!("--to {to} --from-outside");
    let told = ask_with(&world, &kubeconfig.display().to_string(), &flags);
    assert_eq!(told["verdict"], "forward");
    check_unasked(&told, "the API server has not answered within 3s.");
}

/// A step says that, and why, nobody was asked for objects.
#[track_caller]
fn check_unasked(told: &Value, why: &str) {
    let mut steps = told["steps"].as_array().unwrap().iter();
    let text = format!("could not be asked for: {why}");
    assert!(
        steps.any(|step| step.as_str().unwrap().contains(&text)),
        "{told:#}"
    );
}

/// The usual service on three pods, and one whose clients stay where they are.
fn world() -> World {
    let world = World::new(&[0, 1, 2]).unwrap();
    let sticky = Service::new("sticky", OTHER_CLUSTER_IP, OTHER_VIP, &[HTTP_ALONE])
        .with_spec("sessionAffinity", "ClientIP");
    let ready: Vec<_> = [0, 1, 2].map(|pod| (pod, Condition::Ready)).into();
    world.add_service(&sticky, &ready).unwrap();
    world
}

/// HTTP without a NodePort, which the usual service has.
const HTTP_ALONE: lb_tests::manifests::Port = lb_tests::manifests::Port {
    node_port: None,
    ..HTTP
};

/// Asks by HTTP; the connection, and the address and port of who answers.
fn answers(world: &World, from: SocketAddr, to: SocketAddr) -> (Connection, String) {
    let ask = || {
        let mut connection = Connection::open_from(to, Some(from))?;
        let answer = connection.ask()?;
        Ok((connection, answer))
    };
    let (connection, answer) = world.topology.client.netns.run(ask).unwrap();
    let pod = world.topology.web.iter().find(|pod| pod.name == answer.backend);
    let family = if to.is_ipv4() { Family::V4 } else { Family::V6 };
    let address = SocketAddr::new(pod.unwrap().addresses.of(family), HTTP.target);
    (connection, address.to_string())
}

/// Everything that the maps hold, as text.
fn contents(world: &World) -> Vec<String> {
    let pins = Pins::new(world.agent.pin_root());
    let store = KernelStore::open(&pins, Access::Read).unwrap();
    let mut found = vec![
        render(&Rows::of(&store).unwrap()),
        of_programs::<V4>(&store),
        of_programs::<V6>(&store),
        format!("{:?}", store.rows::<Limits>().unwrap()),
    ];
    for name in [map::FRAGS4, map::FRAGS6] {
        let fragments = PinnedMap::open(&pins, name, Access::Read).unwrap();
        found.push(format!("{name} {}", fragments.count().unwrap()));
    }
    let stats = store.per_cpu::<ServiceStats>(map::STATS).unwrap();
    found.extend((0..16).map(|id| format!("{:?}", stats.get(id).unwrap())));
    for (name, length) in [
        (map::DROPS, DropReason::ALL.len()),
        (map::COUNTERS, Counter::ALL.len()),
    ] {
        let counts = store.per_cpu::<u64>(name).unwrap();
        let rows = (0..).take(length);
        found.extend(rows.map(|index| format!("{name} {:?}", counts.get(index).unwrap())));
    }
    found
}

fn of_programs<F: FamilyTables>(store: &KernelStore) -> String {
    format!(
        "{:?}\n{:?}\n{:?}\n{:?}\n{:?}\n",
        store.rows::<F::Flows>().unwrap(),
        store.rows::<F::Affinities>().unwrap(),
        store.rows::<F::Sources>().unwrap(),
        store.rows::<F::Loads>().unwrap(),
        store.rows::<F::Paths>().unwrap(),
    )
}
