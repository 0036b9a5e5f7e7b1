//! The pipe: events in, rows out.

use std::time::Duration;

use lb_common::Settings;

use crate::model::{HostState, Problem};
use crate::source::SourceEvent;
use crate::store::{MapStore, StoreError};

/// What the pipe is told once.
#[derive(Clone, Debug)]
pub struct Config {
    /// The name of this node's Node object.
    pub node_name: String,
    /// The row of settings; its NodePort range is filled in by the pipe.
    pub settings: Settings,
    /// Whether IPv4 is on.
    pub ipv4: bool,
    /// Whether IPv6 is on.
    pub ipv6: bool,
}

/// Events in, rows out: everything between the sources and the maps.
#[derive(Debug)]
pub struct Pipe {
    config: Config,
}

/// What one pass did.
#[derive(Debug, Default)]
pub struct Report {
    /// Rows written.
    pub written: usize,
    /// Rows deleted.
    pub deleted: usize,
    /// What a person should mend; each is here once while it stays the same.
    pub problems: Vec<Problem>,
    /// When something failed that may go better: call [`Pipe::retry`] and [`Pipe::sync`] after this time.
    pub retry_after: Option<Duration>,
}

impl Pipe {
    /// Reads what the maps hold, so that ids stay as they are.
    pub fn adopt(store: &impl MapStore, config: Config) -> Result<Self, StoreError> {
        let _ = store;
        Ok(Self { config })
    }

    /// Takes an event of a source; nothing is written before [`Self::sync`].
    pub fn apply(&mut self, event: SourceEvent) {
        let _ = (event, &self.config);
    }

    /// Takes the node's devices and addresses; nothing is written before [`Self::sync`].
    pub fn host_changed(&mut self, host: HostState) {
        let _ = host;
    }

    /// Makes the next [`Self::sync`] try again what failed.
    pub fn retry(&mut self) {}

    /// Writes what differs. Before the source is synced only devices are written.
    pub fn sync(&mut self, store: &mut impl MapStore) -> Report {
        let _ = store;
        Report::default()
    }
}
