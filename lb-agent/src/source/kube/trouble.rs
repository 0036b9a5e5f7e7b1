//! What goes wrong with the API server, for people.

use std::error::Error;
use std::time::Duration;

use kube::core::Status;
use thiserror::Error;

use super::watched::Watched;

const GONE: u16 = 410;

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum Trouble {
    /// There is no answer.
    #[error("the API server cannot be reached: {0}")]
    Unreachable(String),
    /// It does not know us (401).
    #[error(
        "the API server does not accept our credentials (401): check the ServiceAccount's token, or the user of the \
         kubeconfig"
    )]
    Unauthorized,
    /// We may not (403).
    #[error(
        "the API server does not let us {verbs} {resource} (403): {message}. Give the ServiceAccount a ClusterRole with the \
         rule apiGroups: [\"{group}\"], resources: [\"{resource}\"], verbs: [{verbs}]"
    )]
    Forbidden {
        group: &'static str,
        resource: &'static str,
        verbs: &'static str,
        message: String,
    },
    /// It has nothing of the kind (404).
    #[error("the API server has no {resource} (404): {message}")]
    Missing { resource: &'static str, message: String },
    /// It says no, or not now.
    #[error("the API server refuses to tell of {resource} ({code}): {message}")]
    Refused {
        resource: &'static str,
        code: u16,
        message: String,
        /// What it asks us to wait.
        wait: Duration,
    },
    /// What we knew is too old (410): everything has to be told anew.
    #[error("the API server has forgotten the version of {resource} that we knew (410)")]
    Gone { resource: &'static str },
    /// It does not begin a watch with every object.
    #[error("the API server has no streaming lists")]
    NoStreaming,
    /// A watch that told nothing and ended at once.
    #[error("the API server ends the watch of {resource} as soon as it has begun")]
    Ended { resource: &'static str },
    /// No JSON, or not what it should be.
    #[error("the API server's answer about {resource} cannot be read: {why}")]
    Garbled { resource: &'static str, why: String },
    /// Nobody listens to us any more.
    #[error("the agent ends")]
    Closed,
}

impl Trouble {
    /// What an error of the client means for `watched`.
    pub(super) fn of(error: &kube::Error, watched: &Watched) -> Self {
        match error {
            kube::Error::Api(status) => Self::of_status(status, watched),
            other => Self::unreachable(other),
        }
    }

    /// What a status of the server means for `watched`.
    pub(super) fn of_status(status: &Status, watched: &Watched) -> Self {
        let resource = watched.resource;
        let message = shortened(&status.message);
        match status.code {
            401 => Self::Unauthorized,
            403 => Self::Forbidden {
                group: watched.group,
                resource,
                verbs: watched.verbs(),
                message,
            },
            404 => Self::Missing { resource, message },
            GONE => Self::Gone { resource },
            code => Self::Refused {
                resource,
                code,
                message,
                wait: status.details.as_ref().map_or(Duration::ZERO, |details| {
                    Duration::from_secs(details.retry_after_seconds.into())
                }),
            },
        }
    }

    /// There was no answer, or it broke off.
    pub(super) fn unreachable(error: &(dyn Error + 'static)) -> Self {
        let mut cause = error;
        // The chain is several layers of HTTP; what the system said is at its end.
        while let Some(source) = cause.source() {
            cause = source;
        }
        Self::Unreachable(cause.to_string())
    }
}

impl Watched {
    fn verbs(&self) -> &'static str {
        match self.kind {
            crate::model::Kind::Namespace => "get",
            _ => "list, watch",
        }
    }
}

/// Servers may answer with whole pages.
fn shortened(message: &str) -> String {
    const LENGTH: usize = 300;
    let mut text: String = message.chars().take(LENGTH).collect();
    if text.len() < message.len() {
        text.push('…');
    }
    text
}
