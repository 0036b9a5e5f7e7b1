//! XDP at uplinks: how it is attached, and what keeps a device from it.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use aya::programs::{Xdp, XdpMode};
use lb_common::{Counter, DeviceFlags};
use lb_tests::agent::Agent;
use lb_tests::need_root;

use crate::{LINKS, Node, eventually, foreign, links, pins};

impl Node {
    /// Mode (1 native, 2 generic) and program of XDP at `up0`.
    fn xdp(&self) -> Option<(u64, u64)> {
        let text = self
            .host
            .netns
            .command("ip", &["-j", "link", "show", "dev", "up0"])
            .unwrap();
        let links: serde_json::Value = serde_json::from_str(&text).unwrap();
        let xdp = &links[0]["xdp"];
        Some((xdp["mode"].as_u64()?, xdp["prog"]["id"].as_u64()?))
    }

    fn xdp_mode(&self) -> Option<u64> {
        self.xdp().map(|(mode, _)| mode)
    }

    /// What `status` says of XDP at `up0`: the mode and the reason, empty where there is none.
    fn told(&self, agent: &Agent) -> [String; 2] {
        let text = agent
            .command(&self.host, &["status", "--output", "json"])
            .unwrap();
        let status: serde_json::Value = serde_json::from_str(&text).unwrap();
        let devices = status["devices"].as_array().unwrap();
        let device = devices.iter().find(|device| device["name"] == "up0").unwrap();
        ["xdp", "xdp_reason"].map(|key| device[key].as_str().unwrap_or_default().to_owned())
    }

    /// The flags of the row of `up0` that are about XDP.
    fn flags(&self, agent: &Agent) -> u8 {
        let ifindex = || Ok(nix::net::if_::if_nametoindex("up0")?);
        let ifindex = self.host.netns.run(ifindex).unwrap();
        let device = agent.maps().device(ifindex).unwrap().unwrap();
        device.flags & BOTH
    }
}

/// Makes the device an uplink and asks for XDP.
fn with(choice: &str) -> [&str; 4] {
    ["--uplinks", "up0", "--xdp", choice]
}

const NATIVE: u64 = 1;
const GENERIC: u64 = 2;
const BOTH: u8 = DeviceFlags::XDP | DeviceFlags::XDP_TARGET;

#[test]
fn a_veth_is_left_to_tc_unless_it_is_forced() {
    need_root!();
    let node = Node::new();
    let mut agent = Agent::new().unwrap();
    node.start_with(&mut agent, &with("auto"));
    assert_eq!(node.xdp(), None);
    assert_eq!(node.told(&agent), ["", "virtual"]);
    assert!(node.status(&agent).contains("no network card behind it"));
    assert_eq!(node.flags(&agent), 0);
    agent.stop().unwrap();

    for (choice, mode, word, flags) in [
        ("native", NATIVE, "native", BOTH),
        ("generic", GENERIC, "generic", DeviceFlags::XDP),
        ("native", NATIVE, "native", BOTH),
    ] {
        node.start_with(&mut agent, &with(choice));
        assert_eq!(node.xdp_mode(), Some(mode), "{choice}");
        assert_eq!(node.told(&agent), [word, ""]);
        eventually("the row tells of it", || node.flags(&agent) == flags);
        node.peer.command("ping", &["-c", "1", "192.0.2.1"]).unwrap();
        agent.stop().unwrap();
    }

    node.start_with(&mut agent, &with("off"));
    assert_eq!(node.xdp(), None);
    assert_eq!(node.told(&agent), ["", "off"]);
    eventually("the row tells of it", || node.flags(&agent) == 0);
    assert_eq!(links(&agent).len(), LINKS);
}

#[test]
fn a_restart_keeps_the_link_and_replaces_the_program() {
    need_root!();
    let node = Node::new();
    let mut agent = Agent::new().unwrap();
    node.start_with(&mut agent, &with("native"));
    let of_xdp = |agent: &Agent| {
        let links = links(agent);
        links
            .into_iter()
            .find(|(name, ..)| name.ends_with("-xdp"))
            .unwrap()
    };
    let before = of_xdp(&agent);
    eventually("the row tells of it", || node.flags(&agent) == BOTH);
    agent.stop().unwrap();
    assert_eq!(node.xdp_mode(), Some(NATIVE), "it outlives the agent");
    assert_eq!(node.flags(&agent), BOTH);
    node.start_with(&mut agent, &with("native"));
    let after = of_xdp(&agent);
    assert_eq!(after.1, before.1, "the link was made anew");
    assert_ne!(after.2, before.2, "the old program still runs");
    assert_eq!(node.xdp(), Some((NATIVE, after.2.into())));
    assert_eq!(node.flags(&agent), BOTH);

    agent.stop().unwrap();
    agent.command(&node.host, &["cleanup"]).unwrap();
    assert_eq!(node.xdp(), None);
    assert_eq!(fs::read_dir(agent.pin_root()).unwrap().count(), 0);
}

#[test]
fn a_program_of_somebody_else_stays_and_ours_comes_when_it_has_gone() {
    need_root!();
    let node = Node::new();
    let mut agent = Agent::new().unwrap();
    let mut foreign = foreign();
    let program: &mut Xdp = foreign.program_mut("lb_xdp").unwrap().try_into().unwrap();
    program.load().unwrap();
    let attach = || Ok(program.attach("up0", XdpMode::Driver)?);
    let link = node.host.netns.run(attach).unwrap();
    let theirs = node.xdp();

    node.start_with(&mut agent, &with("native"));
    assert_eq!(node.xdp(), theirs);
    assert_eq!(node.told(&agent), ["", "foreign"]);
    assert!(node.status(&agent).contains("another XDP program is attached"));
    eventually("the row tells of it", || node.flags(&agent) == 0);
    node.nudge();
    assert_eq!(node.xdp(), theirs);

    program.detach(link).unwrap();
    node.nudge();
    eventually("ours is there", || {
        node.xdp_mode() == Some(NATIVE) && node.xdp() != theirs
    });
    eventually("the row tells of it", || node.flags(&agent) == BOTH);
    assert_eq!(node.told(&agent), ["native", ""]);
}

#[test]
fn a_driver_that_refuses_leaves_the_device_to_tc() {
    need_root!();
    let node = Node::new();
    // More than fits the page that XDP has for a packet: a veth refuses this.
    node.host.netns.ip("link set up0 mtu 9000").unwrap();
    node.peer.ip("link set p0 mtu 9000").unwrap();
    let mut agent = Agent::new().unwrap();
    node.start_with(&mut agent, &with("native"));
    assert_eq!(node.xdp(), None);
    let refused = format!("refused-{}", libc::ERANGE);
    assert_eq!(node.told(&agent), ["", refused.as_str()]);
    assert!(node.status(&agent).contains("the driver refuses it"));
    eventually("the row tells of it", || node.flags(&agent) == 0);
    agent.stop().unwrap();

    node.host.netns.ip("link set up0 mtu 1500").unwrap();
    node.peer.ip("link set p0 mtu 1500").unwrap();
    node.start_with(&mut agent, &with("native"));
    assert_eq!(node.told(&agent), ["native", ""]);
}

#[test]
fn a_link_that_somebody_removed_comes_back() {
    need_root!();
    let node = Node::new();
    let mut agent = Agent::new().unwrap();
    node.start_with(&mut agent, &with("native"));
    let folder = pins(&agent).join("links");
    let pinned = || {
        let names = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
        names
            .into_iter()
            .find(|path| path.to_string_lossy().ends_with("-xdp"))
    };
    fs::remove_file(pinned().unwrap()).unwrap();
    node.nudge();
    eventually("it is back", || {
        pinned().is_some() && node.xdp_mode() == Some(NATIVE)
    });
}

#[test]
fn a_device_that_becomes_a_port_of_a_bridge_loses_it() {
    need_root!();
    let node = Node::new();
    let mut agent = Agent::new().unwrap();
    node.start_with(&mut agent, &with("native"));
    assert_eq!(node.xdp_mode(), Some(NATIVE));
    node.host
        .netns
        .ip("link add br0 type bridge\nlink set up0 master br0")
        .unwrap();
    eventually("a port of a bridge has none", || node.xdp().is_none());
    eventually("the reason is told", || node.told(&agent) == ["", "bridge-port"]);
    eventually("the row tells of it", || node.flags(&agent) == 0);
    node.host.netns.ip("link set up0 nomaster").unwrap();
    eventually("it is back", || {
        node.flags(&agent) == BOTH && node.xdp_mode() == Some(NATIVE)
    });
    node.host.netns.ip("link del up0").unwrap();
    eventually("its pin is gone", || {
        links(&agent).iter().all(|(name, ..)| !name.ends_with("-xdp"))
    });
}

#[test]
fn the_program_runs() {
    need_root!();
    let node = Node::new();
    let mut agent = Agent::new().unwrap();
    node.start_with(&mut agent, &with("native"));
    // Nothing of a service: it goes by untouched, and nothing is counted.
    node.peer
        .command("ping", &["-c", "3", "-i", "0.01", "192.0.2.1"])
        .unwrap();
    assert_eq!(agent.maps().counter(Counter::XdpSent).unwrap(), 0);
    assert_eq!(node.xdp_mode(), Some(NATIVE));
}

#[test]
fn a_neighbour_that_xdp_alone_sends_to_is_kept_fresh() {
    need_root!();
    let node = Node::new();
    let mut agent = Agent::new().unwrap();
    node.start_with(&mut agent, &with("native"));
    node.host
        .netns
        .command("ping", &["-c", "1", "192.0.2.2"])
        .unwrap();
    let neighbour = || {
        node.host
            .netns
            .command("ip", &["neigh", "show", "192.0.2.2"])
            .unwrap()
    };
    let known = neighbour();
    let mac = known
        .split_whitespace()
        .skip_while(|word| *word != "lladdr")
        .nth(1)
        .unwrap();
    node.host
        .netns
        .ip(&format!("neigh replace 192.0.2.2 lladdr {mac} dev up0 nud stale"))
        .unwrap();
    assert!(neighbour().contains("STALE"), "{}", neighbour());
    let begin = Instant::now();
    while neighbour().contains("STALE") {
        assert!(begin.elapsed() < Duration::from_secs(20), "nobody asks after it");
        thread::sleep(Duration::from_millis(100));
    }
    assert!(neighbour().contains(mac), "{}", neighbour());
}
