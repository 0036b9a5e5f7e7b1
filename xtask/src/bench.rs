//! `cargo xtask bench`: the bench of lb-tests, built with optimizations.

use std::process::ExitCode;

use anyhow::Result;

use crate::{
    demo::run_program,
    privilege::require_root,
    workspace::{Profile, Workspace},
};

/// How the figures are printed.
#[derive(Clone, Copy, clap::ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Table,
    /// For programs; nothing else goes to standard output.
    Json,
}

/// Builds everything and measures one group, or all; of the cases of `packets`, those whose name contains `only`.
pub(crate) fn run(
    workspace: &Workspace,
    group: Option<&str>,
    only: Option<&str>,
    output: Option<Output>,
) -> Result<ExitCode> {
    require_root("bench")?;
    run_program(
        workspace,
        "bench",
        Profile::Release,
        &arguments(group, only, output),
    )
}

fn arguments(group: Option<&str>, only: Option<&str>, output: Option<Output>) -> Vec<String> {
    let output: &[&str] = match output {
        Some(Output::Json) => &["--output", "json"],
        Some(Output::Table) | None => &[],
    };
    let only = only.map_or_else(Vec::new, |text| vec!["--only", text]);
    let words = group.into_iter().chain(only).chain(output.iter().copied());
    words.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_passed_on() {
        assert_eq!(
            arguments(Some("packets"), Some("nat"), Some(Output::Json)),
            ["packets", "--only", "nat", "--output", "json"]
        );
        assert!(arguments(None, None, None).is_empty());
    }
}
