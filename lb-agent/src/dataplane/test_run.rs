//! What a program is told of a packet that it is run on by `BPF_PROG_TEST_RUN` (the kernel's
//! `Documentation/bpf/bpf_prog_run.rst`).

use std::ops::Range;

/// How much longer a packet may become in a run: an answer's headers, or an outer header. In bytes.
pub const ROOM: usize = 256;

/// Where things stand in `struct __sk_buff`, in bytes.
const LENGTH: usize = 192;
const INGRESS_IFINDEX: usize = 36;
const IFINDEX: usize = 40;
const SEGMENTS: usize = 164;
/// The same of its control block.
pub const CONTROL_BLOCK: Range<usize> = 48..68;

/// A packet at a TC hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SkbContext {
    /// The device whose hook it is at.
    pub ifindex: u32,
    /// The device that it has come in by; 0 for one that the node itself has made.
    pub ingress_ifindex: u32,
    /// For how many packets on the wire it stands.
    pub segments: u32,
    /// What is in each word of the control block.
    pub control: u32,
}

impl SkbContext {
    /// As the kernel takes it (`struct __sk_buff`).
    pub fn bytes(self) -> [u8; LENGTH] {
        let mut context = [0; LENGTH];
        let mut put = |at: usize, word: u32| {
            let place = context.iter_mut().skip(at);
            place
                .zip(word.to_ne_bytes())
                .for_each(|(byte, octet)| *byte = octet);
        };
        put(INGRESS_IFINDEX, self.ingress_ifindex);
        put(IFINDEX, self.ifindex);
        put(SEGMENTS, self.segments);
        for at in CONTROL_BLOCK.step_by(size_of::<u32>()) {
            put(at, self.control);
        }
        context
    }
}

/// A packet of `length` bytes at the XDP hook of a device, as the kernel takes it (`struct xdp_md`: `data`,
/// `data_end`, `data_meta`, `ingress_ifindex`, `rx_queue_index`, `egress_ifindex`).
pub fn xdp_context(length: u32, ifindex: u32) -> Vec<u8> {
    [0, length, 0, ifindex, 0, 0]
        .map(u32::to_ne_bytes)
        .as_flattened()
        .to_vec()
}
