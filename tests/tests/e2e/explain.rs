//! `lb-agent explain` on a node at work: the maps say what the programs do, the API server names endpoints.

use std::net::SocketAddr;
use std::path::Path;

use lb_tests::family::Family;
use lb_tests::site::{self, Proxy, Site};
use lb_tests::topology::web_address;
use serde_json::{Value, json};

use super::stage::{Kind, Stage, TCP, at_cluster_ip};

#[test]
fn endpoints_that_are_in_no_map_are_named() {
    let mut stage = Stage::new(Kind::Sluice(&[]), &[0, 2]);
    site::register_pods(&stage.plane, &[1]).unwrap();
    site::set_ready(&stage.plane, &[1], false).unwrap();
    stage.set_service("web", &json!({ "internalTrafficPolicy": "Local" }));
    let to = at_cluster_ip(&stage.plane, "web", Family::V4, TCP);
    stage.expect("local", stage.toolbox(), to, &["web-1"]);

    let token = stage.plane.token("sluice-system", "sluice").unwrap();
    let kubeconfig = stage.plane.kubeconfig(&token).unwrap();
    let told = ask(&stage, &kubeconfig, to.1);
    let listed = |list: &str| -> Vec<[String; 3]> {
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        let endpoints = told[list].as_array().unwrap().iter();
        let mut found: Vec<_> = endpoints
            .map(|endpoint| ["pod", "node", "reason"].map(|field| text(&endpoint[field])))
            .collect();
        found.sort_unstable();
        found
    };
    assert_eq!(listed("eligible"), [["default/web-1", "node1", "-"]]);
    assert_eq!(
        listed("left_out"),
        [
            ["default/web-2", "node1", "not-ready"],
            ["default/web-3", "node2", "other-node"]
        ]
    );
    assert_eq!(
        told["backend"]["address"].as_str().unwrap(),
        SocketAddr::new(web_address(0).of(Family::V4), lb_tests::server::ECHO_PORT).to_string()
    );
    assert!(has_step(&told, "was asked for names"), "{told:#}");

    // The programs say the same without it.
    stage.plane.stop_api_server().unwrap();
    let alone = ask(&stage, &kubeconfig, to.1);
    assert_eq!(alone["backend"], told["backend"]);
    assert!(
        has_step(&alone, "could not be asked for: the API server cannot be reached"),
        "{alone:#}"
    );
}

/// Asks for a packet from a pod of node 1.
fn ask(stage: &Stage, kubeconfig: &Path, to: SocketAddr) -> Value {
    let from = stage.toolbox().addresses.of(Family::V4).to_string();
    let to = to.to_string();
    let flags = [
        "explain",
        "--output",
        "json",
        "--node-name",
        "node1",
        "--to",
        &to,
        "--from",
        &from,
    ];
    let kubeconfig = kubeconfig.display().to_string();
    let Site { topology, proxy, .. } = &stage.site;
    let Proxy::Sluice(agent) = proxy else {
        panic!("the case is about the agent");
    };
    let flags = [&flags[..], &["--kubeconfig", &kubeconfig]].concat();
    let text = agent.command(&topology.node1, &flags).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn has_step(told: &Value, text: &str) -> bool {
    let steps = told["steps"].as_array().unwrap();
    steps.iter().any(|step| step.as_str().unwrap().contains(text))
}
