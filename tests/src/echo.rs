//! Echo over TCP (RFC 862, after one line that tells who serves and who asked) and over UDP, server and client.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::io::{AsyncWriteExt as _, copy};
use tokio::net::{TcpListener, UdpSocket};

use crate::answer::Answer;
use crate::socket;

const TIMEOUT: Duration = Duration::from_secs(4);

/// Echoes what TCP clients say, until it is dropped.
pub async fn serve_tcp(listener: TcpListener, name: Arc<str>) -> Result<()> {
    loop {
        let (mut stream, client) = listener.accept().await.context("cannot accept a connection")?;
        stream.set_nodelay(true)?;
        let mut greeting = serde_json::to_vec(&Answer::new(&name, client))?;
        greeting.push(b'\n');
        tokio::spawn(async move {
            let (mut from_client, mut to_client) = stream.split();
            to_client.write_all(&greeting).await?;
            copy(&mut from_client, &mut to_client).await
        });
    }
}

/// Echoes datagrams, until it is dropped.
pub async fn serve_udp(socket: UdpSocket) -> Result<()> {
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        let (len, client) = socket
            .recv_from(&mut buffer)
            .await
            .context("cannot receive a datagram")?;
        // A client that has gone makes the next call fail with its ICMP error.
        let _gone = socket
            .send_to(buffer.get(..len).unwrap_or_default(), client)
            .await;
    }
}

/// A client's connection to an echo server.
#[derive(Debug)]
pub struct Echo {
    stream: BufReader<TcpStream>,
    answer: Answer,
}

impl Echo {
    /// Connects, from a chosen own address where one is given, and reads who serves.
    pub fn open(to: SocketAddr, from: Option<SocketAddr>) -> Result<Self> {
        Self::over(socket::tcp(to, from)?, to, TIMEOUT)
    }

    /// The same, and connecting and the greeting may take so long each.
    pub fn open_within(to: SocketAddr, from: Option<SocketAddr>, patience: Duration) -> Result<Self> {
        Self::over(socket::tcp_within(to, from, patience)?, to, patience)
    }

    fn over(stream: TcpStream, to: SocketAddr, patience: Duration) -> Result<Self> {
        stream.set_read_timeout(Some(patience))?;
        let mut stream = BufReader::new(stream);
        let mut greeting = String::new();
        stream
            .read_line(&mut greeting)
            .with_context(|| format!("no greeting from {to}"))?;
        let answer = serde_json::from_str(&greeting).with_context(|| format!("no greeting: {greeting:?}"))?;
        Ok(Self { stream, answer })
    }

    /// Who serves, and whom it saw.
    pub fn answer(&self) -> &Answer {
        &self.answer
    }

    /// The client's own end.
    pub fn local(&self) -> Result<SocketAddr> {
        Ok(self.stream.get_ref().local_addr()?)
    }

    /// Ends the connection by a reset.
    pub fn reset(self) -> Result<()> {
        socket2::SockRef::from(self.stream.get_ref())
            .set_linger(Some(Duration::ZERO))
            .context("cannot reset")
    }

    /// Says something and checks that just this comes back.
    pub fn say(&mut self, text: &str) -> Result<()> {
        self.stream
            .get_mut()
            .write_all(text.as_bytes())
            .context("cannot say anything")?;
        let mut back = vec![0; text.len()];
        self.stream
            .read_exact(&mut back)
            .with_context(|| format!("no echo of {text:?}"))?;
        ensure!(
            back == text.as_bytes(),
            "said {text:?}, heard {:?}",
            String::from_utf8_lossy(&back)
        );
        Ok(())
    }
}

/// Sends a datagram and checks that just this comes back.
pub fn exchange(socket: &std::net::UdpSocket, payload: &[u8]) -> Result<()> {
    socket.set_read_timeout(Some(TIMEOUT))?;
    socket
        .send(payload)
        .with_context(|| format!("cannot send {} bytes", payload.len()))?;
    let mut buffer = vec![0; usize::from(u16::MAX)];
    let len = socket
        .recv(&mut buffer)
        .with_context(|| format!("no echo of {} bytes", payload.len()))?;
    ensure!(
        buffer.get(..len) == Some(payload),
        "sent {} bytes, heard {len} others",
        payload.len()
    );
    Ok(())
}
