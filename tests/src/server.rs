//! The servers of a pod: HTTP, DNS, echo and SCTP, on both families.

use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;

use anyhow::{Context as _, Result};
use tokio::net::{TcpListener, UdpSocket};
use tokio::runtime;
use tokio::sync::oneshot;

use crate::family::Family;
use crate::topology::Host;
use crate::{dns, echo, http, sctp};

/// Where [`http`] is served.
pub const HTTP_PORT: u16 = 8080;
/// Where [`dns`] is served.
pub const DNS_PORT: u16 = 5353;
/// Where [`echo`] is served, over TCP and UDP.
pub const ECHO_PORT: u16 = 7777;
/// Where [`sctp`] is served.
pub const SCTP_PORT: u16 = 13_868;

/// The servers of one host, stopped on drop.
#[derive(Debug)]
pub struct Server {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Server {
    /// Starts them; they listen when this returns.
    pub fn start(host: &Host) -> Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = mpsc::channel();
        let name: Arc<str> = host.name.as_str().into();
        let thread = host.netns.spawn(move || {
            let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                tokio::select! {
                    result = serve(name, ready) => result,
                    _ = stopped => Ok(()),
                }
            })
        })?;
        let server = Self {
            stop: Some(stop),
            thread: Some(thread),
        };
        is_ready
            .recv()
            .ok()
            .with_context(|| format!("the servers of {} do not start", host.name))?;
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // It has ended already if nobody listens.
            let _ended = stop.send(());
        }
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(Err(error))) => eprintln!("a server failed: {error:#}"),
            Some(Err(_)) => eprintln!("a server panicked"),
            Some(Ok(Ok(()))) | None => {}
        }
    }
}

async fn serve(name: Arc<str>, ready: mpsc::Sender<()>) -> Result<()> {
    // An IPv6 socket on the unspecified address serves IPv4, too (RFC 3493, 5.3).
    let address = |port| SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    let http = TcpListener::bind(address(HTTP_PORT)).await.context("HTTP")?;
    let dns = UdpSocket::bind(address(DNS_PORT)).await.context("DNS")?;
    let echo_tcp = TcpListener::bind(address(ECHO_PORT))
        .await
        .context("echo over TCP")?;
    let echo_udp = UdpSocket::bind(address(ECHO_PORT))
        .await
        .context("echo over UDP")?;
    let (sctp4, sctp6) = (sctp::listen(Family::V4)?, sctp::listen(Family::V6)?);
    ready.send(()).context("nobody waits for the servers")?;
    tokio::try_join!(
        http::serve(http, Arc::clone(&name)),
        dns::serve(dns, Arc::clone(&name)),
        sctp::serve(sctp4, Arc::clone(&name)),
        sctp::serve(sctp6, Arc::clone(&name)),
        echo::serve_tcp(echo_tcp, name),
        echo::serve_udp(echo_udp),
    )?;
    Ok(())
}
