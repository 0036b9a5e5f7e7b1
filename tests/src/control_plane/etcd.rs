//! etcd, asked directly, by its gateway for JSON (<https://etcd.io/docs/v3.6/dev-guide/api_grpc_gateway/>).

use anyhow::{Context as _, Result, ensure};
use data_encoding::BASE64;
use serde_json::{Value, json};

use super::programs::ETCD_PORT;
use crate::topology::Host;

/// Forgets all revisions before the present one.
pub(super) fn compact(host: &Host) -> Result<()> {
    // Any key will do ("\0" in base 64): the header has the revision.
    let status = ask(host, "range", &json!({ "key": "AA==", "limit": 1 }))?;
    let revision = &status["header"]["revision"];
    ensure!(revision.is_string(), "etcd does not tell its revision: {status}");
    ask(
        host,
        "compaction",
        &json!({ "revision": revision, "physical": true }),
    )
    .map(drop)
}

/// Deletes a key that is there.
pub(super) fn delete(host: &Host, key: &str) -> Result<()> {
    let request = json!({ "key": BASE64.encode(key.as_bytes()) });
    let answer = ask(host, "deleterange", &request)?;
    ensure!(answer["deleted"] == "1", "etcd has no {key}: {answer}");
    Ok(())
}

fn ask(host: &Host, method: &str, request: &Value) -> Result<Value> {
    let url = format!("http://127.0.0.1:{ETCD_PORT}/v3/kv/{method}");
    let arguments = [
        "--silent",
        "--show-error",
        "--fail",
        "--noproxy",
        "*",
        "--data",
        "@-",
        &url,
    ];
    let output = host
        .netns
        .output("curl", &arguments, request.to_string().as_bytes())?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "etcd's {method}: {}", errors.trim());
    serde_json::from_slice(&output.stdout).context("etcd does not answer in JSON")
}
