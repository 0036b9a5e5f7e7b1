//! A real Kubernetes control plane in a namespace of its own: etcd, kube-apiserver, kube-controller-manager.
//!
//! ```text
//!   control-plane ──────── node1 of a topology
//!    172.31.255.1 \
//!                  \────── node1 of another one, with the same addresses
//! ```
//!
//! Every host that joins gets a link of its own to it, so that two topologies may look the same to everything in them,
//! and be told the same. There is no kubelet and no scheduler: a test says which Nodes and Pods there are, and what they
//! are in ([`objects`]). EndpointSlices, service accounts and addresses of Services are Kubernetes' own work.

mod certificates;
mod etcd;
mod kubeconfig;
mod kubectl;
pub mod objects;
pub(crate) mod process;
pub(crate) mod programs;

use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::family::Pair;
use crate::netns::veth;
use crate::scratch::{self, Folder};
use crate::topology::{Host, RpFilter};

use certificates::Certificates;
use kubeconfig::User;
use process::{Keeper, Process};

/// Where Services get their ClusterIPs from.
pub const SERVICE_CIDRS: &str = "10.96.0.0/16,fd00:96::/112";

/// The API server's address, the same from every host that has joined.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(172, 31, 255, 1);
/// Better than the usual way there, which stays beside it.
const CUT_METRIC: u8 = 1;
/// The usual way there.
const METRIC: u8 = 2;
/// Two cores that do other things, too, need their time.
const START_TIMEOUT: Duration = Duration::from_mins(2);

/// A control plane. What is dropped disappears.
#[derive(Debug)]
pub struct ControlPlane {
    /// Dropped before the API server that it asks, and this one before etcd.
    controller_manager: Option<Process>,
    api_server: Option<Process>,
    _etcd: Process,
    keeper: Keeper,
    certificates: Certificates,
    admin: PathBuf,
    manager: PathBuf,
    host: Host,
    folder: Folder,
    links: Cell<u8>,
}

impl ControlPlane {
    /// Starts it and waits until Services can be made, and tells how far it is.
    pub fn start() -> Result<Self> {
        scratch::sweep_dead();
        let begin = Instant::now();
        let folder = Folder::new("control-plane")?;
        let addresses = Pair::new(ADDRESS, Ipv6Addr::new(0xfd00, 0x172, 0, 0, 0, 0, 0, 1));
        let host = Host::new("plane", addresses, RpFilter::Loose)?;
        host.netns.ip(&format!("addr add {ADDRESS}/32 dev lo"))?;
        let certificates = Certificates::new(
            folder.path(),
            &[ADDRESS.into(), IpAddr::from(Ipv4Addr::LOCALHOST)],
        )?;
        kubeconfig::write_tokens(folder.path())?;
        let config = |user: User| kubeconfig::write(folder.path(), &certificates, user.name());
        let (admin, manager) = (config(User::Admin)?, config(User::ControllerManager)?);

        let keeper = Keeper::new(&host.netns)?;
        let start = |name: &str, command: Command| keeper.start(name, command, folder.path());
        let etcd = start("etcd", programs::etcd(folder.path())?)?;
        let mut api_server = start(
            "kube-apiserver",
            programs::api_server(folder.path(), &certificates)?,
        )?;
        wait_until_ready(&host, &certificates, &mut api_server)?;
        let controller_manager = start(
            "kube-controller-manager",
            programs::controller_manager(&certificates, &manager)?,
        )?;
        let plane = Self {
            controller_manager: Some(controller_manager),
            api_server: Some(api_server),
            _etcd: etcd,
            keeper,
            certificates,
            admin,
            manager,
            host,
            folder,
            links: Cell::new(0),
        };
        // Without it, no Pod can be made.
        plane.wait_for("serviceaccount", "default", |_| true)?;
        eprintln!(
            "control plane: ready after {:.1} s",
            begin.elapsed().as_secs_f32()
        );
        Ok(plane)
    }

    /// Gives a host a link to the API server.
    pub fn join(&self, host: &Host) -> Result<()> {
        let number = self.links.get() + 1;
        self.links.set(number);
        let device = format!("node-{number}");
        veth((&self.host.netns, &device), (&host.netns, "up-plane"))?;
        self.host
            .netns
            .ip(&format!("addr add 172.31.{number}.1/24 dev {device}"))?;
        host.netns.ip(&format!(
            "addr add 172.31.{number}.2/24 dev up-plane\nroute add {ADDRESS}/32 via 172.31.{number}.1 metric {METRIC}"
        ))
    }

    /// A host that has joined no longer reaches the API server, and is told so, until it is let in again.
    pub fn cut_off(&self, host: &Host) -> Result<()> {
        host.netns.ip(&format!(
            "route replace unreachable {ADDRESS}/32 metric {CUT_METRIC}"
        ))
    }

    /// See [`ControlPlane::cut_off`].
    pub fn let_in(&self, host: &Host) -> Result<()> {
        host.netns
            .ip(&format!("route del unreachable {ADDRESS}/32 metric {CUT_METRIC}"))
    }

    /// A kubeconfig for a token, see [`ControlPlane::token`].
    pub fn kubeconfig(&self, token: &str) -> Result<PathBuf> {
        kubeconfig::write(self.folder.path(), &self.certificates, token)
    }

    /// A kubeconfig of kube-proxy's, with the rights that Kubernetes gives it.
    pub(crate) fn kube_proxy_kubeconfig(&self) -> Result<PathBuf> {
        self.kubeconfig(User::KubeProxy.name())
    }

    /// Ends the API server at once, as a crash would; etcd stays. So does the controller manager, which would be in no
    /// hurry to come back.
    pub fn stop_api_server(&mut self) -> Result<()> {
        self.controller_manager = None;
        ensure!(self.api_server.take().is_some(), "the API server does not run");
        Ok(())
    }

    /// Starts the API server again, waits until it is ready, and starts the controller manager; how long the API server
    /// took.
    pub fn start_api_server(&mut self) -> Result<Duration> {
        ensure!(self.api_server.is_none(), "the API server runs already");
        let begin = Instant::now();
        let command = programs::api_server(self.folder.path(), &self.certificates)?;
        let mut api_server = self.keeper.start("kube-apiserver", command, self.folder.path())?;
        wait_until_ready(&self.host, &self.certificates, &mut api_server)?;
        let took = begin.elapsed();
        self.api_server = Some(api_server);
        let command = programs::controller_manager(&self.certificates, &self.manager)?;
        let manager = self
            .keeper
            .start("kube-controller-manager", command, self.folder.path())?;
        self.controller_manager = Some(manager);
        Ok(took)
    }

    /// Deletes a Service of the namespace `default` without the API server, which need not run.
    pub fn delete_in_etcd(&self, service: &str) -> Result<()> {
        etcd::delete(&self.host, &format!("/registry/services/specs/default/{service}"))
    }

    /// Forgets all that came before now, so that who goes on from there is told `410 Gone`.
    pub fn compact(&self) -> Result<()> {
        etcd::compact(&self.host).context("cannot compact etcd")
    }
}

fn wait_until_ready(host: &Host, certificates: &Certificates, api_server: &mut Process) -> Result<()> {
    let begin = Instant::now();
    let url = format!("https://{ADDRESS}:{}/readyz", programs::API_PORT);
    let authority = certificates.authority.to_string_lossy();
    let arguments = [
        "--silent",
        "--fail",
        "--noproxy",
        "*",
        "--cacert",
        &authority,
        &url,
    ];
    while !host.netns.output("curl", &arguments, &[])?.status.success() {
        api_server.check()?;
        ensure!(
            begin.elapsed() < START_TIMEOUT,
            "the API server is not ready within {START_TIMEOUT:?}\n{}",
            api_server.log()
        );
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}
