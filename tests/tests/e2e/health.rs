//! What load balancers, a kubelet and people ask about the agent and its Services.

use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::{Duration, Instant};

use lb_tests::family::Family;
use lb_tests::site;
use lb_tests::tools::get;
use lb_tests::topology::{Host, NODE1};
use serde_json::{Value, json};

use super::deployment::NAMESPACE;
use super::stage::{Kind, Stage, cases};

cases!(load_balancers_ask_for_ready_endpoints_of_the_node);

/// For one answer.
const LIMIT: Duration = Duration::from_secs(2);
/// For a change to show.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(20);
/// One that nobody is given by chance, so that it can be taken before.
const PORT: u16 = 32_111;

/// The status and the number of endpoints that are told at a health-check NodePort; `None`: nobody listens.
type Told = Option<(u16, u64)>;

fn load_balancers_ask_for_ready_endpoints_of_the_node(kind: Kind) {
    let stage = Stage::new(kind, &[0, 1]);
    let plane = &stage.plane;
    stage.set_service(
        "web",
        &json!({ "type": "LoadBalancer", "externalTrafficPolicy": "Local" }),
    );
    let service = plane.get("service", "web").unwrap();
    let port = service["spec"]["healthCheckNodePort"].as_u64().unwrap();
    let port = u16::try_from(port).unwrap();
    let expect = |what, expected| expect(&stage, what, port, expected);
    expect("two", Some((200, 2)));
    site::set_ready(plane, &[0], false).unwrap();
    expect("one is not ready", Some((200, 1)));
    site::register_pods(plane, &[2]).unwrap();
    site::set_ready(plane, &[1], false).unwrap();
    expect("none but elsewhere", Some((503, 0)));
    site::set_ready(plane, &[0], true).unwrap();
    expect("ready again", Some((200, 1)));
    plane.delete("pod", &["web-1"]).unwrap();
    expect("it terminates", Some((503, 0)));
    stage.patch("web", &json!({ "externalTrafficPolicy": "Cluster" }));
    expect("another policy", None);
}

#[test]
fn a_health_check_port_that_is_taken_is_an_event_of_the_service() {
    let stage = Stage::new(Kind::Sluice(&[]), &[0, 1]);
    let plane = &stage.plane;
    let listen = || Ok(TcpListener::bind(("0.0.0.0", PORT))?);
    let other = stage.site.topology.node1.netns.run(listen).unwrap();
    stage.set_service(
        "web",
        &json!({ "type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": PORT }),
    );
    let of_reason = "--field-selector=reason=FailedToStartServiceHealthcheck";
    let events = plane
        .wait_for("events", of_reason, |events| {
            events["items"].as_array().is_some_and(|items| !items.is_empty())
        })
        .unwrap();
    let event = &events["items"][0];
    let service = plane.get("service", "web").unwrap();
    let expected = json!({
        "type": "Warning",
        "kind": "Service",
        "uid": service["metadata"]["uid"],
        "reporter": "sluice.dev/lb-agent",
        "node": "node1",
    });
    let found = json!({
        "type": event["type"],
        "kind": event["involvedObject"]["kind"],
        "uid": event["involvedObject"]["uid"],
        "reporter": event["reportingComponent"],
        "node": event["reportingInstance"],
    });
    assert_eq!(found, expected, "{event:#}");
    let message = event["message"].as_str().unwrap();
    // glibc and musl have other words for it.
    assert!(message.contains("os error 98"), "{message}");
    let described = plane.kubectl(&["describe", "service", "web"]).unwrap();
    assert!(
        described.contains("FailedToStartServiceHealthcheck"),
        "{described}"
    );

    drop(other);
    expect(&stage, "the port is free", PORT, Some((200, 2)));
    let events = plane.get("events", of_reason).unwrap();
    assert_eq!(events["items"].as_array().map(Vec::len), Some(1), "{events:#}");
}

#[test]
fn the_probes_of_the_daemon_set_are_answered() {
    let mut stage = Stage::new(Kind::Sluice(&[]), &[0]);
    let set = stage
        .plane
        .wait_for(&format!("--namespace={NAMESPACE}"), "daemonset/sluice", |_| true)
        .unwrap();
    let agent = &set["spec"]["template"]["spec"]["containers"][0];
    let ask = |stage: &Stage| {
        let probes = ["startupProbe", "livenessProbe", "readinessProbe"];
        probes.map(|probe| status(&stage.site.topology.node1, &url(&agent[probe]["httpGet"])))
    };
    assert_eq!(ask(&stage), [Some(200); 3]);
    // Load balancers ask from outside.
    let from_outside = |stage: &Stage, path: &str| {
        Family::BOTH.map(|family| {
            let to = SocketAddr::new(NODE1.of(family), 10_256);
            status(stage.client(), &format!("http://{to}/{path}"))
        })
    };
    assert_eq!(from_outside(&stage, "healthz"), [Some(200); 2]);

    let taint = |taint: &str| {
        stage.plane.kubectl(&["taint", "node", "node1", taint]).unwrap();
    };
    taint("ToBeDeletedByClusterAutoscaler=1:NoSchedule");
    eventually(&[Some(200), Some(200), Some(503)], || ask(&stage));
    assert_eq!(from_outside(&stage, "healthz"), [Some(503); 2]);
    assert_eq!(from_outside(&stage, "livez"), [Some(200); 2]);
    taint("ToBeDeletedByClusterAutoscaler-");
    eventually(&[Some(200); 3], || ask(&stage));

    // An agent that was restarted for it would not find the API server either.
    stage.plane.stop_api_server().unwrap();
    thread::sleep(Duration::from_secs(1));
    assert_eq!(ask(&stage), [Some(200); 3]);
}

/// Asks from outside at node 1's addresses of both families, until both answer so.
#[track_caller]
fn expect(stage: &Stage, what: &str, port: u16, expected: Told) {
    let begin = Instant::now();
    eventually(&[expected; 2], || {
        Family::BOTH.map(|family| told(stage.client(), SocketAddr::new(NODE1.of(family), port)))
    });
    eprintln!("    {what}: {} ms", begin.elapsed().as_millis());
}

fn told(from: &Host, at: SocketAddr) -> Told {
    let page = get(from, &format!("http://{at}/"), LIMIT).ok()?;
    let body: Value = serde_json::from_str(&page.body).ok()?;
    Some((page.status, body["localEndpoints"].as_u64()?))
}

fn status(from: &Host, url: &str) -> Option<u16> {
    Some(get(from, url, LIMIT).ok()?.status)
}

/// Where a kubelet asks.
fn url(probe: &Value) -> String {
    let [host, path] = [&probe["host"], &probe["path"]].map(|part| part.as_str().unwrap());
    format!("http://{host}:{}{path}", probe["port"])
}

#[track_caller]
fn eventually<T: PartialEq + std::fmt::Debug>(expected: &T, found: impl Fn() -> T) {
    let begin = Instant::now();
    loop {
        let now = found();
        if now == *expected {
            return;
        }
        assert!(begin.elapsed() < PATIENCE, "{now:?}, not {expected:?}");
        thread::sleep(PAUSE);
    }
}
