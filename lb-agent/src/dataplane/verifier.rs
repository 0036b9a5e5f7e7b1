//! The verifier's log, made short.

use std::fmt::Write as _;

/// Lines of the log that are worth showing: the last ones, where it says what it does not like.
const KEPT: usize = 15;

/// The last relevant lines of a verifier log, and how many were left out.
pub(super) fn summary(log: &str) -> String {
    let lines: Vec<&str> = log
        .lines()
        .map(str::trim_end)
        .filter(|line| !line.is_empty())
        .collect();
    // Statistics follow the verdict.
    let end = lines
        .iter()
        .rposition(|line| !is_statistics(line))
        .map_or(0, |last| last + 1);
    let start = end.saturating_sub(KEPT);
    let mut summary = String::new();
    if start > 0 {
        let _ = writeln!(summary, "  ({start} lines omitted)");
    }
    for line in lines.get(start..end).unwrap_or_default() {
        let _ = writeln!(summary, "  {line}");
    }
    summary.truncate(summary.trim_end().len());
    if summary.is_empty() {
        "  (the verifier said nothing)".to_owned()
    } else {
        summary
    }
}

fn is_statistics(line: &str) -> bool {
    ["processed ", "verification time ", "stack depth "]
        .iter()
        .any(|start| line.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_long_log_is_kept() {
        let mut log: String = (1..=40).fold(String::new(), |log, n| format!("{log}{n}: (b7) r0 = 0\n"));
        log.push_str("R1 invalid mem access 'scalar'\n\nverification time 5 usec\nprocessed 40 insns (limit 1000000)\n");
        let summary = summary(&log);
        let lines: Vec<&str> = summary.lines().collect();
        assert_eq!(lines.len(), KEPT + 1);
        assert_eq!(lines[0], "  (26 lines omitted)");
        assert_eq!(lines[1], "  27: (b7) r0 = 0");
        assert_eq!(lines[KEPT], "  R1 invalid mem access 'scalar'");
    }

    #[test]
    fn a_short_log_is_kept_whole() {
        assert_eq!(
            summary("unreachable insn 3\nprocessed 0 insns\n"),
            "  unreachable insn 3"
        );
        assert_eq!(summary(""), "  (the verifier said nothing)");
    }
}
