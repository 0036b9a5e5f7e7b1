//! Programs at devices: what is asked for, and what comes of it.

use std::collections::BTreeMap;

use tokio::time::Instant;
use tracing::{info, warn};

use super::{ATTACH_RETRY, RECHECK, Runtime};
use crate::dataplane::DataplaneError;
use crate::dataplane::attach;
use crate::dataplane::xdp::XdpState;

// === impl Runtime ===

impl Runtime {
    /// Asks for programs at every device that is there now, unless somebody has taken the pins away.
    pub(super) fn attach(&self) -> Result<(), DataplaneError> {
        self.store.check_pins(&self.pins)?;
        self.attacher.sync(self.host.attach_points());
        Ok(())
    }

    /// Draws the conclusions from a pass over the programs.
    pub(super) fn attached(&mut self, report: attach::Report) {
        if report.changed() {
            info!(
                attached = report.attached,
                replaced = report.replaced,
                moved = report.moved,
                removed = report.removed,
                "programs updated"
            );
        }
        if report.failed.is_empty() {
            self.attach_retry = ATTACH_RETRY;
        } else {
            self.recheck_at = Instant::now() + self.attach_retry;
            self.attach_retry = RECHECK.min(self.attach_retry * 2);
        }
        if let Some(times) = self.start.take() {
            times.log(self.host.devices.len(), &report.summary());
        }
        self.bulletin.attached(&report);
        self.xdp_attached(&report);
        self.warn_of(report);
    }

    /// Rows of devices tell from now on where XDP is at work.
    fn xdp_attached(&mut self, report: &attach::Report) {
        if !report.complete {
            return;
        }
        let known = report.xdp.iter().filter_map(|(ifindex, state)| {
            let before = self.xdp.get(ifindex).copied();
            Some((*ifindex, state.or(before)?))
        });
        let known: BTreeMap<u32, XdpState> = known.collect();
        for (ifindex, state) in &known {
            if self.xdp.get(ifindex) != Some(state) {
                let device = self.host.name_of(*ifindex);
                match state {
                    Ok(mode) => info!(device, mode = mode.as_str(), "XDP attached"),
                    Err(reason) => info!(device, "no XDP: {reason}"),
                }
            }
        }
        let attached = known.iter().filter(|(_, state)| state.is_ok());
        self.fresh
            .send_replace(attached.map(|(ifindex, _)| *ifindex).collect());
        let uplinks: Vec<_> = known
            .iter()
            .map(|(ifindex, state)| (self.host.name_of(*ifindex), *state))
            .collect();
        self.bulletin.xdp_attached(&uplinks);
        self.xdp = known;
        self.tell_host();
    }

    fn warn_of(&mut self, report: attach::Report) {
        let failed: BTreeMap<(String, &'static str), String> = report
            .failed
            .into_iter()
            .map(|(place, error)| (place, format!("{:#}", anyhow::Error::new(error))))
            .collect();
        for ((device, hook), error) in &failed {
            if self.warned.get(&(device.clone(), *hook)) != Some(error) {
                warn!(device, hook, "no program: {error}; trying again");
            }
        }
        self.warned = failed;
    }
}
