//! `BPF_PROG_TEST_RUN` of a TC program, with the flag that aya has no name for.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use aya_obj::generated::{bpf_attr, bpf_cmd};
use lb_ebpf::testkit::Frame;

/// `BPF_F_TEST_SKB_CHECKSUM_COMPLETE` (Linux 6.11, a3cfe84cca28): the packet comes with the sum of its bytes, as from a
/// device, and the run fails with `EBADMSG` when the program leaves packet and sum in disagreement.
const CHECKSUM_COMPLETE: u32 = 1 << 2;

/// Runs a program on a packet, which is changed as the program changes it; returns the program's result.
pub(super) fn test_run(program: BorrowedFd<'_>, frame: &mut Frame, complete: bool) -> io::Result<i32> {
    let mut context = context(frame);
    let control_block = context;
    // SAFETY: all zero is a valid value of this union.
    let mut attr: bpf_attr = unsafe { std::mem::zeroed() };
    // SAFETY: the member that belongs to BPF_PROG_TEST_RUN.
    let test = unsafe { &mut attr.test };
    test.prog_fd = u32::try_from(program.as_raw_fd()).map_err(io::Error::other)?;
    test.repeat = 1;
    test.flags = if complete { CHECKSUM_COMPLETE } else { 0 };
    test.data_size_in = u32::try_from(frame.bytes.len()).map_err(io::Error::other)?;
    test.data_size_out = test.data_size_in;
    test.data_in = frame.bytes.as_ptr() as u64;
    let mut out = vec![0; frame.bytes.len()];
    test.data_out = out.as_mut_ptr() as u64;
    test.ctx_size_in = CONTEXT_LENGTH as u32;
    test.ctx_size_out = test.ctx_size_in;
    test.ctx_in = control_block.as_ptr() as u64;
    test.ctx_out = context.as_mut_ptr() as u64;
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
    if context[CONTROL_BLOCK..CONTROL_BLOCK + 20] != control_block[CONTROL_BLOCK..CONTROL_BLOCK + 20] {
        return Err(io::Error::other(
            "the program has left something in the control block",
        ));
    }
    frame.bytes = out;
    // SAFETY: as above.
    Ok(unsafe { attr.test.retval }.cast_signed())
}

/// Where things stand in `struct __sk_buff`.
const CONTEXT_LENGTH: usize = 192;
const IFINDEX: usize = 40;
const CONTROL_BLOCK: usize = 48;
const SEGMENTS: usize = 164;

fn context(frame: &Frame) -> [u8; CONTEXT_LENGTH] {
    let mut context = [0; CONTEXT_LENGTH];
    let mut put = |at: usize, word: u32| context[at..at + 4].copy_from_slice(&word.to_ne_bytes());
    put(IFINDEX, frame.ifindex);
    put(SEGMENTS, frame.segments);
    // Five words that a program must leave as they are.
    for word in 0..5 {
        put(CONTROL_BLOCK + 4 * word, 0x0101_0101);
    }
    context
}
