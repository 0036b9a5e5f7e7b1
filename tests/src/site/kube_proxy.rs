//! The real kube-proxy on a host.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::control_plane::ControlPlane;
use crate::control_plane::process::{Keeper, Process};
use crate::control_plane::programs;
use crate::scratch::Folder;
use crate::topology::Host;

const START_TIMEOUT: Duration = Duration::from_secs(30);

/// How kube-proxy tells the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// By nftables.
    Nftables,
    /// By iptables.
    Iptables,
}

impl Mode {
    /// Its name, as kube-proxy has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
        }
    }
}

/// kube-proxy's process, ended on drop; its rules end with the namespace.
#[derive(Debug)]
pub struct KubeProxy {
    _process: Process,
    _keeper: Keeper,
    _folder: Folder,
}

impl KubeProxy {
    /// Starts it and waits until it says that it is healthy. It tells pods from others by the Node's podCIDRs.
    pub(super) fn start(plane: &ControlPlane, host: &Host, mode: Mode) -> Result<Self> {
        let folder = Folder::new("kube-proxy")?;
        let config = folder.path().join("config.json");
        fs::write(&config, configuration(plane, host, mode)?).context("cannot write kube-proxy's file")?;
        let mut command = Command::new(programs::path("kube-proxy")?);
        command.arg(format!("--config={}", config.display())).arg("-v=2");
        let keeper = Keeper::new(&host.netns)?;
        let mut process = keeper.start("kube-proxy", command, folder.path())?;
        wait_until_healthy(host, &mut process)?;
        Ok(Self {
            _process: process,
            _keeper: keeper,
            _folder: folder,
        })
    }
}

fn configuration(plane: &ControlPlane, host: &Host, mode: Mode) -> Result<String> {
    let kubeconfig = plane.kube_proxy_kubeconfig()?;
    let pace = json!({ "minSyncPeriod": "10ms", "syncPeriod": "30s" });
    let config = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": mode.name(),
        "hostnameOverride": host.name,
        "clientConnection": { "kubeconfig": kubeconfig.display().to_string() },
        "detectLocalMode": "NodeCIDR",
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        "iptables": pace,
        "nftables": pace,
        // These are of the whole machine, not of a namespace.
        "conntrack": {
            "maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s",
        },
    });
    Ok(config.to_string())
}

fn wait_until_healthy(host: &Host, process: &mut Process) -> Result<()> {
    let begin = Instant::now();
    let arguments = [
        "--silent",
        "--fail",
        "--noproxy",
        "*",
        "http://127.0.0.1:10256/healthz",
    ];
    while !host.netns.output("curl", &arguments, &[])?.status.success() {
        process.check()?;
        ensure!(
            begin.elapsed() < START_TIMEOUT,
            "kube-proxy is not healthy within {START_TIMEOUT:?}\n{}",
            process.log()
        );
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}
