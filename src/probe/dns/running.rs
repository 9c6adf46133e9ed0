//! One technique at one server: absent names, the self-check, its lists over both transports, its transfers.

use std::collections::HashSet;

use hickory_resolver::proto::{op::ResponseCode, rr::RecordType};
use jiff::Timestamp;
use tokio::time::Instant;

use super::{
    Answer, Known, List, Question, Reply, Technique, extended_errors,
    session::{Session, is_answer},
    soa_owner,
};
use crate::{
    model::Transport,
    observation::{Disclosures, DnsSeen, ReplyClass, Rotation, Round},
};

/// Questions that are asked over TCP go in groups of so many at most, so that a sweep can stop between them.
const GROUP: usize = 16;

/// Denied questions of one technique that are asked again; where they are few, each several times.
pub(super) const MOST_ASKED_AGAIN: usize = 64;

/// One technique under way.
pub(super) struct Running<'t> {
    technique: &'t dyn Technique,
    pub seen: DnsSeen,
    /// Questions about what nobody has, over each transport, that were answered with NXDOMAIN.
    absent: [HashSet<Question>; 2],
    /// A known question that was found, and over what.
    pub found: Option<(Transport, Question)>,
    /// What was denied, to be asked again.
    pub denied: Vec<(Transport, Question, ReplyClass)>,
    pub first_denied: Option<Instant>,
}

impl Session<'_> {
    /// Runs it, in the time until then.
    pub async fn run<'t>(
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
    pub fn finds(&self, transport: Transport, question: &Question, reply: &Reply) -> bool {
        reply.message.as_ref().is_some_and(|message| {
            let absent = &self.absent[transport as usize];
            self.technique.finds(&Answer { question, class: reply.class, message, absent })
        })
    }

    /// Adds what a reply discloses.
    pub fn read(&self, transport: Transport, question: &Question, reply: &Reply, told: &mut Disclosures) {
        if let Some(message) = &reply.message {
            let absent = &self.absent[transport as usize];
            self.technique.read(&Answer { question, class: reply.class, message, absent }, told);
        }
    }
}
