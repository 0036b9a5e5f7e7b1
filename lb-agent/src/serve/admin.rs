//! What is for administrators, beside the metrics: at `--metrics-bind-address`.

use std::sync::Arc;

use hyper::StatusCode;

use super::http::{JSON, Pages, Response, TEXT, not_found, page};
use super::metrics::scrape::Scraper;
use super::probes::Probes;

/// The word of `/proxyMode`. It is none of kube-proxy's, because what people look for when they meet one of those, rules of
/// nftables or iptables, is not there.
const PROXY_MODE: &str = "sluice";

/// The server at `--metrics-bind-address`.
#[derive(Debug)]
pub(super) struct Admin {
    pub(super) scraper: Scraper,
    pub(super) probes: Arc<Probes>,
    /// What the agent was told, as JSON.
    pub(super) configuration: String,
}

impl Pages for Admin {
    async fn page(&self, path: &str) -> Response {
        match path {
            "/metrics" => match self.scraper.scrape().await {
                Some(text) => page(StatusCode::OK, prometheus::TEXT_FORMAT, text),
                None => page(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    TEXT,
                    "the metrics cannot be read\n",
                ),
            },
            // That the server answers is all that is asked here, as with kube-proxy.
            "/healthz" => page(StatusCode::OK, TEXT, "ok"),
            "/livez" => self.probes.livez(),
            "/proxyMode" => page(StatusCode::OK, TEXT, PROXY_MODE),
            "/configz" => page(StatusCode::OK, JSON, self.configuration.clone()),
            _ => not_found(),
        }
    }
}
