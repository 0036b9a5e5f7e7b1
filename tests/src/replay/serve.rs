//! Questions and answers.

use std::convert::Infallible;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use http_body_util::{BodyExt as _, Either, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpListener;

use super::body::{Answer, Feed};
use super::state::{Resource, State};

/// Serves connections until it is dropped.
pub(super) async fn serve(listener: TcpListener, state: Arc<State>) -> Result<()> {
    loop {
        let (stream, _) = listener.accept().await.context("cannot accept a connection")?;
        stream.set_nodelay(true)?;
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            let service = service_fn(|request| respond(request, &state));
            // A client may hang up whenever it likes.
            let _hung_up = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn respond(request: Request<Incoming>, state: &State) -> Result<Response<Answer>, Infallible> {
    if request.method() == Method::GET {
        return Ok(get(request.uri(), state));
    }
    let text = match request.into_body().collect().await {
        Ok(body) => String::from_utf8_lossy(&body.to_bytes()).into_owned(),
        Err(_) => String::new(),
    };
    Ok(json_response(StatusCode::CREATED, text))
}

fn get(uri: &hyper::Uri, state: &State) -> Response<Answer> {
    let (path, query) = (uri.path(), uri.query().unwrap_or_default());
    let Some(resource) = Resource::of_path(path) else {
        return single(path, state).map_or_else(|| missing(path), |text| json_response(StatusCode::OK, text));
    };
    let asked = |name: &str| {
        let value = |(key, value): (&str, &'_ str)| (key == name).then(|| value.to_owned());
        query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .find_map(value)
    };
    let is_true = |name| asked(name).is_some_and(|value| value == "true" || value == "1");
    let selector = asked("fieldSelector").unwrap_or_default();
    let only = selector.strip_prefix("metadata.name%3D");
    if is_true("watch") {
        let feed = state.watch(resource, only, is_true("sendInitialEvents"));
        return response(StatusCode::OK, Either::Right(Feed(feed)));
    }
    let number = |name| asked(name).and_then(|value| value.parse().ok());
    let limit = match number("limit") {
        None | Some(0) => usize::MAX,
        Some(limit) => limit,
    };
    json_response(
        StatusCode::OK,
        state.page(resource, only, number("continue").unwrap_or_default(), limit),
    )
}

/// What there is one of.
fn single(path: &str, state: &State) -> Option<String> {
    if path == "/version" {
        let version = json!({
            "major": "1", "minor": "36", "gitVersion": "v1.36.0", "gitCommit": "", "gitTreeState": "",
            "buildDate": "", "goVersion": "", "compiler": "", "platform": "linux/amd64",
        });
        return Some(version.to_string());
    }
    if path == "/api/v1/namespaces/kube-system" {
        let namespace = json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {
                "name": "kube-system",
                "uid": "6e7f5b1c-0000-4000-8000-000000000001",
                "resourceVersion": "1",
            },
        });
        return Some(namespace.to_string());
    }
    let name = path.strip_prefix("/api/v1/nodes/")?;
    state.object(Resource::Nodes, name)
}

fn missing(path: &str) -> Response<Answer> {
    let status = json!({
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "reason": "NotFound",
        "code": 404,
        "message": format!("there is no {path}"),
    });
    json_response(StatusCode::NOT_FOUND, status.to_string())
}

fn json_response(status: StatusCode, text: String) -> Response<Answer> {
    response(status, Either::Left(Full::new(text.into())))
}

fn response(status: StatusCode, body: Answer) -> Response<Answer> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(
        "content-type",
        hyper::header::HeaderValue::from_static("application/json"),
    );
    response
}
