//! How long the agent took to start, step by step.

use tokio::time::Instant;
use tracing::info;

/// When the steps of the start were done.
#[derive(Clone, Copy, Debug)]
pub(super) struct StartTimes {
    pub(super) start: Instant,
    pub(super) loaded: Instant,
    pub(super) adopted: Instant,
    pub(super) synced: Instant,
}

impl StartTimes {
    /// Tells them, now that programs are attached.
    pub(super) fn log(self, devices: usize, ways: &str) {
        let Self {
            start,
            loaded,
            adopted,
            synced,
        } = self;
        let attached = Instant::now();
        info!(
            devices,
            ways,
            load_ms = millis(start, loaded),
            adopt_ms = millis(loaded, adopted),
            sync_ms = millis(adopted, synced),
            attach_ms = millis(synced, attached),
            total_ms = millis(start, attached),
            "data plane ready"
        );
    }
}

fn millis(from: Instant, to: Instant) -> u64 {
    u64::try_from((to - from).as_millis()).unwrap_or(u64::MAX)
}
