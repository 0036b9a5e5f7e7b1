//! What the files of a folder say, taken together. No I/O: texts in, events out.
//!
//! The last good state of an object stays while its document is broken, and while its file has a broken document of
//! which cannot be told which object it is.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;

use super::SourceEvent;
use super::document::{Content, Entry, entries};
use crate::model::{Object, ObjectRef, Origin, Problem, Reason};

const LAST_STAYS: &str = "its last good state stays until it is mended or removed";

/// The objects and problems of every file.
#[derive(Debug, Default)]
pub struct Folder {
    files: BTreeMap<String, File>,
    /// The files that have each object; the first one counts.
    holders: BTreeMap<ObjectRef, BTreeSet<String>>,
    /// What has been told of each object.
    told: BTreeMap<ObjectRef, Told>,
    /// Kinds that are nothing to us and have been named once.
    other_kinds: BTreeSet<String>,
}

#[derive(Debug, Default)]
struct File {
    objects: BTreeMap<ObjectRef, Told>,
    problems: BTreeSet<Problem>,
    /// Problems with other files, by the object that both have.
    conflicts: BTreeMap<ObjectRef, Problem>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Told {
    object: Object,
    origin: Origin,
}

impl File {
    fn insert(&mut self, told: Told) {
        self.objects.insert(told.object.reference(), told);
    }
}

impl Folder {
    /// Takes the text of a file as it is now.
    pub fn update(&mut self, name: &str, text: &str) -> Vec<SourceEvent> {
        let mut file = File::default();
        let mut lost = false;
        let before = self.files.remove(name).unwrap_or_default();
        for entry in entries(text) {
            lost |= self.take(name, entry, &before, &mut file);
        }
        if lost {
            // Any of these may be the one that cannot be told.
            for (object, told) in &before.objects {
                file.objects.entry(object.clone()).or_insert_with(|| told.clone());
            }
        }
        self.replace(name, before, Some(file))
    }

    /// Takes note that a file is gone.
    pub fn remove(&mut self, name: &str) -> Vec<SourceEvent> {
        match self.files.remove(name) {
            Some(before) => self.replace(name, before, None),
            None => Vec::new(),
        }
    }

    /// Takes note that a file is there but cannot be read: what it said last stays.
    pub fn unreadable(&mut self, name: &str, why: &str) -> Vec<SourceEvent> {
        let file = self.files.entry(name.to_owned()).or_default();
        let text = format!("the file cannot be read: {why}; what it said last stays");
        let problem = Problem {
            object: None,
            origin: Origin::new(name),
            reason: Reason::SourceUnavailable,
            text,
        };
        let before = mem::replace(&mut file.problems, BTreeSet::from([problem.clone()]));
        if before.contains(&problem) {
            Vec::new()
        } else {
            vec![SourceEvent::Problem(problem)]
        }
    }

    /// The names of the files that it knows.
    pub fn files(&self) -> impl Iterator<Item = &String> {
        self.files.keys()
    }

    /// Takes one entry into `file`. Returns whether it is broken so that its object cannot be told.
    fn take(&mut self, name: &str, entry: Entry, before: &File, file: &mut File) -> bool {
        let Entry {
            place,
            object,
            content,
        } = entry;
        let origin = Origin::new(&format!("{name}, {place}"));
        let mut problem = |reason, text: String| {
            file.problems.insert(Problem {
                object: object.clone(),
                origin: origin.clone(),
                reason,
                text,
            });
        };
        if let Content::Object(found, _) | Content::Lacking(found, _) = &content
            && file.objects.contains_key(&found.reference())
        {
            let text = "is in this file before; the first one counts: remove one of them";
            problem(Reason::DuplicateObject, text.into());
            return false;
        }
        match content {
            Content::Object(found, notices) => {
                for notice in notices {
                    problem(Reason::FieldIgnored, notice);
                }
                file.insert(Told {
                    object: found,
                    origin,
                });
            }
            Content::Lacking(found, what) => {
                let last = before.objects.get(&found.reference());
                if let Some(told) = last.filter(|told| told.object.has_front_ends()) {
                    problem(Reason::InvalidObject, format!("{what}; {LAST_STAYS}"));
                    file.insert(told.clone());
                } else {
                    let text = format!("{what}; it has no front ends until it is mended");
                    problem(Reason::InvalidObject, text);
                    file.insert(Told {
                        object: found,
                        origin,
                    });
                }
            }
            Content::LeftAlone => {}
            Content::OtherKind(kind) => {
                if self.other_kinds.insert(kind.clone()) {
                    tracing::info!("{name}, {place}: objects of kind {kind} are not used; left out");
                }
            }
            Content::Unknown(text) => problem(Reason::InvalidObject, text),
            Content::Broken(why) => {
                let last = object
                    .as_ref()
                    .and_then(|object| Some((object, before.objects.get(object)?)));
                let kept = match (&object, last) {
                    (Some(_), Some(_)) => LAST_STAYS,
                    (Some(_), None) => "it is left out until it is mended",
                    (None, _) => "the objects that this document had before stay until it is mended",
                };
                problem(Reason::InvalidObject, format!("{why}; {kept}"));
                if let Some((object, told)) = last {
                    file.objects.entry(object.clone()).or_insert_with(|| told.clone());
                }
                return object.is_none();
            }
        }
        false
    }

    /// Puts `after` in the place of `before` and tells what that changes.
    fn replace(&mut self, name: &str, mut before: File, after: Option<File>) -> Vec<SourceEvent> {
        let found = after.as_ref();
        let objects = before
            .objects
            .keys()
            .chain(found.into_iter().flat_map(|file| file.objects.keys()));
        let touched: BTreeSet<ObjectRef> = objects.cloned().collect();
        let mut events = Vec::new();
        if let Some(file) = found {
            let new = file.problems.difference(&before.problems);
            events.extend(new.cloned().map(SourceEvent::Problem));
        }
        for object in &touched {
            let holders = self.holders.entry(object.clone()).or_default();
            if found.is_some_and(|file| file.objects.contains_key(object)) {
                holders.insert(name.to_owned());
            } else {
                holders.remove(name);
            }
        }
        if let Some(mut file) = after {
            file.conflicts = mem::take(&mut before.conflicts);
            self.files.insert(name.to_owned(), file);
        }
        for object in touched {
            self.tell_conflicts(&object, name, &mut events);
            events.extend(self.tell(object));
        }
        events
    }

    /// Tells of an object what has changed.
    fn tell(&mut self, object: ObjectRef) -> Option<SourceEvent> {
        let holder = self.holders.get(&object).and_then(BTreeSet::first);
        let now = holder
            .and_then(|name| self.files.get(name)?.objects.get(&object))
            .cloned();
        let Some(now) = now else {
            self.holders.remove(&object);
            return self.told.remove(&object).map(|_| SourceEvent::Delete(object));
        };
        if self.told.get(&object) == Some(&now) {
            return None;
        }
        self.told.insert(object, now.clone());
        Some(SourceEvent::Apply {
            object: now.object,
            origin: now.origin,
        })
    }

    /// Tells of files whose object another file has, too. `changed` is the file that has just been read.
    fn tell_conflicts(&mut self, object: &ObjectRef, changed: &str, events: &mut Vec<SourceEvent>) {
        let holders = self.holders.get(object).cloned().unwrap_or_default();
        if let Some(file) = self.files.get_mut(changed)
            && !holders.contains(changed)
        {
            file.conflicts.remove(object);
        }
        let Some(first) = holders.first() else { return };
        for name in &holders {
            let Some(file) = self.files.get_mut(name) else {
                continue;
            };
            if name == first {
                file.conflicts.remove(object);
                continue;
            }
            let origin = file
                .objects
                .get(object)
                .map(|told| told.origin.clone())
                .unwrap_or_default();
            let text =
                format!("is in {first}, too, which comes first by name and counts: remove one of them");
            let problem = Problem {
                object: Some(object.clone()),
                origin,
                reason: Reason::DuplicateObject,
                text,
            };
            if file.conflicts.insert(object.clone(), problem.clone()).as_ref() != Some(&problem) {
                events.push(SourceEvent::Problem(problem));
            }
        }
    }
}

#[cfg(test)]
mod tests;
