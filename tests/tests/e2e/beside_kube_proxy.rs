//! The same questions to two nodes of the same cluster that look alike, one with Sluice and one with the real kube-proxy.

mod questions;

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use lb_tests::control_plane::{ControlPlane, objects};
use lb_tests::site::{Mode, Outcome, Site, probe};
use lb_tests::topology::{web_address, web_name, web_node};

use super::stage::{Kind, open, plane};
use questions::{Question, questions};

/// With four backends, one of them is missed by one of a thousand probes once in 10^5 runs.
const TIMES: usize = 64;

/// What asking came to, as far as it can be compared.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Answered {
        backends: Vec<String>,
        /// Who answered saw the client's own address, every time.
        is_kept: bool,
    },
    Refused,
    Unreachable,
    Silent,
}

type Answers = BTreeMap<Question, Seen>;

/// Something that is not the same, on purpose.
struct Difference {
    reason: &'static str,
    is_so: fn(&Question, [&Seen; 2]) -> bool,
}

/// Sluice's node in `--snat always`; its node comes first.
const ALWAYS: [Difference; 1] = [Difference {
    reason: "kube-proxy has no NodePorts at localhost in its nftables mode",
    is_so: |question, [sluice, kube_proxy]| {
        question.front == "localhost" && is_answered(sluice) && *kube_proxy == Seen::Refused
    },
}];

/// What `--snat needed` adds to that.
const KEPT: Difference = Difference {
    reason: "the client's address is kept wherever the reply comes back by this node",
    is_so: |_, [sluice, kube_proxy]| match (sluice, kube_proxy) {
        (
            Seen::Answered {
                backends: ours,
                is_kept: _,
            },
            Seen::Answered {
                backends: theirs,
                is_kept: false,
            },
        ) => ours == theirs,
        _ => false,
    },
};

/// iptables leaves ports of a ClusterIP alone that no Service has.
const UNLISTED: Difference = Difference {
    reason: "in its iptables mode, kube-proxy lets pass what is for a port that a ClusterIP does not have",
    is_so: |question, [sluice, _]| question.front == "unlisted port" && *sluice == Seen::Refused,
};

/// In its iptables mode, kube-proxy has them for IPv4, by the node's own address.
const LOCALHOST6: Difference = Difference {
    reason: "kube-proxy has NodePorts at localhost in its iptables mode for IPv4 only",
    is_so: |question, [sluice, kube_proxy]| {
        question.front == "localhost" && is_answered(sluice) && !is_answered(kube_proxy)
    },
};

fn is_answered(seen: &Seen) -> bool {
    matches!(seen, Seen::Answered { .. })
}

#[test]
fn nodes_answer_alike_with_nftables() {
    compare(&["--snat", "always"], Mode::Nftables, &ALWAYS.each_ref());
}

#[test]
fn nodes_answer_alike_with_iptables() {
    compare(&["--snat", "always"], Mode::Iptables, &[&UNLISTED, &LOCALHOST6]);
}

#[test]
fn nodes_answer_alike_but_for_kept_addresses() {
    let [localhost] = &ALWAYS;
    compare(&[], Mode::Nftables, &[localhost, &KEPT]);
}

fn compare(options: &'static [&'static str], mode: Mode, differences: &[&Difference]) {
    let plane = plane(&[0, 1, 2, 3]);
    add_pods(&plane);
    questions::apply_services(&plane);
    let sites = [Kind::Sluice(options), Kind::KubeProxy(mode)].map(|kind| open(&plane, kind));
    let questions = questions(&plane);
    // Both have started after all was told; what they are told late is another case's.
    thread::sleep(Duration::from_secs(1));
    let [sluice, kube_proxy] = thread::scope(|scope| {
        sites
            .each_ref()
            .map(|site| scope.spawn(|| ask(site, &questions)))
            .map(|asking| asking.join().unwrap())
    });
    let mut seen = BTreeMap::new();
    let mut wrong = Vec::new();
    for (question, ours) in &sluice {
        let theirs = &kube_proxy[question];
        if ours == theirs {
            continue;
        }
        match differences.iter().find(|each| (each.is_so)(question, [ours, theirs])) {
            Some(known) => *seen.entry(known.reason).or_insert(0) += 1,
            None => wrong.push(format!("{question:?}\n    sluice {ours:?}\n    kube-proxy {theirs:?}")),
        }
    }
    eprintln!("    {} questions; different on purpose: {seen:#?}", sluice.len());
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(seen.len(), differences.len(), "a difference that is none: {seen:#?}");
}

/// More Pods on the same hosts: `far` only on node 2, `ending` that all terminate, `unready`.
fn add_pods(plane: &ControlPlane) {
    let pods = [("far", 2), ("far", 3), ("ending", 0), ("ending", 2), ("unready", 1)];
    let named = |(app, host): (&str, usize)| format!("{app}-{}", web_name(host));
    let pod = |each: (&str, usize)| objects::pod(&named(each), web_node(each.1), each.0);
    plane.apply(&pods.map(pod)).unwrap();
    let status = |each: (&str, usize)| {
        objects::pod_status(&named(each), web_address(each.1), each.0 != "unready")
    };
    plane.apply_status(&pods.map(status)).unwrap();
    plane
        .delete("pod", &[&named(("ending", 0)), &named(("ending", 2))])
        .unwrap();
}

/// All questions of a host one after the other, all hosts at the same time.
fn ask(site: &Site, questions: &[Question]) -> Answers {
    let topology = &site.topology;
    let hosts = [&topology.client, &topology.toolbox, &topology.web[0], &topology.node1];
    thread::scope(|scope| {
        let asking = hosts.map(|host| {
            scope.spawn(move || {
                let of_host = questions.iter().filter(|each| each.from == host.name);
                let seen = of_host.map(|question| {
                    let outcome = probe(host, question.protocol, question.to, TIMES)
                        .unwrap_or_else(|error| panic!("{question:?}: {error:#}"));
                    let own = host.addresses.of(question.family());
                    (question.clone(), seen(outcome, own))
                });
                seen.collect::<Vec<_>>()
            })
        });
        asking
            .into_iter()
            .flat_map(|asking| asking.join().unwrap())
            .collect()
    })
}

fn seen(outcome: Outcome, own: std::net::IpAddr) -> Seen {
    match outcome {
        Outcome::Answered { backends, clients } => Seen::Answered {
            backends: backends.into_iter().collect(),
            is_kept: clients.iter().eq([&own]),
        },
        Outcome::Refused => Seen::Refused,
        Outcome::Unreachable => Seen::Unreachable,
        Outcome::Silent => Seen::Silent,
    }
}
