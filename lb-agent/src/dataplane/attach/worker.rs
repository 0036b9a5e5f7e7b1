//! A thread for attaching.
//!
//! The kernel holds its lock over all devices while it attaches a TCX program, and waits some ten milliseconds for
//! running programs meanwhile. So hooks go one after another, whoever asks; and nobody else should wait for them.

use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, spawn_blocking};

use super::{Attacher, Report, Target};

/// Brings programs into order when it is told to, and reports.
#[derive(Debug)]
pub struct Worker {
    targets: watch::Sender<Vec<Target>>,
    reports: mpsc::Receiver<Report>,
    thread: JoinHandle<()>,
}

impl Worker {
    /// Starts the thread, which waits for targets.
    pub fn start(mut attacher: Attacher) -> Self {
        let (targets, mut wanted) = watch::channel(Vec::new());
        let (sender, reports) = mpsc::channel(1);
        let work = async move {
            while wanted.changed().await.is_ok() {
                let targets = wanted.borrow_and_update().clone();
                let report = attacher.sync(&targets, || wanted.has_changed().is_err()).await;
                if sender.send(report).await.is_err() {
                    return;
                }
            }
        };
        let runtime = Handle::current();
        Self {
            targets,
            reports,
            thread: spawn_blocking(move || runtime.block_on(work)),
        }
    }

    /// Asks for a pass over these targets, after the one that is under way. Passes that have not begun are left out.
    pub fn sync(&self, targets: Vec<Target>) {
        self.targets.send_replace(targets);
    }

    /// The report of the next pass; `None` when the thread has ended.
    pub async fn report(&mut self) -> Option<Report> {
        self.reports.recv().await
    }

    /// Ends the thread, in the middle of a pass if need be, and waits until it has ended.
    pub async fn stop(self) {
        drop((self.targets, self.reports));
        // It may have panicked; then it has ended, too.
        drop(self.thread.await);
    }
}
