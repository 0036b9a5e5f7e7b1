//! Which pod has an address and port: another one must not get the connections of the one before.

use std::collections::BTreeMap;

use crate::desired::Target;
use crate::model::Uid;

/// The pods of one port's endpoints, where they are known. Only in memory: a new agent knows none.
#[derive(Debug)]
pub(super) struct Pods<A> {
    known: BTreeMap<Target<A>, Pod>,
}

#[derive(Debug)]
struct Pod {
    uid: Uid,
    epoch: u16,
}

impl<A: Copy + Ord> Pods<A> {
    /// The epoch of an endpoint: that of its row, or the next one when another pod has taken its place.
    pub(super) fn epoch(&mut self, target: &Target<A>, uid: Option<&Uid>, row: u16) -> u16 {
        let epoch = match (self.known.get(target), uid) {
            (Some(pod), Some(uid)) if pod.uid != *uid => row.wrapping_add(1),
            // The maps may not have it yet, if a write has failed.
            (Some(pod), _) => pod.epoch,
            (None, _) => row,
        };
        if let Some(uid) = uid.cloned() {
            self.known.insert(*target, Pod { uid, epoch });
        }
        epoch
    }

    /// Forgets an endpoint.
    pub(super) fn forget(&mut self, target: &Target<A>) {
        self.known.remove(target);
    }
}

impl<A> Default for Pods<A> {
    fn default() -> Self {
        Self {
            known: BTreeMap::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use lb_common::{Ip4, Port};

    use super::*;

    #[test]
    fn another_pod_gets_the_next_epoch_also_if_it_has_to_be_written_twice() {
        let target = Target {
            addr: Ip4::default(),
            port: Port::new(80),
        };
        let [a, b] = ["a", "b"].map(Uid::from);
        let mut pods = Pods::default();
        assert_eq!(pods.epoch(&target, None, 4), 4);
        assert_eq!(pods.epoch(&target, Some(&a), 4), 4);
        assert_eq!(pods.epoch(&target, None, 4), 4);
        assert_eq!(pods.epoch(&target, Some(&b), 4), 5);
        assert_eq!(pods.epoch(&target, Some(&b), 4), 5);
        assert_eq!(pods.epoch(&target, None, 4), 5);
        assert_eq!(pods.epoch(&target, Some(&b), 5), 5);
        pods.forget(&target);
        assert_eq!(pods.epoch(&target, Some(&a), 1), 1);
    }
}
