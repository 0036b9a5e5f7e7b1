//! The agent's hold on a node: programs stay in their places, survive a restart, and leave nothing behind.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its helpers, too"
)]

mod maps;
mod programs;
mod routes;
mod traces;
mod xdp;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::{SchedClassifier, TcAttachType};
use aya::{Ebpf, EbpfLoader};
use lb_common::layout;
use lb_tests::agent::Agent;
use lb_tests::family::Pair;
use lb_tests::netns::{Netns, veth};
use lb_tests::topology::Host;

const TIMEOUT: Duration = Duration::from_secs(5);
/// Small maps, for a quick start.
const SMALL: [&str; 2] = ["--max-flows", "1024"];
/// What a node with one device has: both hooks of the device, and egress of loopback.
const LINKS: usize = 3;

/// A node with one device to a peer.
struct Node {
    host: Host,
    peer: Netns,
}

impl Node {
    fn new() -> Self {
        let (netns, peer) = (Netns::new("node").unwrap(), Netns::new("peer").unwrap());
        // The end of a duplicate address detection, a second or two later, is news of an address.
        netns.sysctls(&[("ipv6/conf/default/accept_dad", "0")]).unwrap();
        veth((&netns, "up0"), (&peer, "p0")).unwrap();
        netns.ip("addr add 192.0.2.1/24 dev up0").unwrap();
        peer.ip("addr add 192.0.2.2/24 dev p0").unwrap();
        let addresses = Pair {
            v4: Ipv4Addr::UNSPECIFIED,
            v6: Ipv6Addr::UNSPECIFIED,
        };
        let host = Host {
            name: "node".to_owned(),
            netns,
            addresses,
        };
        Self { host, peer }
    }

    fn start(&self, agent: &mut Agent) {
        self.start_with(agent, &[]);
    }

    fn start_with(&self, agent: &mut Agent, options: &[&str]) {
        agent.start(&self.host, &[&SMALL[..], options].concat()).unwrap();
    }

    /// Names of the programs at a hook of `up0`, in the order in which they run.
    fn chain(&self, hook: TcAttachType) -> Vec<String> {
        self.chain_at("up0", hook)
    }

    fn chain_at(&self, device: &str, hook: TcAttachType) -> Vec<String> {
        let query = || Ok(SchedClassifier::query_tcx(device, hook)?);
        let (_, programs) = self.host.netns.run(query).unwrap();
        programs
            .iter()
            .map(|program| program.name_as_str().unwrap_or("?").to_owned())
            .collect()
    }

    /// A netlink notification, after which the agent looks at its programs without waiting for the next round.
    fn nudge(&self) {
        self.host
            .netns
            .ip("link add nudge type veth peer name nudged\nlink del nudge")
            .unwrap();
    }

    fn status(&self, agent: &Agent) -> String {
        agent.command(&self.host, &["status"]).unwrap()
    }
}

/// The folder of this layout's pins.
fn pins(agent: &Agent) -> PathBuf {
    agent.pin_root().join(format!("v{}", layout::VERSION))
}

/// Ids of link and program of every pinned link, by name.
fn links(agent: &Agent) -> Vec<(String, u32, u32)> {
    let mut links: Vec<_> = std::fs::read_dir(pins(agent).join("links"))
        .unwrap()
        .filter_map(|entry| {
            let entry = entry.unwrap();
            // The agent may have removed it by now.
            let link: FdLink = PinnedLink::from_pin(entry.path()).ok()?.into();
            let info = link.info().unwrap();
            Some((
                entry.file_name().into_string().unwrap(),
                info.id(),
                info.program_id(),
            ))
        })
        .collect();
    links.sort();
    links
}

/// A program of somebody else: ours under another name would do, too, but its maps must not be ours.
fn foreign() -> Ebpf {
    let object = std::env::var("SLUICE_BPF_DIR").unwrap() + "/sluice.o";
    let mut loader = EbpfLoader::new();
    for name in lb_common::layout::map::ALL {
        loader.map_max_entries(name, 1);
    }
    loader.load_file(object).unwrap()
}

#[track_caller]
fn eventually(what: &str, condition: impl Fn() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < TIMEOUT, "{what}: not within {TIMEOUT:?}");
        thread::sleep(Duration::from_millis(5));
    }
}
