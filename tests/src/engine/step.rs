//! What one packet has led to.

use lb_common::{Counter, DropReason, ServiceStats};
use lb_ebpf::testkit::Counts;

use super::Verdict;
use crate::packet::{PacketBuilder, View};

/// The outcome of one packet, the same on all engines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The program's result.
    pub verdict: Verdict,
    /// The device that it leaves by or comes in by, when it does not simply go on.
    pub device: Option<u32>,
    /// The packet before.
    pub before: Vec<u8>,
    /// The packet after.
    pub after: Vec<u8>,
    /// What it has added to the counts.
    pub counts: Counts,
}

impl Step {
    /// The packet goes on, and is this one now.
    #[track_caller]
    pub fn becomes(&self, packet: &PacketBuilder) -> &Self {
        assert_eq!(self.verdict, Verdict::On, "{self:?}");
        self.is(packet)
    }

    /// The packet goes on as it was.
    #[track_caller]
    pub fn untouched(&self) -> &Self {
        assert_eq!(self.verdict, Verdict::On, "{self:?}");
        assert!(self.after == self.before, "changed: {self:02x?}");
        self
    }

    /// The packet leaves by this device, and is this one now. At TC its hardware addresses are not filled in yet.
    #[track_caller]
    pub fn leaves(&self, device: u32, packet: &PacketBuilder) -> &Self {
        assert!(
            matches!(self.verdict, Verdict::Back | Verdict::Redirected),
            "{self:?}"
        );
        assert_eq!(self.device, Some(device), "{self:?}");
        self.is(packet)
    }

    /// The packet has become an answer, which leaves by this device.
    #[track_caller]
    pub fn answers(&self, device: u32) -> View {
        assert!(
            matches!(self.verdict, Verdict::Back | Verdict::Redirected),
            "{self:?}"
        );
        assert_eq!(self.device, Some(device), "{self:?}");
        View::of(&self.after).unwrap_or_else(|error| panic!("{error}: {self:02x?}"))
    }

    /// The packet is dropped for this reason.
    #[track_caller]
    pub fn dropped(&self, reason: DropReason) -> &Self {
        assert_eq!(self.verdict, Verdict::Dropped, "{self:?}");
        assert_eq!(self.counts.drops, [(reason, 1)].into());
        self
    }

    /// These counters have advanced by one, and no others.
    #[track_caller]
    pub fn counts(&self, counters: &[Counter]) -> &Self {
        let expected = counters.iter().map(|counter| (*counter, 1)).collect();
        assert_eq!(self.counts.counters, expected);
        self
    }

    /// This was counted for services, and nothing for others.
    #[track_caller]
    pub fn stats(&self, services: &[(u32, ServiceStats)]) -> &Self {
        assert_eq!(self.counts.services, services.iter().copied().collect());
        self
    }

    /// What the packet is now.
    #[track_caller]
    pub fn view(&self) -> View {
        View::of(&self.after).unwrap_or_else(|error| panic!("{error}: {self:02x?}"))
    }

    #[track_caller]
    fn is(&self, packet: &PacketBuilder) -> &Self {
        assert!(
            self.after == packet.build(),
            "expected {packet:?}\n{:02x?}\nhave\n{:02x?}\nof\n{:02x?}\n{:?}",
            packet.build(),
            self.after,
            self.before,
            self.counts
        );
        self
    }
}
