//! The programs of a control plane and the flags they run with here.
//!
//! Every control plane has a namespace of its own, so ports are the usual ones.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::certificates::Certificates;
use super::{ADDRESS, SERVICE_CIDRS, kubeconfig};

/// Where `cargo xtask e2e` says that the programs are.
const VARIABLE: &str = "KUBEBUILDER_ASSETS";

/// The API server's port.
pub(super) const API_PORT: u16 = 6443;
/// etcd's port for clients, on loopback.
pub(super) const ETCD_PORT: u16 = 2379;
const ETCD_PEER_PORT: u16 = 2380;

/// What the tests ask of the controller manager. Without those that look after Nodes and Pods: what the tests say of
/// them stays.
const CONTROLLERS: [&str; 8] = [
    "daemonset-controller",
    "endpointslice-controller",
    "garbage-collector-controller",
    "namespace-controller",
    "root-ca-certificate-publisher-controller",
    "service-cidr-controller",
    "serviceaccount-controller",
    "serviceaccount-token-controller",
];

/// The path of a program.
pub(crate) fn path(name: &str) -> Result<PathBuf> {
    let folder = env::var_os(VARIABLE)
        .map(PathBuf::from)
        .with_context(|| format!("{VARIABLE} is not set; `cargo xtask e2e` sets it"))?;
    let path = folder.join(name);
    ensure!(path.is_file(), "there is no {}", path.display());
    Ok(path)
}

/// etcd, with its data in the folder. It need not survive a power cut.
pub(super) fn etcd(folder: &Path) -> Result<Command> {
    let client = format!("http://127.0.0.1:{ETCD_PORT}");
    let peer = format!("http://127.0.0.1:{ETCD_PEER_PORT}");
    let mut command = Command::new(path("etcd")?);
    command
        .args(["--unsafe-no-fsync", "--log-level=warn"])
        .arg("--data-dir")
        .arg(folder.join("etcd"))
        .args([
            "--listen-client-urls",
            &client,
            "--advertise-client-urls",
            &client,
        ])
        .args([
            "--listen-peer-urls",
            &peer,
            "--initial-advertise-peer-urls",
            &peer,
        ])
        .args(["--initial-cluster", &format!("default={peer}")]);
    Ok(command)
}

/// The API server: dual-stack, rights by RBAC, users by the tokens of [`kubeconfig`].
pub(super) fn api_server(folder: &Path, certificates: &Certificates) -> Result<Command> {
    let Certificates {
        authority: _,
        server,
        server_key,
        service_accounts,
        service_accounts_public,
    } = certificates;
    let mut command = Command::new(path("kube-apiserver")?);
    command
        .arg(format!("--etcd-servers=http://127.0.0.1:{ETCD_PORT}"))
        .args(["--bind-address=0.0.0.0", "--authorization-mode=RBAC"])
        .args(["--allow-privileged=true", "--profiling=false"])
        .arg(format!("--advertise-address={ADDRESS}"))
        .arg(format!("--secure-port={API_PORT}"))
        .arg(format!("--service-cluster-ip-range={SERVICE_CIDRS}"))
        .arg(option("--token-auth-file", &kubeconfig::token_file(folder)))
        .arg(option("--cert-dir", &folder.join("certificates")))
        .arg(option("--tls-cert-file", server))
        .arg(option("--tls-private-key-file", server_key))
        .arg("--service-account-issuer=https://kubernetes.default.svc")
        .arg(option("--service-account-signing-key-file", service_accounts))
        .arg(option("--service-account-key-file", service_accounts_public));
    Ok(command)
}

/// The controller manager.
pub(super) fn controller_manager(certificates: &Certificates, kubeconfig: &Path) -> Result<Command> {
    let mut command = Command::new(path("kube-controller-manager")?);
    command
        .arg(format!("--controllers={}", CONTROLLERS.join(",")))
        .args(["--leader-elect=false", "--bind-address=127.0.0.1"])
        // Each controller with the rights that Kubernetes gives it.
        .arg("--use-service-account-credentials=true")
        // Otherwise EndpointSlices lag behind where many change.
        .args(["--kube-api-qps=1000", "--kube-api-burst=2000"])
        .arg(option("--kubeconfig", kubeconfig))
        .arg(option("--root-ca-file", &certificates.authority))
        .arg(option(
            "--service-account-private-key-file",
            &certificates.service_accounts,
        ));
    Ok(command)
}

fn option(name: &str, path: &Path) -> String {
    format!("{name}={}", path.display())
}
