//! What is told of what was found, for what no made-up node shows.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use lb_common::layout::program;
use lb_common::{Counter, DropReason, FlowFlags, ServiceFlags, ServiceValue, SettingsFlags};

use super::super::case::{Case, Who};
use super::super::explanation::{Explanation, Verdict};
use super::super::front_end::{FrontEnd, Kind};
use super::super::packet::{After, Packet};
use super::super::route::Route;
use super::super::walk::{Entry, Fate, Run, Start, Walk};
use super::{Findings, LeftOut, Met};
use crate::model::{PortName, Protocol};
use crate::trial::EndpointView;

const CLIENT: &str = "198.51.100.7:40000";
const SERVICE: &str = "203.0.113.10:80";
const BACKEND: &str = "10.244.2.12:8080";

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn run(program: &'static str, fate: Fate) -> Run {
    Run {
        program,
        device: 2,
        fate,
    }
}

fn entry(flags: u8, peer: &str) -> Entry {
    Entry {
        backend: address(BACKEND),
        peer: address(peer),
        service: 1,
        flags,
        hop: 2,
    }
}

/// A packet from outside to a load balancer's address, with what was seen on its way.
fn findings(walk: Walk, flags: u32) -> Findings {
    let endpoint = EndpointView {
        address: address(BACKEND),
        pod: None,
        node: None,
        here: false,
        service: None,
        reason: None,
        why: None,
    };
    Findings {
        case: Case {
            packet: Packet {
                protocol: Protocol::Tcp,
                source: address(CLIENT),
                destination: address(SERVICE),
            },
            who: Who::Outside,
            pod: None,
            start: Start {
                ifindex: 2,
                own: false,
            },
            role: None,
            notes: Vec::new(),
        },
        walk,
        front_end: Some(Met {
            front_end: FrontEnd {
                address: address(SERVICE),
                protocol: Protocol::Tcp.number(),
                kind: Kind::External,
                name: PortName::parse("shop/web:http/tcp"),
                row: ServiceValue {
                    service: 1,
                    flags,
                    ..ServiceValue::default()
                },
            },
            inside: false,
            endpoints: vec![endpoint],
            algorithm: "round-robin",
            affinity_seconds: 60,
            ranges: Vec::new(),
        }),
        near: Vec::new(),
        devices: [(2, "eth0".to_owned()), (3, "pod0".to_owned())].into(),
        settings: 0,
        left_out: LeftOut::Known,
        warnings: Vec::new(),
    }
}

fn sent(flags: u8, peer: &str, counters: &[Counter]) -> Walk {
    Walk {
        runs: vec![run(program::PRE, Fate::Sent)],
        entry: Some(entry(flags, peer)),
        counters: counters.iter().copied().collect::<BTreeSet<_>>(),
        ..Walk::default()
    }
}

#[track_caller]
fn check_step(explanation: &Explanation, words: &str) {
    assert!(
        explanation.steps.iter().any(|step| step.contains(words)),
        "{words:?} is in none of {:#?}",
        explanation.steps
    );
}

#[test]
fn every_drop_has_its_reason_and_a_hint() {
    for reason in DropReason::ALL {
        let walk = Walk {
            runs: vec![run(program::PRE, Fate::Dropped)],
            drops: vec![reason],
            refused: Some(1),
            ..Walk::default()
        };
        let told = findings(walk, 0).explain();
        assert_eq!(
            (told.verdict, told.reason),
            (Verdict::Drop, Some(reason.as_str()))
        );
        check_step(&told, &format!("lb_pre at eth0 drops it: {}.", reason.as_str()));
        let hint = told.hint.unwrap();
        assert!(
            hint.len() > 20 && !hint.ends_with('.') && !hint.contains("  "),
            "{hint}"
        );
    }
}

#[test]
fn the_packet_is_told_in_the_words_of_its_protocol() {
    for (protocol, words, name) in [
        (Protocol::Tcp, "A TCP connection begins", "tcp"),
        (Protocol::Udp, "A UDP datagram goes", "udp"),
        (Protocol::Sctp, "An SCTP association begins", "sctp"),
    ] {
        let mut findings = findings(Walk::default(), 0);
        findings.case.packet.protocol = protocol;
        let told = findings.explain();
        assert!(told.steps[0].starts_with(words), "{}", told.steps[0]);
        let json = serde_json::to_value(&told).unwrap();
        assert_eq!(json["packet"]["protocol"], name);
    }
}

#[test]
fn a_choice_is_told_with_its_reason() {
    let opened = [Counter::FlowOpened];
    let with_affinity = [Counter::FlowOpened, Counter::AffinityHit];
    let cases: [(&[Counter], u32, bool, &str, &str); 4] = [
        (&opened, 0, false, "round-robin", "in turn"),
        (
            &opened,
            ServiceFlags::AFFINITY,
            false,
            "affinity-hash",
            "it stays for 60 seconds",
        ),
        (
            &with_affinity,
            ServiceFlags::AFFINITY,
            false,
            "affinity",
            "within the last 60 seconds",
        ),
        (&[], 0, true, "existing-flow", "there is a connection"),
    ];
    for (counters, flags, stood, by, words) in cases {
        let walk = sent(FlowFlags::BOTH, "192.0.2.10:10000", counters);
        let walk = Walk {
            before: walk.entry.filter(|_| stood),
            ..walk
        };
        let told = findings(walk, flags).explain();
        assert_eq!(told.backend.as_ref().map(|backend| backend.by), Some(by));
        check_step(&told, words);
    }
}

#[test]
fn an_old_flow_that_was_opened_anew_is_none() {
    let walk = sent(FlowFlags::BOTH, "192.0.2.10:10000", &[Counter::FlowOpened]);
    let walk = Walk {
        before: walk.entry,
        ..walk
    };
    let told = findings(walk, 0).explain();
    assert_eq!(told.backend.map(|backend| backend.by), Some("round-robin"));
}

#[test]
fn masquerade_is_told_with_its_reason() {
    let stack = |source: &str| Walk {
        runs: vec![run(program::PRE, Fate::On), run(program::POST, Fate::On)],
        entry: Some(entry(FlowFlags::MASQUERADE, "0.0.0.0:40000")),
        route: Some(Ok(Route {
            device: 3,
            local: false,
            source: None,
        })),
        after: Some(After::Ends {
            source: address(source),
            destination: address(BACKEND),
        }),
        ..Walk::default()
    };
    let outside = FlowFlags::BOTH | FlowFlags::OUTSIDE;
    let cases = [
        (sent(outside, "192.0.2.10:10000", &[]), 0, Some("remote-backend")),
        (
            sent(outside, "192.0.2.10:10000", &[]),
            SettingsFlags::SNAT_ALWAYS,
            Some("always"),
        ),
        (
            stack("192.0.2.10:10000"),
            SettingsFlags::MASQUERADE_ALL,
            Some("always"),
        ),
        (stack(CLIENT), 0, None),
        (sent(FlowFlags::WRAPPED, "0.0.0.0:0", &[]), 0, None),
    ];
    for (walk, settings, reason) in cases {
        let found = Findings {
            settings,
            ..findings(walk, 0)
        };
        let told = found.explain();
        assert_eq!(told.masquerade.map(|masquerade| masquerade.reason), reason);
        assert_eq!(told.verdict, Verdict::Forward);
    }
}

#[test]
fn another_port_of_the_client_is_told() {
    let walk = Walk {
        runs: vec![run(program::PRE, Fate::On)],
        entry: Some(entry(0, "0.0.0.0:12345")),
        after: Some(After::Ends {
            source: address("198.51.100.7:12345"),
            destination: address(BACKEND),
        }),
        ..Walk::default()
    };
    let told = findings(walk, 0).explain();
    assert_eq!(told.masquerade, None);
    check_step(&told, "Its port becomes 12345, because another connection");
}

#[test]
fn what_the_kernel_does_not_route_is_dropped() {
    let walk = Walk {
        runs: vec![run(program::PRE, Fate::On)],
        entry: Some(entry(0, "0.0.0.0:40000")),
        route: Some(Err("Network is unreachable".to_owned())),
        ..Walk::default()
    };
    let told = findings(walk, 0).explain();
    assert_eq!((told.verdict, told.reason), (Verdict::Drop, Some("not-routed")));
    assert!(told.hint.as_ref().unwrap().contains("ip_forward"));
    check_step(
        &told,
        "does not send it on to 10.244.2.12: Network is unreachable.",
    );
}

#[test]
fn what_maps_cannot_tell_is_said() {
    let check = |left_out, text| {
        let mut found = findings(sent(FlowFlags::BOTH, "192.0.2.10:1", &[]), 0);
        found.left_out = left_out;
        check_step(&found.explain(), text);
    };
    check(
        LeftOut::Unasked("the API server is on holiday".to_owned()),
        "Endpoints that were never ready are in no map, and could not be asked for: the API server is on holiday.",
    );
    check(
        LeftOut::Asked("https://192.0.2.1/".to_owned()),
        "The API server https://192.0.2.1/ was asked",
    );
}

#[test]
fn the_policy_local_does_not_bind_pods() {
    let found = || findings(sent(0, "0.0.0.0:0", &[]), ServiceFlags::OUTSIDE_LOCAL);
    check_step(
        &found().explain(),
        "externalTrafficPolicy Local: it leads to endpoints on this node alone",
    );
    let mut found = found();
    found.case.who = Who::Pod;
    if let Some(met) = &mut found.front_end {
        met.inside = true;
    }
    check_step(&found.explain(), "which does not bind pods");
}
