//! What every server of the tests tells who asks it.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// Who answered, and whom it saw ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The name of the pod.
    pub backend: String,
    /// The source of the request, as the pod saw it.
    pub client: SocketAddr,
}

impl Answer {
    /// The answer of a pod to a client; a client that came over IPv4 to a socket of both families is an IPv4 one.
    pub fn new(backend: &str, client: SocketAddr) -> Self {
        Self {
            backend: backend.to_owned(),
            client: SocketAddr::new(client.ip().to_canonical(), client.port()),
        }
    }
}
