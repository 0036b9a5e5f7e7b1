//! `lb-agent cleanup`.

use super::output::print;
use crate::dataplane::{self, Pins};

pub(super) async fn cleanup(pins: &Pins) -> anyhow::Result<()> {
    let removed = dataplane::cleanup::cleanup(pins).await?;
    if removed.is_empty() {
        return print("Nothing to remove.");
    }
    let lines: Vec<String> = removed.iter().map(|what| format!("removed {what}")).collect();
    print(&lines.join("\n"))
}
