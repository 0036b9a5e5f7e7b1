//! Debian's packages, and the system tools in them.

use std::process::Command;

use anyhow::{Result, bail};

use crate::{
    privilege::{NeedsRoot, is_root},
    steps::Steps,
    workspace::find_program,
};

/// What tests, demo and bench call, and the package that has it.
const SYSTEM_TOOLS: [(&str, &str); 8] = [
    ("ip", "iproute2"),
    ("bpftool", "bpftool"),
    ("ethtool", "ethtool"),
    ("ping", "iputils-ping"),
    ("nft", "nftables"),
    ("iptables", "iptables"),
    ("curl", "curl"),
    ("traceroute", "traceroute"),
];

/// Installs packages, and fetches the lists at most once.
#[derive(Default)]
pub(crate) struct Packages {
    updated: bool,
}

impl Packages {
    /// Whether there is a way to install at all.
    pub(crate) fn available() -> bool {
        find_program("apt-get").is_some()
    }

    /// Installs those that are missing.
    pub(crate) fn install(&mut self, steps: &Steps, purpose: &str, wanted: &[&str]) -> Result<()> {
        let missing: Vec<&str> = wanted.iter().copied().filter(|name| !installed(name)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let list = missing.join(" ");
        if !Self::available() {
            bail!("{purpose}: not here, and no apt-get either; install by hand what Debian calls {list}");
        }
        if !is_root() {
            return Err(NeedsRoot(format!(
                "{purpose}: not here, and only root can `apt-get install {list}`"
            ))
            .into());
        }
        if !self.updated {
            steps.run(
                &format!("{purpose}: apt-get update"),
                "apt-update",
                apt_get().arg("update"),
            )?;
            self.updated = true;
        }
        let mut command = apt_get();
        command
            .args(["install", "-y", "--no-install-recommends"])
            .args(&missing);
        steps.run(
            &format!("{purpose}: apt-get install {list}"),
            "apt-install",
            &mut command,
        )
    }
}

/// Finds a program, or installs the package that has it.
pub(crate) fn program(steps: &Steps, purpose: &str, name: &str, package: &str) -> Result<()> {
    if find_program(name).is_some() {
        return Ok(());
    }
    Packages::default().install(steps, purpose, &[package])
}

/// Finds or installs the system tools.
pub(crate) fn system_tools(steps: &Steps, packages: &mut Packages) -> Result<()> {
    let missing: Vec<&str> = missing_tools(|tool| find_program(tool).is_some());
    packages.install(steps, "system tools", &missing)?;
    let names: Vec<&str> = SYSTEM_TOOLS.iter().map(|(tool, _)| *tool).collect();
    steps.tell(&format!("system tools: {}", names.join(", ")));
    Ok(())
}

fn missing_tools(found: impl Fn(&str) -> bool) -> Vec<&'static str> {
    SYSTEM_TOOLS
        .iter()
        .filter(|(tool, _)| !found(tool))
        .map(|(_, package)| *package)
        .collect()
}

/// An apt-get that never asks, and does not wait for a dead mirror forever.
fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(["-q", "-o", "DPkg::Lock::Timeout=120", "-o", "Acquire::Retries=2"])
        .args([
            "-o",
            "Acquire::http::Timeout=30",
            "-o",
            "Acquire::https::Timeout=30",
        ]);
    command
}

fn installed(package: &str) -> bool {
    let output = Command::new("dpkg-query")
        .args(["--show", "--showformat", "${db:Status-Status}", package])
        .output();
    output.is_ok_and(|output| output.status.success() && output.stdout == b"installed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_packages_of_missing_tools_are_asked_for() {
        assert_eq!(missing_tools(|tool| tool != "ping"), ["iputils-ping"]);
        assert!(missing_tools(|_| true).is_empty());
    }
}
