//! Client sockets with a chosen source.

use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};
use std::{io, thread};

use anyhow::{Context as _, Result};
use socket2::{Domain, Protocol, Socket, Type};

/// Longer than a repeated SYN takes, so that a single lost packet is no failure.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);

/// A connected UDP socket. Several may share a source, if they have different destinations.
pub fn udp(to: SocketAddr, from: Option<SocketAddr>) -> Result<UdpSocket> {
    let socket = bound(
        Socket::new(Domain::for_address(to), Type::DGRAM, Some(Protocol::UDP))?,
        from,
    )?;
    socket
        .connect(&to.into())
        .with_context(|| format!("cannot connect to {to}"))?;
    Ok(socket.into())
}

/// A TCP connection. Several may share a source, if they have different destinations.
pub fn tcp(to: SocketAddr, from: Option<SocketAddr>) -> Result<TcpStream> {
    tcp_within(to, from, CONNECT_TIMEOUT)
}

/// The same, and it has to be there within some time.
pub fn tcp_within(to: SocketAddr, from: Option<SocketAddr>, patience: Duration) -> Result<TcpStream> {
    let socket = bound(
        Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?,
        from,
    )?;
    connect(&socket, to, patience).with_context(|| match from {
        Some(from) => format!("cannot connect to {to} from {from}"),
        None => format!("cannot connect to {to}"),
    })?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket.into())
}

/// A port may still be taken for a moment by a connection that was reset just now.
fn connect(socket: &Socket, to: SocketAddr, patience: Duration) -> io::Result<()> {
    let begin = Instant::now();
    loop {
        match socket.connect_timeout(&to.into(), patience) {
            Err(error)
                if error.kind() == io::ErrorKind::AddrNotAvailable && begin.elapsed() < CONNECT_TIMEOUT =>
            {
                thread::sleep(Duration::from_millis(20));
            }
            done => return done,
        }
    }
}

fn bound(socket: Socket, from: Option<SocketAddr>) -> Result<Socket> {
    if let Some(from) = from {
        socket.set_reuse_address(true)?;
        socket
            .bind(&from.into())
            .with_context(|| format!("cannot bind to {from}"))?;
    }
    Ok(socket)
}

/// Stops the kernel from computing UDP checksums over IPv4 (they are then 0: "none").
pub fn without_checksum(socket: &UdpSocket) -> Result<()> {
    use std::os::fd::AsRawFd as _;

    let on: libc::c_int = 1;
    let len = libc::socklen_t::try_from(size_of_val(&on))?;
    // SAFETY: the descriptor is open for as long as `socket` lives, and the pointer is to an int of the length given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NO_CHECK,
            (&raw const on).cast(),
            len,
        )
    };
    nix::errno::Errno::result(result).context("cannot switch UDP checksums off")?;
    Ok(())
}
