//! NodePorts are kept from the node's own connections: `net.ipv4.ip_local_reserved_ports`, which counts for IPv6, too.
//!
//! The programs look at packets before the node's sockets do, so a connection of the node's own that had got such a
//! port by chance would lose its replies to the service.

use std::fmt;
use std::fs;
use std::io;
use std::str::FromStr;

use thiserror::Error;
use tracing::{debug, warn};

use super::{DataplaneError, Pins};

/// Of the network namespace of whoever opens it.
const SYSCTL: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";

/// The ports that connections get that ask for none.
const LOCAL_PORTS: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// Ports from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortRange {
    first: u16,
    last: u16,
}

/// A reservation that is renewed from time to time: somebody may set the sysctl anew.
#[derive(Debug)]
pub struct Reservation {
    pins: Pins,
    wanted: Option<PortRange>,
    failed: bool,
}

impl Reservation {
    /// Of these ports; nothing is done yet.
    pub fn new(pins: Pins, wanted: Option<PortRange>) -> Self {
        Self {
            pins,
            wanted,
            failed: false,
        }
    }

    /// Reserves what is not reserved; that it cannot be done is told once.
    pub fn renew(&mut self) {
        if let Err(error) = reserve(&self.pins, self.wanted)
            && !std::mem::replace(&mut self.failed, true)
        {
            let error = anyhow::Error::new(error);
            warn!("{error:#}; the node's own connections may be given NodePorts and then fail");
        }
    }
}

/// Warns of ports for masqueraded flows that the node's own connections may get by chance.
pub fn warn_of_chance(first: u16, last: u16) {
    if first == 0 || first > last {
        return;
    }
    match open_to_chance(PortRange { first, last }) {
        Ok(None) => {}
        Ok(Some(ports)) => warn!(
            "ports {ports} are for masqueraded flows, and net.ipv4.ip_local_port_range has them for the node's own connections as \
             well; where both meet one goes without. Keep the ranges apart"
        ),
        Err(error) => debug!(%error, "the range of local ports cannot be read"),
    }
}

/// Reserves `wanted`, and gives back what we reserved earlier and want no more; what others have reserved stays. Says
/// whether anything had to be written.
pub fn reserve(pins: &Pins, wanted: Option<PortRange>) -> Result<bool, DataplaneError> {
    let failed = |action| {
        move |source| DataplaneError::Pin {
            action,
            path: SYSCTL.into(),
            source,
        }
    };
    let marked = pins.marked_ports();
    if wanted.is_none() && marked.is_empty() {
        return Ok(false);
    }
    let present = fs::read_to_string(SYSCTL)
        .and_then(|text| parse(&text))
        .map_err(failed("read"))?;
    let (all, ours) = plan(&present, &marked, wanted);
    // Marked first: rather give back too much later than leave something behind.
    for range in ours.iter().filter(|range| !marked.contains(range)) {
        pins.mark_ports(*range)?;
    }
    let changed = all != merged(&present);
    if changed {
        fs::write(SYSCTL, text(&all)).map_err(failed("write"))?;
    }
    for range in marked.iter().filter(|range| !ours.contains(range)) {
        pins.unmark_ports(*range);
    }
    Ok(changed)
}

fn open_to_chance(wanted: PortRange) -> io::Result<Option<PortRange>> {
    let text = fs::read_to_string(LOCAL_PORTS)?;
    let local = text.split_whitespace().collect::<Vec<_>>().join("-");
    let local: PortRange = local.parse().map_err(io::Error::other)?;
    let reserved = parse(&fs::read_to_string(SYSCTL)?)?;
    Ok(overlap(wanted, local, &reserved))
}

/// The first part of `wanted` that is in `local` and not reserved.
fn overlap(wanted: PortRange, local: PortRange, reserved: &[PortRange]) -> Option<PortRange> {
    let both = PortRange {
        first: wanted.first.max(local.first),
        last: wanted.last.min(local.last),
    };
    let both = (both.first <= both.last).then_some(both)?;
    without(&[both], reserved).into_iter().next()
}

/// What is to be reserved in all, and which part of it is ours, when `present` is and `marked` was ours so far.
fn plan(
    present: &[PortRange],
    marked: &[PortRange],
    wanted: Option<PortRange>,
) -> (Vec<PortRange>, Vec<PortRange>) {
    let wanted: Vec<PortRange> = wanted.into_iter().collect();
    let others = without(present, marked);
    let ours = without(&wanted, &others);
    (merged(&[others, wanted].concat()), ours)
}

/// The same ports in order, in as few ranges as can be.
fn merged(ranges: &[PortRange]) -> Vec<PortRange> {
    let mut sorted = ranges.to_vec();
    sorted.sort();
    let mut merged: Vec<PortRange> = Vec::new();
    for range in sorted {
        match merged.last_mut() {
            Some(before) if range.first <= before.last.saturating_add(1) => {
                before.last = before.last.max(range.last);
            }
            _ => merged.push(range),
        }
    }
    merged
}

/// The ports of `ranges` that are not in `taken`.
fn without(ranges: &[PortRange], taken: &[PortRange]) -> Vec<PortRange> {
    taken.iter().fold(merged(ranges), |left, taken| {
        left.into_iter().flat_map(|range| range.cut(*taken)).collect()
    })
}

fn parse(text: &str) -> io::Result<Vec<PortRange>> {
    let words = text.trim().split(',').filter(|word| !word.is_empty());
    words.map(|word| word.parse().map_err(io::Error::other)).collect()
}

/// As the kernel takes it; a lone line feed is no port at all.
fn text(ranges: &[PortRange]) -> String {
    let words: Vec<String> = ranges.iter().map(ToString::to_string).collect();
    words.join(",") + "\n"
}

impl PortRange {
    /// The first port.
    pub const fn first(self) -> u16 {
        self.first
    }

    /// The last port.
    pub const fn last(self) -> u16 {
        self.last
    }

    /// Whether any port is in both.
    pub const fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// What is left of it on both sides of `taken`.
    fn cut(self, taken: Self) -> impl Iterator<Item = Self> {
        let below = (taken.first > self.first).then(|| Self {
            first: self.first,
            last: self.last.min(taken.first - 1),
        });
        let above = (taken.last < self.last).then(|| Self {
            first: self.first.max(taken.last + 1),
            last: self.last,
        });
        below.into_iter().chain(above)
    }
}

/// Text that is no range of ports.
#[derive(Debug, Error)]
#[error("no range of ports such as 30000-32767")]
pub struct PortRangeError;

impl FromStr for PortRange {
    type Err = PortRangeError;

    fn from_str(text: &str) -> Result<Self, PortRangeError> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let number = |word: &str| word.parse().ok().filter(|port| *port > 0);
        match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Self { first, last }),
            _ => Err(PortRangeError),
        }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { first, last } = self;
        if first == last {
            write!(f, "{first}")
        } else {
            write!(f, "{first}-{last}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compares what is reserved in all, and which part of it is ours.
    #[track_caller]
    fn check(present: &str, marked: &str, wanted: &str, all: &str, ours: &str) {
        let ranges = |text| parse(text).unwrap();
        let found = plan(&ranges(present), &ranges(marked), wanted.parse().ok());
        assert_eq!(found, (ranges(all), ranges(ours)));
    }

    #[test]
    fn what_others_reserved_stays_theirs() {
        const RANGE: &str = "30000-32767";
        check("", "", RANGE, RANGE, RANGE);
        check("8080", "", RANGE, "8080,30000-32767", RANGE);
        check("31000", "", RANGE, RANGE, "30000-30999,31001-32767");
        check("29000-30010", "", RANGE, "29000-32767", "30011-32767");
        check("1-65535", "", RANGE, "1-65535", "");
    }

    #[test]
    fn ports_that_connections_may_get_are_told() {
        let range = |text: &str| text.parse::<PortRange>().unwrap();
        let told = |wanted, local, reserved| {
            overlap(range(wanted), range(local), &parse(reserved).unwrap()).map(|range| range.to_string())
        };
        assert_eq!(told("61000-65535", "32768-60999", ""), None);
        assert_eq!(
            told("60000-65535", "32768-60999", "").as_deref(),
            Some("60000-60999")
        );
        assert_eq!(told("60000-65535", "32768-60999", "60000-60999"), None);
        assert_eq!(
            told("60000-65535", "32768-60999", "60000-60500").as_deref(),
            Some("60501-60999")
        );
    }

    #[test]
    fn only_ours_is_given_back() {
        check("30000-32767", "30000-32767", "", "", "");
        check("29000-32767", "30011-32767", "", "29000-30010", "");
        check("30000-32767", "30000-30999,31001-32767", "", "31000", "");
        check("8080", "30000-32767", "", "8080", "");
    }

    #[test]
    fn another_range_replaces_ours() {
        check(
            "30000-32767",
            "30000-32767",
            "30000-32767",
            "30000-32767",
            "30000-32767",
        );
        check(
            "80,30000-32767",
            "30000-32767",
            "31000-40000",
            "80,31000-40000",
            "31000-40000",
        );
        check(
            "80",
            "30000-32767",
            "30000-32767",
            "80,30000-32767",
            "30000-32767",
        );
    }

    #[test]
    fn ranges_are_read_and_written_as_the_kernel_does() {
        assert_eq!(
            text(&parse("80,443,30000-32767\n").unwrap()),
            "80,443,30000-32767\n"
        );
        assert_eq!(text(&parse("\n").unwrap()), "\n");
        for wrong in ["", "0", "5-4", "70000", "a-b", "1-2-3"] {
            assert!(wrong.parse::<PortRange>().is_err(), "{wrong}");
        }
    }
}
