//! A stand-in for an API server that holds a large cluster: lists and watches as Kubernetes speaks them, from texts that
//! were made beforehand, so that what is measured is who asks and not who answers.
//!
//! HTTP without TLS, JSON only, on a port of the loopback address of a namespace. What is written to it is taken and forgotten.

mod body;
mod cluster;
mod serve;
mod state;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use anyhow::{Context as _, Result, anyhow};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::netns::Netns;
use state::State;

pub use cluster::{Cluster, NODE};
pub use state::Resource;

/// The server; it ends when it is dropped.
#[derive(Debug)]
pub struct Replay {
    address: SocketAddr,
    state: Arc<State>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Replay {
    /// Serves a cluster inside a namespace.
    pub fn start(netns: &Netns, cluster: &Cluster) -> Result<Self> {
        let state = Arc::new(State::new(cluster));
        let (stop, stopped) = oneshot::channel();
        let (tell, told) = mpsc::channel();
        let serving = Arc::clone(&state);
        let thread = netns.spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await?;
                // Whoever asked may have given up.
                let _gone = tell.send(listener.local_addr()?);
                tokio::select! {
                    ended = serve::serve(listener, serving) => ended,
                    _ = stopped => Ok(()),
                }
            })
        })?;
        let address = told
            .recv()
            .context("the stand-in for an API server did not start")?;
        Ok(Self {
            address,
            state,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Replaces an object, and tells every watch of it.
    pub fn replace(&self, resource: Resource, number: usize, text: &str) {
        self.state.replace(resource, number, text);
    }

    /// How many watches of a resource there are.
    pub fn watches(&self, resource: Resource) -> usize {
        self.state.watches(resource)
    }

    /// Writes a kubeconfig for it.
    pub fn write_kubeconfig(&self, path: &Path) -> Result<()> {
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "replay", "cluster": { "server": format!("http://{}", self.address) } }],
            "users": [{ "name": "nobody", "user": {} }],
            "contexts": [{ "name": "replay", "context": { "cluster": "replay", "user": "nobody" } }],
            "current-context": "replay",
        });
        fs::write(path, config.to_string()).with_context(|| format!("cannot write {}", path.display()))
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(Err(error)) = self
            .thread
            .take()
            .map(|thread| thread.join().map_err(|_| anyhow!("panicked")).flatten())
        {
            eprintln!("the stand-in for an API server: {error:#}");
        }
    }
}
