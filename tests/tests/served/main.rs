//! What the agent serves by HTTP, asked by curl: health-check NodePorts, probes, metrics.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its helpers, too"
)]

mod health_checks;
mod metrics;
mod probes;

use std::fmt::Debug;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::thread;
use std::time::{Duration, Instant};

use lb_tests::agent::Agent;
use lb_tests::family::Pair;
use lb_tests::manifests::{self, Condition, Endpoint, HTTP, Service};
use lb_tests::netns::Netns;
use lb_tests::tools::{Page, get};
use lb_tests::topology::Host;
use lb_tests::world::{CLUSTER_IP, VIP};

const TIMEOUT: Duration = Duration::from_secs(5);
/// Small maps, for a quick start.
const SMALL: [&str; 6] = [
    "--max-flows",
    "1024",
    "--max-slots",
    "65536",
    "--max-backends",
    "4096",
];
const HEALTH_CHECK_PORT: u16 = 30_999;
const BOTH: [&str; 2] = ["127.0.0.1", "[::1]"];

/// A node with one uplink, and an agent that is not started yet.
struct Node {
    host: Host,
    agent: Agent,
}

impl Node {
    fn new() -> Self {
        let netns = Netns::new("node").unwrap();
        netns.ip("link add up-0 type veth peer name peer").unwrap();
        let addresses = Pair::new(
            Ipv4Addr::new(192, 0, 2, 1),
            Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1),
        );
        let host = Host {
            name: "node".to_owned(),
            netns,
            addresses,
        };
        let agent = Agent::new().unwrap();
        agent
            .manifests()
            .write("node.yaml", &[manifests::node(&host)])
            .unwrap();
        Self { host, agent }
    }

    fn start(&mut self, options: &[&str]) {
        self.agent
            .start(&self.host, &[&SMALL[..], options].concat())
            .unwrap();
    }

    /// Writes a Service with one endpoint on each of these nodes.
    fn write(&self, service: &Service, endpoints: &[(&str, Condition)]) {
        let endpoints: Vec<_> = (1..)
            .zip(endpoints)
            .map(|(number, (node, condition))| Endpoint {
                addresses: Pair::new(
                    Ipv4Addr::new(10, 244, 0, number),
                    Ipv6Addr::new(0xfd00, 0x244, 0, 0, 0, 0, 0, number.into()),
                ),
                node: (*node).to_owned(),
                condition: *condition,
            })
            .collect();
        let [v4, v6] = service.slices_of(&endpoints);
        self.agent
            .manifests()
            .write("web.yaml", &[service.object(), v4, v6])
            .unwrap();
    }

    /// What is at a URL, if anybody listens.
    fn get(&self, url: &str) -> Option<Page> {
        get(&self.host, url, TIMEOUT).ok()
    }

    #[track_caller]
    fn page(&self, url: &str) -> Page {
        get(&self.host, url, TIMEOUT).unwrap()
    }
}

/// A load balancer's Service that keeps its clients' addresses.
fn service() -> Service {
    Service::new("web", CLUSTER_IP, VIP, &[HTTP])
        .with_spec("externalTrafficPolicy", "Local")
        .with_spec("healthCheckNodePort", HEALTH_CHECK_PORT)
}

#[track_caller]
fn eventually<T: PartialEq + Debug>(expected: &T, found: impl Fn() -> T) {
    let begin = Instant::now();
    loop {
        let now = found();
        if now == *expected {
            return;
        }
        assert!(
            begin.elapsed() < TIMEOUT,
            "{now:?}, not {expected:?} within {TIMEOUT:?}"
        );
        thread::sleep(Duration::from_millis(2));
    }
}
