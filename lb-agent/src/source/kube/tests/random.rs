//! Any objects, through the whole pipe: text -> parse -> desired -> image -> maps in memory.

use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{RngSeed, TestRunner};

use super::*;
use crate::model::Origin;
use crate::reconcile::tests::{config, expected, front_ends, pipe};
use crate::source::kube::item::item;
use crate::source::kube::told::Told as Memory;
use crate::store::FakeStore;

/// The same in every run.
fn same_cases(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(7),
        ..ProptestConfig::default()
    }
}

/// Names, few enough that objects meet each other.
fn name() -> impl Strategy<Value = &'static str> {
    select(vec!["api", "dns", "web"])
}

/// Nearly always one of the good ones: an object of many parts would be broken in one of them otherwise.
fn mostly<T: Clone + std::fmt::Debug + 'static>(good: Vec<T>, bad: Vec<T>) -> impl Strategy<Value = T> {
    prop_oneof![60 => select(good), 1 => select(bad)]
}

fn address() -> impl Strategy<Value = &'static str> {
    mostly(
        vec![
            "10.0.0.1",
            "10.0.0.2",
            "10.0.0.3",
            "fd00::1",
            "fd00::2",
            "010.0.0.1",
        ],
        vec!["::ffff:10.0.0.1", "127.0.0.1", "None", ""],
    )
}

fn addresses() -> impl Strategy<Value = Vec<&'static str>> {
    prop::collection::vec(address(), 0..3)
}

fn port() -> impl Strategy<Value = Value> {
    let name = mostly(
        vec![json!("a"), json!("b"), json!("c")],
        vec![json!(""), json!(null)],
    );
    // Mostly TCP, so that ports of Services find theirs in slices.
    let tcp = [json!("TCP"), json!("TCP"), json!(null)];
    let protocol = mostly(
        [&tcp[..], &[json!("UDP"), json!("SCTP")]].concat(),
        vec![json!("IGMP")],
    );
    let number = |first: u16| {
        let bad = vec![json!(0), json!(-1), json!(70_000), json!(null)];
        mostly((first..first + 20).map(Value::from).collect(), bad)
    };
    (name, protocol, number(80), number(30_000)).prop_map(|(name, protocol, port, node_port)| {
        json!({"name": name, "protocol": protocol, "port": port, "nodePort": node_port})
    })
}

fn ports() -> impl Strategy<Value = Vec<Value>> {
    prop::collection::vec(port(), 1..3)
}

fn cluster_ips() -> impl Strategy<Value = Vec<&'static str>> {
    mostly(
        vec![
            vec!["10.0.0.1"],
            vec!["10.0.0.2", "fd00::1"],
            vec!["fd00::2"],
            vec!["fd00::3", "10.0.0.1"],
        ],
        vec![vec![], vec!["None"], vec![""], vec!["10.0.0.1", "10.0.0.2"]],
    )
}

fn service() -> impl Strategy<Value = (Kind, Value)> {
    let kind = mostly(
        vec![json!("ClusterIP"), json!("NodePort"), json!("LoadBalancer")],
        vec![json!("ExternalName"), json!(7)],
    );
    let policy = || {
        mostly(
            vec![json!("Cluster"), json!("Local"), json!("")],
            vec![json!(null), json!("Both")],
        )
    };
    let annotation = select(vec!["web=1,dns=2", "maglev", "0", "", "least-connections"]);
    (name(), kind, cluster_ips(), addresses(), addresses(), ports(), policy(), policy(), annotation).prop_map(
        |(name, kind, cluster, external, ingress, ports, inside, outside, annotation)| {
            let ingress: Vec<_> = ingress.into_iter().map(|ip| json!({"ip": ip})).collect();
            let object = json!({
                "metadata": {"name": name, "namespace": "default", "annotations": {"sluice.dev/split": annotation,
                    "sluice.dev/algorithm": annotation, "sluice.dev/limit-connections-per-second": annotation}},
                "spec": {"type": kind, "clusterIPs": cluster, "clusterIP": cluster.first(), "externalIPs": external,
                    "ports": ports, "internalTrafficPolicy": inside, "externalTrafficPolicy": outside,
                    "loadBalancerSourceRanges": ["10.0.0.0/8", annotation], "sessionAffinity": if annotation == "maglev" { "ClientIP" } else { "None" }},
                "status": {"loadBalancer": {"ingress": ingress}},
            });
            (Kind::Service, object)
        },
    )
}

/// The last part of its address, and the rest of it.
fn endpoint() -> impl Strategy<Value = (u8, Value)> {
    let condition = || select(vec![json!(true), json!(false), json!(null)]);
    let node = select(vec![json!("node-a"), json!("node-b"), json!(null)]);
    (1..5_u8, condition(), condition(), condition(), node).prop_map(
        |(place, ready, serving, terminating, node)| {
            let conditions = json!({"ready": ready, "serving": serving, "terminating": terminating});
            (place, json!({"nodeName": node, "conditions": conditions}))
        },
    )
}

fn slice() -> impl Strategy<Value = (Kind, Value)> {
    let family = mostly(vec!["IPv4", "IPv6"], vec!["FQDN", "IPX"]);
    let endpoints = prop::collection::vec(endpoint(), 0..5);
    (name(), name(), family, ports(), endpoints).prop_map(|(name, service, family, ports, mut endpoints)| {
        for (place, endpoint) in &mut endpoints {
            let network = if family == "IPv6" { "fd00::" } else { "10.244.0." };
            endpoint["addresses"] = json!([format!("{network}{place}")]);
        }
        let endpoints: Vec<_> = endpoints.into_iter().map(|(_, endpoint)| endpoint).collect();
        let object = json!({
            "metadata": {"name": name, "namespace": "default", "labels": {"kubernetes.io/service-name": service}},
            "addressType": family,
            "ports": ports,
            "endpoints": endpoints,
        });
        (Kind::EndpointSlice, object)
    })
}

fn of_the_cluster() -> impl Strategy<Value = (Kind, Value)> {
    let kind = select(vec![Kind::Node, Kind::ServiceCidr, Kind::Namespace]);
    let name = select(vec!["node-a", "node-b", "kube-system"]);
    (kind, name, addresses()).prop_map(|(kind, name, addresses)| {
        let listed: Vec<_> = addresses
            .iter()
            .map(|ip| json!({"type": "InternalIP", "address": ip}))
            .collect();
        let cidrs: Vec<_> = addresses.iter().map(|ip| format!("{ip}/24")).collect();
        let spec = json!({"podCIDRs": cidrs, "cidrs": cidrs});
        (
            kind,
            json!({"metadata": {"name": name, "uid": name}, "spec": spec, "status": {"addresses": listed}}),
        )
    })
}

/// An object, at times with something in it that does not belong there.
fn object() -> impl Strategy<Value = (Kind, Value)> {
    let garbage = select(vec![
        json!(null),
        json!("x"),
        json!(-1),
        json!(1e300),
        json!([null]),
        json!({"a": 1}),
        json!(true),
    ]);
    let spoilt = prop::option::weighted(0.1, (any::<Index>(), garbage));
    (prop_oneof![service(), slice(), of_the_cluster()], spoilt).prop_map(|((kind, mut object), spoilt)| {
        if let Some((place, garbage)) = spoilt {
            let mut paths = Vec::new();
            collect_paths(&object, String::new(), &mut paths);
            let path: &String = place.get(&paths);
            *object.pointer_mut(path).unwrap() = garbage;
        }
        (kind, object)
    })
}

fn collect_paths(value: &Value, path: String, found: &mut Vec<String>) {
    let escaped = |key: &str| key.replace('~', "~0").replace('/', "~1");
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                collect_paths(value, format!("{path}/{}", escaped(key)), found);
            }
        }
        Value::Array(values) => {
            for (place, value) in values.iter().enumerate() {
                collect_paths(value, format!("{path}/{place}"), found);
            }
        }
        _ => {}
    }
    found.push(path);
}

/// The events that objects give, told by a source with this memory.
fn events(memory: &mut Memory, objects: &[(Kind, Value)]) -> Vec<SourceEvent> {
    let mut events = Vec::new();
    for (kind, object) in objects {
        memory.take(*kind, item(*kind, &object.to_string()), &mut events);
    }
    events
}

/// What the maps say when these events are told, and then looked at once.
fn maps(events: Vec<SourceEvent>) -> String {
    let mut store = FakeStore::default();
    pipe(&store, events).sync(&mut store);
    crate::image::render::render(store.contents())
}

proptest! {
    #![proptest_config(same_cases(64))]

    #[test]
    fn any_text_is_an_item(text in ".{0,40}", object in object()) {
        let whole = object.1.to_string();
        for kind in [Kind::Service, Kind::EndpointSlice, Kind::Node, Kind::Namespace, Kind::ServiceCidr] {
            item(kind, &text);
            item(kind, &whole);
            let mut cut = whole.len() / 2;
            while !whole.is_char_boundary(cut) {
                cut -= 1;
            }
            item(kind, &whole[..cut]);
        }
    }

    #[test]
    fn the_order_of_objects_does_not_matter(
        objects in prop::collection::vec(object(), 0..12),
        order in any::<prop::sample::Selector>(),
    ) {
        // Each object once: of two states of one object the later one counts.
        let key = |(kind, object): &(Kind, Value)| (*kind, object["metadata"]["name"].to_string());
        let unique: BTreeMap<_, _> = objects.into_iter().map(|object| (key(&object), object)).collect();
        let objects: Vec<_> = unique.into_values().collect();
        let mut left = objects.clone();
        let mut shuffled = Vec::new();
        while !left.is_empty() {
            let place = order.select(0..left.len());
            shuffled.push(left.swap_remove(place));
        }
        let told = maps(events(&mut Memory::default(), &objects));
        prop_assert_eq!(told, maps(events(&mut Memory::default(), &shuffled)));
    }

    #[test]
    fn the_way_to_a_state_does_not_matter(
        rounds in prop::collection::vec((prop::collection::vec(object(), 0..4), any::<bool>()), 1..8),
    ) {
        let mut store = FakeStore::default();
        let mut agent = pipe(&store, Vec::new());
        let mut memory = Memory::default();
        let mut last = BTreeMap::new();
        for (objects, everything_anew) in rounds {
            // What is not among these objects is gone then.
            if everything_anew {
                memory.begin();
            }
            let mut events = events(&mut memory, &objects);
            memory.end(&mut events);
            for event in events {
                match &event {
                    SourceEvent::Apply { object, .. } => _ = last.insert(object.reference(), object.clone()),
                    SourceEvent::Delete(object) => _ = last.remove(object),
                    _ => {}
                }
                agent.apply(event);
            }
            agent.sync(&mut store);
            let now = last.values().cloned().map(|object| SourceEvent::Apply { object, origin: Origin::default() });
            prop_assert_eq!(front_ends(&store), expected(config(), now));
        }
    }
}

/// The other tests would prove nothing if objects never came to anything.
#[test]
fn random_objects_make_front_ends_with_backends() {
    let mut runner = TestRunner::new(same_cases(1));
    let objects = prop::collection::vec(object(), 12);
    let filled = (0..200).filter(|_| {
        let objects = objects.new_tree(&mut runner).unwrap().current();
        maps(events(&mut Memory::default(), &objects)).contains("BACKEND")
    });
    let filled = filled.count();
    assert!(filled >= 30, "{filled} of 200");
}

#[test]
fn a_service_may_have_thousands_of_ports() {
    let ports: Vec<_> = (1..=5000)
        .map(|port| json!({"name": format!("p{port}"), "port": port}))
        .collect();
    let mut object = super::service("web", 1);
    object["spec"]["ports"] = json!(ports);
    let told = maps(events(&mut Memory::default(), &[(Kind::Service, object)]));
    assert_eq!(told.lines().filter(|line| line.starts_with("SVC")).count(), 5000);
}
