//! Everything that a test of several nodes needs: a fabric, servers on every serving pod, agents on some nodes, and
//! services that all of them know.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::agent::Agent;
use crate::family::Family;
use crate::manifests::{self, Condition, Endpoint, Service};
use crate::maps::Protocol;
use crate::server::Server;
use crate::topology::{Fabric, FabricLayout, Node};

const UPDATE_TIMEOUT: Duration = Duration::from_secs(3);

/// What may differ between clusters.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClusterLayout<'a> {
    /// The hosts.
    pub fabric: FabricLayout,
    /// Nodes with an agent; none: all.
    pub agents: &'a [Node],
    /// Options of every agent.
    pub options: &'a [&'a str],
}

/// Hosts, servers and agents. What is dropped disappears.
#[derive(Debug)]
pub struct Cluster {
    /// Dropped before the nodes that they run on.
    agents: BTreeMap<Node, Agent>,
    _servers: Vec<Server>,
    fabric: Fabric,
}

impl Cluster {
    /// Makes the hosts and starts servers and agents, which know all nodes, and no service yet.
    pub fn new(layout: ClusterLayout<'_>) -> Result<Self> {
        let fabric = Fabric::new(layout.fabric)?;
        let servers = Fabric::nodes().map(|node| Server::start(fabric.web(node)));
        let servers = servers.collect::<Result<_>>()?;
        let nodes: Vec<_> = Fabric::nodes()
            .map(|node| manifests::node_with_pods(fabric.node(node), &Fabric::pod_prefixes(node)))
            .collect();
        let mut agents = BTreeMap::new();
        for node in Fabric::nodes() {
            if layout.agents.is_empty() || layout.agents.contains(&node) {
                let mut agent = Agent::new()?;
                agent.manifests().write("nodes.yaml", &nodes)?;
                agent.start(fabric.node(node), layout.options)?;
                agents.insert(node, agent);
            }
        }
        Ok(Self {
            agents,
            _servers: servers,
            fabric,
        })
    }

    /// The hosts.
    pub fn fabric(&self) -> &Fabric {
        &self.fabric
    }

    /// The agent of a node that has one.
    ///
    /// # Panics
    /// When it has none.
    pub fn agent(&self, node: Node) -> &Agent {
        &self.agents[&node]
    }

    /// Ends the agent of a node at once and starts it again with other options.
    pub fn restart(&mut self, node: Node, options: &[&str]) -> Result<()> {
        if let Some(agent) = self.agents.get_mut(&node) {
            agent.kill()?;
            agent.start(self.fabric.node(node), options)?;
        }
        Ok(())
    }

    /// Gives every agent a service, whose endpoints are the serving pods of these nodes, and waits until their maps have
    /// it.
    pub fn set_service(&self, service: &Service, endpoints: &[(Node, Condition)]) -> Result<()> {
        let endpoints: Vec<_> = endpoints
            .iter()
            .map(|&(node, condition)| Endpoint {
                addresses: self.fabric.web(node).addresses,
                node: self.fabric.node(node).name.clone(),
                condition,
            })
            .collect();
        let [v4, v6] = service.slices_of(&endpoints);
        let file = format!("{}.yaml", service.name);
        for agent in self.agents.values() {
            agent
                .manifests()
                .write(&file, &[service.object(), v4.clone(), v6.clone()])?;
        }
        for port in &service.ports {
            for family in Family::BOTH {
                let front_end = SocketAddr::new(service.vip.of(family), port.port);
                let ready = endpoints
                    .iter()
                    .filter(|endpoint| endpoint.condition == Condition::Ready);
                let expected = ready
                    .map(|endpoint| SocketAddr::new(endpoint.addresses.of(family), port.target))
                    .collect();
                self.wait_for(front_end, Protocol::of(*port), &expected)?;
            }
        }
        Ok(())
    }

    fn wait_for(
        &self,
        front_end: SocketAddr,
        protocol: Protocol,
        expected: &BTreeSet<SocketAddr>,
    ) -> Result<()> {
        let begin = Instant::now();
        for (node, agent) in &self.agents {
            loop {
                let found = agent.maps().eligible(front_end, protocol)?;
                if found.as_ref() == Some(expected) {
                    break;
                }
                if begin.elapsed() > UPDATE_TIMEOUT {
                    bail!(
                        "on node {node}, {front_end} {protocol:?} has backends {found:?}, not {expected:?}, after \
                         {UPDATE_TIMEOUT:?}"
                    );
                }
                thread::sleep(Duration::from_millis(1));
            }
        }
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if thread::panicking() {
            for (node, agent) in &self.agents {
                eprintln!("node {node}:\n{}", agent.maps().summary());
            }
        }
    }
}
