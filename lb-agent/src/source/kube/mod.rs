//! The Kubernetes API, followed.
//!
//! ```text
//! access    how the server is found, and who we are to it
//! watched   what is asked for: paths, selectors, rights
//! follow    one kind of object: everything once, then what changes, for ever
//! reply     the frame around objects: pages of lists, lines of watches
//! item      the text of one object -> our words
//! told      what has been told of each object: nothing twice, and nothing that is gone is kept
//! ask       the objects of one Service, asked for once
//! trouble, backoff, contact   what goes wrong, how long to wait, and saying so once
//! ```

mod access;
mod ask;
mod backoff;
mod contact;
mod follow;
mod item;
mod reply;
mod told;
mod trouble;
mod watched;

use std::cell::{Cell, RefCell};
use std::thread;

use futures::future::join_all;
use kube::Client;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;
use tracing::info;

use super::SourceEvent;
use backoff::Backoff;
use contact::Contact;
use follow::{Follower, Shared, answer};
use trouble::Trouble;
use watched::{CLUSTER, NODES, SERVICE_CIDRS, SERVICES, SLICES, Watched};

pub use access::{AccessError, ApiAccess};
pub use ask::{AskError, ServiceObjects};

/// What is followed.
const FOLLOWED: [&Watched; 4] = [&SERVICES, &SLICES, &NODES, &SERVICE_CIDRS];
/// The first version of Kubernetes whose servers may begin a watch with every object; older ones ignore that they should.
const STREAMING: (u32, u32) = (1, 27);

/// The API server that is being followed; dropping it ends that.
#[derive(Debug)]
pub struct ApiSource {
    _stop: oneshot::Sender<()>,
}

impl ApiSource {
    /// Follows what matters to `node` from a thread of its own, until the value is dropped or `events` is closed. A server
    /// that is not there is no error: it is waited for.
    pub async fn follow(
        access: &ApiAccess,
        node: &str,
        events: mpsc::Sender<Vec<SourceEvent>>,
    ) -> Result<Self, AccessError> {
        let config = access.config().await?;
        info!(server = %config.cluster_url, "following the Kubernetes API");
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = oneshot::channel();
        let (access, node) = (access.clone(), node.to_owned());
        let run = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = match runtime {
                Ok(runtime) => runtime,
                Err(error) => {
                    _ = ready.send(Err(AccessError::Thread(error)));
                    return;
                }
            };
            runtime.block_on(async {
                match access::client(config) {
                    Err(error) => _ = ready.send(Err(error)),
                    Ok(client) => {
                        _ = ready.send(Ok(()));
                        tokio::select! {
                            _ = stopped => {}
                            () = follow(client, access, node, events) => {}
                        }
                    }
                }
            });
        };
        let thread = thread::Builder::new().name("kubernetes-api".to_owned());
        thread.spawn(run).map_err(AccessError::Thread)?;
        is_ready.await.unwrap_or(Ok(()))?;
        Ok(Self { _stop: stop })
    }
}

async fn follow(client: Client, access: ApiAccess, node: String, events: mpsc::Sender<Vec<SourceEvent>>) {
    let contact = Contact::default();
    let streaming = streams(&client, &contact).await;
    let shared = Shared {
        client: RefCell::new(client),
        access,
        contact,
        streaming: Cell::new(streaming),
        waiting: Cell::new(FOLLOWED.len() + 1),
        node,
        events,
    };
    let followers = FOLLOWED.map(|watched| Follower::new(&shared, watched).follow());
    let cluster = Follower::new(&shared, &CLUSTER).ask_once();
    futures::future::join(join_all(followers), cluster).await;
}

/// Waits for the server, and asks whether it may begin watches with every object.
async fn streams(client: &Client, contact: &Contact) -> bool {
    const VERSION: &str = "version";
    let mut backoff = Backoff::default();
    loop {
        let trouble = match answer(&SERVICES, client.apiserver_version()).await {
            Ok(version) => {
                contact.answered(VERSION);
                let known = number(&version.major).zip(number(&version.minor));
                let streams = known.is_some_and(|known| known >= STREAMING);
                if !streams {
                    info!(version = version.git_version, "lists are read in pages");
                }
                return streams;
            }
            Err(trouble @ (Trouble::Unreachable(_) | Trouble::Refused { .. })) => trouble,
            // Who may not ask that has more to mend, of which others will tell.
            Err(_) => return false,
        };
        contact.failed(VERSION, &trouble);
        sleep(backoff.after(&trouble)).await;
    }
}

/// Versions may have a `+` at their end.
fn number(text: &str) -> Option<u32> {
    text.trim_end_matches(|letter: char| !letter.is_ascii_digit())
        .parse()
        .ok()
}

#[cfg(test)]
mod tests;
