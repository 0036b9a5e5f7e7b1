//! Which source there is.

use std::path::PathBuf;

use tokio::sync::mpsc;

use super::{AccessError, ApiAccess, ApiSource, ManifestSource, SourceError, SourceEvent};

/// Where objects are to come from.
#[derive(Clone, Debug)]
pub enum SourceOptions {
    /// From this folder of manifests.
    Manifests(PathBuf),
    /// From the Kubernetes API.
    Api(ApiAccess),
}

/// A source at work; dropping it ends that.
#[derive(Debug)]
pub enum Source {
    /// A folder of manifests.
    Manifests(ManifestSource),
    /// The Kubernetes API.
    Api(ApiSource),
}

impl Source {
    /// Begins to tell `events` what matters to this node.
    pub async fn start(
        options: &SourceOptions,
        node: &str,
        events: mpsc::Sender<Vec<SourceEvent>>,
    ) -> Result<Self, SourceError> {
        Ok(match options {
            SourceOptions::Manifests(folder) => Self::Manifests(ManifestSource::watch(folder, events)?),
            SourceOptions::Api(access) => Self::Api(ApiSource::follow(access, node, events).await?),
        })
    }
}

impl SourceOptions {
    /// Whether what belongs together is told at the same time. An API server tells of a Service and of its slices when it
    /// comes to it.
    pub const fn tells_together(&self) -> bool {
        matches!(self, Self::Manifests(_))
    }
}

impl From<AccessError> for SourceError {
    fn from(error: AccessError) -> Self {
        Self::Api(Box::new(error))
    }
}
