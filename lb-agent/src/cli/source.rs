//! Flags of `lb-agent run` about where objects come from, and which node this is.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Args;

use crate::source::{ApiAccess, SourceOptions};

/// Where objects come from, and which node this is.
#[derive(Debug, Args)]
#[command(next_help_heading = "Source")]
pub(super) struct SourceArgs {
    /// Folder of manifests to follow, instead of the Kubernetes API: the YAML or JSON that `kubectl apply` takes.
    #[arg(long, value_name = "DIR", conflicts_with_all = API_FLAGS)]
    pub(super) manifests: Option<PathBuf>,
    #[command(flatten)]
    api: ApiArgs,
    /// Name of this node's Node object. Without it, the host's name.
    #[arg(long, value_name = "NAME", env = "NODE_NAME", visible_alias = "hostname-override", value_parser = name)]
    node_name: Option<String>,
}

/// How the Kubernetes API is reached.
#[derive(Debug, Args)]
#[command(next_help_heading = "Source")]
pub(super) struct ApiArgs {
    /// Kubeconfig that leads to the Kubernetes API. Without it, that of the pod, or else `$KUBECONFIG` or `~/.kube/config`.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig, instead of its current one.
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// Address of the API server, instead of the one that the configuration has: one that is reached without services.
    #[arg(long, value_name = "URL", visible_alias = "master")]
    api_server: Option<http::Uri>,
}

/// Flags that mean nothing beside a folder of manifests.
pub(super) const API_FLAGS: [&str; 3] = ["kubeconfig", "context", "api_server"];

impl SourceArgs {
    /// See [`node_name`].
    pub(super) fn node_name(&self) -> anyhow::Result<String> {
        node_name(self.node_name.clone())
    }

    pub(super) fn options(self) -> SourceOptions {
        match self.manifests {
            Some(folder) => SourceOptions::Manifests(folder),
            None => SourceOptions::Api(self.api.access()),
        }
    }
}

impl ApiArgs {
    pub(super) fn access(self) -> ApiAccess {
        ApiAccess {
            kubeconfig: self.kubeconfig,
            context: self.context,
            server: self.api_server,
        }
    }
}

/// The name of this node's Node: the one that is given, or else the host's, as kube-proxy finds it
/// (k8s.io/component-helpers/node/util).
pub(super) fn node_name(given: Option<String>) -> anyhow::Result<String> {
    if let Some(name) = given {
        return Ok(name);
    }
    let host = nix::unistd::gethostname().context("the host's name")?;
    let name = host.to_string_lossy().trim().to_lowercase();
    if name.is_empty() {
        bail!("the host has no name: give --node-name, or NODE_NAME");
    }
    Ok(name)
}

/// An empty name would be no node's, and no endpoint local. Names of Nodes are in lower case.
pub(super) fn name(text: &str) -> Result<String, &'static str> {
    let name = text.trim().to_lowercase();
    if name.is_empty() {
        return Err("the name is empty; give that of this node's Node object (is NODE_NAME set?)");
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        source: SourceArgs,
    }

    fn parse(flags: &[&str]) -> Result<SourceArgs, String> {
        let command = Command::try_parse_from([&["run"], flags].concat());
        Ok(command.map_err(|error| error.to_string())?.source)
    }

    #[test]
    fn a_nodes_name_is_in_lower_case_and_not_empty() {
        for flag in ["--node-name", "--hostname-override"] {
            let source = parse(&[flag, " Node-A "]).unwrap();
            assert_eq!(source.node_name().unwrap(), "node-a");
            for name in ["", " "] {
                let error = parse(&[flag, name]).unwrap_err();
                assert!(error.contains("the name is empty"), "{error}");
            }
        }
    }

    #[test]
    fn without_a_folder_it_is_the_api() {
        let options = parse(&["--kubeconfig", "/k", "--context", "c"])
            .unwrap()
            .options();
        let SourceOptions::Api(access) = options else {
            panic!("{options:?}")
        };
        assert_eq!(
            (access.kubeconfig, access.context),
            (Some("/k".into()), Some("c".into()))
        );
        assert!(matches!(
            parse(&["--manifests", "/m"]).unwrap().options(),
            SourceOptions::Manifests(_)
        ));
        let error = parse(&["--manifests", "/m", "--kubeconfig", "/k"]).unwrap_err();
        assert!(error.contains("cannot be used with"), "{error}");
    }
}
