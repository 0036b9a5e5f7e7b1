//! Adds a backend to a service and takes it away again, under load.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde::Serialize;
use serde_json::{Value, json};

use super::asking::{self, Row};
use super::plan::{self, FrontEnd};
use crate::family::Family;
use crate::load::{Load, Sample};
use crate::manifests::Manifests;
use crate::topology::Host;

/// For so long an edit is watched; far longer than it should take.
const WATCH: Duration = Duration::from_millis(500);

/// What an edit of a manifest did.
#[derive(Debug, Serialize)]
pub struct Change {
    /// What was done.
    pub what: String,
    /// Milliseconds from the edit until it showed: the first answer of an added backend, the last of a removed one.
    pub shown_ms: f64,
    /// Requests that were made meanwhile.
    pub requests: usize,
    /// Requests after the change.
    pub after: Row,
    /// The expectations that did not hold; empty is well.
    pub failures: Vec<String>,
}

/// The service that is scaled: its manifest, and where it is asked from and at.
#[derive(Debug)]
pub(super) struct Scaled<'a> {
    /// The manifests.
    pub manifests: &'a Manifests,
    /// The file of the service.
    pub file: &'a str,
    /// Who asks.
    pub from: &'a Host,
    /// Where.
    pub front_end: &'a FrontEnd,
}

impl Scaled<'_> {
    /// Adds a pod to the service, which then has `backends` of them.
    pub(super) fn out(&self, pod: &Host, backends: usize) -> Result<Change> {
        let what = format!("{} joins", pod.name);
        self.change(
            what,
            backends,
            |slice| add(slice, pod),
            |samples, edit| first_answer(samples, &pod.name, edit),
        )
    }

    /// Takes a pod away from the service, which then has `backends` of them.
    pub(super) fn in_(&self, pod: &Host, backends: usize) -> Result<Change> {
        let what = format!("{} leaves", pod.name);
        self.change(
            what,
            backends,
            |slice| remove(slice, pod),
            |samples, edit| last_answer(samples, &pod.name, edit),
        )
    }

    fn change(
        &self,
        what: String,
        backends: usize,
        edit: impl Fn(&mut Value) -> Result<()>,
        shown: impl Fn(&[Sample], Instant) -> Option<Duration>,
    ) -> Result<Change> {
        let (talk, address) = (self.front_end.talk, self.front_end.address);
        let load = Load::start(self.from, Duration::ZERO, move || talk.ask(address))?;
        thread::sleep(WATCH / 5);
        let edited = Instant::now();
        self.edit(edit)?;
        thread::sleep(WATCH);
        let samples = load.stop()?;

        let after = asking::ask(self.from, self.front_end, backends)?;
        let mut failures = after.failures.clone();
        let shown = shown(&samples, edited);
        if shown.is_none_or(|shown| shown >= WATCH) {
            failures.push(format!("{what}: nothing shows within {WATCH:?}"));
        }
        if let Some(error) = samples.iter().find_map(|sample| sample.result.as_ref().err()) {
            failures.push(format!("{what}: a request failed: {error:#}"));
        }
        let shown_ms = shown.unwrap_or(WATCH).as_secs_f64() * 1000.0;
        Ok(Change {
            what,
            shown_ms,
            requests: samples.len(),
            after,
            failures,
        })
    }

    /// Edits every EndpointSlice of the file.
    fn edit(&self, edit: impl Fn(&mut Value) -> Result<()>) -> Result<()> {
        let mut documents = plan::documents(&self.manifests.folder().join(self.file))?;
        documents
            .iter_mut()
            .filter(|document| document["kind"] == "EndpointSlice")
            .try_for_each(edit)?;
        self.manifests.write(self.file, &documents)
    }
}

fn add(slice: &mut Value, pod: &Host) -> Result<()> {
    let endpoint = json!({
        "addresses": [address_for(slice, pod)],
        "conditions": { "ready": true, "serving": true, "terminating": false },
    });
    endpoints(slice)?.push(endpoint);
    Ok(())
}

fn remove(slice: &mut Value, pod: &Host) -> Result<()> {
    let address = address_for(slice, pod);
    endpoints(slice)?.retain(|endpoint| endpoint["addresses"] != json!([address]));
    Ok(())
}

fn address_for(slice: &Value, pod: &Host) -> Value {
    let family = if slice["addressType"] == Family::V6.name() {
        Family::V6
    } else {
        Family::V4
    };
    json!(pod.addresses.of(family))
}

fn endpoints(slice: &mut Value) -> Result<&mut Vec<Value>> {
    slice["endpoints"]
        .as_array_mut()
        .context("a slice has no endpoints")
}

fn first_answer(samples: &[Sample], backend: &str, edit: Instant) -> Option<Duration> {
    let first = samples.iter().find(|sample| answered(sample, backend))?;
    Some(first.ended.saturating_duration_since(edit))
}

/// When the last request was begun that a backend answered; at once if none was since the edit.
fn last_answer(samples: &[Sample], backend: &str, edit: Instant) -> Option<Duration> {
    let last = samples.iter().rfind(|sample| answered(sample, backend))?;
    Some(last.begun.saturating_duration_since(edit))
}

fn answered(sample: &Sample, backend: &str) -> bool {
    sample
        .result
        .as_ref()
        .is_ok_and(|answer| answer.backend == backend)
}
