//! The agent's hold on a node: programs stay in their places, survive a restart, and leave nothing behind.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its helpers, too"
)]

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use aya::maps::{Map, MapData, PerCpuArray, PerCpuValues};
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::tc::TcAttachOptions;
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType};
use aya::util::nr_cpus;
use aya::{Ebpf, EbpfLoader};
use lb_agent::dataplane::{Access, KernelStore, Pins, Sizes, create_maps};
use lb_agent::store::{DevicesTable, MapStore as _, Names, Slots, StoreError};
use lb_common::layout::map;
use lb_common::{Device, ServiceName, ServiceStats, Slot, V4};
use lb_tests::agent::Agent;
use lb_tests::family::Pair;
use lb_tests::need_root;
use lb_tests::netns::{Netns, veth};
use lb_tests::scratch::Folder;
use lb_tests::topology::Host;

const TIMEOUT: Duration = Duration::from_secs(5);
/// Small maps, for a quick start.
const SMALL: [&str; 2] = ["--max-flows", "1024"];
const RESERVED_PORTS: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";

/// A node with one device to a peer.
struct Node {
    host: Host,
    peer: Netns,
}

impl Node {
    fn new() -> Self {
        let (netns, peer) = (Netns::new("node").unwrap(), Netns::new("peer").unwrap());
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
        agent.start(&self.host, &SMALL).unwrap();
    }

    /// Names of the programs at a hook of `up0`, in the order in which they run.
    fn chain(&self, hook: TcAttachType) -> Vec<String> {
        let query = || Ok(SchedClassifier::query_tcx("up0", hook)?);
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

/// Ids of link and program of every pinned link, by name.
fn links(pin_root: &Path) -> Vec<(String, u32, u32)> {
    let mut links: Vec<_> = std::fs::read_dir(pin_root.join("v1/links"))
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

fn eventually(what: &str, condition: impl Fn() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < TIMEOUT, "{what}: not within {TIMEOUT:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_restart_replaces_programs_in_place_and_loses_no_packet() {
    need_root!();
    let node = Node::new();
    let mut agent = Agent::new().unwrap();
    node.start(&mut agent);
    let before = links(&agent.pin_root());
    assert_eq!(before.len(), 2, "{before:?}");

    let pings = thread::scope(|scope| {
        let ping = scope.spawn(|| {
            node.peer
                .command("ping", &["-i", "0.002", "-c", "1000", "-q", "192.0.2.1"])
        });
        for _ in 0..3 {
            agent.stop().unwrap();
            node.start(&mut agent);
        }
        ping.join().unwrap().unwrap()
    });
    assert!(pings.contains(" 0% packet loss"), "{pings}");

    let after = links(&agent.pin_root());
    let ids = |links: &[(String, u32, u32)]| {
        links
            .iter()
            .map(|(name, id, _)| (name.clone(), *id))
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(&after), ids(&before), "links were made anew");
    assert!(
        after
            .iter()
            .zip(&before)
            .all(|(after, before)| after.2 != before.2),
        "old programs still run"
    );
}

#[test]
fn devices_are_picked_up_and_dropped_as_they_come_and_go() {
    need_root!();
    let node = Node::new();
    let mut agent = Agent::new().unwrap();
    node.start(&mut agent);
    node.host
        .netns
        .ip("link add pod0 type veth peer name pod0p")
        .unwrap();
    eventually("both ends have programs", || links(&agent.pin_root()).len() == 6);
    assert!(node.status(&agent).contains("pod0"));
    node.host.netns.ip("link del pod0").unwrap();
    eventually("pins of the device are gone", || {
        links(&agent.pin_root()).len() == 2
    });
    assert!(!node.status(&agent).contains("pod0"));
}

#[test]
fn ours_stays_last_on_ingress_and_first_on_egress() {
    need_root!();
    let node = Node::new();
    let mut agent = Agent::new().unwrap();
    node.start(&mut agent);
    let mut foreign = foreign();
    let program: &mut SchedClassifier = foreign.program_mut("lb_jiffies").unwrap().try_into().unwrap();
    program.load().unwrap();
    for (hook, order) in [
        (TcAttachType::Ingress, LinkOrder::last()),
        (TcAttachType::Egress, LinkOrder::first()),
    ] {
        let attach = || Ok(program.attach_with_options("up0", hook, TcAttachOptions::TcxOrder(order))?);
        node.host.netns.run(attach).unwrap();
    }
    assert!(
        node.status(&agent).contains("another program"),
        "{}",
        node.status(&agent)
    );
    node.nudge();
    eventually("ours moves", || {
        node.chain(TcAttachType::Ingress) == ["lb_jiffies", "lb_pre"]
    });
    eventually("ours moves", || {
        node.chain(TcAttachType::Egress) == ["lb_post", "lb_jiffies"]
    });
}

#[test]
fn a_link_that_somebody_removed_comes_back() {
    need_root!();
    let node = Node::new();
    let mut agent = Agent::new().unwrap();
    node.start(&mut agent);
    for (name, ..) in links(&agent.pin_root()) {
        std::fs::remove_file(agent.pin_root().join("v1/links").join(name)).unwrap();
    }
    eventually("the links are gone", || {
        node.chain(TcAttachType::Ingress).is_empty()
    });
    node.nudge();
    eventually("they are back", || {
        node.chain(TcAttachType::Ingress) == ["lb_pre"]
    });
    eventually("they are back", || {
        node.chain(TcAttachType::Egress) == ["lb_post"]
    });
}

#[test]
fn behind_filters_of_others_ours_is_a_filter_too() {
    need_root!();
    let node = Node::new();
    let mut agent = Agent::new().unwrap();
    node.start(&mut agent);
    let tc = |arguments: &str| {
        let arguments: Vec<&str> = arguments.split(' ').collect();
        node.host.netns.command("tc", &arguments).unwrap()
    };
    tc("qdisc add dev up0 clsact");
    tc("filter add dev up0 ingress prio 60000 protocol ip u32 match u32 0 0 flowid 1:1");
    eventually("ours is the last filter", || {
        let filters = tc("filter show dev up0 ingress");
        filters.contains("pref 60001 bpf chain 0 handle 0x1 lb_pre")
            && node.chain(TcAttachType::Ingress).is_empty()
    });
    assert!(node.status(&agent).contains("clsact"));
    tc("filter del dev up0 ingress prio 60000");
    eventually("ours is back at TCX", || {
        node.chain(TcAttachType::Ingress) == ["lb_pre"]
            && !tc("filter show dev up0 ingress").contains("lb_pre")
    });
}

#[test]
fn cleanup_leaves_nothing_and_can_be_repeated() {
    need_root!();
    let node = Node::new();
    let mut agent = Agent::new().unwrap();
    node.start(&mut agent);
    agent.stop().unwrap();
    assert_eq!(
        node.chain(TcAttachType::Ingress),
        ["lb_pre"],
        "programs outlive the agent"
    );
    agent.command(&node.host, &["cleanup"]).unwrap();
    assert!(node.chain(TcAttachType::Ingress).is_empty());
    assert!(node.chain(TcAttachType::Egress).is_empty());
    assert_eq!(std::fs::read_dir(agent.pin_root()).unwrap().count(), 0);
    assert_eq!(
        agent.command(&node.host, &["cleanup"]).unwrap(),
        "Nothing to remove.\n"
    );
}

#[test]
fn one_agent_at_a_time_works_on_a_pin_root() {
    need_root!();
    let node = Node::new();
    let mut agent = Agent::new().unwrap();
    node.start(&mut agent);
    let refused = |arguments: &[&str]| {
        let error = agent.command(&node.host, arguments).unwrap_err();
        format!("{error:#}")
    };
    let folder = agent.manifests().folder().display().to_string();
    let second = [
        &["run", "--node-name", "node", "--manifests", &folder],
        &SMALL[..],
    ]
    .concat();
    for arguments in [&second[..], &["cleanup"]] {
        let text = refused(arguments);
        assert!(
            text.contains("another lb-agent runs on") && text.contains("(pid "),
            "{text}"
        );
    }
    assert_eq!(
        node.chain(TcAttachType::Ingress),
        ["lb_pre"],
        "the first one works on"
    );

    agent.kill().unwrap();
    node.start(&mut agent);
    agent.kill().unwrap();
    agent.command(&node.host, &["cleanup"]).unwrap();
    assert!(node.chain(TcAttachType::Ingress).is_empty());
}

#[test]
fn node_ports_are_reserved_beside_the_ports_of_others() {
    need_root!();
    let node = Node::new();
    let reserved = || {
        let read = || Ok(std::fs::read_to_string(RESERVED_PORTS)?);
        node.host.netns.run(read).unwrap().trim().to_owned()
    };
    let mut agent = Agent::new().unwrap();
    node.start(&mut agent);
    assert_eq!(reserved(), "30000-32767");
    agent.stop().unwrap();
    agent.command(&node.host, &["cleanup"]).unwrap();
    assert_eq!(reserved(), "");

    node.host
        .netns
        .sysctl("ipv4/ip_local_reserved_ports", "8080,31000")
        .unwrap();
    node.start(&mut agent);
    assert_eq!(reserved(), "8080,30000-32767");
    agent.stop().unwrap();
    let other = [&SMALL[..], &["--node-port-range", "20000-20010"]].concat();
    agent.start(&node.host, &other).unwrap();
    assert_eq!(reserved(), "8080,20000-20010,31000");
    agent.stop().unwrap();
    let no_ports = [&SMALL[..], &["--node-port-range", "none", "--detach-on-exit"]].concat();
    agent.start(&node.host, &no_ports).unwrap();
    assert_eq!(reserved(), "8080,31000");
    agent.stop().unwrap();
    assert_eq!(reserved(), "8080,31000");
}

#[test]
fn maps_of_another_size_are_refused_with_the_flag_named() {
    need_root!();
    let node = Node::new();
    let mut agent = Agent::new().unwrap();
    node.start(&mut agent);
    agent.stop().unwrap();
    let error = agent.start(&node.host, &["--max-flows", "2048"]).unwrap_err();
    let text = format!("{error:#}");
    assert!(
        text.contains("lb_flows4") && text.contains("--max-flows") && text.contains("cleanup"),
        "{text}"
    );
}

#[test]
fn a_map_that_cannot_be_mapped_into_memory_is_refused() {
    need_root!();
    let node = Node::new();
    let mut agent = Agent::new().unwrap();
    node.start(&mut agent);
    agent.stop().unwrap();
    let pin = Pins::new(agent.pin_root()).map(map::SLOTS4);
    std::fs::remove_file(&pin).unwrap();
    let same_but_for_flags = format!(
        "type array key 4 value {} entries {} name {}",
        size_of::<Slot>(),
        Sizes::default().slots,
        map::SLOTS4
    );
    let created = Command::new("bpftool")
        .args(["map", "create"])
        .arg(&pin)
        .args(same_but_for_flags.split(' '))
        .status();
    assert!(created.unwrap().success());
    let text = format!("{:#}", agent.start(&node.host, &SMALL).unwrap_err());
    assert!(
        text.contains("flags 0x0)") && text.contains("flags 0x400)") && text.contains("cleanup"),
        "{text}"
    );
}

#[test]
fn programs_of_another_map_layout_are_refused() {
    need_root!();
    let node = Node::new();
    let mut agent = Agent::new().unwrap();
    node.start(&mut agent);
    agent.stop().unwrap();
    let other = agent.pin_root().join("v0/links");
    std::fs::create_dir_all(&other).unwrap();
    node.start(&mut agent);
    agent.stop().unwrap();
    // A folder in the place of a link: bpffs has no plain files.
    std::fs::create_dir(other.join("2-ingress")).unwrap();
    let text = format!("{:#}", agent.start(&node.host, &SMALL).unwrap_err());
    assert!(
        text.contains("map layout v0") && text.contains("lb-agent cleanup"),
        "{text}"
    );
}

#[test]
fn rows_are_written_read_and_removed_in_the_kernel() {
    need_root!();
    let folder = Folder::new("store").unwrap();
    let pins = Pins::new(folder.pins());
    let sizes = Sizes {
        services: 2,
        slots: 5000,
        backends: 8,
        flows: 64,
        ..Sizes::default()
    };
    create_maps(&pins, &sizes).unwrap();
    let mut store = KernelStore::open(&pins, Access::ReadWrite).unwrap();
    assert_eq!(store.capacity::<Slots<V4>>().unwrap(), 5000);
    assert!(store.rows::<Slots<V4>>().unwrap().is_empty());

    let slot = Slot {
        service: 1,
        generation: 2,
        backend: 3,
    };
    store.set::<Slots<V4>>(&4999, &slot).unwrap();
    let readers = [Access::ReadWrite, Access::Read].map(|access| KernelStore::open(&pins, access).unwrap());
    for reader in &readers {
        assert_eq!(reader.rows::<Slots<V4>>().unwrap(), [(4999, slot)].into());
    }
    store.delete::<Slots<V4>>(&4999).unwrap();
    assert!(store.rows::<Slots<V4>>().unwrap().is_empty());

    let counted = ServiceStats {
        connections: 7,
        ..ServiceStats::default()
    };
    let path = pins.map(map::STATS);
    let mut stats = PerCpuArray::<_, ServiceStats>::try_from(
        Map::from_map_data(MapData::from_pin(path).unwrap()).unwrap(),
    )
    .unwrap();
    for id in [1, 2] {
        let rows = PerCpuValues::try_from(vec![counted; nr_cpus().unwrap()]).unwrap();
        stats.set(id, rows, 0).unwrap();
    }
    store.reset_stats(1).unwrap();
    let sum = |id| -> u64 { stats.get(&id, 0).unwrap().iter().map(|row| row.connections).sum() };
    assert_eq!(sum(1), 0);
    assert_eq!(sum(2), 7 * nr_cpus().unwrap() as u64);

    let device = Device {
        route_ifindex: 7,
        ..Device::default()
    };
    store.set::<DevicesTable>(&7, &device).unwrap();
    assert_eq!(store.rows::<DevicesTable>().unwrap(), [(7, device)].into());
    store.delete::<DevicesTable>(&7).unwrap();
    store.delete::<DevicesTable>(&7).unwrap();
    assert!(store.rows::<DevicesTable>().unwrap().is_empty());

    let name = ServiceName {
        text: [0; ServiceName::LEN],
    };
    store.set::<Names>(&1, &name).unwrap();
    store.set::<Names>(&2, &name).unwrap();
    let error = (3..100).find_map(|id| store.set::<Names>(&id, &name).err());
    assert!(
        matches!(error, Some(StoreError::Full { capacity: 2, .. })),
        "{error:?}"
    );
}
