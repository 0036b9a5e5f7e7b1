//! The image of deploy/Dockerfile: run by `cargo xtask image`, which builds it.

#![expect(clippy::unwrap_used, reason = "tests panic")]

mod contents;
mod node;

use std::env;
use std::fs;
use std::path::PathBuf;

use serde_json::Value;

/// The folder with what the image holds.
fn root() -> PathBuf {
    env::var_os("SLUICE_IMAGE_ROOT").unwrap().into()
}

/// The image's configuration, as the OCI's specification of images has it ("OCI Image Configuration", `config`).
fn config() -> Value {
    let description = fs::read(env::var_os("SLUICE_IMAGE_DESCRIPTION").unwrap()).unwrap();
    let description: Value = serde_json::from_slice(&description).unwrap();
    description["OCIv1"]["config"].clone()
}

/// The words of a command in the configuration.
fn words(config: &Value, key: &str) -> Vec<String> {
    let words = config[key].as_array().unwrap();
    words
        .iter()
        .map(|word| word.as_str().unwrap().to_owned())
        .collect()
}
