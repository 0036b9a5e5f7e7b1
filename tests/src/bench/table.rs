//! What was measured, as tables for people.

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};

use super::throughput::Throughput;
use super::timings::Timing;

/// A table whose columns after the first `words` are numbers.
pub(super) fn table(header: &[&str], words: usize, rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(NOTHING).set_header(header).add_rows(rows);
    for column in table.column_iter_mut().skip(words) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    format!("{table}\n")
}

/// Throughput.
pub fn throughput(rows: &[Throughput]) -> String {
    let rows = rows.iter().map(|row| {
        let Throughput {
            family,
            plain_gbps,
            beside_gbps,
            service_gbps,
            ratio,
            ratio_of_best,
        } = row;
        let numbers = [plain_gbps, beside_gbps, service_gbps, ratio, ratio_of_best];
        [family.clone()]
            .into_iter()
            .chain(numbers.map(|number| format!("{number:.3}")))
            .collect()
    });
    table(
        &[
            "FAMILY",
            "PLAIN GBIT/S",
            "BESIDE",
            "SERVICE",
            "SERVICE/PLAIN",
            "OF BEST",
        ],
        1,
        rows,
    )
}

/// Timings of the agent.
pub fn timings(rows: &[Timing]) -> String {
    let rows = rows.iter().map(|row| {
        let Timing {
            name,
            median_ms,
            max_ms,
        } = row;
        vec![name.clone(), format!("{median_ms:.1}"), format!("{max_ms:.1}")]
    });
    table(&["AGENT", "MEDIAN MS", "MAX MS"], 1, rows)
}
