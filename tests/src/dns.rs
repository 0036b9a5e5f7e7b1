//! DNS over UDP, server and client: every question is answered by a TXT record that tells who serves and who asked.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use simple_dns::rdata::{RData, TXT};
use simple_dns::{CLASS, Name, Packet, PacketFlag, Question, ResourceRecord, TYPE};
use tokio::net::UdpSocket;

use crate::answer::Answer;
use crate::socket;

const TIMEOUT: Duration = Duration::from_secs(2);
const NAME: &str = "whoami.sluice.test";

/// Answers until it is dropped.
pub async fn serve(socket: UdpSocket, name: Arc<str>) -> Result<()> {
    let mut buffer = [0; 1500];
    loop {
        let (len, client) = socket
            .recv_from(&mut buffer)
            .await
            .context("cannot receive a question")?;
        let Ok(answer) = reply(buffer.get(..len).unwrap_or_default(), &Answer::new(&name, client)) else {
            continue;
        };
        // A client that has gone makes the next call fail with its ICMP error.
        let _gone = socket.send_to(&answer, client).await;
    }
}

fn reply(question: &[u8], answer: &Answer) -> Result<Vec<u8>> {
    let question = Packet::parse(question)?;
    let mut reply = Packet::new_reply(question.id());
    reply.set_flags(PacketFlag::AUTHORITATIVE_ANSWER);
    let (backend, client) = (
        format!("backend={}", answer.backend),
        format!("client={}", answer.client),
    );
    for asked in &question.questions {
        let text = TXT::new().with_string(&backend)?.with_string(&client)?;
        reply.answers.push(ResourceRecord::new(
            asked.qname.clone(),
            CLASS::IN,
            0,
            RData::TXT(text),
        ));
        reply.questions.push(asked.clone());
    }
    Ok(reply.build_bytes_vec()?)
}

/// Asks who serves, from a new port.
pub fn ask(to: SocketAddr) -> Result<Answer> {
    Resolver::open(to, None)?
        .ask()
        .with_context(|| format!("DNS at {to}"))
}

/// A client's connected socket.
#[derive(Debug)]
pub struct Resolver {
    socket: std::net::UdpSocket,
    next_id: u16,
}

impl Resolver {
    /// Opens a socket to a server, from a chosen own address where one is given.
    pub fn open(to: SocketAddr, from: Option<SocketAddr>) -> Result<Self> {
        Self::over(socket::udp(to, from)?, TIMEOUT)
    }

    /// The same, and the server may take so long to answer.
    pub fn open_within(to: SocketAddr, from: Option<SocketAddr>, patience: Duration) -> Result<Self> {
        Self::over(socket::udp(to, from)?, patience)
    }

    fn over(socket: std::net::UdpSocket, patience: Duration) -> Result<Self> {
        socket.set_read_timeout(Some(patience))?;
        Ok(Self { socket, next_id: 1 })
    }

    /// Asks who serves.
    pub fn ask(&mut self) -> Result<Answer> {
        let id = self.next_id;
        self.next_id = id.wrapping_add(1);
        let mut question = Packet::new_query(id);
        let name = Name::new(NAME)?;
        question
            .questions
            .push(Question::new(name, TYPE::TXT.into(), CLASS::IN.into(), false));
        self.socket
            .send(&question.build_bytes_vec()?)
            .context("cannot send a question")?;

        let mut buffer = [0; 1500];
        let len = self.socket.recv(&mut buffer).context("no answer")?;
        let reply = Packet::parse(buffer.get(..len).unwrap_or_default())?;
        ensure!(
            reply.id() == id,
            "the answer to question {id} has id {}",
            reply.id()
        );
        read(&reply)
    }
}

fn read(reply: &Packet<'_>) -> Result<Answer> {
    let record = reply.answers.first().context("the reply has no answer")?;
    let RData::TXT(text) = &record.rdata else {
        anyhow::bail!("the answer is no TXT record")
    };
    let attributes = text.attributes();
    let value = |key: &str| {
        attributes
            .get(key)
            .cloned()
            .flatten()
            .with_context(|| format!("no {key} in the answer"))
    };
    Ok(Answer {
        backend: value("backend")?,
        client: value("client")?.parse()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_read_as_it_was_written() {
        let answer = Answer::new("web-1", "[2001:db8::1]:4000".parse().unwrap());
        let mut question = Packet::new_query(7);
        let name = Name::new(NAME).unwrap();
        question
            .questions
            .push(Question::new(name, TYPE::TXT.into(), CLASS::IN.into(), false));
        let bytes = reply(&question.build_bytes_vec().unwrap(), &answer).unwrap();
        let reply = Packet::parse(&bytes).unwrap();
        assert_eq!(reply.id(), 7);
        assert_eq!(read(&reply).unwrap(), answer);
    }
}
