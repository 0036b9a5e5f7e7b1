//! Stories of manifests, questions and answers, in `tests/explanations`:
//!
//! - `file NAME`: the manifest file NAME has this text from now on;
//! - `ask FLAGS`: what `lb-agent explain` with these flags says for node-a.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;

use anyhow::{Result, bail};
use lb_tests::agent::program;
use lb_tests::need_root;
use lb_tests::scratch::Folder;
use lb_tests::story::{self, Section, Story};

#[test]
fn stories_end_as_they_are_told() {
    need_root!();
    let paths = story::all("explanations").unwrap();
    assert!(paths.len() > 3, "only {} stories were found", paths.len());
    thread::scope(|scope| {
        let playing = paths.iter().map(|path| scope.spawn(move || play(path)));
        let playing: Vec<_> = playing.collect();
        for story in playing {
            story.join().unwrap().unwrap();
        }
    });
}

/// The answers of one story are the examples of a page.
#[test]
fn the_examples_of_the_documentation_are_answers() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("../docs/explain.md")).unwrap();
    let story = fs::read_to_string(root.join("explanations/05-documentation.txt")).unwrap();
    let sections = Story::parse(&story).sections;
    let answers: Vec<_> = sections
        .iter()
        .filter(|section| section.what.starts_with("ask "))
        .collect();
    assert!(answers.len() > 1);
    for Section { what, body } in answers {
        assert!(
            page.contains(body.trim_end()),
            "docs/explain.md has not the answer to: {what}"
        );
    }
}

fn play(path: &Path) -> Result<()> {
    let folder = Folder::new("explain")?;
    story::check(path, |Section { what, body }| {
        match what.split_once(' ') {
            Some(("file", name)) => fs::write(folder.path().join(name), body)?,
            Some(("ask", flags)) => return ask(folder.path(), flags).map(Some),
            _ => bail!("unknown section"),
        }
        Ok(None)
    })
}

/// What it prints; what it says on the standard error channel, without the help for its flags.
fn ask(manifests: &Path, flags: &str) -> Result<String> {
    let output = Command::new(program()?)
        .arg("explain")
        .arg("--manifests")
        .arg(manifests)
        .args(["--node-name", "node-a"])
        .args(flags.split(' '))
        .output()?;
    let mut text = String::from_utf8(output.stdout)?;
    let errors = String::from_utf8(output.stderr)?;
    for line in errors.lines().take_while(|line| !line.starts_with("Usage:")) {
        text += line;
        text += "\n";
    }
    Ok(text)
}
