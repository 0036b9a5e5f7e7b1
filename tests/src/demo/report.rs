//! What the demo has to tell, as tables or as JSON.

use std::fmt;

use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{ContentArrangement, Table, TableComponent};
use serde::Serialize;
use serde_json::Value;

use super::asking::{EXPECTATIONS, Row};
use super::scaling::Change;

/// The whole demo.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Milliseconds from the agent's start until its data plane was ready.
    pub agent_ready_ms: f64,
    /// Every front end, asked by the client and by a pod.
    pub rows: Vec<Row>,
    /// A backend added and removed.
    pub changes: Vec<Change>,
    /// The command that dumps a service map.
    pub dump_command: String,
    /// The service map as bpftool dumps it.
    pub dump: Vec<Value>,
    /// What `lb-agent services` prints.
    pub services: String,
    /// Everything that was expected and did not hold; empty is well.
    pub failures: Vec<String>,
}

/// Entries of the service map that people are shown.
const ENTRIES: usize = 2;

impl Report {
    /// Adds the failures of rows and changes to the list of all.
    pub(super) fn with_all_failures(mut self) -> Self {
        let rows = self
            .rows
            .iter()
            .flat_map(|row| row.failures.iter().map(move |failure| of_row(row, failure)));
        let changes = self.changes.iter().flat_map(|change| &change.failures).cloned();
        let found: Vec<_> = rows.chain(changes).collect();
        self.failures.splice(0..0, found);
        self
    }
}

fn of_row(row: &Row, failure: &str) -> String {
    format!(
        "{} to {} {}: {failure}",
        row.from,
        row.front_end.address,
        row.front_end.talk.as_str()
    )
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "The agent's data plane was ready {:.0} ms after its start.\n",
            self.agent_ready_ms
        )?;
        writeln!(
            f,
            "Expected of every row: {EXPECTATIONS}.\n{}\n",
            rows_table(&self.rows)
        )?;
        writeln!(
            f,
            "A manifest is edited under load, and no request may fail.\n{}\n",
            changes_table(&self.changes)
        )?;
        writeln!(f, "$ {}\n{}\n", self.dump_command, shown_entries(&self.dump))?;
        writeln!(f, "$ lb-agent services\n{}", self.services)?;

        if self.failures.is_empty() {
            return write!(f, "Everything is as expected.");
        }
        write!(f, "NOT as expected:")?;
        self.failures
            .iter()
            .try_for_each(|failure| write!(f, "\n- {failure}"))
    }
}

fn rows_table(rows: &[Row]) -> Table {
    let mut table = table(&[
        "asked",
        "",
        "protocol",
        "from",
        "answers of each backend",
        "client it saw",
        "",
    ]);
    for row in rows {
        let front_end = &row.front_end;
        table.add_row([
            front_end.address.to_string(),
            format!("{:?} of {}", front_end.kind, front_end.service),
            front_end.talk.as_str().to_owned(),
            row.from.clone(),
            answers(row),
            row.seen
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(" "),
            verdict(&row.failures),
        ]);
    }
    table
}

fn changes_table(changes: &[Change]) -> Table {
    let mut table = table(&[
        "edit",
        "shows after",
        "requests meanwhile",
        "answers of each backend then",
        "",
    ]);
    for change in changes {
        table.add_row([
            change.what.clone(),
            format!("{:.0} ms", change.shown_ms),
            change.requests.to_string(),
            answers(&change.after),
            verdict(&change.failures),
        ]);
    }
    table
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_preset(UTF8_HORIZONTAL_ONLY)
        .remove_style(TableComponent::HorizontalLines)
        .remove_style(TableComponent::MiddleIntersections)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header);
    table
}

fn answers(row: &Row) -> String {
    let share = |(backend, count): (&String, &usize)| {
        format!(
            "{backend} {count} ({}%)",
            (count * 100 + row.requests / 2) / row.requests.max(1)
        )
    };
    row.answers.iter().map(share).collect::<Vec<_>>().join(", ")
}

fn verdict(failures: &[String]) -> String {
    if failures.is_empty() {
        "ok".to_owned()
    } else {
        "FAILED".to_owned()
    }
}

fn shown_entries(dump: &[Value]) -> String {
    let mut lines: Vec<_> = dump.iter().take(ENTRIES).map(ToString::to_string).collect();
    let more = dump.len().saturating_sub(ENTRIES);
    if more > 0 {
        lines.push(format!("... and {more} more entries"));
    }
    lines.join("\n")
}
