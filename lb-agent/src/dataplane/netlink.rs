//! Connections to the kernel's view of devices.

use rtnetlink::Handle;

use super::DataplaneError;

/// Opens a netlink connection, which a task of the current runtime drives. The kernel answers one listing at a time on
/// each, and refuses others meanwhile (EBUSY): who lists on a thread of its own needs its own.
pub fn connect() -> Result<Handle, DataplaneError> {
    let (connection, netlink, _) = rtnetlink::new_connection().map_err(|source| DataplaneError::Netlink {
        what: "opening a socket",
        source: Box::new(source),
    })?;
    tokio::spawn(connection);
    Ok(netlink)
}
