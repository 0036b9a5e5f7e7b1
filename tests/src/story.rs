//! Stories: text files with a description and sections, each under a line `-- what --`. What comes out of playing one is
//! written into its sections, and compared with the file.
//!
//! `UPDATE_EXPECT=1` writes what comes out into the file instead of comparing.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// One story.
#[derive(Clone, Debug)]
pub struct Story {
    description: String,
    /// In order.
    pub sections: Vec<Section>,
}

/// A part of a story.
#[derive(Clone, Debug)]
pub struct Section {
    /// What stands between the dashes.
    pub what: String,
    /// The lines that follow.
    pub body: String,
}

impl Story {
    /// Takes a file apart.
    pub fn parse(text: &str) -> Self {
        let mut story = Self {
            description: String::new(),
            sections: Vec::new(),
        };
        for line in text.lines() {
            let what = line.strip_prefix("-- ").and_then(|rest| rest.strip_suffix(" --"));
            match (what, story.sections.last_mut()) {
                (Some(what), _) => {
                    story.sections.push(Section {
                        what: what.to_owned(),
                        body: String::new(),
                    });
                }
                (None, Some(section)) => section.body.extend([line, "\n"]),
                (None, None) => story.description.extend([line, "\n"]),
            }
        }
        story
    }

    /// The same file again.
    pub fn text(&self) -> String {
        let mut text = self.description.clone();
        for Section { what, body } in &self.sections {
            _ = write!(text, "-- {what} --\n{body}");
        }
        text
    }

    /// Plays the story section by section: `play` gives what came out, for sections that say what is expected.
    pub fn play(mut self, mut play: impl FnMut(&Section) -> Result<Option<String>>) -> Result<Self> {
        for section in &mut self.sections {
            let came_out = play(section).with_context(|| format!("section {}", section.what))?;
            if let Some(text) = came_out {
                section.body = text;
            }
        }
        Ok(self)
    }
}

/// Plays the story of a file and compares, or writes, what comes out.
pub fn check(path: &Path, play: impl FnMut(&Section) -> Result<Option<String>>) -> Result<()> {
    let text = fs::read_to_string(path)?;
    let outcome = Story::parse(&text)
        .play(play)
        .with_context(|| path.display().to_string())?
        .text();
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(path, outcome)?;
    } else if outcome != text {
        bail!("{}:\n{}", path.display(), differences(&text, &outcome));
    }
    Ok(())
}

/// The stories in a folder of the tests, in order.
pub fn all(folder: &str) -> Result<Vec<PathBuf>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "txt") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// The lines that are only in one of the two texts.
fn differences(expected: &str, found: &str) -> String {
    let only = |sign: char, text: &str, other: &str| {
        let lines = text
            .lines()
            .filter(|line| !other.lines().any(|other| other == *line));
        lines.fold(String::new(), |all, line| format!("{all}{sign} {line}\n"))
    };
    let lines = only('-', expected, found) + &only('+', found, expected);
    if lines.is_empty() {
        format!("the order differs; found:\n{found}")
    } else {
        lines
    }
}
