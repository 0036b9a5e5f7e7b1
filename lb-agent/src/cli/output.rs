//! Tables for people, JSON for programs.

use std::io::{self, BufWriter, Write as _};

use clap::ValueEnum;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns for people.
    Table,
    /// One JSON document.
    Json,
}

/// Prints a JSON document, part by part: some are long.
pub(super) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    let written = serde_json::to_writer_pretty(&mut out, value).map_err(io::Error::from);
    read_or_not(written.and_then(|()| writeln!(out)).and_then(|()| out.flush()))
}

/// Prints lines.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    read_or_not(writeln!(io::stdout(), "{}", text.trim_end()))
}

/// That nobody reads on is no error (`| head`).
fn read_or_not(printed: io::Result<()>) -> anyhow::Result<()> {
    match printed {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}

/// Columns without borders; those whose header is named in `numbers` stand to the right.
pub(super) fn table(
    header: &[&str],
    numbers: &[&str],
    rows: impl IntoIterator<Item = Vec<String>>,
) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header.to_vec());
    for (column, title) in table.column_iter_mut().zip(header) {
        column.set_padding((0, 3));
        if numbers.contains(title) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.add_rows(rows);
    table
        .lines()
        .map(|line| line.trim_end().to_owned() + "\n")
        .collect()
}
