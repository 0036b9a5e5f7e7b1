//! HTTP by `curl`, against the tests' own server.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::bulk::{Bulk, Hash};
use crate::http::Received;
use crate::topology::Host;

/// Uploads the first `bytes` bytes of [`Bulk`] within a time limit; what arrived there.
pub fn upload(from: &Host, to: SocketAddr, bytes: u64, limit: Duration) -> Result<Received> {
    let data: Vec<_> = Bulk::new(bytes).collect();
    let url = format!("http://{to}/");
    // Without waiting for the server's consent.
    let arguments = ["-H", "Expect:", "--data-binary", "@-", &url];
    let answer = curl(from, &arguments, &data.concat(), limit)?;
    serde_json::from_slice(&answer).with_context(|| format!("{}", String::from_utf8_lossy(&answer)))
}

/// Downloads `bytes` bytes within a time limit; what arrived here.
pub fn download(from: &Host, to: SocketAddr, bytes: u64, limit: Duration) -> Result<Received> {
    let data = curl(from, &[&format!("http://{to}/bytes/{bytes}")], &[], limit)?;
    let mut hash = Hash::default();
    hash.add(&data);
    Ok(Received {
        bytes: data.len() as u64,
        sha256: hash.finish(),
    })
}

/// What a server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The status code.
    pub status: u16,
    /// The headers as they came, without the one that tells the time.
    pub headers: Vec<String>,
    /// The body.
    pub body: String,
}

/// Asks for a page within a time limit, whatever its status is. That nobody listens is an error.
pub fn get(from: &Host, url: &str, limit: Duration) -> Result<Page> {
    let limit = limit.as_secs_f64().to_string();
    let arguments = [
        "--silent",
        "--show-error",
        "--include",
        "--globoff",
        "--noproxy",
        "*",
        "--max-time",
        &limit,
        url,
    ];
    let output = from.netns.output("curl", &arguments, &[])?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "on {}: {}", from.name, errors.trim());
    let text = String::from_utf8(output.stdout).context("the answer is no text")?;
    let (head, body) = text.split_once("\r\n\r\n").context("an answer without body")?;
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1));
    let headers = lines.filter(|line| !line.to_lowercase().starts_with("date:"));
    Ok(Page {
        status: status.context("no status")?.parse().context("the status")?,
        headers: headers.map(str::to_owned).collect(),
        body: body.to_owned(),
    })
}

fn curl(from: &Host, arguments: &[&str], input: &[u8], limit: Duration) -> Result<Vec<u8>> {
    let limit = limit.as_secs_f64().to_string();
    let arguments = [
        &[
            "--silent",
            "--show-error",
            "--fail",
            "--noproxy",
            "*",
            "--max-time",
            &limit,
        ],
        arguments,
    ]
    .concat();
    let output = from.netns.output("curl", &arguments, input)?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "on {}: {}", from.name, errors.trim());
    Ok(output.stdout)
}
