//! Questions over TCP, on one connection; and whole zones.

use std::{io, net::SocketAddr};

use hickory_resolver::proto::{
    op::Message,
    rr::{Name, Record, RecordType},
};
use nix::libc;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout_at},
};

use super::{
    Question, Reply, Settings, classify, failure,
    message::{self, Read, packet, read},
};
use crate::{observation::ReplyClass, pace::Paces, vantage::Vantage};

/// Octets after which a transfer is given up: 50,000 services are 15 MB.
const MOST_TRANSFER: usize = 64 << 20;

/// The connection to one server.
pub struct Tcp<'a> {
    vantage: &'a dyn Vantage,
    server: SocketAddr,
    zone: Name,
    settings: Settings,
    pace: &'a Paces,
    stream: Option<TcpStream>,
    /// The server takes one question at a time.
    one_by_one: bool,
}

/// A question under way.
struct Asked<K> {
    key: K,
    question: Question,
    id: u16,
    sent: u32,
    attempts: u32,
    class: ReplyClass,
}

/// What became of a transfer.
#[derive(Debug)]
pub struct Transferred {
    /// Class of its first message; `answered` where records came.
    pub class: ReplyClass,
    /// The first message, where it could be read.
    pub first: Option<Box<Message>>,
    /// It did not come to its end.
    pub cut: bool,
    /// Queries put on the wire: 0 or 1.
    pub sent: u32,
}

impl<'a> Tcp<'a> {
    /// Connects at the first question.
    pub fn new(vantage: &'a dyn Vantage, server: SocketAddr, zone: Name, settings: Settings, pace: &'a Paces) -> Self {
        Self { vantage, server, zone, settings, pace, stream: None, one_by_one: false }
    }

    /// Gives one more question the time that it needs, whatever the deadline was.
    pub fn extend(&mut self) {
        let needed = Instant::now() + self.settings.timeout * self.settings.attempts;
        self.settings.deadline = self.settings.deadline.max(needed);
    }

    /// From now on another connection: another replica may answer.
    pub fn renew(&mut self) {
        self.stream = None;
    }

    /// Asks questions, all on one connection at the same time (RFC 7766 section 6.2.1.1), and gives the reply to each.
    /// Never fails: what went wrong is a reply's class.
    pub async fn ask<K>(&mut self, questions: Vec<(K, Question)>, mut take: impl FnMut(K, Question, Reply)) {
        let begin = |(key, question)| Asked { key, question, id: 0, sent: 0, attempts: 0, class: ReplyClass::Silent };
        let mut waiting: Vec<Asked<K>> = questions.into_iter().map(begin).collect();
        while !waiting.is_empty() && Instant::now() < self.settings.deadline {
            let at_once = if self.one_by_one { 1 } else { waiting.len() };
            let mut now: Vec<Asked<K>> = waiting.drain(..at_once).collect();
            let (kept, several) = (self.stream.is_some(), at_once > 1);
            let failed = self.attempt(&mut now, &mut take).await;
            if failed.is_some() || self.one_by_one {
                self.stream = None;
            }
            let Some(failed) = failed else { continue };
            // A server may close a connection that it kept, or on which it was asked more than it likes; that says nothing
            // of the questions.
            let closed = failed.kind() != io::ErrorKind::TimedOut;
            self.one_by_one |= closed && several;
            let class = failure(&failed);
            for asked in &mut now {
                (asked.class, asked.attempts) = (class, asked.attempts + u32::from(!closed || !(kept || several)));
            }
            let lost = now.extract_if(.., |asked| asked.attempts >= self.settings.attempts);
            lost.for_each(|Asked { key, question, sent, .. }| {
                take(key, question, Reply { class, message: None, sent });
            });
            waiting.splice(..0, now);
        }
        for Asked { key, question, sent, class, .. } in waiting {
            take(key, question, Reply { class, message: None, sent });
        }
    }

    /// Sends what waits and reads until nothing waits any more; gives what ended it before that.
    async fn attempt<K>(
        &mut self,
        waiting: &mut Vec<Asked<K>>,
        take: &mut impl FnMut(K, Question, Reply),
    ) -> Option<io::Error> {
        let patience = self.settings.timeout;
        let stream = match &mut self.stream {
            Some(stream) => stream,
            empty => {
                // A connection is begun with a packet of its own.
                self.pace.turn().await;
                let connected = timeout_at(Instant::now() + patience, connect(self.vantage, self.server)).await;
                match connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                    Ok(stream) => empty.insert(stream),
                    Err(error) => return Some(error),
                }
            }
        };
        for asked in waiting.iter_mut() {
            self.pace.turn().await;
            if Instant::now() >= self.settings.deadline {
                break;
            }
            (asked.id, asked.sent) = (rand::random(), asked.sent + 1);
            if let Err(error) = write(stream, asked.id, &asked.question).await {
                return Some(error);
            }
        }
        let (mut frame, mut until) = (Vec::new(), Instant::now() + patience);
        while !waiting.is_empty() {
            match timeout_at(until, read_frame(stream, &mut frame)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Some(error),
                Err(_) => return Some(io::ErrorKind::TimedOut.into()),
            }
            let Some(at) = waiting.iter().position(|asked| message::id_of(&frame) == Some(asked.id)) else { continue };
            let Asked { question, id, .. } = &waiting[at];
            let (class, message) = match read(*id, question, &frame) {
                Read::Foreign => continue,
                Read::Unreadable => (ReplyClass::Malformed, None),
                Read::Answer(message) => (classify(&self.zone, question, &message), Some(message)),
            };
            // Only what was asked for buys more time.
            until = Instant::now() + patience;
            let Asked { key, question, sent, .. } = waiting.swap_remove(at);
            take(key, question, Reply { class, message, sent });
        }
        None
    }

    /// Asks for a whole zone (AXFR, RFC 5936) on a connection of its own, and gives every message that carries records.
    /// Each message has the time of one attempt; nothing is waited for after `until`.
    pub async fn transfer(&mut self, zone: &Name, until: Instant, mut take: impl FnMut(&Message)) -> Transferred {
        let question = Question { name: zone.clone(), kind: RecordType::AXFR };
        let mut transferred = Transferred { class: ReplyClass::Silent, first: None, cut: false, sent: 0 };
        // For the connection, and for the question.
        self.pace.turn().await;
        self.pace.turn().await;
        if Instant::now() >= until {
            return transferred;
        }
        transferred.sent = 1;
        let id = rand::random();
        let patience = || (Instant::now() + self.settings.timeout).min(until);
        let begun = timeout_at(patience(), async {
            let mut stream = connect(self.vantage, self.server).await?;
            write(&mut stream, id, &question).await?;
            Ok::<_, io::Error>(stream)
        });
        let mut stream = match begun.await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                transferred.class = failure(&error);
                return transferred;
            }
            Err(_) => return transferred,
        };
        let (mut frame, mut octets, mut origin, mut starts_of_authority) = (Vec::new(), 0, None, 0);
        loop {
            let come = timeout_at(patience(), read_frame(&mut stream, &mut frame)).await;
            let message = match come {
                Ok(Ok(())) => match read_part(id, &question, transferred.first.is_none(), &frame) {
                    Some(message) => message,
                    None => {
                        transferred.broken(ReplyClass::Malformed);
                        return transferred;
                    }
                },
                Ok(Err(error)) => {
                    transferred.broken(failure(&error));
                    return transferred;
                }
                Err(_) => {
                    transferred.broken(ReplyClass::Silent);
                    return transferred;
                }
            };
            octets += frame.len();
            if !message.answers.is_empty() {
                take(&message);
            }
            transferred.cut |= message.metadata.truncation;
            // It begins and ends with the zone's SOA (RFC 5936 section 2.2).
            let is_soa = |record: &&Record| record.record_type() == RecordType::SOA;
            if transferred.first.is_none() {
                origin = message.answers.first().filter(is_soa).map(|soa| soa.name.clone());
            }
            let of_zone = |soa: &&Record| origin.as_ref() == Some(&soa.name);
            starts_of_authority += message.answers.iter().filter(is_soa).filter(of_zone).count();
            let class = match classify(&self.zone, &question, &message) {
                ReplyClass::Answered if origin.is_none() => ReplyClass::Malformed,
                class => class,
            };
            if transferred.first.is_none() {
                transferred.class = class;
                transferred.first = Some(message);
            } else if class != ReplyClass::Answered {
                transferred.cut = true;
                return transferred;
            }
            if transferred.class != ReplyClass::Answered || starts_of_authority >= 2 {
                return transferred;
            }
            if octets > MOST_TRANSFER {
                transferred.cut = true;
                return transferred;
            }
        }
    }
}

impl Transferred {
    /// Before the first message nothing came; after it the transfer has no end.
    fn broken(&mut self, class: ReplyClass) {
        if self.first.is_none() { self.class = class } else { self.cut = true }
    }
}

/// A part of a transfer: the first repeats the question, the others may leave it out.
fn read_part(id: u16, question: &Question, first: bool, bytes: &[u8]) -> Option<Box<Message>> {
    match read(id, question, bytes) {
        Read::Answer(message) => Some(message),
        Read::Foreign if !first && message::id_of(bytes) == Some(id) => {
            Message::from_vec(bytes).ok().filter(|m| m.queries.is_empty()).map(Box::new)
        }
        Read::Foreign | Read::Unreadable => None,
    }
}

async fn connect(vantage: &dyn Vantage, server: SocketAddr) -> io::Result<TcpStream> {
    let socket = vantage.tcp(server)?;
    match socket.connect(&server.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
        _ => {}
    }
    let stream = TcpStream::from_std(socket.into())?;
    stream.writable().await?;
    match stream.take_error()? {
        Some(error) => Err(error),
        None => Ok(stream),
    }
}

async fn write(stream: &mut TcpStream, id: u16, question: &Question) -> io::Result<()> {
    let packet = packet(id, question).ok_or(io::ErrorKind::InvalidInput)?;
    let length = u16::try_from(packet.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), &packet[..]].concat()).await
}

/// Reads one message with its length before it (RFC 1035 section 4.2.2).
async fn read_frame(stream: &mut TcpStream, frame: &mut Vec<u8>) -> io::Result<()> {
    let length = stream.read_u16().await?;
    frame.resize(usize::from(length), 0);
    stream.read_exact(frame).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, sync::Arc, time::Duration};

    use super::*;
    use crate::{pace::Pace, vantage::Own};

    /// A server that closes each connection is asked no faster for that.
    #[tokio::test]
    async fn connections_take_turns_as_questions_do() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || listener.incoming().for_each(drop));
        let (name, second) = (Name::from_ascii("cluster.local.").unwrap(), Duration::from_secs(1));
        let settings = Settings {
            timeout: second,
            attempts: 2,
            sockets: 1,
            in_flight: 1,
            ask_again: second,
            until: Instant::now() + 9 * second,
            deadline: Instant::now() + 9 * second,
        };
        let pace = Paces::new([Arc::new(Pace::per_second(10))]);
        let own = Own::new();
        let mut tcp = Tcp::new(&own, address, name.clone(), settings, &pace);
        let began = Instant::now();
        let mut attempts = 0;
        tcp.ask(vec![((), Question { name: name.clone(), kind: RecordType::SOA })], |(), _, reply| {
            attempts = reply.sent;
        })
        .await;
        assert_eq!(attempts, 2);
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(250), "two connections and two questions are four turns: {took:?}");
        tcp.transfer(&name, Instant::now() + second, |_| ()).await;
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(450), "and two more: {took:?}");
    }
}
