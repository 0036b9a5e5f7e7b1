//! A folder of manifests, watched.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant, UNIX_EPOCH};

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use thiserror::Error;
use tokio::sync::mpsc;

use super::folder::Folder;
use super::{AccessError, SourceEvent};
use crate::model::{Origin, Problem, Reason};

/// Changes that follow each other this closely are taken together.
const QUIET: Duration = Duration::from_millis(4);
/// But no change waits longer than this.
const PATIENCE: Duration = Duration::from_millis(20);
/// A file that a writer left open and has not written to for this long is read as it is.
const WRITING: Duration = Duration::from_secs(10);
/// A file that was emptied, and closed, may be written anew until then.
const EMPTIED: Duration = Duration::from_millis(500);
/// The folder is looked through at least this often: a link's target elsewhere tells nothing when it changes.
const LOOK: Duration = Duration::from_secs(5);

/// A folder of manifests that is being watched; dropping it ends that.
#[derive(Debug)]
pub struct ManifestSource {
    stop: Sender<Wake>,
}

/// The source cannot be followed at all.
#[derive(Debug, Error)]
pub enum SourceError {
    /// The folder is not there or cannot be read.
    #[error("manifest folder {folder} cannot be read")]
    Folder {
        /// The folder.
        folder: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The kernel does not watch it for us.
    #[error("manifest folder {folder} cannot be watched")]
    Watch {
        /// The folder.
        folder: String,
        /// What the system said.
        #[source]
        source: notify::Error,
    },
    /// The Kubernetes API cannot be asked at all.
    #[error(transparent)]
    Api(Box<AccessError>),
    /// No thread could be started for it.
    #[error("no thread could be started for manifest folder {folder}")]
    Thread {
        /// The folder.
        folder: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Why the thread wakes up.
#[derive(Debug)]
enum Wake {
    Changed(notify::Result<notify::Event>),
    Stop,
}

/// The thread's state.
struct Reader {
    path: PathBuf,
    watcher: RecommendedWatcher,
    /// The inode of the folder that is watched: another one may take its place.
    watched: Option<u64>,
    folder: Folder,
    /// What each file was when it was read last.
    stamps: BTreeMap<String, Stamp>,
    /// Files that somebody is writing, and until when they are waited for.
    writing: BTreeMap<String, Instant>,
    /// How long a writer is waited for after it has written something.
    patience: Duration,
    /// A file that was known changed just now, or was emptied: there may be more to come.
    unsettled: bool,
    folder_problem: Option<String>,
}

/// Tells whether a file has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl ManifestSource {
    /// Reads `folder` and watches it from a thread of its own, until the value is dropped or `events` is closed.
    pub fn watch(folder: &Path, events: mpsc::Sender<Vec<SourceEvent>>) -> Result<Self, SourceError> {
        Self::watch_with(folder, events, WRITING)
    }

    fn watch_with(
        folder: &Path,
        events: mpsc::Sender<Vec<SourceEvent>>,
        patience: Duration,
    ) -> Result<Self, SourceError> {
        let name = folder.display().to_string();
        fs::read_dir(folder).map_err(|source| SourceError::Folder {
            folder: name.clone(),
            source,
        })?;
        let (stop, wakes) = channel();
        let wake = stop.clone();
        // The thread may be gone; then nobody wants to know.
        let handler = move |event| drop(wake.send(Wake::Changed(event)));
        let watch_error = |source| SourceError::Watch {
            folder: name.clone(),
            source,
        };
        let watcher = notify::recommended_watcher(handler).map_err(watch_error)?;
        let mut reader = Reader::new(folder.to_owned(), watcher, patience);
        reader.watch().map_err(watch_error)?;
        let thread = thread::Builder::new().name("manifests".into());
        let run = move || reader.run(&wakes, &events);
        thread.spawn(run).map_err(|source| SourceError::Thread {
            folder: name.clone(),
            source,
        })?;
        Ok(Self { stop })
    }
}

impl Drop for ManifestSource {
    fn drop(&mut self) {
        // The thread may have ended by itself.
        drop(self.stop.send(Wake::Stop));
    }
}

impl Reader {
    fn new(path: PathBuf, watcher: RecommendedWatcher, patience: Duration) -> Self {
        let (folder, stamps, writing) = Default::default();
        Self {
            path,
            watcher,
            watched: None,
            folder,
            stamps,
            writing,
            patience,
            unsettled: false,
            folder_problem: None,
        }
    }

    fn run(mut self, wakes: &Receiver<Wake>, events: &mpsc::Sender<Vec<SourceEvent>>) {
        let mut batch = self.look();
        batch.push(SourceEvent::Synced);
        loop {
            if !batch.is_empty() && events.blocking_send(batch).is_err() {
                return;
            }
            if !self.wait(wakes) {
                return;
            }
            batch = self.look();
        }
    }

    /// Waits until it is time to look. Returns `false` when there is nothing to wait for any more.
    fn wait(&mut self, wakes: &Receiver<Wake>) -> bool {
        let now = Instant::now();
        let pause = if self.unsettled { QUIET } else { LOOK };
        let given_up = self.writing.values().copied();
        let mut until = given_up.fold(now + pause, Instant::min);
        let mut latest = None;
        loop {
            match wakes.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(Wake::Stop) | Err(RecvTimeoutError::Disconnected) => return false,
                Err(RecvTimeoutError::Timeout) => return true,
                Ok(Wake::Changed(event)) => {
                    if self.note(event) {
                        let now = Instant::now();
                        until = (now + QUIET).min(*latest.get_or_insert(now + PATIENCE));
                    }
                }
            }
        }
    }

    /// Takes note of which files are being written. Returns whether anything may have changed: our own reading
    /// makes events, too.
    fn note(&mut self, event: notify::Result<notify::Event>) -> bool {
        // An error may stand for events that were lost.
        let Ok(event) = event else { return true };
        let names = event.paths.iter().filter_map(|path| path.file_name()?.to_str());
        match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) | EventKind::Remove(_) => {
                names.for_each(|name| _ = self.writing.remove(name));
            }
            EventKind::Access(_) => return false,
            EventKind::Modify(ModifyKind::Data(_)) => {
                let until = Instant::now() + self.patience;
                self.writing.extend(names.map(|name| (name.to_owned(), until)));
            }
            EventKind::Modify(ModifyKind::Name(_)) => names.for_each(|name| _ = self.writing.remove(name)),
            _ => {}
        }
        true
    }

    /// Reads what has changed.
    fn look(&mut self) -> Vec<SourceEvent> {
        self.stop_waiting();
        let files = match self.list() {
            Ok(files) => files,
            Err(error) => return self.folder_is_gone(&error),
        };
        self.folder_problem = None;
        let mut events = Vec::new();
        let gone = self
            .folder
            .files()
            .filter(|name| !files.contains_key(*name))
            .cloned();
        for name in gone.collect::<BTreeSet<_>>() {
            self.stamps.remove(&name);
            events.extend(self.folder.remove(&name));
        }
        self.unsettled = false;
        for (name, stamp) in files {
            let known = self.stamps.get(&name);
            if known == Some(&stamp) || self.writing.contains_key(&name) {
                continue;
            }
            // What is not read loses no object; the event that tells of the writer may still be on its way.
            if known.is_some() && stamp.is_unsettled() {
                self.unsettled = true;
            } else {
                events.extend(self.read(name, stamp));
            }
        }
        events
    }

    /// Gives up on writers that have not written for long.
    fn stop_waiting(&mut self) {
        let now = Instant::now();
        self.writing.retain(|name, until| {
            let wait = now < *until;
            if !wait && is_manifest(name) {
                tracing::info!("{name}: its writer neither writes nor closes it; read as it is");
            }
            wait
        });
    }

    fn read(&mut self, name: String, stamp: Stamp) -> Vec<SourceEvent> {
        let events = match fs::read_to_string(self.path.join(&name)) {
            Ok(text) => self.folder.update(&name, &text),
            // It will be missed in the list next time.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
            Err(error) => self.folder.unreadable(&name, &error.to_string()),
        };
        self.stamps.insert(name, stamp);
        events
    }

    /// The manifest files that are there; links are followed.
    fn list(&mut self) -> io::Result<BTreeMap<String, Stamp>> {
        if self.watched != Some(fs::metadata(&self.path)?.ino()) {
            self.watch()
                .map_err(|error| io::Error::other(error.to_string()))?;
        }
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let Some(name) = entry
                .file_name()
                .to_str()
                .filter(|name| is_manifest(name))
                .map(str::to_owned)
            else {
                continue;
            };
            if let Ok(metadata) = fs::metadata(entry.path())
                && metadata.is_file()
            {
                files.insert(name, Stamp::of(&metadata));
            }
        }
        Ok(files)
    }

    fn watch(&mut self) -> notify::Result<()> {
        self.watcher.watch(&self.path, RecursiveMode::NonRecursive)?;
        // What became of files of another folder is not told any more.
        self.writing.clear();
        self.watched = fs::metadata(&self.path).ok().map(|metadata| metadata.ino());
        Ok(())
    }

    fn folder_is_gone(&mut self, error: &io::Error) -> Vec<SourceEvent> {
        let text = format!("the manifest folder cannot be read: {error}; what it said last stays");
        if self.folder_problem.as_ref() == Some(&text) {
            return Vec::new();
        }
        self.folder_problem = Some(text.clone());
        let origin = Origin::new(&self.path.display().to_string());
        vec![SourceEvent::Problem(Problem {
            object: None,
            origin,
            reason: Reason::SourceUnavailable,
            text,
        })]
    }
}

impl Stamp {
    fn of(metadata: &fs::Metadata) -> Self {
        let modified = (metadata.mtime(), metadata.mtime_nsec());
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified,
        }
    }

    /// Whether the file changed just now, or was emptied a short while ago: it may be in the middle of being written.
    fn is_unsettled(&self) -> bool {
        let patience = if self.size == 0 { EMPTIED } else { QUIET };
        let (seconds, nanoseconds) = self.modified;
        let modified = u64::try_from(seconds).unwrap_or_default();
        let modified =
            UNIX_EPOCH + Duration::from_secs(modified) + Duration::from_nanos(nanoseconds.unsigned_abs());
        // A time to come says nothing.
        modified.elapsed().is_ok_and(|age| age < patience)
    }
}

/// Whether a file is to be read: editors' and copiers' own files are not.
fn is_manifest(name: &str) -> bool {
    let extension = Path::new(name)
        .extension()
        .and_then(|extension| extension.to_str());
    !name.starts_with('.') && matches!(extension, Some("yaml" | "yml" | "json"))
}

#[cfg(test)]
mod tests;
