//! Every packet case on the host engine, and on host and kernel side by side.

use anyhow::Result;
use lb_common::{V4, V6, protocol};
use lb_ebpf::testkit::Host;
use lb_tests::cases;
use lb_tests::cases::random::{self, search};
use lb_tests::engine::{Bed, Engine, Ground, Kernel, TestFamily};
use lb_tests::need_root;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs all cases of a family on these engines; a failed one does not keep the others from being run. Those that failed.
#[must_use]
fn run_all<F: TestFamily>(engines: &mut [&mut dyn Engine<F>]) -> Vec<String> {
    let mut failed = Vec::new();
    for case in cases::all::<F>() {
        for protocol in case.protocols {
            let mut bed = Bed::new(engines, *protocol);
            let done = catch_unwind(AssertUnwindSafe(|| (case.run)(&mut bed)));
            if done.is_err() {
                failed.push(format!("{} ({}, protocol {protocol})", case.name, F::NAME));
                eprintln!("FAILED {}", failed[failed.len() - 1]);
            }
        }
    }
    failed
}

/// Those that services have ports of.
const PROTOCOLS: [u8; 3] = [protocol::TCP, protocol::UDP, protocol::SCTP];

/// Buckets of the flow table, so many that none of a case's flows has to make room, and so few that all are quickly read.
const FOR_CASES: u32 = 256;
/// The same for flows of random packets.
const FOR_MANY: u32 = 1024;

/// Runs `work` with the kernel's engines: packets without and, where the kernel can, with the sum of their bytes.
fn with_kernels(buckets: u32, work: impl FnOnce(&mut Kernel, &mut Kernel) + Send) {
    let inside = || -> Result<()> {
        let complete = Kernel::knows_complete()?;
        if !complete {
            println!("SKIPPED CHECKSUM_COMPLETE: needs Linux 6.11");
        }
        work(
            &mut Kernel::new(false, buckets)?,
            &mut Kernel::new(complete, buckets)?,
        );
        Ok(())
    };
    let done = Ground::new().and_then(|ground| ground.run(inside));
    assert!(done.is_ok(), "{done:?}");
}

#[test]
fn cases_on_the_host() {
    let mut failed = run_all::<V4>(&mut [&mut Host::default()]);
    failed.extend(run_all::<V6>(&mut [&mut Host::default()]));
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn cases_on_host_and_kernel() {
    need_root!();
    with_kernels(FOR_CASES, |plain, complete| {
        let mut failed = run_all::<V4>(&mut [&mut Host::default(), plain, complete]);
        failed.extend(run_all::<V6>(&mut [&mut Host::default(), plain, complete]));
        assert!(failed.is_empty(), "{failed:#?}");
    });
}

#[test]
fn random_packets_on_the_host() {
    for protocol in PROTOCOLS {
        random::run::<V4>(&mut [&mut Host::default()], protocol);
        random::run::<V6>(&mut [&mut Host::default()], protocol);
    }
}

#[test]
fn random_packets_on_host_and_kernel() {
    need_root!();
    with_kernels(FOR_MANY, |plain, complete| {
        for protocol in PROTOCOLS {
            random::run::<V4>(&mut [&mut Host::default(), plain, complete], protocol);
            random::run::<V6>(&mut [&mut Host::default(), plain, complete], protocol);
        }
    });
}

#[test]
fn kept_packets_on_the_host() {
    for protocol in PROTOCOLS {
        search::replay::<V4>(&mut [&mut Host::default()], protocol);
        search::replay::<V6>(&mut [&mut Host::default()], protocol);
    }
}

#[test]
fn kept_packets_on_host_and_kernel() {
    need_root!();
    with_kernels(FOR_MANY, |plain, complete| {
        for protocol in PROTOCOLS {
            search::replay::<V4>(&mut [&mut Host::default(), plain, complete], protocol);
            search::replay::<V6>(&mut [&mut Host::default(), plain, complete], protocol);
        }
    });
}

#[test]
fn search_on_the_host() {
    const PACKETS: u32 = 20_000;
    for protocol in PROTOCOLS {
        search::run::<V4>(protocol, PACKETS);
        search::run::<V6>(protocol, PACKETS);
    }
}
