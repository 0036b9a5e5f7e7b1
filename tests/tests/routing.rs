//! The hosts reach each other by plain routing, before any service comes into play.

#![expect(clippy::unwrap_used, reason = "tests panic")]

use std::net::SocketAddr;

use lb_tests::answer::Answer;
use lb_tests::echo::{self, Echo};
use lb_tests::family::Family;
use lb_tests::http::{self, Received};
use lb_tests::need_root;
use lb_tests::server::{DNS_PORT, ECHO_PORT, HTTP_PORT, Server};
use lb_tests::topology::{Host, Layout, PodNetwork, RpFilter, Topology};
use lb_tests::{dns, socket};

fn ping(from: &Host, to: &Host) {
    for family in Family::BOTH {
        let address = to.addresses.of(family).to_string();
        from.netns.command("ping", &["-c1", "-W2", &address]).unwrap();
    }
}

fn check(layout: Layout) {
    let topology = Topology::with(layout).unwrap();
    for from in [&topology.client, &topology.toolbox, &topology.web[2]] {
        for to in topology.hosts().filter(|to| to.name != from.name) {
            ping(from, to);
        }
    }
}

#[test]
fn every_host_reaches_every_other() {
    need_root!();
    check(Layout::default());
}

#[test]
fn bridged_pods_reach_every_host_with_a_strict_filter() {
    need_root!();
    check(Layout {
        pods: PodNetwork::Bridge,
        rp_filter: RpFilter::Strict,
    });
}

#[test]
fn servers_answer_on_both_families() {
    need_root!();
    let topology = Topology::new().unwrap();
    let _server = Server::start(&topology.web[2]).unwrap();
    for family in Family::BOTH {
        let [http, dns, echo] = [HTTP_PORT, DNS_PORT, ECHO_PORT]
            .map(|port| SocketAddr::new(topology.web[2].addresses.of(family), port));
        topology
            .client
            .netns
            .run(|| {
                let mut connection = http::Connection::open(http)?;
                assert_eq!(connection.ask()?, Answer::new("web-3", connection.local()));
                assert_eq!(connection.download(1_000_000)?, Received::bulk(1_000_000));
                assert_eq!(connection.upload(1_000_000)?, Received::bulk(1_000_000));

                let answer = dns::ask(dns)?;
                assert_eq!(
                    (&*answer.backend, answer.client.ip()),
                    ("web-3", topology.client.addresses.of(family))
                );

                let mut connection = Echo::open(echo, None)?;
                assert_eq!(*connection.answer(), Answer::new("web-3", connection.local()?));
                connection.say("hello")?;
                echo::exchange(&socket::udp(echo, None)?, &[7; 1400])
            })
            .unwrap();
    }
}
