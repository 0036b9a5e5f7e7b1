//! One kind of object, followed: everything once, then what changes, for ever.
//!
//! ```text
//!          no version known                      version known
//! start ──> everything ──(told once)──> watch ──(server ends it, connection breaks)──┐
//!             ^                           ^ └──(410 Gone)──> everything              │
//!             └──(anything goes wrong)    └──────────────────────────────────────────┘
//! ```
//!
//! This is not the watcher of kube-runtime: that one asks for ever with a version for which it was answered 410, asks again
//! without a pause when a server ends each watch at once, and fails whole lists for one object.

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::time::Duration;

use futures::FutureExt as _;
use futures::io::{AsyncBufRead, AsyncBufReadExt as _};
use http::Request;
use kube::Client;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{debug, info};

use super::access::ApiAccess;
use super::backoff::{Backoff, chance};
use super::contact::Contact;
use super::item::item;
use super::reply::{Line, Page, What};
use super::told::{Told, problem};
use super::trouble::Trouble;
use super::watched::Watched;
use crate::model::{Kind, ObjectRef, Reason};
use crate::source::SourceEvent;

/// An answer must have begun, or a page must be there, after this time.
const ANSWER: Duration = Duration::from_mins(1);
/// A watch lasts so long, and up to twice as long, so that not all are asked for at the same time (as in client-go).
const WATCH: Duration = Duration::from_mins(5);
/// The server ends a watch; after this time more the client does.
const LATE: Duration = Duration::from_secs(30);
/// A watch that lasts so long is one.
const SETTLED: Duration = Duration::from_secs(1);
/// A server that begins a watch with everything, but is silent for so long before it says that this was all, does not know
/// how to.
const TELLING: Duration = Duration::from_mins(2);
/// Events that are sent together at most.
const BATCH: usize = 512;
/// Refusals after which the start goes on without what is not required.
const PATIENCE: u32 = 4;
/// How often it is asked again for what a server does not have.
const MISSING: Duration = Duration::from_mins(5);

/// What those who follow share.
pub(super) struct Shared {
    pub(super) client: RefCell<Client>,
    pub(super) access: ApiAccess,
    pub(super) contact: Contact,
    /// Whether a watch can begin with every object.
    pub(super) streaming: Cell<bool>,
    /// How many have not told everything yet.
    pub(super) waiting: Cell<usize>,
    /// The name of this node's Node.
    pub(super) node: String,
    pub(super) events: mpsc::Sender<Vec<SourceEvent>>,
}

impl Shared {
    fn client(&self) -> Client {
        self.client.borrow().clone()
    }

    /// Credentials may have been replaced in their file.
    async fn renew(&self) {
        match self.access.connect().await {
            Ok(client) => _ = self.client.replace(client),
            Err(error) => debug!("{:#}", anyhow::Error::new(error)),
        }
    }
}

/// Follows one kind of object.
pub(super) struct Follower<'a> {
    shared: &'a Shared,
    watched: &'static Watched,
    told: Told,
    /// From where a watch goes on; none: everything has to be told anew.
    version: Option<String>,
    backoff: Backoff,
    synced: bool,
    /// The watch is one: it has told something, or lasted a while.
    alive: bool,
}

impl<'a> Follower<'a> {
    pub(super) fn new(shared: &'a Shared, watched: &'static Watched) -> Self {
        Self {
            shared,
            watched,
            told: Told::default(),
            version: None,
            backoff: Backoff::default(),
            synced: false,
            alive: false,
        }
    }

    /// Until nobody listens any more.
    pub(super) async fn follow(mut self) {
        loop {
            self.alive = false;
            let trouble = match self.round().await {
                Ok(()) if self.alive => continue,
                Ok(()) => Trouble::Ended {
                    resource: self.watched.resource,
                },
                Err(trouble) => trouble,
            };
            match self.after(&trouble).await {
                Ok(wait) => sleep(wait).await,
                Err(_) => return,
            }
        }
    }

    /// Asks for the cluster's one object of the kind until it is told.
    pub(super) async fn ask_once(mut self) {
        loop {
            let Err(trouble) = self.object().await else { return };
            match self.after(&trouble).await {
                Ok(wait) => sleep(wait).await,
                Err(_) => return,
            }
        }
    }

    /// Draws the conclusions from what went wrong, and says how long to wait. Fails when nobody listens.
    async fn after(&mut self, trouble: &Trouble) -> Result<Duration, Trouble> {
        let resource = self.watched.resource;
        match trouble {
            Trouble::Closed => return Err(Trouble::Closed),
            Trouble::Gone { .. } => {
                debug!(resource, "{trouble}; everything is asked for");
                self.version = None;
            }
            Trouble::NoStreaming => {
                if self.shared.streaming.replace(false) {
                    info!("{trouble}: lists are read in pages");
                }
                return Ok(Duration::ZERO);
            }
            Trouble::Missing { .. } if !self.watched.required => {
                debug!("{trouble}; asked again later");
                self.shared.contact.answered(resource);
                self.sync().await?;
                return Ok(MISSING);
            }
            trouble => {
                // Or "too large resource version": etcd was restored to an older state.
                if matches!(
                    trouble,
                    Trouble::Garbled { .. } | Trouble::Refused { code: 504, .. }
                ) {
                    self.version = None;
                }
                self.shared.contact.failed(resource, trouble);
                if *trouble == Trouble::Unauthorized {
                    self.shared.renew().await;
                }
                let refusals = self.shared.contact.refusals(resource);
                if !self.watched.required && refusals >= PATIENCE {
                    self.sync().await?;
                }
            }
        }
        Ok(self.backoff.after(trouble))
    }

    /// Everything, if need be, and one watch up to its end.
    async fn round(&mut self) -> Result<(), Trouble> {
        if self.version.is_none() && !self.shared.streaming.get() {
            self.list().await?;
        }
        self.watch().await
    }

    async fn object(&mut self) -> Result<(), Trouble> {
        let text = self.text(self.watched.object()?).await?;
        let mut events = Vec::new();
        self.told
            .take(self.watched.kind, item(self.watched.kind, &text), &mut events);
        self.filled(None, &mut events).await
    }

    /// Everything, page by page.
    async fn list(&mut self) -> Result<(), Trouble> {
        self.told.begin();
        let mut token = None;
        let mut events = Vec::new();
        loop {
            let text = self.text(self.watched.page(token.as_deref())?).await?;
            let page = Page::read(&text).map_err(|error| self.garbled(&error))?;
            for object in page.items() {
                self.told
                    .take(self.watched.kind, item(self.watched.kind, object), &mut events);
                if events.len() >= BATCH {
                    self.send(&mut events).await?;
                }
            }
            token = page.next();
            if token.is_none() {
                return self.filled(page.version(), &mut events).await;
            }
        }
    }

    /// A watch up to its end; it begins with everything when no version is known.
    async fn watch(&mut self) -> Result<(), Trouble> {
        let limit = WATCH.mul_f64(1.0 + chance());
        let request = self.watched.watch(self.version.as_deref(), limit.as_secs())?;
        let client = self.shared.client();
        let body = answer(self.watched, client.request_stream(request)).await;
        let mut body = pin!(body.map_err(|trouble| self.no_streaming(trouble))?);
        if self.version.is_none() {
            self.told.begin();
        }
        let (end, settled) = (Instant::now() + limit + LATE, Instant::now() + SETTLED);
        let mut line = Vec::new();
        let mut events = Vec::new();
        while self
            .line(body.as_mut(), &mut line, &mut events, (settled, end))
            .await?
        {
            self.take(&line, &mut events).await?;
            line.clear();
            if events.len() >= BATCH {
                self.send(&mut events).await?;
            }
        }
        self.send(&mut events).await
    }

    /// Reads up to the end of a line. What came before is sent while there is nothing to read. At the end of the body,
    /// which may be in the middle of a line, there is none.
    async fn line(
        &mut self,
        mut body: impl AsyncBufRead + Unpin,
        line: &mut Vec<u8>,
        events: &mut Vec<SourceEvent>,
        (settled, end): (Instant, Instant),
    ) -> Result<bool, Trouble> {
        loop {
            let read = if let Some(read) = body.read_until(b'\n', line).now_or_never() {
                read
            } else {
                self.send(events).await?;
                let until = match (&self.version, self.alive) {
                    (None, _) => Instant::now() + TELLING,
                    (Some(_), false) => settled,
                    (Some(_), true) => end,
                };
                match timeout_at(until, body.read_until(b'\n', line)).await {
                    Ok(read) => read,
                    Err(_) if self.version.is_none() => return Err(Trouble::NoStreaming),
                    Err(_) if self.alive => return Ok(false),
                    Err(_) => {
                        self.is_alive();
                        continue;
                    }
                }
            };
            let read = match read {
                Ok(read) => read,
                // Whether the server is there is seen when it is asked again.
                Err(error) if self.alive => {
                    debug!(resource = self.watched.resource, "the watch broke off: {error}");
                    return Ok(false);
                }
                Err(error) => return Err(Trouble::unreachable(&error)),
            };
            if line.ends_with(b"\n") {
                return Ok(true);
            }
            if read == 0 {
                return Ok(false);
            }
        }
    }

    /// Takes a line of a watch.
    async fn take(&mut self, line: &[u8], events: &mut Vec<SourceEvent>) -> Result<(), Trouble> {
        let kind = self.watched.kind;
        let line = Line::read(line).map_err(|error| self.garbled(&error))?;
        match line.what {
            What::Applied => {
                let item = item(kind, line.object);
                self.reached(item.version.clone());
                self.told.take(kind, item, events);
            }
            What::Deleted => {
                let bare = line.bare();
                if let Some(object) = bare.reference(kind) {
                    self.told.gone(&object, events);
                }
                self.reached(bare.version());
            }
            What::Bookmark => {
                let bare = line.bare();
                if self.version.is_none() && bare.ends_initial_events() {
                    return self.filled(bare.version(), events).await;
                }
                self.reached(bare.version());
            }
            What::Error => return Err(Trouble::of_status(&line.status(), self.watched)),
            What::Other => {}
        }
        if self.version.is_some() {
            self.is_alive();
        }
        Ok(())
    }

    /// A watch can go on from this version, unless it is still telling everything, in no order.
    fn reached(&mut self, version: Option<String>) {
        if let (Some(known), Some(version)) = (&mut self.version, version) {
            *known = version;
        }
    }

    /// Everything has been told.
    async fn filled(
        &mut self,
        version: Option<String>,
        events: &mut Vec<SourceEvent>,
    ) -> Result<(), Trouble> {
        self.told.end(events);
        self.version = version;
        self.shared.contact.answered(self.watched.resource);
        if !self.synced && self.watched.kind == Kind::Node {
            events.extend(self.no_node());
        }
        self.send(events).await?;
        self.sync().await
    }

    /// What to say when this node has no Node.
    fn no_node(&self) -> Option<SourceEvent> {
        let node = ObjectRef::new(Kind::Node, "", &self.shared.node);
        let text = "there is no such Node, so no endpoint is known to be on this node, and NodePorts listen at the \
                    addresses of uplinks: is --node-name right?";
        (!self.told.has(&node)).then(|| problem(Some(node), Reason::NodeSetup, text.to_owned()))
    }

    /// Takes part in saying that everything has been told once; the last one says it.
    async fn sync(&mut self) -> Result<(), Trouble> {
        if std::mem::replace(&mut self.synced, true) {
            return Ok(());
        }
        let waiting = self.shared.waiting.get().saturating_sub(1);
        self.shared.waiting.set(waiting);
        if waiting == 0 {
            info!("the API server has told everything once");
            return self.send(&mut vec![SourceEvent::Synced]).await;
        }
        Ok(())
    }

    /// The server tells what it is asked for.
    fn is_alive(&mut self) {
        if !std::mem::replace(&mut self.alive, true) {
            self.backoff.reset();
            self.shared.contact.answered(self.watched.resource);
        }
    }

    async fn send(&self, events: &mut Vec<SourceEvent>) -> Result<(), Trouble> {
        if events.is_empty() {
            return Ok(());
        }
        let sent = self.shared.events.send(std::mem::take(events)).await;
        sent.map_err(|_| Trouble::Closed)
    }

    async fn text(&self, request: Request<Vec<u8>>) -> Result<String, Trouble> {
        let client = self.shared.client();
        answer(self.watched, client.request_text(request)).await
    }

    /// A server that does not begin watches with everything finds the question invalid (422), or bad (400).
    fn no_streaming(&self, trouble: Trouble) -> Trouble {
        match trouble {
            Trouble::Refused { code: 400 | 422, .. } if self.version.is_none() => Trouble::NoStreaming,
            other => other,
        }
    }

    fn garbled(&self, error: &serde_json::Error) -> Trouble {
        self.watched.garbled(error)
    }
}

/// Waits for an answer, but not for ever.
pub(super) async fn answer<T>(
    watched: &Watched,
    asking: impl Future<Output = kube::Result<T>>,
) -> Result<T, Trouble> {
    match timeout(ANSWER, asking).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(Trouble::of(&error, watched)),
        Err(_) => Err(Trouble::Unreachable("no answer within a minute".to_owned())),
    }
}
