//! Asks a front end many times and judges the answers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use anyhow::Result;
use serde::Serialize;

use super::plan::FrontEnd;
use crate::answer::Answer;
use crate::family::{Family, Pair};
use crate::load::{is_even, shares};
use crate::topology::{self, CLIENT, Host, NODE1};

/// Requests to one front end from one host; each is a new connection or UDP flow.
const REQUESTS: usize = 60;

/// What the demo expects of every row.
pub(super) const EXPECTATIONS: &str = "every request is answered, every backend answers, the shares are even within five \
                                standard deviations, every backend sees the client's own address, or the node's if its \
                                reply would otherwise go past the node";

/// What came of asking one front end.
#[derive(Debug, Serialize)]
pub struct Row {
    /// Who asked.
    pub from: String,
    /// What was asked.
    #[serde(flatten)]
    pub front_end: FrontEnd,
    /// Number of requests.
    pub requests: usize,
    /// How many each backend answered.
    pub answers: BTreeMap<String, usize>,
    /// The addresses that backends saw.
    pub seen: BTreeSet<IpAddr>,
    /// The expectations that did not hold; empty is well.
    pub failures: Vec<String>,
}

/// Asks from a host; `backends` is how many must answer.
pub(super) fn ask(from: &Host, front_end: &FrontEnd, backends: usize) -> Result<Row> {
    let (talk, address) = (front_end.talk, front_end.address);
    let results: Vec<_> = from
        .netns
        .run(|| Ok((0..REQUESTS).map(|_| talk.ask(address)).collect()))?;
    let answered: Vec<&Answer> = results.iter().flatten().collect();
    let answers = shares(answered.iter().copied());
    let seen: BTreeSet<_> = answered.iter().map(|answer| answer.client.ip()).collect();

    let family = Family::of(address.ip());
    let mut failures = Vec::new();
    if let Some(error) = results.iter().find_map(|result| result.as_ref().err()) {
        failures.push(format!(
            "{} of {REQUESTS} requests failed: {error:#}",
            REQUESTS - answered.len()
        ));
    } else if answers.len() != backends {
        failures.push(format!("{} backends answered, not {backends}", answers.len()));
    } else if !is_even(&answers, backends) {
        failures.push("the shares are uneven".to_owned());
    }
    let is_wrong = |answer: &&&Answer| answer.client.ip() != source(from, &answer.backend).of(family);
    if let Some(Answer { backend, client }) = answered.iter().find(is_wrong) {
        let expected = source(from, backend).of(family);
        failures.push(format!("{backend} saw {}, not {expected}", client.ip()));
    }
    Ok(Row {
        from: from.name.clone(),
        front_end: front_end.clone(),
        requests: REQUESTS,
        answers,
        seen,
        failures,
    })
}

/// The address that a backend is to see: the node's for one of the other node when somebody outside asks.
fn source(from: &Host, backend: &str) -> Pair {
    if from.addresses == CLIENT && !topology::is_local_web(backend) {
        NODE1
    } else {
        from.addresses
    }
}
