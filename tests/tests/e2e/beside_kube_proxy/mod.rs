//! The same questions to two nodes of the same cluster that look alike, one with Sluice and one with the real kube-proxy.

mod questions;

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use lb_tests::control_plane::{ControlPlane, objects};
use lb_tests::site::{Mode, Outcome, Ports, Site, probe_anew};
use lb_tests::topology::{web_address, web_name, web_node};

use super::stage::{Kind, open, plane};
use questions::{Question, questions};

/// With four backends, one of them is missed by one of a thousand probes once in 10^5 runs.
const TIMES: usize = 64;

type Answers = BTreeMap<Question, Outcome>;

/// Something that is not the same, on purpose.
struct Difference {
    reason: &'static str,
    is_so: fn(&Question, [&Outcome; 2]) -> bool,
}

const LOCALHOST: Difference = Difference {
    reason: "kube-proxy has no NodePorts at localhost in its nftables mode",
    is_so: |question, [sluice, kube_proxy]| {
        question.front == "localhost" && is_answered(sluice) && *kube_proxy == Outcome::Refused
    },
};

const LOCALHOST6: Difference = Difference {
    reason: "kube-proxy has NodePorts at localhost for IPv4 only in its iptables mode",
    is_so: |question, [sluice, kube_proxy]| {
        question.front == "localhost"
            && question.to.is_ipv6()
            && is_answered(sluice)
            && !is_answered(kube_proxy)
    },
};

const NOT_PERMITTED: Difference = Difference {
    reason: "netfilter's answer to a process of the node that sends by UDP is an error of another name",
    is_so: |question, [sluice, kube_proxy]| {
        question.from == "node1" && !is_answered(sluice) && *kube_proxy == Outcome::NotPermitted
    },
};

const UNHEARD: Difference = Difference {
    reason: "kube-proxy's refusal of a load balancer's address does not reach the node itself in its iptables mode",
    is_so: |question, [sluice, kube_proxy]| {
        (question.from, question.front) == ("node1", "address")
            && *sluice == Outcome::Refused
            && matches!(kube_proxy, Outcome::Unreachable | Outcome::Silent)
    },
};

const UNLISTED: Difference = Difference {
    reason: "kube-proxy lets pass what is for a port that a ClusterIP does not have in its iptables mode",
    is_so: |question, [sluice, _]| question.front == "unlisted port" && *sluice == Outcome::Refused,
};

const KEPT: Difference = Difference {
    reason: "Sluice keeps the client's address wherever the reply comes back by this node",
    is_so: |question, [sluice, kube_proxy]| {
        sluice.backends() == kube_proxy.backends()
            && is_kept(question, sluice)
            && !is_kept(question, kube_proxy)
    },
};

fn is_answered(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Answered { .. })
}

/// Whether all who answered saw the client's own address. Which of its own the node has is the kernel's choice.
fn is_kept(question: &Question, outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Answered { clients, .. } => question.from == "node1" || clients.iter().eq([&question.own]),
        _ => false,
    }
}

/// As far as it can be compared: who answered, and whether the client's address was kept.
fn are_alike(question: &Question, outcomes: [&Outcome; 2]) -> bool {
    let [one, other] = outcomes;
    if is_answered(one) && is_answered(other) {
        return one.backends() == other.backends() && is_kept(question, one) == is_kept(question, other);
    }
    one == other
}

#[test]
fn nodes_answer_alike_with_nftables() {
    let known = [&LOCALHOST, &NOT_PERMITTED];
    compare(&["--snat", "always"], Mode::Nftables, &known);
}

#[test]
fn nodes_answer_alike_with_iptables() {
    let known = [&LOCALHOST6, &NOT_PERMITTED, &UNHEARD, &UNLISTED];
    compare(&["--snat", "always"], Mode::Iptables, &known);
}

#[test]
fn nodes_answer_alike_but_for_kept_addresses() {
    let known = [&LOCALHOST, &NOT_PERMITTED, &KEPT];
    compare(&[], Mode::Nftables, &known);
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
            .map(|site| scope.spawn(|| ask(site, &questions, FIRST_PORT)))
            .map(|asking| asking.join().unwrap())
    });
    // A kernel that has refused much lately does so once a second (net.ipv6.icmp.ratelimit): such a question is asked again.
    let again = |site: &Site, question: &Question| {
        thread::sleep(Duration::from_secs(1));
        ask(site, std::slice::from_ref(question), FIRST_PORT_AGAIN)[question].clone()
    };
    let mut seen = BTreeMap::new();
    let mut wrong = Vec::new();
    for (question, ours) in &sluice {
        let theirs = &kube_proxy[question];
        if are_alike(question, [ours, theirs]) {
            continue;
        }
        match differences
            .iter()
            .find(|each| (each.is_so)(question, [ours, theirs]))
        {
            Some(known) => *seen.entry(known.reason).or_insert(0) += 1,
            None if [ours, theirs] == [&Outcome::Refused, &Outcome::Silent]
                && again(&sites[1], question) == Outcome::Refused => {}
            None => wrong.push(format!(
                "{question:?}\n    sluice {ours:?}\n    kube-proxy {theirs:?}"
            )),
        }
    }
    eprintln!("    {} questions; different on purpose: {seen:#?}", sluice.len());
    assert!(
        wrong.is_empty(),
        "{} differences:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert_eq!(
        seen.len(),
        differences.len(),
        "a difference that is none: {seen:#?}"
    );
}

/// More Pods on the same hosts: `far` only on node 2, `ending` that all terminate, `unready`.
fn add_pods(plane: &ControlPlane) {
    let pods = [
        ("far", 2),
        ("far", 3),
        ("ending", 0),
        ("ending", 2),
        ("unready", 1),
    ];
    let named = |(app, host): (&str, usize)| format!("{app}-{}", web_name(host));
    let pod = |each: (&str, usize)| objects::pod(&named(each), web_node(each.1), each.0);
    plane.apply(&pods.map(pod)).unwrap();
    let status =
        |each: (&str, usize)| objects::pod_status(&named(each), web_address(each.1), each.0 != "unready");
    plane.apply_status(&pods.map(status)).unwrap();
    plane
        .delete("pod", &[&named(("ending", 0)), &named(("ending", 2))])
        .unwrap();
}

/// Where a host's own ports begin, when it asks first and when it asks again: more than it needs lie between.
const FIRST_PORT: u16 = 33_000;
const FIRST_PORT_AGAIN: u16 = 60_000;

/// All questions of a host one after the other, all hosts at the same time.
fn ask(site: &Site, questions: &[Question], first_port: u16) -> Answers {
    let topology = &site.topology;
    let hosts = [
        &topology.client,
        &topology.toolbox,
        &topology.web[0],
        &topology.node1,
    ];
    thread::scope(|scope| {
        let asking = hosts.map(|host| {
            scope.spawn(move || {
                let mut ports = Ports::starting_at(first_port);
                let of_host = questions.iter().filter(|each| each.from == host.name);
                let seen = of_host.map(|question| {
                    let outcome = probe_anew(host, &mut ports, question.protocol, question.to, TIMES)
                        .unwrap_or_else(|error| panic!("{question:?}: {error:#}"));
                    (question.clone(), outcome)
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
