//! A topology whose node 1 does what a control plane says: by Sluice, or by kube-proxy.
//!
//! Every site has the same hosts at the same addresses, so that the same control plane can tell two of them, and the same
//! questions can be asked in both.

mod kube_proxy;
mod probe;

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::{Value, json};

use crate::agent::Agent;
use crate::control_plane::{ControlPlane, objects};
use crate::manifests;
use crate::maps::Protocol;
use crate::server::Server;
use crate::topology::{self, Host, Topology};

pub use kube_proxy::{KubeProxy, Mode};
pub use probe::{Outcome, Ports, probe, probe_anew};

/// The label `app` of the pods that serve.
pub const APP: &str = "web";

/// How many connections tell all backends of a service: with four of them, one is missed once in 10^7 times.
pub const ENOUGH: usize = 64;

const PAUSE: Duration = Duration::from_millis(10);

/// What serves node 1.
#[derive(Debug)]
pub enum Proxy {
    /// Sluice's agent.
    Sluice(Agent),
    /// Kubernetes' own.
    KubeProxy(KubeProxy),
}

/// Hosts, servers on every serving pod, and a proxy on node 1. What is dropped disappears.
#[derive(Debug)]
pub struct Site {
    /// Dropped before the node that it runs on.
    pub proxy: Proxy,
    _servers: Vec<Server>,
    /// The hosts.
    pub topology: Topology,
}

impl Site {
    /// Served by Sluice, with the rights and the account of deploy/, and these options.
    pub fn sluice(plane: &ControlPlane, options: &[&str]) -> Result<Self> {
        let (topology, servers) = hosts(plane)?;
        let token = plane.token("sluice-system", "sluice")?;
        let mut agent = Agent::of_cluster(&plane.kubeconfig(&token)?)?;
        agent.start(&topology.node1, options)?;
        Ok(Self {
            proxy: Proxy::Sluice(agent),
            _servers: servers,
            topology,
        })
    }

    /// Served by kube-proxy.
    pub fn kube_proxy(plane: &ControlPlane, mode: Mode) -> Result<Self> {
        let (topology, servers) = hosts(plane)?;
        Ok(Self {
            proxy: Proxy::KubeProxy(KubeProxy::start(plane, &topology.node1, mode)?),
            _servers: servers,
            topology,
        })
    }

    /// The agent.
    ///
    /// # Panics
    /// When there is none.
    #[expect(clippy::panic, reason = "the test asks for what it did not start")]
    pub fn agent(&mut self) -> &mut Agent {
        match &mut self.proxy {
            Proxy::Sluice(agent) => agent,
            Proxy::KubeProxy(_) => panic!("kube-proxy serves this site"),
        }
    }

    /// Asks until the answer is as it should be; how long that took.
    pub fn wait_for(
        &self,
        from: &Host,
        (protocol, to): (Protocol, SocketAddr),
        within: Duration,
        is_so: impl Fn(&Outcome) -> bool,
    ) -> Result<Duration> {
        let begin = Instant::now();
        loop {
            let asked = begin.elapsed();
            let outcome = probe(from, protocol, to, ENOUGH)?;
            if is_so(&outcome) {
                return Ok(asked);
            }
            if begin.elapsed() > within {
                bail!(
                    "{to} {protocol:?} from {} is {outcome:?} after {within:?}",
                    from.name
                );
            }
            thread::sleep(PAUSE);
        }
    }

    /// Waits until exactly these pods answer.
    pub fn wait_for_backends(
        &self,
        from: &Host,
        to: (Protocol, SocketAddr),
        within: Duration,
        expected: &[&str],
    ) -> Result<Duration> {
        self.wait_for(from, to, within, |outcome| outcome.backends() == expected)
    }
}

fn hosts(plane: &ControlPlane) -> Result<(Topology, Vec<Server>)> {
    let topology = Topology::new()?;
    let servers = topology.web.iter().map(Server::start).collect::<Result<_>>()?;
    plane.join(&topology.node1)?;
    Ok((topology, servers))
}

/// Tells the control plane of both nodes, node 1 in zone `a` and node 2 in zone `b`.
pub fn register_nodes(plane: &ControlPlane) -> Result<()> {
    let nodes = [
        ("node1", topology::NODE1, 1, "a"),
        ("node2", topology::NODE2, 2, "b"),
    ]
    .map(|(name, addresses, number, zone)| {
        let prefixes = [format!("10.244.{number}.0/24"), format!("fd00:244:{number}::/64")];
        let mut node = manifests::node_of(name, addresses, &prefixes);
        node["status"]["conditions"] = json!([{ "type": "Ready", "status": "True", "reason": "Tests" }]);
        node["metadata"]["labels"] = json!({
            "kubernetes.io/hostname": name,
            "kubernetes.io/os": "linux",
            "topology.kubernetes.io/zone": zone,
        });
        node
    });
    // As a kubelet does. Applying is refused where two addresses have the same type.
    plane.create(&nodes)
}

/// Tells the control plane of serving pods, counted from 0, that are ready.
pub fn register_pods(plane: &ControlPlane, pods: &[usize]) -> Result<()> {
    let named = |pod: usize| topology::web_name(pod);
    let objects: Vec<_> = pods
        .iter()
        .map(|&pod| objects::pod(&named(pod), topology::web_node(pod), APP))
        .collect();
    plane.apply(&objects)?;
    set_ready(plane, pods, true)
}

/// Whether serving pods, counted from 0, are ready.
pub fn set_ready(plane: &ControlPlane, pods: &[usize], is_ready: bool) -> Result<()> {
    let statuses: Vec<_> = pods
        .iter()
        .map(|&pod| objects::pod_status(&topology::web_name(pod), topology::web_address(pod), is_ready))
        .collect();
    plane.apply_status(&statuses)
}

/// A dual-stack Service for pods of this label, with TCP at port 7 and UDP at port 53; `spec` is what it has beside or
/// instead.
pub fn service(name: &str, app: &str, spec: &Value) -> Value {
    let mut service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": name },
        "spec": {
            "ipFamilyPolicy": "RequireDualStack",
            "selector": { "app": app },
            "ports": [
                { "name": "echo", "protocol": "TCP", "port": 7, "targetPort": crate::server::ECHO_PORT },
                { "name": "dns", "protocol": "UDP", "port": 53, "targetPort": crate::server::DNS_PORT },
            ],
        },
    });
    if let Some(fields) = spec.as_object() {
        for (field, value) in fields {
            service["spec"][field] = value.clone();
        }
    }
    service
}
