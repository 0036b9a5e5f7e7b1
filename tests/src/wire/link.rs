//! A packet socket (packet(7)) at one device.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;

use crate::topology::Host;

/// A device to send frames out of, and its hardware address.
#[derive(Debug)]
pub struct Link {
    socket: OwnedFd,
    /// The device's hardware address.
    pub mac: [u8; 6],
}

impl Link {
    /// Opens a device of a host.
    pub fn open(host: &Host, device: &str) -> Result<Self> {
        host.netns.run(|| {
            // Protocol 0: it receives nothing.
            let socket = bound(device, 0)?;
            Ok(Self {
                socket,
                mac: mac(device)?,
            })
        })
    }

    /// Sends one frame as it is.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        loop {
            // SAFETY: the buffer lives on, and its length is the one given.
            let sent = unsafe { libc::send(self.socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
            match Errno::result(sent) {
                // The device's queue is full for a moment.
                Err(Errno::ENOBUFS | Errno::EINTR) => std::thread::yield_now(),
                Err(error) => return Err(error).context("cannot send a frame"),
                Ok(sent) => {
                    ensure!(usize::try_from(sent)? == frame.len(), "half a frame was sent");
                    return Ok(());
                }
            }
        }
    }
}

/// The hardware address of a device of the calling thread's namespace.
fn mac(device: &str) -> Result<[u8; 6]> {
    let name = CString::new(device)?;
    // SAFETY: all zero is a valid value of this structure.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().zip(name.as_bytes()) {
        *place = byte.cast_signed();
    }
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None)?;
    // SAFETY: the structure is the one that this request reads and writes.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFHWADDR, &raw mut request) };
    Errno::result(done).with_context(|| format!("no hardware address of {device}"))?;
    // SAFETY: the request has filled in this member.
    let address = unsafe { request.ifr_ifru.ifru_hwaddr }.sa_data;
    let bytes = address.first_chunk::<6>().context("too short")?;
    Ok(bytes.map(i8::cast_unsigned))
}

/// A packet socket of the calling thread's namespace that gets the frames of this protocol (network order) of a device.
pub(super) fn bound(device: &str, protocol: u16) -> Result<OwnedFd> {
    // SAFETY: the call takes no pointers.
    let socket = unsafe {
        libc::socket(
            libc::AF_PACKET,
            libc::SOCK_RAW | libc::SOCK_CLOEXEC,
            protocol.into(),
        )
    };
    let socket = Errno::result(socket).context("cannot make a packet socket")?;
    // SAFETY: the descriptor is new and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    let name = CString::new(device)?;
    // SAFETY: the name ends with a zero and lives on.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    ensure!(index > 0, "no device {device}: {}", io::Error::last_os_error());
    // SAFETY: all zero is a valid value of this structure.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET)?;
    address.sll_protocol = protocol;
    address.sll_ifindex = i32::try_from(index)?;
    let length = libc::socklen_t::try_from(size_of_val(&address))?;
    // SAFETY: the address lives on, and its length is the one given.
    let done = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
    Errno::result(done).with_context(|| format!("cannot bind to {device}"))?;
    Ok(socket)
}

/// Sets an integer option of a socket.
pub(super) fn set_option(socket: &OwnedFd, level: i32, option: i32, value: i32) -> Result<()> {
    let length = libc::socklen_t::try_from(size_of_val(&value))?;
    // SAFETY: the pointer is to an int of the length given.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            length,
        )
    };
    Errno::result(done).with_context(|| format!("cannot set option {option}"))?;
    Ok(())
}
