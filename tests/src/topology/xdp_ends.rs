//! Ends of veths that take what XDP sends at the other end.
//!
//! The driver queues a frame of `XDP_TX` at an end that has an XDP program or GRO, but wakes it up only if it has the
//! program. With GRO alone the frame lies there, and nothing counts it as lost; only what is redirected from another
//! device arrives.

use std::fmt;

use anyhow::{Context as _, Result};
use aya::programs::Xdp;
use aya::programs::xdp::XdpMode;
use aya::{Ebpf, EbpfLoader};

use super::Host;
use crate::object::object;

/// A program that lets everything pass; its links end with this.
pub(super) struct XdpEnds(Ebpf);

impl XdpEnds {
    const PROGRAM: &str = "floor_pass";
    /// A map of the bench that nothing here uses.
    const UNUSED: &str = "bench_flows";

    pub(super) fn new() -> Result<Self> {
        let mut loader = EbpfLoader::new();
        loader.map_max_entries(Self::UNUSED, 128);
        let mut ends = Self(loader.load_file(object("sluice-bench.o")?)?);
        ends.program()?.load()?;
        Ok(ends)
    }

    /// Makes a device one of them. It also sends no checksums that are yet to be filled in, which XDP at the other end
    /// cannot see.
    pub(super) fn add(&mut self, host: &Host, device: &str) -> Result<()> {
        host.set_features(device, &["tx"], "off")?;
        let program = self.program()?;
        host.netns
            .run(|| Ok(program.attach(device, XdpMode::Driver).map(drop)?))
            .with_context(|| format!("no XDP at {device} of {}", host.name))
    }

    fn program(&mut self) -> Result<&mut Xdp> {
        let program = self.0.program_mut(Self::PROGRAM).context("no such program")?;
        Ok(program.try_into()?)
    }
}

impl fmt::Debug for XdpEnds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("XdpEnds").finish_non_exhaustive()
    }
}
