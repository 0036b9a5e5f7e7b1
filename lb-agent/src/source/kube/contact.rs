//! Whether the API server can be reached, and tells us what we ask for: said once when that changes.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use tracing::{debug, info, warn};

use super::trouble::Trouble;

/// Refusals of a resource one after the other, from which on they are told: a server that has just started refuses what it
/// will allow in a moment.
const REFUSALS: u32 = 3;

/// What is the matter now.
#[derive(Debug, Default)]
pub(super) struct Contact {
    state: RefCell<State>,
}

#[derive(Debug, Default)]
struct State {
    unreachable: bool,
    /// What is refused, by resource.
    refused: BTreeMap<&'static str, Refused>,
}

#[derive(Debug, Default)]
struct Refused {
    times: u32,
    said: BTreeSet<String>,
}

impl Contact {
    /// A resource cannot be read. Returns what was said, since it is news.
    pub(super) fn failed(&self, resource: &'static str, trouble: &Trouble) -> Option<String> {
        let text = trouble.to_string();
        let mut state = self.state.borrow_mut();
        let news = if matches!(trouble, Trouble::Unreachable(_)) {
            !std::mem::replace(&mut state.unreachable, true)
        } else {
            state.reached();
            let refused = state.refused.entry(resource).or_default();
            refused.times += 1;
            refused.times >= REFUSALS && refused.said.insert(text.clone())
        };
        if news {
            warn!("{text}; what was read last stays, trying again");
            return Some(text);
        }
        debug!(resource, "{text}");
        None
    }

    /// How often a resource has been refused one time after the other.
    pub(super) fn refusals(&self, resource: &'static str) -> u32 {
        let state = self.state.borrow();
        state.refused.get(resource).map_or(0, |refused| refused.times)
    }

    /// A resource can be read. Returns what was said, since it is news.
    pub(super) fn answered(&self, resource: &'static str) -> Option<String> {
        let mut state = self.state.borrow_mut();
        let reached = state.reached();
        let refused = state.refused.remove(resource);
        if refused.is_none_or(|refused| refused.said.is_empty()) {
            return reached.map(str::to_owned);
        }
        let text = format!("the API server tells of {resource} again");
        info!("{text}");
        Some(text)
    }
}

impl State {
    /// There was an answer.
    fn reached(&mut self) -> Option<&'static str> {
        const TEXT: &str = "the API server can be reached again";
        let news = std::mem::take(&mut self.unreachable).then_some(TEXT);
        if let Some(text) = news {
            info!("{text}");
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn away(why: &str) -> Trouble {
        Trouble::Unreachable(why.to_owned())
    }

    #[test]
    fn a_loss_is_said_once_for_all_resources_and_so_is_its_end() {
        let contact = Contact::default();
        assert_eq!(contact.answered("services"), None);
        for _ in 0..2 {
            let said = contact.failed("services", &away("refused")).unwrap();
            assert_eq!(said, "the API server cannot be reached: refused");
            assert_eq!(contact.failed("services", &away("refused")), None);
            assert_eq!(contact.failed("nodes", &away("timed out")), None);
            let said = contact.answered("nodes").unwrap();
            assert_eq!(said, "the API server can be reached again");
            assert_eq!(contact.answered("services"), None);
        }
    }

    #[test]
    fn refusals_that_last_are_said_for_each_resource() {
        let contact = Contact::default();
        let refused = Trouble::Unauthorized;
        assert_eq!(contact.failed("services", &refused), None);
        assert_eq!(contact.answered("services"), None);
        for _ in 1..REFUSALS {
            assert_eq!(contact.failed("services", &refused), None);
        }
        assert_eq!(contact.failed("services", &refused), Some(refused.to_string()));
        assert_eq!(contact.failed("services", &refused), None);
        assert_eq!(contact.refusals("services"), REFUSALS + 1);
        assert_eq!(contact.refusals("nodes"), 0);
        // Who refuses can be reached: a loss after that is news.
        assert!(contact.failed("nodes", &away("refused")).is_some());
        assert_eq!(contact.failed("services", &refused), None);
        assert!(contact.failed("nodes", &away("refused")).is_some());
        assert_eq!(
            contact.answered("services").as_deref(),
            Some("the API server tells of services again")
        );
    }
}
