//! What arrives at a device and what leaves it.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use nix::errno::Errno;

use super::link::{bound, set_option};
use crate::packet::{View, with_checksum};
use crate::topology::Host;

/// Room for frames that were not fetched yet.
const BUFFER: i32 = 64 << 20;
/// The longest wait for a frame before a look whether to end.
const PATIENCE_MILLIS: i32 = 20;
/// In `struct tpacket_auxdata` of `linux/if_packet.h`: the checksum is still to be filled in by a device.
const CHECKSUM_NOT_READY: u32 = 1 << 3;
/// There is a VLAN tag, which the kernel has taken out of the frame.
const VLAN_VALID: u32 = 1 << 4;

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// When, since the capture began.
    pub at: Duration,
    /// It left by the device; otherwise it arrived there.
    pub is_outgoing: bool,
    /// Its bytes, tag and checksum filled in where the kernel had put them off.
    pub bytes: Vec<u8>,
}

impl Seen {
    /// What it is.
    pub fn view(&self) -> Result<View, String> {
        View::of(&self.bytes)
    }
}

/// A capture that runs until it is stopped.
#[derive(Debug)]
pub struct Capture {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Vec<Seen>>>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Capture {
    /// Begins; every frame from now on is seen.
    pub fn start(host: &Host, device: &str) -> Result<Self> {
        let all = u16::try_from(libc::ETH_P_ALL)?.to_be();
        let socket = host.netns.run(|| bound(device, all))?;
        set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, BUFFER)?;
        set_option(&socket, libc::SOL_PACKET, libc::PACKET_AUXDATA, 1)?;
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let (stopped, frames) = (Arc::clone(&stop), Arc::clone(&seen));
        let thread = thread::Builder::new()
            .name(format!("capture of {device}"))
            .spawn(move || receive(&socket, &stopped, &frames))?;
        Ok(Self {
            stop,
            seen,
            thread: Some(thread),
        })
    }

    /// Waits until the frames seen so far are enough.
    pub fn wait_until(&self, limit: Duration, is_enough: impl Fn(&[Seen]) -> bool) -> Result<()> {
        let begin = Instant::now();
        while !is_enough(&lock(&self.seen)) {
            if begin.elapsed() > limit {
                bail!(
                    "not seen within {limit:?}; seen was {:#?}",
                    views(&lock(&self.seen))
                );
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Ends; every frame that was seen. An error when some were lost.
    pub fn stop(mut self) -> Result<Vec<Seen>> {
        self.end()?;
        Ok(std::mem::take(&mut *lock(&self.seen)))
    }

    /// Ends; what each IP packet was. An error when one is wrong, or some were lost.
    pub fn stop_and_view(self) -> Result<Vec<View>> {
        let frames = self.stop()?;
        let ip = frames.iter().filter(|frame| is_ip(&frame.bytes));
        ip.map(|frame| frame.view().map_err(|error| anyhow!("{error}: {frame:02x?}")))
            .collect()
    }

    fn end(&mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("the capture has ended")?;
        thread.join().map_err(|_| anyhow!("the capture panicked"))?
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        if self.thread.is_some()
            && let Err(error) = self.end()
        {
            eprintln!("a capture failed: {error:#}");
        }
    }
}

fn lock(seen: &Mutex<Vec<Seen>>) -> MutexGuard<'_, Vec<Seen>> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

fn views(frames: &[Seen]) -> Vec<Result<View, String>> {
    let ip = frames.iter().filter(|frame| is_ip(&frame.bytes));
    ip.map(Seen::view).collect()
}

/// An IP packet, with VLAN tags or without: not ARP, LLDP and the like.
fn is_ip(frame: &[u8]) -> bool {
    matches!(
        frame.get(12..14),
        Some([0x08 | 0x81, 0x00] | [0x86, 0xdd] | [0x88, 0xa8])
    )
}

fn receive(socket: &OwnedFd, stop: &AtomicBool, seen: &Mutex<Vec<Seen>>) -> Result<()> {
    let begin = Instant::now();
    let mut buffer = vec![0; 1 << 17];
    loop {
        // What was there when it was stopped is still fetched.
        let is_last = stop.load(Ordering::Relaxed);
        let mut poll = libc::pollfd {
            fd: socket.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        let patience = if is_last { 0 } else { PATIENCE_MILLIS };
        // SAFETY: the one structure lives on.
        let ready = unsafe { libc::poll(&raw mut poll, 1, patience) };
        match Errno::result(ready) {
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("cannot wait for frames"),
            Ok(0) if is_last => return lost(socket),
            Ok(0) => {}
            Ok(_) => {
                let (is_outgoing, bytes) = fetch(socket, &mut buffer)?;
                lock(seen).push(Seen {
                    at: begin.elapsed(),
                    is_outgoing,
                    bytes,
                });
            }
        }
    }
}

/// One frame, and whether it is outgoing.
fn fetch(socket: &OwnedFd, buffer: &mut [u8]) -> Result<(bool, Vec<u8>)> {
    // SAFETY: all zero is a valid value of these structures.
    let (mut from, mut message): (libc::sockaddr_ll, libc::msghdr) = unsafe { std::mem::zeroed() };
    let mut part = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    // Words, so that it is aligned for the header in it.
    let mut control = [0_u64; 16];
    message.msg_name = (&raw mut from).cast();
    message.msg_namelen = libc::socklen_t::try_from(size_of_val(&from))?;
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control);
    // SAFETY: every buffer lives on, and its length is the one given.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0) };
    let length = Errno::result(length).context("cannot receive a frame")?;
    ensure!(message.msg_flags & libc::MSG_TRUNC == 0, "a frame is too long");
    let mut frame = buffer[..usize::try_from(length)?].to_vec();
    if let Some(more) = auxiliary(&message) {
        if more.tp_status & VLAN_VALID != 0 {
            let tag = [more.tp_vlan_tpid, more.tp_vlan_tci].map(u16::to_be_bytes);
            frame.splice(12..12, tag.as_flattened().iter().copied());
        }
        if more.tp_status & CHECKSUM_NOT_READY != 0 {
            frame = with_checksum(&frame);
        }
    }
    Ok((from.sll_pkttype == libc::PACKET_OUTGOING, frame))
}

/// What the kernel says about a frame beside its bytes.
fn auxiliary(message: &libc::msghdr) -> Option<libc::tpacket_auxdata> {
    // SAFETY: the kernel has filled in the header, and its buffer lives on.
    let control = unsafe { libc::CMSG_FIRSTHDR(message).as_ref() }?;
    if (control.cmsg_level, control.cmsg_type) != (libc::SOL_PACKET, libc::PACKET_AUXDATA) {
        return None;
    }
    // SAFETY: a message of this type has this structure as its data, which need not be aligned.
    Some(unsafe {
        libc::CMSG_DATA(control)
            .cast::<libc::tpacket_auxdata>()
            .read_unaligned()
    })
}

/// An error when frames were lost because the buffer was full.
fn lost(socket: &OwnedFd) -> Result<()> {
    // Packets and drops (`struct tpacket_stats`).
    let mut counts = [0_u32; 2];
    let mut length = libc::socklen_t::try_from(size_of_val(&counts))?;
    // SAFETY: the pointers are to a buffer and its length.
    let done = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            counts.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    Errno::result(done).context("cannot ask for lost frames")?;
    ensure!(counts[1] == 0, "{} of {} frames were lost", counts[1], counts[0]);
    Ok(())
}
