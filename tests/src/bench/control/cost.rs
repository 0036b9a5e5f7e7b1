//! What a process has cost so far, from procfs (`proc_pid_stat(5)`, and `schedstat` in the kernel's sched-stats).

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};

/// Processor time of all its threads. Threads that have ended are not counted: those measured here do not end.
pub(super) fn threads(process: u32) -> Result<Duration> {
    let mut nanoseconds = 0;
    for entry in fs::read_dir(format!("/proc/{process}/task")).context("the process has ended")? {
        // A thread may end meanwhile.
        let text = fs::read_to_string(entry?.path().join("schedstat")).unwrap_or_default();
        let spent = text
            .split_whitespace()
            .next()
            .and_then(|number| number.parse::<u64>().ok());
        nanoseconds += spent.unwrap_or_default();
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// Processor time of its children that have ended.
pub(super) fn children(process: u32) -> Result<Duration> {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).context("the process has ended")?;
    // The name, in parentheses, may hold spaces; what follows it begins with field 3.
    let (_, fields) = text.rsplit_once(')').context("no stat of a process")?;
    let ticks = |field: usize| fields.split_whitespace().nth(field - 3)?.parse::<u64>().ok();
    let (user, system) = (ticks(16).context("no cutime")?, ticks(17).context("no cstime")?);
    // USER_HZ is 100 wherever Linux runs today.
    Ok(Duration::from_millis((user + system) * 10))
}

/// The most memory that it held, in MiB.
pub(super) fn peak_mib(process: u32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{process}/status")).context("the process has ended")?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .context("no VmHWM")?;
    let kib = line
        .trim()
        .trim_end_matches(" kB")
        .parse::<f64>()
        .context("no number of kB")?;
    Ok(kib / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_cost_something() {
        let own = std::process::id();
        assert!(threads(own).unwrap() > Duration::ZERO);
        children(own).unwrap();
        assert!(peak_mib(own).unwrap() > 1.0);
    }
}
