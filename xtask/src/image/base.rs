//! What deploy/Dockerfile builds upon: the image that it names, or, where no registry is reached, as much of the same
//! as the build needs, made here of Debian's packages and of the Rust that runs this command.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use crate::{not_here::NotHere, static_agent, steps::Steps, toolchain, workspace::Workspace};

use super::{DOCKERFILE, buildah::Buildah};

/// The number of steps that [`find_or_make`] takes.
pub(super) const STEPS: usize = 2;

/// The argument of the Dockerfile that names the base.
const ARGUMENT: &str = "BASE";
const PULL_LIMIT: Duration = Duration::from_mins(10);

const MADE: &str = "localhost/base";
/// The release of Debian that the base of the Dockerfile has, too.
const RELEASE: &str = "bookworm";
/// What the image with Rust has beside Rust, as far as it takes that to build `xtask`.
const PACKAGES: &str = "ca-certificates,gcc,libc6-dev";
const TREE: &str = "debian.tar";

/// Where the base that is made here has the Rust of this machine, and its cargo's folder with crates and settings.
const RUST: &str = "/rust";
const CARGO_HOME: &str = "/cargo";
/// Where Debian has the certificates of authorities; a machine may trust others, too.
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// What to build upon.
pub(super) enum Base {
    /// What the Dockerfile names.
    Pulled,
    /// What was made here, with folders of this machine.
    Made(Vec<OsString>),
}

impl Base {
    /// What to tell a build.
    pub(super) fn arguments(&self) -> Vec<OsString> {
        match self {
            Self::Pulled => Vec::new(),
            Self::Made(volumes) => {
                let mut arguments = vec!["--build-arg".into(), format!("{ARGUMENT}={MADE}").into()];
                for volume in volumes {
                    arguments.extend(["--volume".into(), volume.clone()]);
                }
                arguments
            }
        }
    }
}

/// Pulls the base, or makes one. An error [`NotHere`] when this machine has not what it takes.
pub(super) fn find_or_make(workspace: &Workspace, steps: &mut Steps, buildah: &Buildah) -> Result<Base> {
    steps.advance();
    let file = fs::read_to_string(workspace.path(DOCKERFILE))
        .with_context(|| format!("cannot read {DOCKERFILE}"))?;
    let image = named(&file).with_context(|| format!("{DOCKERFILE} has no line `ARG {ARGUMENT}=...`"))?;
    let pulled = steps.run_within(
        Some(PULL_LIMIT),
        &format!("base: pulling {image}"),
        "image-pull",
        &mut buildah.pull(image),
    );
    steps.advance();
    let Err(error) = pulled else {
        return Ok(Base::Pulled);
    };
    steps.tell(&format!(
        "base: {image} is out of reach, so this is another: Debian's {PACKAGES}, and the Rust of this machine ({})",
        last_line(&error)
    ));
    let volumes = volumes(workspace, steps)?;
    make(steps, buildah)?;
    Ok(Base::Made(volumes))
}

/// The base that a Dockerfile names.
fn named(dockerfile: &str) -> Option<&str> {
    dockerfile.lines().find_map(|line| {
        line.strip_prefix("ARG ")?
            .strip_prefix(ARGUMENT)?
            .strip_prefix('=')
    })
}

fn make(steps: &Steps, buildah: &Buildah) -> Result<()> {
    let context = buildah.folder().join("base");
    fs::create_dir(&context).with_context(|| format!("cannot make the folder {}", context.display()))?;
    debian(steps, buildah, &context.join(TREE)).context(NotHere("nothing to build upon".to_owned()))?;
    let dockerfile = format!(
        "FROM scratch\n\
         ADD {TREE} /\n\
         ENV CARGO_HOME={CARGO_HOME} PATH={RUST}/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"
    );
    fs::write(context.join("Dockerfile"), dockerfile)
        .with_context(|| format!("cannot write to {}", context.display()))?;
    let mut base = buildah.build(MADE);
    steps.run("base: building", "image-base", base.arg(&context))
}

/// The root of a Debian, as a tar.
fn debian(steps: &Steps, buildah: &Buildah, tree: &Path) -> Result<()> {
    toolchain::debian_maker(steps)?;
    let mut debian = Command::new("mmdebstrap");
    debian
        .args(["--variant=apt", &format!("--include={PACKAGES}")])
        // As in other images of Debian.
        .args(["--dpkgopt=force-unsafe-io", RELEASE])
        .arg(tree)
        .env("TMPDIR", buildah.folder());
    steps.run(&format!("base: Debian's {RELEASE}"), "image-debian", &mut debian)
}

/// What the made base is lent while it builds: nothing of it gets into the image.
fn volumes(workspace: &Workspace, steps: &Steps) -> Result<Vec<OsString>> {
    // A Rust that is lent cannot be added to.
    static_agent::add_target(workspace, steps)?;
    let rust = sysroot(workspace)?;
    if rust == Path::new("/usr") {
        let reason =
            "a Rust of the operating system, which cannot be lent to another, and no registry in reach";
        return Err(NotHere(reason.to_owned()).into());
    }
    let certificates =
        env::var_os("SSL_CERT_FILE").map_or_else(|| PathBuf::from(CERTIFICATES), PathBuf::from);
    let mut volumes = vec![
        volume(&rust, &format!("{RUST}:ro")),
        volume(&cargo_home()?, CARGO_HOME),
    ];
    if certificates.is_file() {
        volumes.push(volume(&certificates, &format!("{CERTIFICATES}:ro")));
    }
    Ok(volumes)
}

fn volume(here: &Path, there: &str) -> OsString {
    let mut volume = here.as_os_str().to_owned();
    volume.push(":");
    volume.push(there);
    volume
}

/// The folder of the toolchain that cargo uses here.
fn sysroot(workspace: &Workspace) -> Result<PathBuf> {
    let output = Command::new("rustc")
        .current_dir(workspace.root())
        .args(["--print", "sysroot"])
        .output()
        .context("cannot start rustc")?;
    ensure!(
        output.status.success(),
        "rustc: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
}

fn cargo_home() -> Result<PathBuf> {
    let named = env::var_os("CARGO_HOME").map(PathBuf::from);
    named
        .or_else(|| env::home_dir().map(|home| home.join(".cargo")))
        .context("neither CARGO_HOME nor HOME says where cargo's folder is")
}

/// What a tool says last is why it failed.
fn last_line(error: &anyhow::Error) -> String {
    let text = error.to_string();
    text.lines().last().unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_base_is_named_by_the_argument() {
        let file = "# ARG BASE=no\nARG BASED=no\nARG BASE=a.example/rust:1\nFROM ${BASE} AS build\n";
        assert_eq!(named(file), Some("a.example/rust:1"));
        assert_eq!(named("FROM scratch\n"), None);
    }

    #[test]
    fn a_made_base_takes_the_place_of_the_named_one() {
        let made = Base::Made(vec![volume(Path::new("/a b"), "/c:ro")]);
        assert_eq!(
            made.arguments(),
            ["--build-arg", "BASE=localhost/base", "--volume", "/a b:/c:ro"]
        );
        assert!(Base::Pulled.arguments().is_empty());
    }
}
