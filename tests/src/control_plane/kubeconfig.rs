//! Who may ask the API server, and the files that say so.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::json;

use super::programs::API_PORT;
use super::{ADDRESS, Certificates};
use crate::scratch::unique_name;

/// A user with a token that the API server knows from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum User {
    /// May do anything.
    Admin,
    /// The controller manager, with the rights that Kubernetes gives it.
    ControllerManager,
    /// kube-proxy, likewise.
    KubeProxy,
}

impl User {
    const ALL: [Self; 3] = [Self::Admin, Self::ControllerManager, Self::KubeProxy];

    /// Its name, and its token, too: nobody from elsewhere reaches this API server.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::ControllerManager => "system:kube-controller-manager",
            Self::KubeProxy => "system:kube-proxy",
        }
    }

    fn group(self) -> &'static str {
        match self {
            Self::Admin => "system:masters",
            Self::ControllerManager | Self::KubeProxy => "",
        }
    }
}

/// Where [`write_tokens`] writes.
pub(super) fn token_file(folder: &Path) -> PathBuf {
    folder.join("tokens.csv")
}

/// The tokens of all users.
pub(super) fn write_tokens(folder: &Path) -> Result<()> {
    let line = |user: User| {
        let (name, group) = (user.name(), user.group());
        format!("{name},{name},{name},\"{group}\"\n")
    };
    fs::write(token_file(folder), User::ALL.map(line).concat()).context("cannot write the tokens")
}

/// A kubeconfig for a token.
pub(super) fn write(folder: &Path, certificates: &Certificates, token: &str) -> Result<PathBuf> {
    let path = folder.join(unique_name("kubeconfig"));
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": "tests",
            "cluster": {
                "server": format!("https://{ADDRESS}:{API_PORT}"),
                "certificate-authority": certificates.authority,
            },
        }],
        "users": [{ "name": "user", "user": { "token": token } }],
        "contexts": [{ "name": "tests", "context": { "cluster": "tests", "user": "user" } }],
        "current-context": "tests",
    });
    fs::write(&path, format!("{config:#}\n")).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}
