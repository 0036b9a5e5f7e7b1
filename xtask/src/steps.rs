//! Progress: one plain line per step. What the tools print goes to a log file, and is shown when they fail.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    iter,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::workspace::Workspace;

const LOGS: &str = "target/xtask/log";
const LAST_LINES: usize = 40;
const POLL: Duration = Duration::from_millis(50);

/// The steps of one command, numbered.
pub(crate) struct Steps {
    root: PathBuf,
    total: usize,
    current: usize,
}

impl Steps {
    /// A command of so many steps.
    pub(crate) fn new(workspace: &Workspace, total: usize) -> Result<Self> {
        let logs = workspace.path(LOGS);
        fs::create_dir_all(&logs).with_context(|| format!("cannot make the folder {}", logs.display()))?;
        Ok(Self {
            root: workspace.root().to_path_buf(),
            total,
            current: 0,
        })
    }

    /// Goes on to the next step.
    pub(crate) fn advance(&mut self) {
        self.advance_by(1);
    }

    /// Goes on by several steps that there is nothing to do for.
    pub(crate) fn advance_by(&mut self, steps: usize) {
        self.current += steps;
    }

    /// Leaves out steps up to this one.
    pub(crate) fn skip_to(&mut self, step: usize) {
        self.current = step;
    }

    /// Says what was found, or what is about to come.
    pub(crate) fn tell(&self, text: &str) {
        eprintln!("[{}/{}] {text}", self.current, self.total);
    }

    /// Runs a tool silently, with its name in front and its time at the end of the line.
    pub(crate) fn run(&self, what: &str, log: &str, command: &mut Command) -> Result<()> {
        self.run_within(None, what, log, command)
    }

    /// The same for a tool that might hang: it is ended when the time is over.
    pub(crate) fn run_within(
        &self,
        limit: Option<Duration>,
        what: &str,
        log: &str,
        command: &mut Command,
    ) -> Result<()> {
        eprint!("[{}/{}] {what} ... ", self.current, self.total);
        // Standard error is not buffered, so a failed flush only delays the text.
        let _ = io::stderr().flush();
        let log = self.root.join(LOGS).join(log).with_extension("log");
        let start = Instant::now();
        let outcome = logged(limit, &log, command);
        let seconds = start.elapsed().as_secs_f32();
        match outcome {
            Ok(Some(status)) if status.success() => {
                eprintln!("done in {seconds:.1} s");
                Ok(())
            }
            Ok(status) => {
                eprintln!("failed after {seconds:.1} s");
                let end = status.map_or_else(
                    || "took too long".to_owned(),
                    |status| format!("failed, {status}"),
                );
                bail!("{} {end}\n{}", shown(command), self.tail(&log))
            }
            Err(error) => {
                eprintln!("failed");
                Err(error)
            }
        }
    }

    fn tail(&self, log: &Path) -> String {
        let text = fs::read_to_string(log).unwrap_or_default();
        let place = log.strip_prefix(&self.root).unwrap_or(log).display();
        format!("the last lines of {place}:\n{}", last_lines(&text, LAST_LINES))
    }
}

/// The command as one would type it.
fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program())
        .file_name()
        .unwrap_or(command.get_program());
    let words = iter::once(program).chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    format!("`{}`", words.join(" "))
}

/// Runs to the end, or to the limit (then there is no status).
fn logged(limit: Option<Duration>, log: &Path, command: &mut Command) -> Result<Option<ExitStatus>> {
    let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let copy = file
        .try_clone()
        .with_context(|| format!("cannot write {}", log.display()))?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(copy)
        .spawn()
        .with_context(|| format!("cannot start {}", shown(command)))?;
    let Some(limit) = limit else {
        return child.wait().map(Some).context("cannot wait for a child");
    };
    let end = Instant::now() + limit;
    while Instant::now() < end {
        if let Some(status) = child.try_wait().context("cannot wait for a child")? {
            return Ok(Some(status));
        }
        thread::sleep(POLL);
    }
    child.kill().context("cannot end a child")?;
    child.wait().context("cannot wait for a child")?;
    Ok(None)
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let first = lines.len().saturating_sub(count);
    format!("    {}", lines[first..].join("\n    "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_lines_are_shown() {
        assert_eq!(last_lines("a\nb\nc\n", 2), "    b\n    c");
        assert_eq!(last_lines("", 2), "    ");
    }

    #[test]
    fn a_tool_that_hangs_is_ended() {
        let log = std::env::temp_dir().join(format!("xtask-steps-{}.log", std::process::id()));
        let mut sleep = Command::new("sleep");
        let status = logged(Some(Duration::from_millis(100)), &log, sleep.arg("60")).unwrap();
        assert_eq!(status, None);
        fs::remove_file(log).unwrap();
    }
}
