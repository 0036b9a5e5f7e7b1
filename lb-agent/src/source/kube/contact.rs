//! Whether the API server tells us what we ask for: said once when it stops, and once when it does so again.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use tracing::{debug, info, warn};

use super::trouble::Trouble;

/// What is the matter now.
#[derive(Debug, Default)]
pub(super) struct Contact {
    state: RefCell<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By resource.
    failing: BTreeMap<&'static str, String>,
    /// What was said since all was well.
    said: BTreeSet<String>,
}

impl Contact {
    /// A resource cannot be read. Returns whether that was said, since it is news.
    pub(super) fn failed(&self, resource: &'static str, trouble: &Trouble) -> bool {
        let text = trouble.to_string();
        let mut state = self.state.borrow_mut();
        state.failing.insert(resource, text.clone());
        let news = state.said.insert(text.clone());
        if news {
            warn!("{text}; what was read last stays, trying again");
        } else {
            debug!(resource, "{text}");
        }
        news
    }

    /// A resource can be read. Returns whether that was said, since it is news.
    pub(super) fn answered(&self, resource: &'static str) -> bool {
        let mut state = self.state.borrow_mut();
        let news = state.failing.remove(resource).is_some() && state.failing.is_empty();
        if news {
            state.said.clear();
            info!("the API server tells everything again");
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_is_said_once_for_all_resources_and_so_is_its_end() {
        let contact = Contact::default();
        let away = Trouble::Unreachable("refused".into());
        assert!(!contact.answered("services"));
        assert!(contact.failed("services", &away));
        assert!(!contact.failed("services", &away));
        assert!(!contact.failed("nodes", &away));
        assert!(contact.failed("nodes", &Trouble::Unauthorized));
        assert!(!contact.failed("nodes", &away));
        assert!(!contact.answered("services"));
        assert!(!contact.answered("services"));
        assert!(contact.answered("nodes"));
        assert!(contact.failed("nodes", &away));
    }
}
