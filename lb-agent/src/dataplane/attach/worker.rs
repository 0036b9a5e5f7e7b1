//! A thread for attaching.
//!
//! The kernel holds its lock over all devices while it attaches a TCX program, and waits some ten milliseconds for
//! running programs meanwhile. So hooks go one after another, whoever asks; and nobody else should wait for them.

use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, spawn_blocking};

use super::{AttachPoint, Attacher, Report};

/// Brings programs into order when it is told to, and reports.
#[derive(Debug)]
pub struct Worker {
    points: watch::Sender<Vec<AttachPoint>>,
    reports: mpsc::Receiver<Report>,
    thread: JoinHandle<()>,
}

impl Worker {
    /// Starts the thread, which waits for points.
    pub fn start(mut attacher: Attacher) -> Self {
        let (points, mut wanted) = watch::channel(Vec::new());
        let (sender, reports) = mpsc::channel(1);
        let work = async move {
            while wanted.changed().await.is_ok() {
                let points = wanted.borrow_and_update().clone();
                let report = attacher.sync(&points, || wanted.has_changed().is_err()).await;
                if sender.send(report).await.is_err() {
                    return;
                }
            }
        };
        let runtime = Handle::current();
        Self {
            points,
            reports,
            thread: spawn_blocking(move || runtime.block_on(work)),
        }
    }

    /// Asks for a pass over these points, after the one that is under way. Passes that have not begun are left out.
    pub fn sync(&self, points: Vec<AttachPoint>) {
        self.points.send_replace(points);
    }

    /// The report of the next pass; `None` when the thread has ended.
    pub async fn report(&mut self) -> Option<Report> {
        self.reports.recv().await
    }

    /// Ends the thread, in the middle of a pass if need be, and waits until it has ended.
    pub async fn stop(self) {
        drop((self.points, self.reports));
        // It may have panicked; then it has ended, too.
        drop(self.thread.await);
    }
}
