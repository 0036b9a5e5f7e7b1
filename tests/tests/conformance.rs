//! Packets as kube-proxy treats them: its own tables, and the same in the other family and protocol.

#![expect(clippy::unwrap_used, reason = "tests panic")]

use std::fs;
use std::path::Path;

use lb_tests::conformance::{self, Flows, Mirror, Snat};
use lb_tests::need_root;
use serde_json::Value;

/// kube-proxy's own tables.
const KUBE_PROXY: &str = "kube-proxy.json";
/// What they do not have.
const MORE: &str = "more.json";

fn flows(name: &str) -> Flows {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("data/flows")
        .join(name);
    Flows::parse(&fs::read_to_string(path).unwrap()).unwrap()
}

/// How many packets the scenarios have, turned like this.
fn packets(flows: &Flows, mirror: Mirror) -> usize {
    let turned = flows.scenarios.iter().filter_map(|scenario| mirror.of(scenario));
    turned
        .map(|scenario| scenario["packets"].as_array().unwrap().len())
        .sum()
}

/// Tries a file, turned like this; all packets must go as they should.
#[track_caller]
fn check(name: &str, snat: Snat, mirror: Mirror) {
    let flows = flows(name);
    let report = conformance::run(&flows, snat, mirror).unwrap();
    assert_eq!(report.failed, 0, "{name}, {mirror:?}\n{report}");
    assert_eq!(report.passed, packets(&flows, mirror));
}

#[test]
fn the_tables_are_whole() {
    let six = Mirror {
        ipv6: true,
        udp: false,
    };
    assert_eq!(packets(&flows(KUBE_PROXY), Mirror::PLAIN), 170);
    assert_eq!(packets(&flows(KUBE_PROXY), six), 166);
}

#[test]
fn conformance_with_snat_always() {
    need_root!();
    check(KUBE_PROXY, Snat::Always, Mirror::PLAIN);
}

#[test]
fn conformance_with_snat_needed() {
    need_root!();
    check(KUBE_PROXY, Snat::Needed, Mirror::PLAIN);
}

#[test]
fn conformance_of_mirrors_with_snat_always() {
    need_root!();
    for mirror in Mirror::ALL {
        check(KUBE_PROXY, Snat::Always, mirror);
    }
}

#[test]
fn conformance_of_mirrors_with_snat_needed() {
    need_root!();
    for mirror in Mirror::ALL {
        check(KUBE_PROXY, Snat::Needed, mirror);
    }
}

#[test]
fn conformance_of_more_flows() {
    need_root!();
    for mirror in [Mirror::PLAIN].into_iter().chain(Mirror::ALL) {
        check(MORE, Snat::Always, mirror);
        check(MORE, Snat::Needed, mirror);
    }
}

/// A packet whose expectation is wrong in any way is found; so is a scenario that cannot be understood.
#[test]
fn conformance_finds_what_is_wrong() {
    need_root!();
    let changes: [fn(&mut Value); 6] = [
        |expect| expect["masquerade"] = (!expect["masquerade"].as_bool().unwrap()).into(),
        |expect| _ = expect["backends"].as_array_mut().unwrap().pop(),
        |expect| expect["backends"][0] = "10.180.9.9:80".into(),
        |expect| expect["backends"] = "reject".into(),
        |expect| expect["backends"] = "drop".into(),
        |expect| expect["backends"] = "none".into(),
    ];
    let mut wrong = flows(KUBE_PROXY);
    let policy = |scenario: &Value| {
        scenario["name"]
            .as_str()
            .unwrap()
            .contains("TestExternalTrafficPolicyCluster")
    };
    let scenario = wrong
        .scenarios
        .iter()
        .find(|scenario| policy(scenario))
        .unwrap()
        .clone();
    let change = |change: &fn(&mut Value)| {
        let mut scenario = scenario.clone();
        for packet in scenario["packets"].as_array_mut().unwrap() {
            change(&mut packet["expect"]);
        }
        scenario
    };
    wrong.scenarios = changes.iter().map(change).collect();
    let mut unknown = scenario.clone();
    unknown["config"]["conntrack"] = true.into();
    wrong.scenarios.push(unknown);
    let report = conformance::run(&wrong, Snat::Always, Mirror::PLAIN).unwrap();
    assert_eq!(
        (report.passed, report.failed),
        (0, packets(&wrong, Mirror::PLAIN)),
        "{report}"
    );
    let told = report.failures.last().unwrap();
    assert!(
        told.found.contains("config.conntrack: unknown field"),
        "{}",
        told.found
    );
}
