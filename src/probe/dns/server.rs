//! All techniques at one server, in turn: controls, what nobody has, what may be known, the questions, what was denied once
//! more, and the controls again.

use std::{collections::HashSet, net::SocketAddr};

use hickory_resolver::proto::{
    op::ResponseCode,
    rr::{Name, RData, RecordType},
};
use jiff::Timestamp;
use tokio::time::{Instant, sleep_until};

use super::{
    Answer, Known, List, Question, Reply, Settings, Technique, extended_errors, soa_owner, tcp::Tcp, udp::Udp,
};
use crate::{
    model::Transport,
    observation::{ControlReply, Disclosures, DnsSeen, ReplyClass, Rotation, Round},
    pace::Pace,
    vantage::Vantage,
};

/// Questions that are asked over TCP, one by one, go in groups of so many at most, so that a sweep can stop between them.
const GROUP: usize = 16;
/// Denied questions of one technique that are asked again.
const MOST_ASKED_AGAIN: usize = 64;

/// A server, and how it is asked from where.
pub struct Server<'a> {
    /// Where the sockets are made.
    pub vantage: &'a dyn Vantage,
    /// The server.
    pub address: SocketAddr,
    /// The cluster's zone.
    pub zone: &'a Name,
    /// How it is asked.
    pub settings: Settings,
    /// Its budget.
    pub pace: &'a Pace,
    /// Names that this vantage may know.
    pub known_names: &'a [Name],
    /// The vantage's Kubernetes namespace, where it is known.
    pub own_namespace: &'a str,
}

/// Runs techniques against a server; `carried` is how far each one's lists were asked in earlier sweeps. Gives what each saw.
pub async fn enumerate(server: &Server<'_>, techniques: &[(&dyn Technique, Vec<Rotation>)]) -> Vec<DnsSeen> {
    let mut session = Session::new(server);
    let opening = session.controls().await;
    session.choose(opening);
    let captured = session.is_captured().await;
    let wants_addresses = techniques.iter().any(|(technique, _)| technique.wants_addresses());
    let known = session.known(wants_addresses).await;
    let mut running = Vec::with_capacity(techniques.len());
    for (index, (technique, carried)) in techniques.iter().enumerate() {
        // Each has an equal share of the time that is left; most need little of theirs.
        let now = Instant::now();
        let left = u32::try_from(techniques.len() - index).unwrap_or(u32::MAX);
        let until = now + server.settings.until.saturating_duration_since(now) / left;
        running.push(session.run(*technique, carried, &known, until).await);
    }
    session.ask_again(&mut running).await;
    let closing = session.closing(opening).await;
    let shared = session.shared;
    let seen = running.into_iter().enumerate().map(|(index, running)| {
        let mut seen = running.seen;
        seen.captured = captured;
        for (at, over) in seen.over.iter_mut().enumerate() {
            over.control = [opening[at], closing[at]];
            // What all share is counted once, with the first.
            if index == 0 {
                over.sent += shared[at].sent;
                over.answered += shared[at].answered;
                over.retried += shared[at].retried;
            }
        }
        // The same control, denied and answered.
        let flaps = |at: usize| opening[at] != closing[at] && (is_steady(opening[at]) && is_steady(closing[at]));
        seen.unsteady += u32::from(flaps(0)) + u32::from(flaps(1));
        seen
    });
    seen.collect()
}

const fn is_steady(control: ControlReply) -> bool {
    matches!(control, ControlReply::Answered | ControlReply::Refused)
}

const BOTH: [Transport; 2] = [Transport::Udp, Transport::Tcp];

/// Packets of the questions that techniques share.
#[derive(Clone, Copy, Default)]
struct Packets {
    sent: u32,
    answered: u32,
    retried: u32,
}

impl Packets {
    fn count(&mut self, reply: &Reply) {
        self.sent += reply.sent;
        self.answered += u32::from(is_answer(reply.class));
        self.retried += reply.sent.saturating_sub(1);
    }
}

const fn is_answer(class: ReplyClass) -> bool {
    !matches!(class, ReplyClass::Silent | ReplyClass::NoListener | ReplyClass::Error)
}

struct Session<'a> {
    server: &'a Server<'a>,
    udp: Udp<'a>,
    tcp: Tcp<'a>,
    /// Transports that are worth asking over.
    usable: [bool; 2],
    nobody: String,
    shared: [Packets; 2],
}

/// One technique under way.
struct Running<'t> {
    technique: &'t dyn Technique,
    seen: DnsSeen,
    absent: [HashSet<Question>; 2],
    /// A known question that was found, and over what.
    found: Option<(Transport, Question)>,
    denied: Vec<(Transport, Question, ReplyClass)>,
    first_denied: Option<Instant>,
}

impl<'a> Session<'a> {
    fn new(server: &'a Server<'a>) -> Self {
        let Server { vantage, address, zone, settings, pace, .. } = *server;
        Self {
            server,
            udp: Udp::new(vantage, address, zone.clone(), settings, pace),
            tcp: Tcp::new(vantage, address, zone.clone(), settings, pace),
            usable: [true; 2],
            nobody: format!("segprobe-{:016x}", rand::random::<u64>()),
            shared: Default::default(),
        }
    }

    /// Asks some questions at once; the replies come in their order.
    async fn ask_all(&mut self, transport: Transport, questions: &[Question]) -> Vec<Reply> {
        let lost = || Reply { class: ReplyClass::Silent, message: None, sent: 0 };
        let mut replies: Vec<Reply> = questions.iter().map(|_| lost()).collect();
        let take = |index: usize, _, reply| replies[index] = reply;
        let questions = questions.iter().cloned().enumerate();
        match transport {
            Transport::Udp => self.udp.ask(questions, self.server.settings.deadline, take).await,
            Transport::Tcp => self.tcp.ask(questions.collect(), take).await,
        }
        replies
    }

    async fn ask(&mut self, transport: Transport, question: &Question) -> Reply {
        let reply = self.ask_all(transport, std::slice::from_ref(question)).await.pop();
        reply.unwrap_or(Reply { class: ReplyClass::Silent, message: None, sent: 0 })
    }

    /// A question that belongs to no technique alone.
    async fn ask_shared(&mut self, transport: Transport, question: &Question) -> Reply {
        let reply = self.ask(transport, question).await;
        self.shared[transport as usize].count(&reply);
        reply
    }

    /// The server's positive control over both transports: the zone's apex SOA.
    async fn controls(&mut self) -> [ControlReply; 2] {
        [self.control(Transport::Udp).await, self.control(Transport::Tcp).await]
    }

    async fn control(&mut self, transport: Transport) -> ControlReply {
        let question = Question { name: self.server.zone.clone(), kind: RecordType::SOA };
        match self.ask_shared(transport, &question).await.class {
            ReplyClass::Answered => ControlReply::Answered,
            ReplyClass::Refused | ReplyClass::Blocked => ControlReply::Refused,
            ReplyClass::NoListener => ControlReply::NoListener,
            _ => ControlReply::Failed,
        }
    }

    /// Asks on over what answered; over UDP where nothing did, because one leak seen is enough.
    fn choose(&mut self, opening: [ControlReply; 2]) {
        self.usable = opening.map(is_steady);
        if self.usable == [false; 2] {
            self.usable[Transport::Udp as usize] = true;
        }
    }

    /// The closing controls. A transport that failed at the beginning is not waited for again.
    async fn closing(&mut self, opening: [ControlReply; 2]) -> [ControlReply; 2] {
        let mut closing = opening;
        for transport in BOTH {
            if opening[transport as usize] != ControlReply::Failed {
                closing[transport as usize] = self.control(transport).await;
            }
        }
        closing
    }

    fn usable(&self) -> impl Iterator<Item = Transport> + use<> {
        let usable = self.usable;
        BOTH.into_iter().filter(move |transport| usable[*transport as usize])
    }

    /// True when there are records of a service in a namespace that nobody has: such a server answers everything, and its
    /// answers prove nothing.
    async fn is_captured(&mut self) -> bool {
        let Some(name) = super::below(self.server.zone, &format!("{0}.{0}.svc", self.nobody)) else { return false };
        let mut captured = false;
        for transport in self.usable() {
            let questions = [RecordType::A, RecordType::SRV].map(|kind| Question { name: name.clone(), kind });
            for reply in self.ask_all(transport, &questions).await {
                self.shared[transport as usize].count(&reply);
                // Whatever the rcode says, records tell.
                captured |= reply.message.is_some_and(|message| !message.answers.is_empty());
            }
        }
        captured
    }

    /// What this vantage may know, with addresses where somebody wants them.
    async fn known(&mut self, wants_addresses: bool) -> Known {
        let names = self.server.known_names.to_vec();
        let mut known = Known { names, ..Known::default() };
        let local = self.server.vantage.udp(self.server.address).ok().and_then(|s| s.local_addr().ok()?.as_socket());
        if let Some(local) = local
            && !self.server.own_namespace.is_empty()
        {
            known.own = Some((local.ip().to_canonical(), self.server.own_namespace.into()));
        }
        let Some(transport) = self.usable().next().filter(|_| wants_addresses) else { return known };
        for name in known.names.clone() {
            for kind in [RecordType::A, RecordType::AAAA] {
                let reply = self.ask_shared(transport, &Question { name: name.clone(), kind }).await;
                let answers = reply.message.iter().flat_map(|message| &message.answers);
                known.addresses.extend(answers.filter_map(|record| match &record.data {
                    RData::A(address) => Some(address.0.into()),
                    RData::AAAA(address) => Some(std::net::IpAddr::from(address.0)),
                    _ => None,
                }));
            }
        }
        known
    }

    async fn run<'t>(
        &mut self,
        technique: &'t dyn Technique,
        carried: &[Rotation],
        known: &Known,
        until: Instant,
    ) -> Running<'t> {
        let mut running = Running {
            technique,
            seen: DnsSeen::default(),
            absent: Default::default(),
            found: None,
            denied: Vec::new(),
            first_denied: None,
        };
        let [udp, tcp] = &mut running.seen.over;
        (udp.used, tcp.used) = (technique.zones().is_empty(), true);
        self.absent(&mut running).await;
        self.self_check(&mut running, known).await;
        let lists = technique.lists();
        for (index, list) in lists.iter().enumerate() {
            let mut rotation = rotation(list, carried);
            // A long list leaves the next one its share.
            let now = Instant::now();
            let left = u32::try_from(lists.len() - index).unwrap_or(u32::MAX);
            self.list(&mut running, list, &mut rotation, now + until.saturating_duration_since(now) / left).await;
            rotation.settle(Timestamp::now());
            running.seen.lists.push(rotation);
        }
        if !technique.zones().is_empty() {
            let transfers = self.transfers(&mut running, until).await;
            running.seen.lists.push(transfers);
        }
        running
    }

    /// What absent names look like here. Read only when all are in: what one discloses may depend on another.
    async fn absent(&mut self, running: &mut Running<'_>) {
        let questions = running.technique.absent(&self.nobody);
        let mut round = Round::default();
        let mut replies = Vec::with_capacity(2 * questions.len());
        for transport in self.usable() {
            let answered = self.ask_all(transport, &questions).await;
            for (question, reply) in questions.iter().zip(answered) {
                let says_no = reply
                    .message
                    .as_ref()
                    .is_some_and(|m| m.metadata.response_code == ResponseCode::NXDomain && m.answers.is_empty());
                if says_no {
                    running.absent[transport as usize].insert(question.clone());
                }
                replies.push((transport, question, reply));
            }
        }
        for (transport, question, reply) in replies {
            running.take(transport, question, &reply, &mut round);
        }
        if !questions.is_empty() {
            let asked = questions.len() as u64;
            round.asked = asked;
            let mut rotation = Rotation { total: asked, round, ..Rotation::default() };
            rotation.settle(Timestamp::now());
            running.seen.lists.push(rotation);
        }
    }

    async fn self_check(&mut self, running: &mut Running<'_>, known: &Known) {
        let questions = running.technique.known(known);
        let used = running.seen.over.map(|over| over.used);
        for transport in self.usable().filter(|t| used[*t as usize]) {
            let replies = self.ask_all(transport, &questions).await;
            for (question, reply) in questions.iter().zip(replies) {
                running.seen.over[transport as usize].count_packets(&reply);
                let found = running.finds(transport, question, &reply);
                running.seen.over[transport as usize].self_check |= found;
                if found && running.found.is_none() {
                    running.found = Some((transport, question.clone()));
                }
            }
        }
    }

    /// Asks as much of a list as its budget and the time allow.
    async fn list(&mut self, running: &mut Running<'_>, list: &List<'_>, rotation: &mut Rotation, until: Instant) {
        // No more than what takes a second.
        let per_second = u64::try_from(1_000 / self.server.pace.gap().as_millis().max(1)).unwrap_or(u64::MAX);
        let group = per_second.clamp(1, GROUP as u64);
        let mut left = list.most.min(rotation.total - rotation.round.asked);
        while left > 0 && Instant::now() < until {
            let one_by_one = list.over_tcp || !self.usable[Transport::Udp as usize];
            let most = if one_by_one { left.min(group) } else { left };
            let begun = self.group(running, list, rotation, most, until).await;
            if begun == 0 {
                return;
            }
            rotation.round.asked += begun;
            rotation.next = (rotation.next + begun) % rotation.total;
            left -= begun;
        }
    }

    /// Asks up to `most` questions from the rotation's next on; gives how many were begun.
    async fn group(
        &mut self,
        running: &mut Running<'_>,
        list: &List<'_>,
        rotation: &mut Rotation,
        most: u64,
        until: Instant,
    ) -> u64 {
        let (first, total) = (rotation.next, rotation.total);
        let at = |offset: u64| list.questions.at((first + offset) % total);
        let round = &mut rotation.round;
        let mut begun = 0;
        let mut cut = HashSet::new();
        let [over_udp, over_tcp] = self.usable;
        if over_udp {
            let questions = (0..most).map_while(|offset| {
                let question = at(offset)?;
                begun = offset + 1;
                Some((offset, question))
            });
            let take = |offset, question: Question, reply: Reply| {
                if reply.is_cut() {
                    cut.insert(offset);
                }
                running.take(Transport::Udp, &question, &reply, round);
            };
            self.udp.ask(questions, until, take).await;
        } else {
            begun = most;
        }
        if over_tcp {
            let also = |offset: &u64| list.over_tcp || !over_udp || cut.contains(offset);
            let offsets: Vec<u64> = (0..begun).filter(also).collect();
            // In groups: who writes without reading may find the server doing the same.
            for offsets in offsets.chunks(GROUP) {
                let take = |offset, question: Question, reply: Reply| {
                    if reply.is_cut() {
                        cut.insert(offset);
                    } else if reply.message.is_some() {
                        cut.remove(&offset);
                    }
                    running.take(Transport::Tcp, &question, &reply, round);
                };
                let questions = offsets.iter().filter_map(|offset| Some((*offset, at(*offset)?)));
                self.tcp.ask(questions.collect(), take).await;
                // What was cut and is not fetched in time stays cut.
                if Instant::now() >= until {
                    break;
                }
            }
        }
        round.cut += u32::try_from(cut.len()).unwrap_or(u32::MAX);
        begun
    }

    async fn transfers(&mut self, running: &mut Running<'_>, until: Instant) -> Rotation {
        let zones = running.technique.zones();
        let mut round = Round { asked: zones.len() as u64, ..Round::default() };
        // Where nobody listens there is nobody to ask; the controls tell.
        for zone in zones.iter().filter(|_| self.usable[Transport::Tcp as usize]) {
            let question = Question { name: zone.clone(), kind: RecordType::AXFR };
            let (technique, absent) = (running.technique, HashSet::new());
            let told = &mut round.disclosed;
            let transferred = self
                .tcp
                .transfer(zone, until, |message| {
                    let answer = Answer { question: &question, class: ReplyClass::Answered, message, absent: &absent };
                    technique.read(&answer, told);
                })
                .await;
            round.cut += u32::from(transferred.cut);
            let class = transferred.class;
            let reply = Reply { class, message: transferred.first, sent: transferred.sent };
            running.take(Transport::Tcp, &question, &reply, &mut round);
        }
        let mut rotation = Rotation { total: zones.len() as u64, round, ..Rotation::default() };
        rotation.settle(Timestamp::now());
        rotation
    }

    /// Asks what was denied once more, from other source ports and after caches may have been filled by others: a server
    /// that looks into its cache before its rules, or that is overloaded, answers now.
    async fn ask_again(&mut self, running: &mut [Running<'_>]) {
        let Some(first) = running.iter().filter_map(|r| r.first_denied).min() else { return };
        // In a short interval sooner than that, so that there is time for it.
        sleep_until((first + self.server.settings.ask_again).min(self.server.settings.until)).await;
        self.udp.renew();
        self.tcp.renew();
        for running in running {
            let denied = std::mem::take(&mut running.denied);
            let known = running.found.clone().filter(|_| !denied.is_empty());
            let mut round = Round::default();
            for (transport, question, class) in denied {
                for _ in 0..self.server.settings.attempts {
                    let reply = self.ask(transport, &question).await;
                    running.seen.over[transport as usize].count_packets(&reply);
                    running.read(transport, &question, &reply, &mut round.disclosed);
                    if is_answer(reply.class) && reply.class != class {
                        running.seen.unsteady += 1;
                        break;
                    }
                }
            }
            // What was found before is still found, or the denials say nothing.
            if let Some((transport, question)) = known {
                let reply = self.ask(transport, &question).await;
                running.seen.over[transport as usize].count_packets(&reply);
                let lost_sight = is_answer(reply.class) && !running.finds(transport, &question, &reply);
                running.seen.unsteady += u32::from(lost_sight);
            }
            running.seen.beside = round.disclosed;
        }
    }
}

/// How far a list was asked, where the list is the same; its beginning where it is another.
fn rotation(list: &List<'_>, carried: &[Rotation]) -> Rotation {
    let (fingerprint, total) = (list.questions.fingerprint(), list.questions.count());
    match carried.iter().find(|c| c.fingerprint == fingerprint && c.total == total) {
        Some(carried) => carried.go_on(),
        // Anywhere: agents that start together do not ask for the same addresses, and one that starts often gets round.
        None if total > 0 => Rotation { fingerprint, total, next: rand::random_range(0..total), ..Rotation::default() },
        None => Rotation::default(),
    }
}

impl Running<'_> {
    /// Takes the reply to a question of the technique.
    fn take(&mut self, transport: Transport, question: &Question, reply: &Reply, round: &mut Round) {
        let over = &mut self.seen.over[transport as usize];
        over.count_packets(reply);
        over.replies[reply.class as usize] += 1;
        match reply.class {
            class if !is_answer(class) => round.lost += 1,
            ReplyClass::Servfail | ReplyClass::Malformed => round.broken += 1,
            // What is cut is empty for want of room.
            ReplyClass::Refused | ReplyClass::Blocked if question.kind != RecordType::AXFR && !reply.is_cut() => {
                self.first_denied.get_or_insert_with(Instant::now);
                if self.denied.len() < MOST_ASKED_AGAIN {
                    self.denied.push((transport, question.clone(), reply.class));
                }
            }
            _ => {}
        }
        let Some(message) = &reply.message else { return };
        self.seen.authoritative += u32::from(message.metadata.authoritative);
        if reply.class != ReplyClass::Answered && self.seen.soa.is_none() {
            self.seen.soa = soa_owner(message).map(|owner| owner.to_ascii().into());
        }
        for code in extended_errors(message) {
            // Bounded: the codes are 16 bit wide.
            *self.seen.extended_errors.entry(code).or_default() += 1;
        }
        self.read(transport, question, reply, &mut round.disclosed);
    }

    /// True when a reply to a known question shows that the technique works.
    fn finds(&self, transport: Transport, question: &Question, reply: &Reply) -> bool {
        reply.message.as_ref().is_some_and(|message| {
            let absent = &self.absent[transport as usize];
            self.technique.finds(&Answer { question, class: reply.class, message, absent })
        })
    }

    fn read(&self, transport: Transport, question: &Question, reply: &Reply, told: &mut Disclosures) {
        if let Some(message) = &reply.message {
            let absent = &self.absent[transport as usize];
            self.technique.read(&Answer { question, class: reply.class, message, absent }, told);
        }
    }
}

impl crate::observation::TransportSeen {
    fn count_packets(&mut self, reply: &Reply) {
        let mut packets = Packets::default();
        packets.count(reply);
        self.sent += packets.sent;
        self.answered += packets.answered;
        self.retried += packets.retried;
    }
}
