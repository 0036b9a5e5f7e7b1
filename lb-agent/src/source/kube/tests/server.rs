//! An API server that does as it is told: HTTP as Kubernetes speaks it, on a port of this machine's loopback address.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use futures::stream::{self, BoxStream, StreamExt as _};
use http::header::AUTHORIZATION;
use http::{Request, Response};
use http_body_util::StreamBody;
use hyper::body::{Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{JoinHandle, JoinSet};

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Ask {
    Version,
    /// A page of a list.
    List,
    /// A watch that begins with everything.
    Fill,
    /// A watch from a version on.
    Watch,
    /// One object.
    Get,
}

/// What is answered instead of what the server has.
#[derive(Clone, Debug)]
pub(super) enum Reply {
    /// This status.
    Status(u16),
    /// This body.
    Body(String),
    /// These lines, and then the end.
    Lines(Vec<String>),
}

#[derive(Default)]
struct State {
    version: (u32, u32),
    page: usize,
    objects: BTreeMap<String, Vec<Value>>,
    /// The version of the lists.
    at: u64,
    replies: BTreeMap<(Ask, String), VecDeque<Reply>>,
    asked: Vec<String>,
    live: BTreeMap<String, UnboundedSender<io::Result<String>>>,
    /// The token that clients must have.
    token: Option<String>,
}

/// The server; it ends, with all its connections, when it is dropped.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

type Body = StreamBody<BoxStream<'static, io::Result<Frame<Bytes>>>>;

impl Server {
    pub(super) async fn start() -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap()).await
    }

    pub(super) async fn start_at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State {
            version: (1, 34),
            page: 500,
            at: 10,
            ..State::default()
        }));
        let serving = Arc::clone(&state);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let state = Arc::clone(&serving);
                let answer = service_fn(move |request| {
                    let response = answer(&state, &request);
                    async { Ok::<_, Infallible>(response) }
                });
                let http = hyper::server::conn::http1::Builder::new();
                connections.spawn(http.serve_connection(TokioIo::new(socket), answer));
            }
        });
        Self { address, state, task }
    }

    /// The cluster's version.
    pub(super) fn version(&self, major: u32, minor: u32) {
        self.state.lock().unwrap().version = (major, minor);
    }

    /// From now on answers only clients with this token.
    pub(super) fn want(&self, token: &str) {
        self.state.lock().unwrap().token = Some(token.to_owned());
    }

    /// Objects of a page.
    pub(super) fn pages_of(&self, objects: usize) {
        self.state.lock().unwrap().page = objects;
    }

    /// What there is of a resource from now on, without telling any watch.
    pub(super) fn set(&self, resource: &str, objects: impl Into<Vec<Value>>) {
        let mut state = self.state.lock().unwrap();
        state.at += 10;
        state.objects.insert(resource.to_owned(), objects.into());
    }

    /// Answers the next request of this kind so; later calls are for later requests.
    pub(super) fn reply(&self, ask: Ask, resource: &str, reply: Reply) {
        let mut state = self.state.lock().unwrap();
        state
            .replies
            .entry((ask, resource.to_owned()))
            .or_default()
            .push_back(reply);
    }

    /// Writes into the watch of a resource.
    pub(super) fn tell(&self, resource: &str, what: &str, object: &Value) {
        self.write(resource, Ok(line(what, object)));
    }

    /// Breaks the watch of a resource off in the middle of a line.
    pub(super) fn cut(&self, resource: &str) {
        self.write(resource, Ok("{\"type\":\"MODIFIED\",\"obj".to_owned()));
        self.write(resource, Err(io::ErrorKind::BrokenPipe.into()));
    }

    /// Ends the watch of a resource in good order.
    pub(super) fn end(&self, resource: &str) {
        self.state.lock().unwrap().live.remove(resource);
    }

    fn write(&self, resource: &str, text: io::Result<String>) {
        let state = self.state.lock().unwrap();
        state.live[resource].send(text).unwrap();
    }

    /// Whether somebody watches a resource.
    pub(super) fn is_followed(&self, resource: &str) -> bool {
        let state = self.state.lock().unwrap();
        state.live.get(resource).is_some_and(|live| !live.is_closed())
    }

    /// The requests for a resource so far.
    pub(super) fn asked(&self, resource: &str) -> Vec<String> {
        let state = self.state.lock().unwrap();
        let about = |uri: &&String| uri.split('?').next().unwrap().ends_with(resource);
        state.asked.iter().filter(about).cloned().collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A line of a watch.
pub(super) fn line(what: &str, object: &Value) -> String {
    format!("{}\n", json!({"type": what, "object": object}))
}

/// What is said after the last of all objects.
pub(super) fn initial_events_end(version: u64) -> String {
    let annotations = json!({"k8s.io/initial-events-end": "true"});
    let metadata = json!({"resourceVersion": version.to_string(), "annotations": annotations});
    line(
        "BOOKMARK",
        &json!({"kind": "Service", "apiVersion": "v1", "metadata": metadata}),
    )
}

/// A status, as an object.
pub(super) fn status(code: u16, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": message})
}

fn answer(state: &Mutex<State>, request: &Request<Incoming>) -> Response<Body> {
    let mut state = state.lock().unwrap();
    let uri = request.uri();
    state.asked.push(uri.to_string());
    let given = request
        .headers()
        .get(AUTHORIZATION)
        .map(|value| value.to_str().unwrap().to_owned());
    if state
        .token
        .as_ref()
        .is_some_and(|token| given != Some(format!("Bearer {token}")))
    {
        return response(401, vec![Ok(status(401, "Unauthorized").to_string())], None);
    }
    let query = uri.query().unwrap_or_default();
    let resource = uri.path().rsplit('/').next().unwrap_or_default().to_owned();
    let ask = match resource.as_str() {
        "version" => Ask::Version,
        "kube-system" => Ask::Get,
        _ if query.contains("sendInitialEvents=true") => Ask::Fill,
        _ if query.contains("watch=true") => Ask::Watch,
        _ => Ask::List,
    };
    let scripted = state
        .replies
        .get_mut(&(ask, resource.clone()))
        .and_then(VecDeque::pop_front);
    if let Some(reply) = scripted {
        return match reply {
            Reply::Status(code) => response(code, vec![Ok(status(code, "as scripted").to_string())], None),
            Reply::Body(text) => response(200, vec![Ok(text)], None),
            Reply::Lines(lines) => response(200, lines.into_iter().map(Ok).collect(), None),
        };
    }
    let objects = state.objects.get(&resource).cloned().unwrap_or_default();
    let at = state.at;
    match ask {
        Ask::Version => {
            let (major, minor) = state.version;
            let version = json!({"major": major.to_string(), "minor": format!("{minor}+"), "gitVersion": "v",
                "gitCommit": "", "gitTreeState": "", "buildDate": "", "goVersion": "", "compiler": "", "platform": ""});
            response(200, vec![Ok(version.to_string())], None)
        }
        Ask::Get => {
            let namespace =
                json!({"metadata": {"name": "kube-system", "uid": "u-1", "resourceVersion": "1"}});
            response(200, vec![Ok(namespace.to_string())], None)
        }
        Ask::List => response(200, vec![Ok(page(&objects, query, state.page, at))], None),
        Ask::Fill => {
            let mut lines: Vec<_> = objects.iter().map(|object| Ok(line("ADDED", object))).collect();
            lines.push(Ok(initial_events_end(at)));
            response(200, lines, Some(live(&mut state, resource)))
        }
        Ask::Watch => response(200, Vec::new(), Some(live(&mut state, resource))),
    }
}

fn live(state: &mut State, resource: String) -> UnboundedReceiver<io::Result<String>> {
    let (sender, receiver) = unbounded_channel();
    state.live.insert(resource, sender);
    receiver
}

fn page(objects: &[Value], query: &str, size: usize, at: u64) -> String {
    let token = query.split('&').find_map(|part| part.strip_prefix("continue="));
    let first: usize = token.map_or(0, |token| token.parse().unwrap());
    let items: Vec<_> = objects.iter().skip(first).take(size).collect();
    let next = first + items.len();
    let token = if next < objects.len() {
        next.to_string()
    } else {
        String::new()
    };
    let metadata = json!({"resourceVersion": at.to_string(), "continue": token});
    json!({"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items}).to_string()
}

fn response(
    code: u16,
    parts: Vec<io::Result<String>>,
    more: Option<UnboundedReceiver<io::Result<String>>>,
) -> Response<Body> {
    let more = stream::iter(more).flat_map(|receiver| {
        stream::unfold(receiver, |mut receiver| async {
            Some((receiver.recv().await?, receiver))
        })
    });
    let all = stream::iter(parts).chain(more);
    let frames = all
        .map(|part| part.map(|text| Frame::data(Bytes::from(text))))
        .boxed();
    Response::builder()
        .status(code)
        .body(StreamBody::new(frames))
        .unwrap()
}
