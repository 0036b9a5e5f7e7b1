//! The image of `deploy/Dockerfile`, and what it holds.

use std::env;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use lb_tests::scratch::{self, Folder};

use super::deployment::deploy;

/// Who builds images, by the same words, and without a service of its own.
const BUILDERS: [&str; 2] = ["podman", "buildah"];
/// Nothing of a build is kept but the image.
const BUILD: [&str; 3] = ["build", "--layers=false", "--force-rm"];

#[test]
fn the_agent_runs_in_a_folder_without_anything_else() {
    let root = Folder::new("root").unwrap();
    fs::copy(env::var("SLUICE_AGENT").unwrap(), root.path().join("lb-agent")).unwrap();
    let output = Command::new("chroot")
        .arg(root.path())
        .args(["/lb-agent", "--version"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(
        String::from_utf8_lossy(&output.stdout).starts_with("lb-agent "),
        "{output:?}"
    );
}

/// What the file says is there, also where no image can be built.
#[test]
fn the_image_is_made_of_what_xtask_builds() {
    let file = dockerfile();
    let instructions = instructions(&file);
    let stages = stages(&instructions);
    assert_eq!(stages.last(), Some(&"scratch"), "{stages:?}");
    assert!(instructions.contains(&("RUN", "cargo xtask build --release --static")));
    assert!(
        instructions.contains(&(
            "COPY",
            "--from=build /sluice/target/static/release/lb-agent /lb-agent"
        )),
        "{instructions:?}"
    );
    assert!(instructions.contains(&("ENTRYPOINT", "[\"/lb-agent\"]")));
}

/// A program that cannot be called alone is called by one more build.
#[test]
fn the_image_is_built_and_starts() {
    let Some(builder) = BUILDERS.into_iter().find(|name| is_there(name)) else {
        eprintln!("SKIPPED image: neither {} is here", BUILDERS.join(" nor "));
        return;
    };
    let file = dockerfile();
    let base = stages(&instructions(&file))[0].split(' ').next().unwrap();
    let pulled = run(builder, &["pull", base]);
    if !pulled.status.success() {
        eprintln!(
            "SKIPPED image: {builder} cannot pull {base}: {}",
            last_line(&pulled)
        );
        return;
    }
    let images = [scratch::unique_name("image"), scratch::unique_name("started")];
    let [image, started] = images.each_ref().map(|name| format!("localhost/{name}"));
    let folder = Folder::new("image").unwrap();
    let starts = folder.path().join("Dockerfile");
    fs::write(
        &starts,
        format!("FROM {image}\nRUN [\"/lb-agent\", \"--version\"]\n"),
    )
    .unwrap();
    let builds = [
        (&image, deploy("Dockerfile"), deploy("..")),
        (&started, starts, folder.path().to_owned()),
    ];
    let outputs = builds.map(|(image, file, context)| build(builder, image, &file, &context));
    let removed = run(builder, &["rmi", "--force", &image, &started]);
    for output in &outputs {
        assert!(output.status.success(), "{}", last_line(output));
    }
    let said = String::from_utf8_lossy(&outputs[1].stdout);
    assert!(said.lines().any(|line| line.starts_with("lb-agent ")), "{said}");
    assert!(removed.status.success(), "{}", last_line(&removed));
}

fn dockerfile() -> String {
    fs::read_to_string(deploy("Dockerfile")).unwrap()
}

/// What there is to do, with its arguments.
fn instructions(file: &str) -> Vec<(&str, &str)> {
    file.lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .filter_map(|line| line.split_once(' '))
        .collect()
}

/// What each stage begins with.
fn stages<'a>(instructions: &[(&str, &'a str)]) -> Vec<&'a str> {
    let from = instructions
        .iter()
        .filter(|(instruction, _)| *instruction == "FROM");
    from.map(|(_, stage)| *stage).collect()
}

fn is_there(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

fn build(builder: &str, image: &str, file: &Path, context: &Path) -> Output {
    let [file, context] = [file, context].map(|path| path.to_string_lossy().into_owned());
    let of_this = ["--file", &file, "--tag", image, &context];
    run(builder, &[&BUILD[..], &of_this].concat())
}

fn run(program: &str, arguments: &[&str]) -> Output {
    Command::new(program).args(arguments).output().unwrap()
}

fn last_line(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    errors.trim().lines().last().unwrap_or_default().to_owned()
}
