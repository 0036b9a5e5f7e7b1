//! HTTP/1.1, server and client.
//!
//! `GET /` answers who serves and who asked, `GET /bytes/<n>` sends n bytes of [`Bulk`], `POST /` answers the hash of
//! what it got.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use http_body_util::{BodyExt as _, Either, Empty, Full};
use hyper::body::{Body, Bytes, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::{self, Runtime};
use tokio::time::timeout;

use crate::answer::Answer;
use crate::bulk::{Bulk, Hash};

/// Longer than a repeated SYN takes, so that a single lost packet is no failure.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);
const REQUEST_TIMEOUT: Duration = Duration::from_mins(1);

type Answering = Response<Either<Full<Bytes>, Bulk>>;
type Asking = Either<Empty<Bytes>, Bulk>;

/// What arrived at the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Received {
    /// Number of bytes.
    pub bytes: u64,
    /// Their SHA-256, in hexadecimal.
    pub sha256: String,
}

impl Received {
    /// What arrives when the first `bytes` bytes of [`Bulk`] arrive unharmed.
    pub fn bulk(bytes: u64) -> Self {
        Self {
            bytes,
            sha256: Bulk::sha256(bytes),
        }
    }
}

/// Serves connections until it is dropped.
pub async fn serve(listener: TcpListener, name: Arc<str>) -> Result<()> {
    loop {
        let (stream, client) = listener.accept().await.context("cannot accept a connection")?;
        let name = Arc::clone(&name);
        tokio::spawn(async move {
            let service = service_fn(|request| respond(request, &name, client));
            // A client may hang up whenever it likes.
            let _hung_up = hyper::server::conn::http1::Builder::new()
                .half_close(true)
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn respond(
    request: Request<Incoming>,
    name: &str,
    client: SocketAddr,
) -> Result<Answering, Infallible> {
    let bytes = request
        .uri()
        .path()
        .strip_prefix("/bytes/")
        .and_then(|number| number.parse().ok());
    let response = match (request.method().clone(), bytes) {
        (Method::GET, Some(bytes)) => Ok(Either::Right(Bulk::new(bytes))),
        (Method::GET, None) => json(&Answer::new(name, client)),
        _ => match receive(request.into_body()).await {
            Ok(received) => json(&received),
            Err(error) => Err(error),
        },
    };
    Ok(response.map_or_else(|error| failure(&error), Response::new))
}

fn json(value: &impl Serialize) -> Result<Either<Full<Bytes>, Bulk>> {
    Ok(Either::Left(Full::new(serde_json::to_vec(value)?.into())))
}

fn failure(error: &anyhow::Error) -> Answering {
    let mut response = Response::new(Either::Left(Full::new(error.to_string().into())));
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    response
}

async fn receive<B: Body<Data = Bytes, Error = hyper::Error> + Unpin>(mut body: B) -> Result<Received> {
    let mut hash = Hash::default();
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        if let Ok(part) = frame?.into_data() {
            hash.add(&part);
            bytes += part.len() as u64;
        }
    }
    Ok(Received {
        bytes,
        sha256: hash.finish(),
    })
}

/// Asks who serves, on a connection of its own.
pub fn ask(to: SocketAddr) -> Result<Answer> {
    Connection::open(to)?.ask()
}

/// A client's connection.
#[derive(Debug)]
pub struct Connection {
    runtime: Runtime,
    requests: SendRequest<Asking>,
    to: SocketAddr,
    local: SocketAddr,
}

impl Connection {
    /// Connects.
    pub fn open(to: SocketAddr) -> Result<Self> {
        Self::open_from(to, None)
    }

    /// Connects from this address and port.
    pub fn open_from(to: SocketAddr, from: Option<SocketAddr>) -> Result<Self> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let (requests, local) = runtime.block_on(async {
            let socket = if to.is_ipv4() {
                TcpSocket::new_v4()?
            } else {
                TcpSocket::new_v6()?
            };
            if let Some(from) = from {
                socket.bind(from)?;
            }
            let stream = timeout(CONNECT_TIMEOUT, socket.connect(to))
                .await
                .with_context(|| format!("no connection to {to} within {CONNECT_TIMEOUT:?}"))?
                .with_context(|| format!("cannot connect to {to}"))?;
            stream.set_nodelay(true)?;
            let local = stream.local_addr()?;
            let (requests, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            anyhow::Ok((requests, local))
        })?;
        Ok(Self {
            runtime,
            requests,
            to,
            local,
        })
    }

    /// The client's own end.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Asks who serves.
    pub fn ask(&mut self) -> Result<Answer> {
        let request = Request::get("/").body(Either::Left(Empty::new()));
        let body = self.exchange(request?, |body| async { Ok(body.collect().await?.to_bytes()) })?;
        serde_json::from_slice(&body).context("the answer is not what the server sends")
    }

    /// Downloads and hashes.
    pub fn download(&mut self, bytes: u64) -> Result<Received> {
        let request = Request::get(format!("/bytes/{bytes}")).body(Either::Left(Empty::new()));
        self.exchange(request?, receive)
    }

    /// Uploads; what arrived there.
    pub fn upload(&mut self, bytes: u64) -> Result<Received> {
        let request = Request::post("/").body(Either::Right(Bulk::new(bytes)));
        let body = self.exchange(request?, |body| async { Ok(body.collect().await?.to_bytes()) })?;
        serde_json::from_slice(&body).context("the answer is not what the server sends")
    }

    fn exchange<T, F>(&mut self, mut request: Request<Asking>, read: impl FnOnce(Incoming) -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        request.headers_mut().insert("host", self.to.to_string().parse()?);
        let exchange = async {
            self.requests.ready().await?;
            let response = self.requests.send_request(request).await?;
            ensure!(response.status().is_success(), "status {}", response.status());
            read(response.into_body()).await
        };
        self.runtime
            .block_on(async { timeout(REQUEST_TIMEOUT, exchange).await })
            .with_context(|| format!("no answer from {} within {REQUEST_TIMEOUT:?}", self.to))?
            .with_context(|| format!("request to {} from {}", self.to, self.local))
    }
}
