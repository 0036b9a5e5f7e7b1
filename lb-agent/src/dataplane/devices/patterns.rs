//! Which devices, by name: the flags `--devices`, `--exclude-devices` and `--uplinks`.

use glob::{Pattern, PatternError as GlobError};
use thiserror::Error;

/// Patterns of device names.
#[derive(Clone, Debug, Default)]
pub struct Patterns {
    include: Vec<Pattern>,
    exclude: Vec<Pattern>,
    uplinks: Vec<Pattern>,
}

/// A pattern that cannot be read.
#[derive(Debug, Error)]
#[error("{flag} {pattern:?} is no pattern")]
pub struct PatternError {
    flag: &'static str,
    pattern: String,
    #[source]
    source: GlobError,
}

impl Patterns {
    /// From the flags; names may hold `*`, `?` and `[...]`.
    pub fn new(include: &[String], exclude: &[String], uplinks: &[String]) -> Result<Self, PatternError> {
        Ok(Self {
            include: parse("--devices", include)?,
            exclude: parse("--exclude-devices", exclude)?,
            uplinks: parse("--uplinks", uplinks)?,
        })
    }

    /// `Some` when the patterns alone decide about a device of that name: excluding wins over including.
    pub(super) fn decide(&self, name: &str) -> Option<bool> {
        if matches(&self.exclude, name) {
            Some(false)
        } else if self.include.is_empty() {
            None
        } else {
            Some(matches(&self.include, name))
        }
    }

    pub(super) fn is_uplink(&self, name: &str) -> bool {
        matches(&self.uplinks, name)
    }
}

fn parse(flag: &'static str, patterns: &[String]) -> Result<Vec<Pattern>, PatternError> {
    let pattern = |pattern: &String| {
        Pattern::new(pattern).map_err(|source| PatternError {
            flag,
            pattern: pattern.clone(),
            source,
        })
    };
    patterns.iter().map(pattern).collect()
}

fn matches(patterns: &[Pattern], name: &str) -> bool {
    patterns.iter().any(|pattern| pattern.matches(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(include: &[&str], exclude: &[&str]) -> Patterns {
        let strings = |patterns: &[&str]| patterns.iter().map(ToString::to_string).collect::<Vec<_>>();
        Patterns::new(&strings(include), &strings(exclude), &[]).unwrap()
    }

    #[test]
    fn excluding_wins_over_including() {
        let patterns = patterns(&["eth*", "veth?"], &["eth1"]);
        assert_eq!(patterns.decide("eth0"), Some(true));
        assert_eq!(patterns.decide("eth1"), Some(false));
        assert_eq!(patterns.decide("veth1"), Some(true));
        assert_eq!(patterns.decide("veth12"), Some(false));
    }

    #[test]
    fn without_patterns_the_kind_decides() {
        assert_eq!(patterns(&[], &["docker*"]).decide("docker0"), Some(false));
        assert_eq!(patterns(&[], &["docker*"]).decide("eth0"), None);
    }

    #[test]
    fn a_bad_pattern_is_named() {
        let error = Patterns::new(&["eth[".to_owned()], &[], &[]).unwrap_err();
        assert_eq!(error.to_string(), "--devices \"eth[\" is no pattern");
    }
}
