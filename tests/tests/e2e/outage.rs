//! The API server is away, forgets, comes back; so does the agent.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use lb_tests::echo::Echo;
use lb_tests::family::Family;
use lb_tests::load::Load;
use lb_tests::maps::Protocol;
use lb_tests::site::{self, Outcome, Proxy};
use serde_json::{Value, json};

use super::stage::{Kind, Stage, TCP, at_cluster_ip, at_node_port};

const PAUSE: Duration = Duration::from_millis(5);
/// Long enough that nobody waits for it with a short pause between tries.
const AWAY: Duration = Duration::from_secs(30);
/// The state is right so long after the API server is back.
const BACK: Duration = Duration::from_secs(2);
/// Longer than an agent waits for everything before it goes on with what an agent before it has left.
const SHORT: Duration = Duration::from_secs(5);

/// Not with kube-proxy, which takes longer to come back than other cases have patience.
#[test]
fn traffic_goes_on_while_the_api_server_is_away() {
    let mut stage = Stage::new(Kind::Sluice(&[]), &[0, 1]);
    let [inside, outside, removed] = begin(&stage);
    let loads = loads(&stage, &[inside.1, outside.1]);

    stage.plane.stop_api_server().unwrap();
    // No watch will ever tell of it: the new API server begins with what is left, and etcd has forgotten what was before.
    stage.plane.delete_in_etcd("removed").unwrap();
    stage.plane.compact().unwrap();
    thread::sleep(AWAY);
    let took = stage.plane.start_api_server().unwrap();
    let back = Instant::now();
    eprintln!("    the API server is back, and took {} ms", took.as_millis());
    expect_by(back + BACK, &stage, "gone meanwhile", removed, nobody);
    change_everything(&stage);
    let added = at_cluster_ip(&stage.plane, "added", Family::V4, TCP);
    check_everything(&stage, Instant::now() + BACK, [inside, added, removed]);
    check(loads);
}

#[test]
fn an_agent_that_was_cut_off_is_right_again_after_410_gone() {
    let mut stage = Stage::new(Kind::Sluice(&[]), &[0, 1]);
    let [inside, outside, removed] = begin(&stage);
    let loads = loads(&stage, &[inside.1, outside.1]);
    let node = &stage.site.topology.node1;

    // The watches end with the server, and the agent finds no way to a new one.
    stage.plane.stop_api_server().unwrap();
    stage.plane.cut_off(node).unwrap();
    stage.plane.start_api_server().unwrap();
    change_everything(&stage);
    stage.plane.compact().unwrap();
    let added = at_cluster_ip(&stage.plane, "added", Family::V4, TCP);
    stage.plane.let_in(node).unwrap();
    check_everything(&stage, Instant::now() + BACK, [inside, added, removed]);
    check(loads);
}

#[test]
fn an_agent_that_starts_without_an_api_server_keeps_what_it_had() {
    let mut stage = Stage::new(Kind::Sluice(&[]), &[0, 1]);
    let [inside, outside, removed] = begin(&stage);
    let mut connection = stage.client().netns.run(|| Echo::open(outside.1, None)).unwrap();
    let loads = loads(&stage, &[inside.1, outside.1]);

    let Proxy::Sluice(agent) = &mut stage.site.proxy else {
        panic!("the case is about the agent");
    };
    agent.kill().unwrap();
    change_everything(&stage);
    stage.plane.compact().unwrap();
    let added = at_cluster_ip(&stage.plane, "added", Family::V4, TCP);
    stage.plane.stop_api_server().unwrap();
    let Proxy::Sluice(agent) = &mut stage.site.proxy else {
        panic!("the case is about the agent");
    };
    agent.launch(&stage.site.topology.node1, &[]).unwrap();
    thread::sleep(SHORT);
    stage.plane.start_api_server().unwrap();
    check_everything(&stage, Instant::now() + BACK, [inside, added, removed]);
    connection.say("still here").unwrap();
    check(loads);
}

type At = (Protocol, SocketAddr);

/// Two Services, one of which will be removed: where the first is reached inside and outside, and the other inside.
fn begin(stage: &Stage) -> [At; 3] {
    for name in ["web", "removed"] {
        stage.set_service(name, &json!({ "type": "NodePort" }));
    }
    let inside = at_cluster_ip(&stage.plane, "web", Family::V4, TCP);
    let outside = at_node_port(&stage.plane, "web", Family::V6, TCP);
    let removed = at_cluster_ip(&stage.plane, "removed", Family::V4, TCP);
    for at in [inside, removed] {
        stage.expect("before", stage.toolbox(), at, &["web-1", "web-2"]);
    }
    [inside, outside, removed]
}

fn nobody(outcome: &Outcome) -> bool {
    outcome.backends().is_empty()
}

fn change_everything(stage: &Stage) {
    site::register_pods(&stage.plane, &[2, 3]).unwrap();
    site::set_ready(&stage.plane, &[0], false).unwrap();
    stage
        .plane
        .kubectl(&["delete", "service", "removed", "--ignore-not-found"])
        .unwrap();
    stage.set_service("added", &json!({ "type": "NodePort" }));
    // EndpointSlices are the work of a controller, which may have to find the API server first.
    stage
        .plane
        .wait_for(
            "endpointslices",
            "--selector=kubernetes.io/service-name=added",
            |slices| {
                let is_whole =
                    |slice: &Value| slice["endpoints"].as_array().is_some_and(|all| all.len() == 4);
                let slices = slices["items"].as_array();
                slices.is_some_and(|slices| slices.len() == 2 && slices.iter().all(is_whole))
            },
        )
        .unwrap();
}

/// At the addresses of the three Services, up to this moment.
fn check_everything(stage: &Stage, until: Instant, [inside, added, removed]: [At; 3]) {
    let ready = |outcome: &Outcome| outcome.backends() == ["web-2", "web-3", "web-4"];
    expect_by(until, stage, "what changed", inside, ready);
    expect_by(until, stage, "what came", added, ready);
    expect_by(until, stage, "what went", removed, nobody);
}

/// Asked from within.
fn expect_by(until: Instant, stage: &Stage, what: &str, to: At, is_so: impl Fn(&Outcome) -> bool) {
    let left = until.saturating_duration_since(Instant::now());
    stage.expect_outcome_within(left, &what, (stage.toolbox(), to), is_so);
}

fn loads(stage: &Stage, to: &[SocketAddr; 2]) -> [Load; 2] {
    let [inside, outside] = *to;
    let load =
        |host, to| Load::start(host, PAUSE, move || Ok(Echo::open(to, None)?.answer().clone())).unwrap();
    [load(stage.toolbox(), inside), load(stage.client(), outside)]
}

fn check(loads: [Load; 2]) {
    let requests: usize = loads.map(|load| load.answers().unwrap().len()).iter().sum();
    eprintln!("    {requests} requests meanwhile, none failed");
}
