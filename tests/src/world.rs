//! Everything that a test of real traffic needs: hosts, servers, the agent and the usual service.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::agent::Agent;
use crate::family::{Family, Pair};
use crate::manifests::{self, Condition, DNS, ECHO_TCP, ECHO_UDP, HTTP, Service};
use crate::maps::Protocol;
use crate::server::Server;
use crate::topology::{self, Layout, Topology};

/// ClusterIPs of the usual service.
pub const CLUSTER_IP: Pair = Pair::new(
    Ipv4Addr::new(10, 96, 0, 10),
    Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, 0x10),
);
/// Load-balancer addresses of the usual service.
pub const VIP: Pair = Pair::new(
    Ipv4Addr::new(203, 0, 113, 10),
    Ipv6Addr::new(0x2001, 0xdb8, 0xcb, 0, 0, 0, 0, 0x10),
);

/// ClusterIPs of another service.
pub const OTHER_CLUSTER_IP: Pair = Pair::new(
    Ipv4Addr::new(10, 96, 0, 11),
    Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, 0x11),
);
/// Load-balancer addresses of another service.
pub const OTHER_VIP: Pair = Pair::new(
    Ipv4Addr::new(203, 0, 113, 11),
    Ipv6Addr::new(0x2001, 0xdb8, 0xcb, 0, 0, 0, 0, 0x11),
);

const UPDATE_TIMEOUT: Duration = Duration::from_secs(3);

/// Hosts, servers on every serving pod, and an agent on node 1. What is dropped disappears.
#[derive(Debug)]
pub struct World {
    /// The agent; dropped before the node that it runs on.
    pub agent: Agent,
    _servers: Vec<Server>,
    /// The hosts.
    pub topology: Topology,
}

impl World {
    /// The usual layout and service; endpoints are serving pods, counted from 0.
    pub fn new(endpoints: &[usize]) -> Result<Self> {
        Self::with(Layout::default(), endpoints)
    }

    /// Another layout of the hosts.
    pub fn with(layout: Layout, endpoints: &[usize]) -> Result<Self> {
        Self::with_options(layout, endpoints, &[])
    }

    /// Another layout of the hosts, and options of the agent.
    pub fn with_options(layout: Layout, endpoints: &[usize], options: &[&str]) -> Result<Self> {
        let topology = Topology::with(layout)?;
        let servers = topology.web.iter().map(Server::start).collect::<Result<_>>()?;
        let mut agent = Agent::new()?;
        agent
            .manifests()
            .write("node.yaml", &[manifests::node(&topology.node1)])?;
        let ready: Vec<_> = endpoints.iter().map(|&pod| (pod, Condition::Ready)).collect();
        write_service(&agent, &web(), &ready)?;
        agent.start(&topology.node1, options)?;
        Ok(Self {
            agent,
            _servers: servers,
            topology,
        })
    }

    /// Gives the usual service other endpoints and waits until the maps have them.
    pub fn set_endpoints(&self, endpoints: &[(usize, Condition)]) -> Result<()> {
        self.add_service(&web(), endpoints)
    }

    /// Writes a service with its endpoints and waits until the maps have them.
    pub fn add_service(&self, service: &Service, endpoints: &[(usize, Condition)]) -> Result<()> {
        write_service(&self.agent, service, endpoints)?;
        let ready = endpoints
            .iter()
            .filter(|(_, condition)| *condition == Condition::Ready);
        let ready: Vec<_> = ready.map(|&(pod, _)| pod).collect();
        for port in &service.ports {
            for family in Family::BOTH {
                let front_end = SocketAddr::new(service.vip.of(family), port.port);
                self.wait_for(
                    front_end,
                    Protocol::of(*port),
                    &endpoints_of(&ready, family, port.target),
                )?;
            }
        }
        Ok(())
    }

    /// Waits until new flows of a front end go to just these endpoints.
    pub fn wait_for(
        &self,
        front_end: SocketAddr,
        protocol: Protocol,
        expected: &BTreeSet<SocketAddr>,
    ) -> Result<()> {
        let begin = Instant::now();
        loop {
            let found = self.agent.maps().eligible(front_end, protocol)?;
            if found.as_ref() == Some(expected) {
                return Ok(());
            }
            if begin.elapsed() > UPDATE_TIMEOUT {
                bail!(
                    "{front_end} {protocol:?} has backends {found:?}, not {expected:?}, after {UPDATE_TIMEOUT:?}"
                );
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", self.agent.maps().summary());
        }
    }
}

/// The usual service.
pub fn web() -> Service {
    Service::new("web", CLUSTER_IP, VIP, &[HTTP, DNS, ECHO_TCP, ECHO_UDP])
}

/// Addresses of serving pods, counted from 0.
pub fn endpoints_of(pods: &[usize], family: Family, port: u16) -> BTreeSet<SocketAddr> {
    pods.iter()
        .map(|&pod| SocketAddr::new(topology::web_address(pod).of(family), port))
        .collect()
}

/// Writes the manifest of a service.
pub(crate) fn write_service(
    agent: &Agent,
    service: &Service,
    endpoints: &[(usize, Condition)],
) -> Result<()> {
    let [v4, v6] = service.slices(endpoints);
    agent
        .manifests()
        .write(&format!("{}.yaml", service.name), &[service.object(), v4, v6])
}
