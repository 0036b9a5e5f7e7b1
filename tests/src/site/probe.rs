//! Asking a service, when "no" is an answer, too.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use anyhow::{Context as _, Error, Result, bail};

use crate::answer::Answer;
use crate::dns::Resolver;
use crate::echo::Echo;
use crate::family::Family;
use crate::maps::Protocol;
use crate::topology::Host;

/// Longer than a repeated SYN takes, so that a single lost packet is no silence.
const PATIENCE: Duration = Duration::from_millis(1500);

/// What asking a service several times came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All were answered: by whom, and whom they saw.
    Answered {
        /// The names of the pods.
        backends: BTreeSet<String>,
        /// The clients' addresses as the pods saw them.
        clients: BTreeSet<IpAddr>,
    },
    /// The first that was not answered was refused, by a reset or an ICMP port unreachable.
    Refused,
    /// There is no way there.
    Unreachable,
    /// Nothing came back.
    Silent,
    /// It could not even be asked: so netfilter's drops and rejects look to a process of the node that sends by UDP.
    NotPermitted,
}

impl Outcome {
    /// Who answered; nobody if it was not all answered.
    pub fn backends(&self) -> Vec<&str> {
        match self {
            Self::Answered { backends, .. } => backends.iter().map(String::as_str).collect(),
            _ => Vec::new(),
        }
    }
}

/// Ports of a host that it has not asked from yet, above those of services and of masquerade.
#[derive(Debug)]
pub struct Ports(RangeInclusive<u16>);

impl Ports {
    /// Those from `first` on.
    pub const fn starting_at(first: u16) -> Self {
        Self(first..=u16::MAX)
    }
}

/// Asks so many times from a host, each time on a new flow, until it is not answered once.
pub fn probe(from: &Host, protocol: Protocol, to: SocketAddr, times: usize) -> Result<Outcome> {
    probe_by(from, protocol, to, times, || Ok(None))
}

/// The same, each time from a port that was never used before: what was asked before does not matter.
pub fn probe_anew(
    from: &Host,
    ports: &mut Ports,
    protocol: Protocol,
    to: SocketAddr,
    times: usize,
) -> Result<Outcome> {
    let any = Family::of(to.ip()).unspecified();
    probe_by(from, protocol, to, times, || {
        let port = ports.0.next().context("no port is left")?;
        Ok(Some(SocketAddr::new(any, port)))
    })
}

fn probe_by(
    from: &Host,
    protocol: Protocol,
    to: SocketAddr,
    times: usize,
    mut own: impl FnMut() -> Result<Option<SocketAddr>> + Send,
) -> Result<Outcome> {
    from.netns.run(|| {
        let (mut backends, mut clients) = (BTreeSet::new(), BTreeSet::new());
        let mut left = times;
        while left > 0 {
            match ask(protocol, to, own()?) {
                Ok(Answer { backend, client }) => {
                    backends.insert(backend);
                    clients.insert(client.ip());
                    left -= 1;
                }
                // Another process of the host has that port.
                Err(error) if kind(&error) == Some(ErrorKind::AddrInUse) => {}
                Err(error) => return failure(error),
            }
        }
        Ok(Outcome::Answered { backends, clients })
    })
}

fn ask(protocol: Protocol, to: SocketAddr, from: Option<SocketAddr>) -> Result<Answer> {
    match protocol {
        Protocol::Tcp => Ok(Echo::open_within(to, from, PATIENCE)?.answer().clone()),
        Protocol::Udp => Resolver::open_within(to, from, PATIENCE)?.ask(),
        Protocol::Sctp => bail!("there is no client for SCTP: many kernels have no such sockets"),
    }
}

fn kind(error: &Error) -> Option<ErrorKind> {
    error
        .chain()
        .find_map(|cause| cause.downcast_ref::<io::Error>())
        .map(io::Error::kind)
}

/// An error that says nothing about the service is handed on.
fn failure(error: Error) -> Result<Outcome> {
    match kind(&error) {
        Some(ErrorKind::ConnectionRefused) => Ok(Outcome::Refused),
        Some(ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable) => Ok(Outcome::Unreachable),
        Some(ErrorKind::TimedOut | ErrorKind::WouldBlock) => Ok(Outcome::Silent),
        Some(ErrorKind::PermissionDenied) => Ok(Outcome::NotPermitted),
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn errors_are_told_apart_under_their_context() {
        let outcome = |kind: ErrorKind| {
            let error: Result<()> = Err(io::Error::from(kind))
                .context("to here")
                .context("from there");
            failure(error.unwrap_err()).ok()
        };
        assert_eq!(outcome(ErrorKind::ConnectionRefused), Some(Outcome::Refused));
        assert_eq!(outcome(ErrorKind::NetworkUnreachable), Some(Outcome::Unreachable));
        assert_eq!(outcome(ErrorKind::WouldBlock), Some(Outcome::Silent));
        assert_eq!(outcome(ErrorKind::AddrInUse), None);
        assert!(failure(anyhow!("something else")).is_err());
    }
}
