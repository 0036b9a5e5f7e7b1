//! `BPF_PROG_TEST_RUN` of TC and XDP programs, with the flag that aya has no name for.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use aya_obj::generated::{bpf_attr, bpf_cmd};
use lb_agent::dataplane::test_run::{CONTROL_BLOCK, ROOM, SkbContext, xdp_context};
use lb_ebpf::testkit::Frame;

/// `BPF_F_TEST_SKB_CHECKSUM_COMPLETE` (Linux 6.11, a3cfe84cca28): the packet comes with the sum of its bytes, as from a
/// device, and the run fails with `EBADMSG` when the program leaves packet and sum in disagreement.
const CHECKSUM_COMPLETE: u32 = 1 << 2;

/// Runs a TC program on a packet, which is changed as the program changes it; returns the program's result.
pub(super) fn run_tc(program: BorrowedFd<'_>, frame: &mut Frame, complete: bool) -> io::Result<i32> {
    let context = tc_context(frame).bytes();
    let mut after = context;
    let flags = if complete { CHECKSUM_COMPLETE } else { 0 };
    let result = test_run(program, &mut frame.bytes, &context, &mut after, flags)?;
    if after[CONTROL_BLOCK] != context[CONTROL_BLOCK] {
        return Err(io::Error::other(
            "the program has left something in the control block",
        ));
    }
    Ok(result)
}

/// Runs an XDP program on a packet, which is changed as the program changes it; returns the program's result.
pub(super) fn run_xdp(program: BorrowedFd<'_>, frame: &mut Frame) -> io::Result<i32> {
    let length = u32::try_from(frame.bytes.len()).map_err(io::Error::other)?;
    let context = xdp_context(length, frame.ifindex);
    let mut after = context.clone();
    test_run(program, &mut frame.bytes, &context, &mut after, 0)
}

fn test_run(
    program: BorrowedFd<'_>,
    bytes: &mut Vec<u8>,
    context: &[u8],
    context_after: &mut [u8],
    flags: u32,
) -> io::Result<i32> {
    let mut out = vec![0; bytes.len() + ROOM];
    // SAFETY: all zero is a valid value of this union.
    let mut attr: bpf_attr = unsafe { std::mem::zeroed() };
    // SAFETY: the member that belongs to BPF_PROG_TEST_RUN.
    let test = unsafe { &mut attr.test };
    test.prog_fd = u32::try_from(program.as_raw_fd()).map_err(io::Error::other)?;
    test.repeat = 1;
    test.flags = flags;
    test.data_size_in = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    test.data_size_out = u32::try_from(out.len()).map_err(io::Error::other)?;
    test.data_in = bytes.as_ptr() as u64;
    test.data_out = out.as_mut_ptr() as u64;
    test.ctx_size_in = u32::try_from(context.len()).map_err(io::Error::other)?;
    test.ctx_size_out = test.ctx_size_in;
    test.ctx_in = context.as_ptr() as u64;
    test.ctx_out = context_after.as_mut_ptr() as u64;
    // SAFETY: the buffers live on, and their lengths are those given.
    let done = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            bpf_cmd::BPF_PROG_TEST_RUN,
            &raw mut attr,
            size_of::<bpf_attr>(),
        )
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as above.
    let test = unsafe { attr.test };
    out.truncate(test.data_size_out as usize);
    *bytes = out;
    Ok(test.retval.cast_signed())
}

fn tc_context(frame: &Frame) -> SkbContext {
    SkbContext {
        ifindex: frame.ifindex,
        // What the node itself sends has come in nowhere.
        ingress_ifindex: if frame.own { 0 } else { frame.ifindex },
        segments: frame.segments,
        // A program must leave it as it is.
        control: 0x0101_0101,
    }
}
