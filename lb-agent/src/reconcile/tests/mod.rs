//! The pipe as a whole: order of writes, failures, restarts.

mod failures;
mod order;
mod store;
mod world;

use lb_common::Settings;

use super::{Config, Pipe};
use crate::image::render::render;
use crate::source::SourceEvent;
use crate::store::{FakeStore, MapStore, Rows};

pub(crate) fn config() -> Config {
    Config {
        node_name: "node-a".into(),
        settings: Settings {
            jiffies_per_second: 250,
            ..Settings::default()
        },
        ..Config::default()
    }
}

/// A pipe over these maps, whose source has told everything that `events` say.
pub(crate) fn pipe(store: &impl MapStore, events: impl IntoIterator<Item = SourceEvent>) -> Pipe {
    pipe_with(store, config(), events)
}

fn pipe_with(store: &impl MapStore, config: Config, events: impl IntoIterator<Item = SourceEvent>) -> Pipe {
    let mut pipe = Pipe::adopt(store, config).unwrap();
    for event in events {
        pipe.apply(event);
    }
    pipe.apply(SourceEvent::Synced);
    pipe
}

/// The lines of front ends and of what belongs to them, which say all that packets of new flows see.
pub(crate) fn front_ends(store: &impl MapStore) -> Vec<String> {
    let text = render(&Rows::of(store).unwrap());
    let kinds = ["SVC", "ADDR", "RANGE", "POLICY"];
    text.lines()
        .filter(|line| kinds.iter().any(|kind| line.starts_with(kind)))
        .map(str::to_owned)
        .collect()
}

/// The front ends that a fresh agent would write into empty maps.
pub(crate) fn expected(config: Config, events: impl IntoIterator<Item = SourceEvent>) -> Vec<String> {
    let mut store = FakeStore::default();
    let report = pipe_with(&store, config, events).sync(&mut store);
    assert!(report.retry_after.is_none(), "{:?}", report.problems);
    front_ends(&store)
}
