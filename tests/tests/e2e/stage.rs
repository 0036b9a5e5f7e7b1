//! A control plane, a site, and what every case asks of them.

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use lb_tests::control_plane::ControlPlane;
use lb_tests::family::Family;
use lb_tests::maps::Protocol;
use lb_tests::site::{self, APP, Mode, Outcome, Site};
use lb_tests::topology::{Host, NODE1};
use serde_json::{Value, json};

use super::deployment::deploy;

/// A change has to show within this time, on a machine that does other things, too. How long it took is printed.
const PATIENCE: Duration = Duration::from_secs(10);

/// The ports of [`site::service`].
pub(super) const TCP: (Protocol, u16) = (Protocol::Tcp, 7);
/// See [`TCP`].
pub(super) const UDP: (Protocol, u16) = (Protocol::Udp, 53);

/// What serves node 1.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Sluice(&'static [&'static str]),
    KubeProxy(Mode),
}

/// The site is dropped before the control plane that tells it.
pub(super) struct Stage {
    pub(super) site: Site,
    pub(super) plane: ControlPlane,
}

impl Stage {
    /// With these serving pods, counted from 0, ready.
    pub(super) fn new(kind: Kind, pods: &[usize]) -> Self {
        let plane = plane(pods);
        let site = open(&plane, kind);
        Self { site, plane }
    }

    pub(super) fn client(&self) -> &Host {
        &self.site.topology.client
    }

    pub(super) fn toolbox(&self) -> &Host {
        &self.site.topology.toolbox
    }

    /// Applies a Service for the serving pods.
    pub(super) fn set_service(&self, name: &str, spec: &Value) {
        self.plane.apply(&[site::service(name, APP, spec)]).unwrap();
    }

    pub(super) fn patch(&self, name: &str, spec: &Value) {
        let patch = json!({ "spec": spec }).to_string();
        self.plane
            .kubectl(&["patch", "service", name, "--type=merge", "--patch", &patch])
            .unwrap();
    }

    /// Waits until exactly these pods answer.
    pub(super) fn expect(
        &self,
        what: impl Display,
        from: &Host,
        to: (Protocol, SocketAddr),
        backends: &[&str],
    ) {
        self.expect_outcome(&what, from, to, |outcome| outcome.backends() == backends);
    }

    /// Waits until asking comes to this.
    pub(super) fn expect_outcome(
        &self,
        what: &impl Display,
        from: &Host,
        to: (Protocol, SocketAddr),
        is_so: impl Fn(&Outcome) -> bool,
    ) {
        self.expect_outcome_within(PATIENCE, what, (from, to), is_so);
    }

    /// The same, with no other patience than this and what asking once takes.
    pub(super) fn expect_outcome_within(
        &self,
        patience: Duration,
        what: &impl Display,
        (from, to): (&Host, (Protocol, SocketAddr)),
        is_so: impl Fn(&Outcome) -> bool,
    ) {
        match self.site.wait_for(from, to, patience, is_so) {
            Ok(took) => eprintln!("    {what}: {} ms", took.as_millis()),
            Err(error) => panic!("{what}: {error:#}"),
        }
    }
}

/// A control plane that knows the nodes and the account of deploy/, and these pods.
pub(super) fn plane(pods: &[usize]) -> ControlPlane {
    let plane = ControlPlane::start().unwrap();
    plane.apply_kustomization(&deploy("")).unwrap();
    site::register_nodes(&plane).unwrap();
    site::register_pods(&plane, pods).unwrap();
    plane
}

pub(super) fn open(plane: &ControlPlane, kind: Kind) -> Site {
    match kind {
        Kind::Sluice(options) => {
            let config = format!("--config={}", deploy("config.yaml").display());
            Site::sluice(plane, &[options, &[config.as_str()]].concat())
        }
        Kind::KubeProxy(mode) => Site::kube_proxy(plane, mode),
    }
    .unwrap()
}

/// A ClusterIP of a Service, if it has one of this family.
pub(super) fn cluster_ip(plane: &ControlPlane, name: &str, family: Family) -> Option<IpAddr> {
    let service = plane.get("service", name).unwrap();
    let ips = service["spec"]["clusterIPs"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    ips.iter()
        .filter_map(|ip| ip.as_str()?.parse().ok())
        .find(|&ip| Family::of(ip) == family)
}

/// A port of a Service at its ClusterIP.
pub(super) fn at_cluster_ip(
    plane: &ControlPlane,
    name: &str,
    family: Family,
    (protocol, port): (Protocol, u16),
) -> (Protocol, SocketAddr) {
    let ip = cluster_ip(plane, name, family).unwrap();
    (protocol, SocketAddr::new(ip, port))
}

/// A port of a Service at node 1's address.
pub(super) fn at_node_port(
    plane: &ControlPlane,
    name: &str,
    family: Family,
    (protocol, port): (Protocol, u16),
) -> (Protocol, SocketAddr) {
    let service = plane.get("service", name).unwrap();
    let ports = service["spec"]["ports"].as_array().unwrap();
    let of_service = ports.iter().find(|each| each["port"] == port).unwrap();
    let node_port = of_service["nodePort"].as_u64().unwrap();
    (
        protocol,
        SocketAddr::new(NODE1.of(family), node_port.try_into().unwrap()),
    )
}

/// Makes each case a test with Sluice and one with kube-proxy: what fails there, too, asks too much.
macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        $(mod $name {
            use lb_tests::site::Mode;

            use crate::stage::Kind;

            #[test]
            fn sluice() {
                super::$name(Kind::Sluice(&[]));
            }

            #[test]
            fn kube_proxy() {
                super::$name(Kind::KubeProxy(Mode::Nftables));
            }
        })*
    };
}
pub(super) use cases;
