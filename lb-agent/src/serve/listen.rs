//! Sockets that listen.

use std::io;
use std::net::{Ipv6Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;

/// Listens at an address. An unspecified one, of whatever family, means every address of both families, as it does for
/// kube-proxy; where there is no IPv6, those of IPv4.
pub(super) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    if !address.ip().is_unspecified() {
        return start(socket(address, true)?, address);
    }
    let both = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), address.port());
    match socket(both, false).and_then(|socket| start(socket, both)) {
        Err(error) if address.is_ipv4() && is_without_ipv6(&error) => start(socket(address, true)?, address),
        listener => listener,
    }
}

/// Listens at an address that is the node's, or takes an unspecified one for every address of its own family.
///
/// The kernel may list an address before it lets anybody bind to it, a new one of IPv6 (RFC 4862, section 5.4).
pub(super) fn listen_within_family(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(address, true)?;
    match address {
        SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
        SocketAddr::V6(_) => socket.set_freebind_v6(true)?,
    }
    start(socket, address)
}

fn socket(address: SocketAddr, within_family: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(within_family)?;
    }
    // A restart need not wait for connections of the run before.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn start(socket: Socket, address: SocketAddr) -> io::Result<TcpListener> {
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

fn is_without_ipv6(error: &io::Error) -> bool {
    [libc::EAFNOSUPPORT, libc::EADDRNOTAVAIL]
        .map(Some)
        .contains(&error.raw_os_error())
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .unwrap()
    }

    #[test]
    fn an_unspecified_address_means_both_families() {
        let runtime = runtime();
        let _inside = runtime.enter();
        for address in ["0.0.0.0:0", "[::]:0"] {
            let listener = listen(address.parse().unwrap()).unwrap();
            let port = listener.local_addr().unwrap().port();
            TcpStream::connect(("127.0.0.1", port)).unwrap();
            TcpStream::connect(("::1", port)).unwrap();
        }
    }

    #[test]
    fn an_address_that_is_not_there_yet_is_for_the_node_alone() {
        let runtime = runtime();
        let _inside = runtime.enter();
        for address in ["192.0.2.1:0", "[2001:db8::1]:0"] {
            let address = address.parse().unwrap();
            listen_within_family(address).unwrap();
            assert_eq!(
                listen(address).unwrap_err().kind(),
                io::ErrorKind::AddrNotAvailable
            );
        }
    }

    #[test]
    fn both_families_can_have_the_same_port_of_their_own() {
        let runtime = runtime();
        let _inside = runtime.enter();
        let v6 = listen_within_family("[::]:0".parse().unwrap()).unwrap();
        let port = v6.local_addr().unwrap().port();
        let _v4 = listen_within_family(([0, 0, 0, 0], port).into()).unwrap();
        let again = listen_within_family(([0, 0, 0, 0], port).into()).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AddrInUse);
    }
}
