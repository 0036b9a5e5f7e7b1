//! SCTP (RFC 9260) over raw sockets, for kernels without it, server and client: the cookie of an association tells who
//! serves and who asked. Packets have one chunk each, and nothing is sent again.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lb_common::protocol;
use socket2::{Domain, Socket, Type};
use tokio::net::UdpSocket;

use crate::answer::Answer;
use crate::family::Family;
use crate::server::SCTP_PORT;

const TIMEOUT: Duration = Duration::from_secs(2);

/// Types of chunks (section 3.2).
mod chunk {
    pub(super) const DATA: u8 = 0;
    pub(super) const INIT: u8 = 1;
    pub(super) const INIT_ACK: u8 = 2;
    pub(super) const SACK: u8 = 3;
    pub(super) const COOKIE_ECHO: u8 = 10;
    pub(super) const COOKIE_ACK: u8 = 11;
}

/// The parameter of an INIT ACK that has the cookie.
const STATE_COOKIE: u16 = 7;
/// What INIT and INIT ACK have before their parameters.
const INIT_LENGTH: usize = 16;
/// First and last fragment of a message: all of it.
const UNFRAGMENTED: u8 = 3;
const WINDOW: u32 = 1 << 16;

/// Ports, a verification tag, and a chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Packet {
    source: u16,
    destination: u16,
    tag: u32,
    kind: u8,
    value: Vec<u8>,
}

impl Packet {
    /// Its bytes, with the right checksum.
    fn build(&self) -> Result<Vec<u8>> {
        let flags = if self.kind == chunk::DATA { UNFRAGMENTED } else { 0 };
        let length = u16::try_from(4 + self.value.len()).context("the chunk is too long")?;
        let mut bytes = [
            &self.source.to_be_bytes(),
            &self.destination.to_be_bytes(),
            self.tag.to_be_bytes().as_slice(),
            &[0; 4],
            &[self.kind, flags],
            &length.to_be_bytes(),
            &self.value,
        ]
        .concat();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        let checksum = crc32c::crc32c(&bytes);
        bytes[8..12].copy_from_slice(&checksum.to_le_bytes());
        Ok(bytes)
    }

    /// What these bytes are; an error when the checksum is wrong.
    fn read(bytes: &[u8]) -> Result<Self> {
        let (header, chunk) = bytes.split_first_chunk::<12>().context("no header")?;
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&header[..8]), &[0; 4]);
        let checksum = crc32c::crc32c_append(checksum, chunk).to_le_bytes();
        ensure!(
            header[8..] == checksum,
            "the checksum is {:02x?}, not {checksum:02x?}",
            &header[8..]
        );
        let length = usize::from(u16_at(chunk, 2)?);
        Ok(Self {
            source: u16_at(header, 0)?,
            destination: u16_at(header, 2)?,
            tag: u32_at(header, 4)?,
            kind: chunk[0],
            value: chunk.get(4..length).context("the chunk is cut")?.to_vec(),
        })
    }

    /// The other way, with another chunk.
    fn reply(&self, tag: u32, kind: u8, value: Vec<u8>) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            tag,
            kind,
            value,
        }
    }
}

fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N]> {
    let bytes = bytes.get(at..).and_then(<[u8]>::first_chunk);
    bytes.copied().context("too short")
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16> {
    bytes_at(bytes, at).map(u16::from_be_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32> {
    bytes_at(bytes, at).map(u32::from_be_bytes)
}

/// INIT or INIT ACK: the tag that the other end has to use, and one stream each way.
fn init(tag: u32, parameters: &[u8]) -> Vec<u8> {
    let first_tsn = 1_u32;
    [
        tag.to_be_bytes().as_slice(),
        &WINDOW.to_be_bytes(),
        &[0, 1, 0, 1],
        &first_tsn.to_be_bytes(),
        parameters,
    ]
    .concat()
}

/// All that has come up to this TSN.
fn sack(tsn: u32) -> Vec<u8> {
    [tsn.to_be_bytes(), WINDOW.to_be_bytes(), [0; 4]].concat()
}

/// A raw socket, whose packets all have arrived at this namespace. The calls are those of a UDP socket without ports.
fn raw(family: Family) -> Result<Socket> {
    let domain = match family {
        Family::V4 => Domain::IPV4,
        Family::V6 => Domain::IPV6,
    };
    let protocol = i32::from(protocol::SCTP).into();
    Socket::new(domain, Type::RAW, Some(protocol)).context("no raw socket")
}

/// What a raw socket gives, from the SCTP header on: over IPv4 it has the IP header before it.
fn transport(received: &[u8], source: IpAddr) -> &[u8] {
    let header = match (source, received.first()) {
        (IpAddr::V4(_), Some(first)) => usize::from(first & 0x0f) * 4,
        _ => 0,
    };
    received.get(header..).unwrap_or_default()
}

/// A socket for [`serve`].
pub fn listen(family: Family) -> Result<UdpSocket> {
    let socket = raw(family)?;
    socket.set_nonblocking(true)?;
    Ok(UdpSocket::from_std(socket.into())?)
}

/// Answers at [`SCTP_PORT`] until it is dropped. What is wrong or belongs to no association gets no answer.
pub async fn serve(socket: UdpSocket, name: Arc<str>) -> Result<()> {
    let mut associations = Associations {
        tag: crc32c::crc32c(name.as_bytes()),
        name,
        tags: HashMap::new(),
    };
    let mut buffer = [0; 2048];
    loop {
        let (len, client) = socket
            .recv_from(&mut buffer)
            .await
            .context("cannot receive a packet")?;
        let received = transport(buffer.get(..len).unwrap_or_default(), client.ip());
        let Ok(Some(reply)) =
            Packet::read(received).and_then(|packet| associations.reply(&packet, client.ip()))
        else {
            continue;
        };
        // The client's address may have gone.
        let _gone = socket.send_to(&reply.build()?, client).await;
    }
}

/// A server's.
struct Associations {
    name: Arc<str>,
    /// The server's verification tag, another one for each name.
    tag: u32,
    /// The clients' verification tags.
    tags: HashMap<SocketAddr, u32>,
}

impl Associations {
    fn reply(&mut self, packet: &Packet, client: IpAddr) -> Result<Option<Packet>> {
        if packet.destination != SCTP_PORT {
            return Ok(None);
        }
        let client = SocketAddr::new(client, packet.source);
        if packet.kind == chunk::INIT {
            return self.accept(packet, client).map(Some);
        }
        let Some(tag) = self.tags.get(&client).filter(|_| packet.tag == self.tag) else {
            return Ok(None);
        };
        Ok(match packet.kind {
            chunk::COOKIE_ECHO => Some(packet.reply(*tag, chunk::COOKIE_ACK, Vec::new())),
            chunk::DATA => Some(packet.reply(*tag, chunk::SACK, sack(u32_at(&packet.value, 0)?))),
            _ => None,
        })
    }

    fn accept(&mut self, packet: &Packet, client: SocketAddr) -> Result<Packet> {
        let tag = u32_at(&packet.value, 0)?;
        self.tags.insert(client, tag);
        let cookie = serde_json::to_vec(&Answer::new(&self.name, client))?;
        let length = u16::try_from(4 + cookie.len())?;
        let parameter = [STATE_COOKIE, length].map(u16::to_be_bytes);
        let parameter = [parameter.as_flattened(), &cookie].concat();
        Ok(packet.reply(tag, chunk::INIT_ACK, init(self.tag, &parameter)))
    }
}

/// A client's association.
#[derive(Debug)]
pub struct Association {
    path: Path,
    answer: Answer,
    next_tsn: u32,
}

impl Association {
    /// Opens an association with a server, from this port.
    pub fn open(to: SocketAddr, port: u16) -> Result<Self> {
        let mut path = Path::new(to, port)?;
        let ack = path.exchange(chunk::INIT, init(path.own_tag, &[]), chunk::INIT_ACK)?;
        path.tag = u32_at(&ack, 0)?;
        let parameter = ack.get(INIT_LENGTH..).context("the INIT ACK is cut")?;
        ensure!(u16_at(parameter, 0)? == STATE_COOKIE, "no cookie in the INIT ACK");
        let cookie = parameter
            .get(4..usize::from(u16_at(parameter, 2)?))
            .context("the cookie is cut")?;
        path.exchange(chunk::COOKIE_ECHO, cookie.to_vec(), chunk::COOKIE_ACK)?;
        Ok(Self {
            answer: serde_json::from_slice(cookie).context("no answer in the cookie")?,
            path,
            next_tsn: 1,
        })
    }

    /// Who serves, and whom it saw.
    pub fn answer(&self) -> &Answer {
        &self.answer
    }

    /// The client's own end.
    pub fn local(&self) -> Result<SocketAddr> {
        let address = self.path.socket.local_addr()?.ip();
        Ok(SocketAddr::new(address, self.path.port))
    }

    /// Says something and waits until the same server has acknowledged it.
    pub fn say(&mut self, message: &[u8]) -> Result<()> {
        let tsn = self.next_tsn;
        self.next_tsn = tsn.wrapping_add(1);
        // Stream, number in the stream, payload protocol: none of them matters.
        let data = [tsn.to_be_bytes().as_slice(), &[0; 8], message].concat();
        let acknowledged = self.path.exchange(chunk::DATA, data, chunk::SACK)?;
        ensure!(
            acknowledged == sack(tsn),
            "TSN {tsn} is not acknowledged: {acknowledged:02x?}"
        );
        Ok(())
    }
}

/// Where a client's packets go, and come from.
#[derive(Debug)]
struct Path {
    socket: std::net::UdpSocket,
    port: u16,
    to: SocketAddr,
    own_tag: u32,
    /// The server's tag; 0 before it is known.
    tag: u32,
}

impl Path {
    /// From an own port. The connected socket gets what comes from the server's address, and ICMP errors.
    fn new(to: SocketAddr, port: u16) -> Result<Self> {
        let socket = raw(Family::of(to.ip()))?;
        // Raw sockets have no ports.
        socket.connect(&SocketAddr::new(to.ip(), 0).into())?;
        socket.set_read_timeout(Some(TIMEOUT))?;
        Ok(Self {
            socket: socket.into(),
            port,
            to,
            own_tag: 0x5c79_0000 | u32::from(port),
            tag: 0,
        })
    }

    /// Sends a chunk and waits for the one that answers it.
    fn exchange(&self, kind: u8, value: Vec<u8>, answer: u8) -> Result<Vec<u8>> {
        let packet = Packet {
            source: self.port,
            destination: self.to.port(),
            tag: self.tag,
            kind,
            value,
        };
        self.socket.send(&packet.build()?).context("cannot send")?;
        let expected = packet.reply(self.own_tag, answer, Vec::new());
        let mut buffer = [0; 2048];
        loop {
            let len = self
                .socket
                .recv(&mut buffer)
                .with_context(|| format!("no answer to chunk {kind} from {}", self.to))?;
            let reply = Packet::read(transport(&buffer[..len], self.to.ip()))?;
            let is_other = (reply.source, reply.destination, reply.tag)
                != (expected.source, expected.destination, expected.tag);
            if is_other {
                // Of another association of this host.
                continue;
            }
            ensure!(reply.kind == answer, "chunk {kind} is answered by {}", reply.kind);
            return Ok(reply.value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet() -> Packet {
        Packet {
            source: 40_000,
            destination: SCTP_PORT,
            tag: 7,
            kind: chunk::INIT,
            value: init(9, b"odd"),
        }
    }

    #[test]
    fn a_packet_is_read_as_it_was_built() {
        assert_eq!(Packet::read(&packet().build().unwrap()).unwrap(), packet());
    }

    #[test]
    fn a_wrong_checksum_is_an_error() {
        let mut bytes = packet().build().unwrap();
        bytes[0] ^= 1;
        assert!(Packet::read(&bytes).is_err());
    }
}
