//! What can go wrong with a map.

use thiserror::Error;

use super::remedy;

/// A map operation that failed.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The map holds as many rows as it can.
    #[error("map {map} is full ({capacity} rows); {}", remedy(.map))]
    Full {
        /// The map's name.
        map: &'static str,
        /// Its size in rows.
        capacity: usize,
    },
    /// The map is not there, or is not what this version wrote.
    #[error("map {map} cannot be used: {why}")]
    Unusable {
        /// The map's name.
        map: &'static str,
        /// What is the matter with it.
        why: String,
    },
    /// The kernel refused.
    #[error("{call} on map {map} failed")]
    Kernel {
        /// The system call's command.
        call: &'static str,
        /// The map's name.
        map: &'static str,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
}
