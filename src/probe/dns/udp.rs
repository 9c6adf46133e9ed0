//! Questions over UDP: many under way at once, from few sockets.
//!
//! Each socket is a lane: a source port of its own, which behind a Service may lead to another replica, and one conntrack
//! entry whatever the number of its questions. Own sockets and not hickory's client: a probe needs each attempt, each flag
//! and each ICMP error, and the client hides retries, folds errors into time-outs and opens a port for each question.

use std::{
    collections::{HashMap, VecDeque},
    io,
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use futures_util::future::join_all;
use hickory_resolver::proto::rr::Name;
use tokio::{
    net::UdpSocket,
    time::{Instant, sleep_until},
};

use super::{
    Question, Reply, Settings, classify, failure,
    message::{Read, id_of, packet, read},
};
use crate::{
    observation::ReplyClass,
    pace::{Pace, Paces},
    vantage::Vantage,
};

/// The largest datagram.
const LARGEST: usize = 65_535;
/// Datagrams taken in one go: whatever a server floods, time-outs end between two goes.
const AT_ONCE: usize = 64;

/// The lanes to one server.
pub struct Udp<'a> {
    vantage: &'a dyn Vantage,
    server: SocketAddr,
    zone: Name,
    settings: Settings,
    pace: &'a Paces,
    lanes: Vec<Option<UdpSocket>>,
}

/// A question under way.
struct Asked<K> {
    key: K,
    question: Question,
    sent: u32,
    class: ReplyClass,
}

/// What all lanes of one call share.
struct Work<I, K, F> {
    fresh: I,
    again: VecDeque<Asked<K>>,
    take: F,
    until: Instant,
}

impl<'a> Udp<'a> {
    /// No socket is made before the first question.
    pub fn new(vantage: &'a dyn Vantage, server: SocketAddr, zone: Name, settings: Settings, pace: &'a Paces) -> Self {
        let lanes = settings.sockets.min(settings.in_flight).max(1);
        Self { vantage, server, zone, settings, pace, lanes: (0..lanes).map(|_| None).collect() }
    }

    /// After this nothing more is sent.
    pub const fn deadline(&self) -> Instant {
        self.settings.deadline
    }

    /// Gives one more question the time that it needs, whatever the deadline was.
    pub fn extend(&mut self) {
        let needed = Instant::now() + self.settings.timeout * self.settings.attempts;
        self.settings.deadline = self.settings.deadline.max(needed);
    }

    /// From now on other source ports: another replica may answer.
    pub fn renew(&mut self) {
        self.lanes.iter_mut().for_each(|lane| *lane = None);
    }

    /// Asks questions until there are none left, or starts no more after `until`; gives the reply to each that was started,
    /// in the order of the replies. Never fails: what went wrong is a reply's class.
    pub async fn ask<K, I, F>(&mut self, questions: I, until: Instant, take: F)
    where
        K: Send,
        I: Iterator<Item = (K, Question)> + Send,
        F: FnMut(K, Question, Reply) + Send,
    {
        let work = Mutex::new(Work { fresh: questions, again: VecDeque::new(), take, until });
        let mut lanes = std::mem::take(&mut self.lanes);
        let this = &*self;
        let (each, rest) = (self.settings.in_flight / lanes.len(), self.settings.in_flight % lanes.len());
        let windows = (0..lanes.len()).map(|lane| (each + usize::from(lane < rest)).max(1));
        join_all(lanes.iter_mut().zip(windows).map(|(socket, window)| Lane::new(this, &work, window).run(socket)))
            .await;
        self.lanes = lanes;
    }

    fn socket(&self) -> io::Result<UdpSocket> {
        UdpSocket::from_std(self.vantage.udp(self.server)?.into())
    }
}

impl<K, I: Iterator<Item = (K, Question)>, F: FnMut(K, Question, Reply)> Work<I, K, F> {
    fn next(&mut self) -> Option<Asked<K>> {
        if let Some(again) = self.again.pop_front() {
            return Some(again);
        }
        if Instant::now() >= self.until {
            return None;
        }
        let (key, question) = self.fresh.next()?;
        Some(Asked { key, question, sent: 0, class: ReplyClass::Silent })
    }

    fn finish(&mut self, asked: Asked<K>, class: ReplyClass, message: Option<Box<super::Message>>) {
        (self.take)(asked.key, asked.question, Reply { class, message, sent: asked.sent });
    }

    /// An attempt that got no answer: the question is asked again, or is lost.
    fn failed(&mut self, mut asked: Asked<K>, class: ReplyClass, settings: &Settings) {
        asked.class = class;
        if asked.sent < settings.attempts && Instant::now() < settings.deadline {
            self.again.push_back(asked);
        } else {
            self.finish(asked, class, None);
        }
    }
}

struct Lane<'l, 'a, I, K, F> {
    udp: &'l Udp<'a>,
    work: &'l Mutex<Work<I, K, F>>,
    window: usize,
    pending: HashMap<u16, (Asked<K>, Instant)>,
    /// In the order of their ends, because all wait equally long; some are over already.
    timeouts: VecDeque<(Instant, u16)>,
    buffer: Vec<u8>,
}

impl<'l, 'a, K, I, F> Lane<'l, 'a, I, K, F>
where
    I: Iterator<Item = (K, Question)>,
    F: FnMut(K, Question, Reply),
{
    fn new(udp: &'l Udp<'a>, work: &'l Mutex<Work<I, K, F>>, window: usize) -> Self {
        let (pending, timeouts) = (HashMap::new(), VecDeque::new());
        Self { udp, work, window, pending, timeouts, buffer: Vec::new() }
    }

    fn work(&self) -> MutexGuard<'l, Work<I, K, F>> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run(mut self, socket: &mut Option<UdpSocket>) {
        let mut turn: Option<Instant> = None;
        let mut next: Option<Asked<K>> = None;
        loop {
            while self.pending.len() < self.window {
                if next.is_none() {
                    next = self.work().next();
                }
                if next.is_none() {
                    break;
                }
                let at = *turn.get_or_insert_with(|| self.udp.pace.reserve());
                if !Pace::is_due(at) {
                    break;
                }
                turn = None;
                if let Some(asked) = next.take() {
                    self.send(socket, asked).await;
                }
            }
            if self.pending.is_empty() && next.is_none() {
                return;
            }
            // A full window waits for replies, whosever turn it is.
            let due = turn.filter(|_| self.pending.len() < self.window);
            let wake = self.timeouts.front().map(|(at, _)| *at).into_iter().chain(due).min();
            self.wait(socket, wake).await;
            self.expire();
        }
    }

    async fn send(&mut self, socket: &mut Option<UdpSocket>, mut asked: Asked<K>) {
        asked.sent += 1;
        if asked.sent > 1 && Instant::now() >= self.udp.settings.deadline {
            asked.sent -= 1;
            let class = asked.class;
            return self.work().finish(asked, class, None);
        }
        let id = self.free_id();
        let sent = match packet(id, &asked.question) {
            None => Err(io::ErrorKind::InvalidInput.into()),
            Some(packet) => match self.open(socket) {
                Ok(socket) => socket.send(&packet).await,
                Err(error) => Err(error),
            },
        };
        match sent {
            Ok(_) => {
                // Lanes without a question need none.
                self.buffer.resize(LARGEST, 0);
                let end = Instant::now() + self.udp.settings.timeout;
                self.pending.insert(id, (asked, end));
                self.timeouts.push_back((end, id));
            }
            Err(error) => self.broken(socket, asked, &error),
        }
    }

    fn open<'s>(&self, socket: &'s mut Option<UdpSocket>) -> io::Result<&'s mut UdpSocket> {
        Ok(match socket {
            Some(socket) => socket,
            empty => empty.insert(self.udp.socket()?),
        })
    }

    /// Unpredictable, and not of a question that is under way.
    fn free_id(&self) -> u16 {
        loop {
            let id = rand::random();
            if !self.pending.contains_key(&id) {
                return id;
            }
        }
    }

    /// An ICMP error belongs to this socket's past: everything under way on it failed, and the next attempt starts clean.
    fn broken(&mut self, socket: &mut Option<UdpSocket>, asked: Asked<K>, error: &io::Error) {
        self.fail_all(socket, error);
        self.work().failed(asked, failure(error), &self.udp.settings);
    }

    fn fail_all(&mut self, socket: &mut Option<UdpSocket>, error: &io::Error) {
        *socket = None;
        self.timeouts.clear();
        for (_, (asked, _)) in std::mem::take(&mut self.pending) {
            self.work().failed(asked, failure(error), &self.udp.settings);
        }
    }

    /// Waits for replies, or until `wake`.
    async fn wait(&mut self, socket: &mut Option<UdpSocket>, wake: Option<Instant>) {
        let until = async {
            match wake {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let Some(open) = socket.as_ref().filter(|_| !self.pending.is_empty()) else {
            return until.await;
        };
        // Not try_recv, which does not look where the kernel has only an ICMP error to tell (tokio#8000).
        // Biased: what came in time, even if it is looked at late, is no silence.
        let mut received = tokio::select! {
            biased;
            received = open.recv(&mut self.buffer) => received,
            () = until => return,
        };
        for _ in 0..AT_ONCE {
            match received {
                Ok(length) => self.receive(length),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => return self.fail_all(socket, &error),
            }
            received = open.try_recv(&mut self.buffer);
        }
    }

    fn receive(&mut self, length: usize) {
        let bytes = &self.buffer[..length];
        let Some(id) = id_of(bytes) else { return };
        let Some((asked, _)) = self.pending.get(&id) else { return };
        let (class, message) = match read(id, &asked.question, bytes) {
            Read::Foreign => return,
            Read::Unreadable => (ReplyClass::Malformed, None),
            Read::Answer(message) => (classify(&self.udp.zone, &asked.question, &message), Some(message)),
        };
        if let Some((asked, _)) = self.pending.remove(&id) {
            self.work().finish(asked, class, message);
        }
    }

    fn expire(&mut self) {
        let now = Instant::now();
        while let Some((end, id)) = self.timeouts.front().copied().filter(|(end, _)| *end <= now) {
            self.timeouts.pop_front();
            // The id may be another question's by now.
            if self.pending.get(&id).is_some_and(|(_, of)| *of == end)
                && let Some((asked, _)) = self.pending.remove(&id)
            {
                self.work().failed(asked, ReplyClass::Silent, &self.udp.settings);
            }
        }
    }
}
