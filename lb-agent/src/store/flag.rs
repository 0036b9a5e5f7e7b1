//! Which flag of `lb-agent run` makes a map larger.

use lb_common::layout::map;

/// The flag that decides a map's size; `None` when the object does.
pub fn size_flag(name: &str) -> Option<&'static str> {
    match name {
        map::NAMES
        | map::STATS
        | map::LIMITS
        | map::POLICIES
        | map::SERVICES4
        | map::SERVICES6
        | map::RANGES4
        | map::RANGES6 => Some("--max-services"),
        map::SLOTS4 | map::SLOTS6 => Some("--max-slots"),
        map::BACKENDS4 | map::BACKENDS6 | map::LOCALS4 | map::LOCALS6 | map::LOADS4 | map::LOADS6 => {
            Some("--max-backends")
        }
        map::FLOWS4
        | map::FLOWS6
        | map::FLOW_TAGS4
        | map::FLOW_TAGS6
        | map::AFFINITY4
        | map::AFFINITY6
        | map::SOURCES4
        | map::SOURCES6
        | map::FRAGS4
        | map::FRAGS6 => Some("--max-flows"),
        _ => None,
    }
}

/// What to do when a map is full, as the end of a sentence.
pub(crate) fn remedy(name: &str) -> String {
    match size_flag(name) {
        Some(flag) => format!("raise {flag}"),
        None => "no flag makes it larger".to_owned(),
    }
}
