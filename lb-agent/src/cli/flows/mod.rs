//! `lb-agent flows`.
//!
//! JSON: a list of [`FlowView`], whose fields docs/operations.md describes.

mod listing;
#[cfg(test)]
mod tests;
mod view;

use std::fmt::Write as _;
use std::net::IpAddr;

use anyhow::Context as _;
use clap::Args;

use self::listing::{Listing, Wanted};
use self::view::FlowView;
use super::ShowArgs;
use super::output::{Format, json, print, table};
use super::view::names;
use crate::dataplane::{Access, KernelStore, clock};
use crate::model::ObjectName;
use crate::store::{MapStore as _, SettingsTable};

/// Entries that people are shown unless they ask for more.
const USUAL_LIMIT: usize = 1000;

const HEADER: [&str; 10] = [
    "STAGE",
    "PROTOCOL",
    "SOURCE",
    "DESTINATION",
    "PUT IN",
    "SERVICE",
    "BACKEND",
    "STATE",
    "FLAGS",
    "AGE",
];
const NUMBERS: [&str; 2] = ["BACKEND", "AGE"];

/// Flags of `flows`.
#[derive(Debug, Args)]
pub(super) struct FlowsArgs {
    /// Only entries with this address: one that the packet has, or one that is put in.
    #[arg(long, value_name = "IP")]
    address: Option<IpAddr>,
    /// Only entries of this Service.
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = service)]
    service: Option<ObjectName>,
    /// Show so many at most; 0 for all of them. Without this flag, 1000 in a table and all as JSON.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    #[command(flatten)]
    show: ShowArgs,
}

impl FlowsArgs {
    pub(super) fn execute(self) -> anyhow::Result<()> {
        let store = KernelStore::open(&self.show.pins()?, Access::Read)?;
        let names = names(&store)?;
        let settings = store.rows::<SettingsTable>()?.remove(&0).unwrap_or_default();
        let wanted = Wanted::new(self.address, self.service.as_ref(), &names)?;
        let mut listing = Listing::read(&store, &names, &wanted, self.limit())?;
        // Read after the entries, of which none is from later then.
        let now = clock::now().context("no ages, because the kernel's clock cannot be read");
        listing.clock = now.as_ref().ok().map(|now| (*now, settings.jiffies_per_second));
        match self.show.output {
            Format::Json => json(&listing),
            Format::Table => print(&text(&listing, now.err().as_ref())),
        }
    }

    fn limit(&self) -> usize {
        match (self.limit, self.show.output) {
            (Some(0), _) | (None, Format::Json) => usize::MAX,
            (Some(limit), _) => limit,
            (None, Format::Table) => USUAL_LIMIT,
        }
    }
}

fn service(text: &str) -> Result<ObjectName, String> {
    ObjectName::parse(text).ok_or_else(|| "it is not NAMESPACE/NAME".to_owned())
}

/// For people: a row for each entry, and what is missing.
fn text(listing: &Listing<'_>, no_ages: Option<&anyhow::Error>) -> String {
    let (found, shown) = (listing.found(), listing.rows().count());
    if found == 0 {
        return "No entries.".to_owned();
    }
    let mut text = table(&HEADER, &NUMBERS, listing.rows().map(|entry| row(&entry)));
    if shown < found {
        _ = writeln!(text, "\n{shown} of {found} entries. --limit 0 shows all of them.");
    }
    if let Some(error) = no_ages {
        _ = writeln!(text, "\nWarning: {error:#}");
    }
    text
}

fn row(entry: &FlowView<'_>) -> Vec<String> {
    let FlowView {
        service,
        family: _,
        stage,
        protocol,
        source,
        destination,
        new_source,
        new_destination,
        outer_destination,
        backend,
        epoch: _,
        state,
        flags,
        last_seen: _,
        age_seconds,
    } = entry;
    let put_in = [
        new_source.map(|end| format!("src={end}")),
        new_destination.map(|end| format!("dst={end}")),
        outer_destination.map(|address| format!("outer-dst={address}")),
    ];
    vec![
        (*stage).to_owned(),
        (*protocol).to_owned(),
        source.to_string(),
        destination.to_string(),
        words(put_in.into_iter().flatten()),
        or_none(service.as_deref()),
        or_none(*backend),
        (*state).to_owned(),
        words(flags.iter().map(|flag| (*flag).to_owned())),
        or_none(age_seconds.map(|age| format!("{age}s"))),
    ]
}

fn words(words: impl Iterator<Item = String>) -> String {
    let words: Vec<_> = words.collect();
    or_none((!words.is_empty()).then(|| words.join(",")))
}

fn or_none(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}
