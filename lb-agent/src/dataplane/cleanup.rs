//! Away with everything that the data plane left in the kernel.

use tracing::warn;

use super::attach::{AttachError, remove_filters};
use super::netlink::connect;
use super::reserved::reserve;
use super::sysctl::give_back;
use super::{DataplaneError, Pins};

/// Detaches all programs, and removes all pins and what was mounted for them. Says what it removed; nothing, the
/// second time. Refuses while an agent runs, which would put back what it misses.
pub async fn cleanup(pins: &Pins) -> Result<Vec<String>, DataplaneError> {
    let lock = pins.lock()?;
    let filters = remove_filters(&connect()?, pins).await;
    let mut removed = filters.map_err(|error| match error {
        AttachError::Dataplane(error) => error,
        error => DataplaneError::Netlink {
            what: "removing filters",
            source: Box::new(error),
        },
    })?;
    let given_back = [
        (reserve(pins, None), "reservation of NodePorts"),
        (give_back(pins), "settings of the kernel"),
    ];
    for (result, what) in given_back {
        match result {
            Ok(true) => removed.push(what.to_owned()),
            Ok(false) => {}
            // No reason to leave the rest.
            Err(error) => warn!("{:#}", anyhow::Error::new(error)),
        }
    }
    removed.extend(pins.remove(lock)?);
    Ok(removed)
}
