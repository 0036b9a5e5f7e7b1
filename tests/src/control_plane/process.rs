//! Processes inside a namespace that end together with the test, whatever ends it.

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::{fs, thread};

use anyhow::{Context as _, Result, bail};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

use crate::netns::Netns;

const LINES_OF_LOG: usize = 30;

/// A thread in a namespace that starts processes there.
///
/// The kernel tells a child that its parent has died when the *thread* dies that started it, so that has to be one that
/// lives as long as the children may.
#[derive(Debug)]
pub(crate) struct Keeper {
    orders: Option<mpsc::Sender<Order>>,
    thread: Option<JoinHandle<Result<()>>>,
}

struct Order {
    command: Command,
    answer: mpsc::Sender<io::Result<Child>>,
}

impl Keeper {
    /// In this namespace.
    pub(crate) fn new(netns: &Netns) -> Result<Self> {
        let (orders, received) = mpsc::channel::<Order>();
        let thread = netns.spawn(move || {
            for Order { mut command, answer } in received {
                // Nobody waits for it if the test was given up; the child then ends with this thread.
                let _nobody = answer.send(command.spawn());
            }
            Ok(())
        })?;
        Ok(Self {
            orders: Some(orders),
            thread: Some(thread),
        })
    }

    /// Starts a program whose output goes to `<name>.log` in the folder.
    pub(crate) fn start(&self, name: &str, mut command: Command, folder: &Path) -> Result<Process> {
        let log = folder.join(format!("{name}.log"));
        let file = File::options()
            .append(true)
            .create(true)
            .open(&log)
            .with_context(|| format!("cannot make {}", log.display()))?;
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        // SAFETY: prctl(2) is a system call: it allocates nothing and takes no lock.
        unsafe { command.pre_exec(|| Ok(set_pdeathsig(Signal::SIGKILL)?)) };
        let (answer, answered) = mpsc::channel();
        let child = self
            .orders
            .as_ref()
            .and_then(|orders| orders.send(Order { command, answer }).ok())
            .and_then(|()| answered.recv().ok())
            .with_context(|| format!("nobody is there to start {name}"))?
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Process {
            name: name.to_owned(),
            child,
            log,
        })
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.orders.take());
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            eprintln!("the thread that starts processes panicked");
        }
    }
}

/// A process of the control plane, killed on drop.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// An error when it has ended, with what it logged last.
    pub(crate) fn check(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} ended with {status}\n{}", self.name, self.log());
        }
        Ok(())
    }

    /// The last lines that it logged.
    pub(crate) fn log(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        let last = &lines[lines.len().saturating_sub(LINES_OF_LOG)..];
        format!("the last lines of {}'s log:\n{}", self.name, last.join("\n"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.child.kill();
        let _status = self.child.wait();
        if thread::panicking() {
            eprintln!("{}", self.log());
        }
    }
}
