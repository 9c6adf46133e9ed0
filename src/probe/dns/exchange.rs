//! One question on the wire: over UDP, again over TCP where the answer was cut, with every packet accounted for.
//!
//! Own sockets and hickory's message codec instead of its client: a probe needs each attempt, each flag and each ICMP
//! error, and the client hides retries, folds errors into time-outs and never falls back on a cut answer.

use std::{io, net::SocketAddr, time::Duration};

use hickory_resolver::proto::{
    op::{Edns, Message, MessageType, OpCode, Query},
    rr::Name,
};
use nix::libc;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::{Instant, timeout_at},
};

use super::{Question, classify};
use crate::{observation::ReplyClass, pace::Pace, vantage::Vantage};

/// What EDNS tells the server: as much as CoreDNS grants by default, and no IP fragments.
const UDP_PAYLOAD: u16 = 1232;

/// How a session asks.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Time for one attempt.
    pub timeout: Duration,
    /// Attempts over UDP before a question counts as lost; at least 1.
    pub attempts: u32,
    /// After this nothing more is sent: what is left counts as lost.
    pub deadline: Instant,
}

/// What became of one question.
#[derive(Debug)]
pub struct Reply {
    /// What it says.
    pub class: ReplyClass,
    /// The whole message, where one came that could be read.
    pub message: Option<Message>,
    /// Queries put on the wire.
    pub sent: u32,
    /// The answer was cut, and could not be fetched whole over TCP.
    pub cut: bool,
}

/// Questions to one server from one socket: few conntrack entries, one replica.
pub struct Session<'a> {
    vantage: &'a dyn Vantage,
    server: SocketAddr,
    zone: Name,
    settings: Settings,
    pace: &'a Pace,
    socket: Option<UdpSocket>,
    buffer: Vec<u8>,
}

impl<'a> Session<'a> {
    /// No packet is sent before the first question.
    pub fn new(vantage: &'a dyn Vantage, server: SocketAddr, zone: Name, settings: Settings, pace: &'a Pace) -> Self {
        Self { vantage, server, zone, settings, pace, socket: None, buffer: Vec::new() }
    }

    /// The zone that this session asks about.
    pub const fn zone(&self) -> &Name {
        &self.zone
    }

    /// Asks one question. Never fails: what went wrong is the reply's class.
    pub async fn ask(&mut self, question: &Question) -> Reply {
        let mut reply = Reply { class: ReplyClass::Silent, message: None, sent: 0, cut: false };
        for _ in 0..self.settings.attempts {
            self.pace.turn().await;
            if Instant::now() >= self.settings.deadline {
                break;
            }
            let query = query(question);
            reply.sent += 1;
            match self.over_udp(&query).await {
                Ok(Some(message)) if message.metadata.truncation => {
                    reply.sent += 1;
                    let whole = self.over_tcp(&query).await.filter(|m| !m.metadata.truncation);
                    reply.cut = whole.is_none();
                    let message = whole.unwrap_or(message);
                    reply.class = classify(&self.zone, question, &message);
                    reply.message = Some(message);
                    return reply;
                }
                Ok(Some(message)) => {
                    reply.class = classify(&self.zone, question, &message);
                    reply.message = Some(message);
                    return reply;
                }
                Ok(None) => {
                    reply.class = ReplyClass::Malformed;
                    return reply;
                }
                Err(error) => reply.class = failure(&error),
            }
        }
        reply
    }

    /// `Ok(None)` is a reply that cannot be read; errors are time-outs, ICMP and local ones.
    async fn over_udp(&mut self, query: &Message) -> io::Result<Option<Message>> {
        let packet = query.to_vec().map_err(io::Error::other)?;
        let socket = match &mut self.socket {
            Some(socket) => socket,
            empty => empty.insert(UdpSocket::from_std(self.vantage.udp(self.server)?.into())?),
        };
        self.buffer.resize(usize::from(u16::MAX), 0);
        let deadline = Instant::now() + self.settings.timeout;
        let result = timeout_at(deadline, async {
            socket.send(&packet).await?;
            loop {
                // Not poll_recv: this one also wakes for ICMP errors (tokio#8000).
                let length = socket.recv(&mut self.buffer).await?;
                match read(query, &self.buffer[..length]) {
                    Read::Answer(message) => return Ok(Some(*message)),
                    Read::Unreadable => return Ok(None),
                    // Late, duplicate or forged: the right answer may still come.
                    Read::Foreign => {}
                }
            }
        })
        .await;
        match result {
            Ok(Err(error)) => {
                // An ICMP error belongs to this socket's past; the next attempt starts clean.
                self.socket = None;
                Err(error)
            }
            Ok(ok) => ok,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    async fn over_tcp(&self, query: &Message) -> Option<Message> {
        let packet = query.to_vec().ok()?;
        let deadline = Instant::now() + self.settings.timeout;
        let exchange = async {
            let socket = self.vantage.tcp(self.server)?;
            match socket.connect(&self.server.into()) {
                Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
                _ => {}
            }
            let mut stream = TcpStream::from_std(socket.into())?;
            stream.writable().await?;
            let length = u16::try_from(packet.len()).map_err(io::Error::other)?;
            stream.write_all(&[&length.to_be_bytes(), &packet[..]].concat()).await?;
            let length = stream.read_u16().await?;
            let mut answer = vec![0; usize::from(length)];
            stream.read_exact(&mut answer).await?;
            Ok(answer)
        };
        match read(query, &timeout_at(deadline, exchange).await.ok()?.ok()?) {
            Read::Answer(message) => Some(*message),
            Read::Unreadable | Read::Foreign => None,
        }
    }
}

fn failure(error: &io::Error) -> ReplyClass {
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED | libc::EHOSTUNREACH | libc::ENETUNREACH | libc::EACCES | libc::ENOPROTOOPT) => {
            ReplyClass::NoListener
        }
        Some(_) => ReplyClass::Error,
        None if error.kind() == io::ErrorKind::TimedOut => ReplyClass::Silent,
        None => ReplyClass::Error,
    }
}

fn query(question: &Question) -> Message {
    let mut message = Message::new(rand::random(), MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(question.name.clone(), question.kind));
    let mut edns = Edns::new();
    // DO stays 0: CoreDNS' dnssec plugin turns every denial into NOERROR otherwise.
    edns.set_max_payload(UDP_PAYLOAD).set_version(0);
    message.set_edns(edns);
    message
}

enum Read {
    Answer(Box<Message>),
    Unreadable,
    Foreign,
}

/// Only an answer with the query's id and question is one (RFC 5452 section 9.1).
fn read(query: &Message, bytes: &[u8]) -> Read {
    let Some((id, rest)) = bytes.split_first_chunk::<2>() else {
        return Read::Foreign;
    };
    let is_response = rest.first().is_some_and(|flags| flags & 0x80 != 0);
    if u16::from_be_bytes(*id) != query.metadata.id || !is_response {
        return Read::Foreign;
    }
    match Message::from_vec(bytes) {
        // A refusal may come without the question (RFC 1035 leaves it open); anything else must repeat it.
        Ok(message) if message.queries.is_empty() && message.answers.is_empty() => Read::Answer(Box::new(message)),
        Ok(message) if same_question(query, &message) => Read::Answer(Box::new(message)),
        Ok(_) => Read::Foreign,
        Err(_) => Read::Unreadable,
    }
}

fn same_question(query: &Message, answer: &Message) -> bool {
    matches!((&query.queries[..], &answer.queries[..]), ([asked], [told])
        if asked.name == told.name && asked.query_type == told.query_type && asked.query_class == told.query_class)
}

/// For the fuzz target and the property tests: whatever the bytes are, reading them ends without harm.
#[doc(hidden)]
pub fn read_any(zone: &Name, question: &Question, bytes: &[u8]) -> Option<ReplyClass> {
    let mut query = query(question);
    query.metadata.id = bytes.first_chunk::<2>().map_or(0, |id| u16::from_be_bytes(*id));
    match read(&query, bytes) {
        Read::Answer(message) => Some(classify(zone, question, &message)),
        Read::Unreadable => Some(ReplyClass::Malformed),
        Read::Foreign => None,
    }
}
