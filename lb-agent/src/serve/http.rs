//! HTTP/1 for strangers: whatever a client does costs one of a few connections, for a limited time.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tracing::debug;

/// An answer.
pub(super) type Response = hyper::Response<Full<Bytes>>;

/// Connections that a server has at one time. The oldest makes room for the next one, so that nobody keeps others out by
/// holding on to his own.
const MOST_CONNECTIONS: usize = 256;
/// In which time a client must have sent the head of a request.
const HEAD: Duration = Duration::from_secs(5);
/// How long a connection may go on with further requests.
const KEPT_ALIVE: Duration = Duration::from_mins(1);
/// How long the last request of a connection may take.
const LAST_REQUEST: Duration = Duration::from_secs(10);
/// The largest head of a request, in bytes.
const LARGEST_HEAD: usize = 16 << 10;
/// How long nothing is accepted after that has failed, as it does without free descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Types of content.
pub(super) const JSON: &str = "application/json";
/// Plain text.
pub(super) const TEXT: &str = "text/plain; charset=utf-8";

/// What a server says.
pub(super) trait Pages: Send + Sync + 'static {
    /// What is at a path. What else is in a request means nothing.
    fn page(&self, path: &str) -> impl Future<Output = Response> + Send;
}

/// Serves until it is dropped.
pub(super) async fn serve(listener: TcpListener, pages: Arc<impl Pages>) {
    let mut connections = Connections::default();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => connections.add(connection(stream, Arc::clone(&pages))),
            Err(error) => {
                debug!(
                    error = &error as &dyn std::error::Error,
                    "a connection was not accepted"
                );
                sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

/// A page as kube-proxy's are: its type is not to be guessed.
pub(super) fn page(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    set(
        &mut response,
        CONTENT_TYPE,
        HeaderValue::from_static(content_type),
    );
    set(
        &mut response,
        X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}

/// Where nothing is.
pub(super) fn not_found() -> Response {
    page(StatusCode::NOT_FOUND, TEXT, "404 page not found\n")
}

/// Sets a header.
pub(super) fn set(response: &mut Response, name: HeaderName, value: HeaderValue) {
    response.headers_mut().insert(name, value);
}

async fn connection(stream: TcpStream, pages: Arc<impl Pages>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let pages = Arc::clone(&pages);
        async move { Ok::<_, Infallible>(pages.page(request.uri().path()).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(LARGEST_HEAD)
        .title_case_headers(true)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    // That a client went away, or made no sense, is none of our troubles.
    tokio::select! {
        _ended = &mut connection => return,
        () = sleep(KEPT_ALIVE) => connection.as_mut().graceful_shutdown(),
    }
    let _ended = timeout(LAST_REQUEST, connection).await;
}

/// The connections of a server; dropping it ends them.
#[derive(Default)]
struct Connections {
    tasks: JoinSet<()>,
    /// The oldest first.
    handles: VecDeque<AbortHandle>,
}

impl Connections {
    fn add(&mut self, connection: impl Future<Output = ()> + Send + 'static) {
        while self.tasks.try_join_next().is_some() {}
        self.handles.retain(|handle| !handle.is_finished());
        if self.handles.len() >= MOST_CONNECTIONS
            && let Some(oldest) = self.handles.pop_front()
        {
            oldest.abort();
        }
        self.handles.push_back(self.tasks.spawn(connection));
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::time::Instant;

    use super::*;
    use crate::serve::listen::listen;

    struct Hello;

    impl Pages for Hello {
        async fn page(&self, path: &str) -> Response {
            page(StatusCode::OK, TEXT, format!("hello {path}"))
        }
    }

    /// Runs a server, and a client of it.
    fn with_server<F: Future<Output = ()>>(client: impl FnOnce(SocketAddr) -> F) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
            let address = listener.local_addr().unwrap();
            tokio::select! {
                () = serve(listener, Arc::new(Hello)) => {}
                () = client(address) => {}
            }
        });
    }

    async fn connect(address: SocketAddr) -> TcpStream {
        TcpStream::connect(address).await.unwrap()
    }

    /// Sends a text and reads until the other side ends.
    async fn ask(mut stream: TcpStream, text: &str) -> String {
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8(answer).unwrap()
    }

    const REQUEST: &str = "GET /there?who=me HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n";

    #[test]
    fn a_path_is_answered_whatever_the_method() {
        with_server(|address| async move {
            let answer = ask(connect(address).await, REQUEST).await;
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
            assert!(
                answer.contains("\r\nX-Content-Type-Options: nosniff\r\n"),
                "{answer}"
            );
            assert!(answer.ends_with("\r\n\r\nhello /there"), "{answer}");
            let head = ask(connect(address).await, &REQUEST.replace("GET", "HEAD")).await;
            assert!(
                head.contains("\r\nContent-Length: 12\r\n") && head.ends_with("\r\n\r\n"),
                "{head}"
            );
        });
    }

    #[test]
    fn nobody_keeps_others_out() {
        with_server(|address| async move {
            let mut silent = Vec::new();
            for _ in 0..MOST_CONNECTIONS {
                silent.push(connect(address).await);
            }
            let answer = ask(connect(address).await, REQUEST).await;
            assert!(answer.ends_with("hello /there"), "{answer}");
            let first = &mut silent[0];
            // The oldest has made room.
            assert_eq!(first.read(&mut [0; 1]).await.unwrap_or_default(), 0);
        });
    }

    #[test]
    fn a_head_that_does_not_come_to_its_end_ends_the_connection() {
        with_server(|address| async move {
            let start = Instant::now();
            ask(connect(address).await, "GET / HTTP/1.1\r\nHost:").await;
            assert!(
                start.elapsed() >= HEAD && start.elapsed() < 3 * HEAD,
                "{:?}",
                start.elapsed()
            );
        });
    }

    #[test]
    fn a_head_without_measure_is_refused() {
        with_server(|address| async move {
            let mut stream = connect(address).await;
            let long = format!("GET / HTTP/1.1\r\nHost: {}", "x".repeat(2 * LARGEST_HEAD));
            // It may be cut off while it is sent.
            let _sent = stream.write_all(long.as_bytes()).await;
            let mut answer = Vec::new();
            let _read = stream.read_to_end(&mut answer).await;
            assert!(!String::from_utf8_lossy(&answer).contains("hello"));
        });
    }
}
