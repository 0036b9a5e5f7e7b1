//! Sources: where objects come from. Nothing after a source knows which one it was.
//!
//! A source sends batches of [`SourceEvent`]s; a batch is what changed at one time.

mod decode;
mod document;
mod folder;
mod kube;
pub mod parse;
mod start;
pub mod watch;

use crate::model::{Object, ObjectRef, Origin, Problem};

pub use folder::Folder;
pub use kube::{AccessError, ApiAccess, ApiSource, AskError, ServiceObjects};
pub use start::{Source, SourceOptions};
pub use watch::{ManifestSource, SourceError};

/// What a source tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceEvent {
    /// The object is there, or is different now.
    Apply {
        /// The object, whole.
        object: Object,
        /// Where it was read.
        origin: Origin,
    },
    /// The object is gone.
    Delete(ObjectRef),
    /// Everything that is there has been told once.
    Synced,
    /// Something that a person should mend; told once while it stays the same.
    Problem(Problem),
}
