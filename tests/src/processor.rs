//! On which processor something runs.

use std::thread;

use anyhow::{Context as _, Result};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

/// Keeps the calling thread on one processor. A machine that has not so many leaves no choice.
pub fn stay_on(number: usize) -> Result<()> {
    let mut processors = CpuSet::new();
    if number < thread::available_parallelism()?.get() {
        processors.set(number)?;
        sched_setaffinity(Pid::from_raw(0), &processors).context("cannot stay on one processor")?;
    }
    Ok(())
}
