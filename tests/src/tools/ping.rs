//! Echo requests by `ping` (iputils).

use std::net::IpAddr;

use anyhow::{Context as _, Result};

use crate::topology::Host;

/// Echo requests to be.
#[derive(Clone, Copy, Debug)]
pub struct Ping {
    /// How many.
    pub count: u32,
    /// Bytes of data in each.
    pub size: usize,
    /// They may not be fragmented, not even by the sender.
    pub dont_fragment: bool,
}

impl Default for Ping {
    fn default() -> Self {
        Self {
            count: 1,
            size: 56,
            dont_fragment: false,
        }
    }
}

/// What became of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PingReport {
    /// Requests that were answered.
    pub received: u32,
    /// All that was printed, errors of routers included.
    pub text: String,
}

impl Ping {
    /// Sends them, a hundred a second, and waits a second for the last answer.
    pub fn run(self, from: &Host, to: IpAddr) -> Result<PingReport> {
        let (count, size, to) = (self.count.to_string(), self.size.to_string(), to.to_string());
        let discovery = if self.dont_fragment { "do" } else { "dont" };
        let arguments = [
            "-n", "-i", "0.01", "-W", "1", "-c", &count, "-s", &size, "-M", discovery, &to,
        ];
        // It ends with 1 when some were not answered, which is no failure of this call.
        let output = from.netns.output("ping", &arguments, &[])?;
        let text = [output.stdout, output.stderr].map(|part| String::from_utf8_lossy(&part).into_owned());
        let text = text.concat();
        let received = received(&text).with_context(|| format!("ping {arguments:?} printed {text:?}"))?;
        Ok(PingReport { received, text })
    }
}

/// From `3 packets transmitted, 2 received, …`.
fn received(text: &str) -> Option<u32> {
    let (before, _) = text.split_once(" received")?;
    before.rsplit(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answers_are_counted() {
        assert_eq!(
            received("3 packets transmitted, 2 received, 33% packet loss, time 22ms"),
            Some(2)
        );
        assert_eq!(received("ping: unknown host"), None);
    }
}
