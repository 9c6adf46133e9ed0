//! All techniques at one server, in turn: controls, what nobody has, what may be known, the questions, what was denied once
//! more, and the controls again.

use hickory_resolver::proto::rr::{RData, RecordType};
use tokio::time::{Instant, sleep_until};

use super::{
    Known, Question, Settings, Technique, below,
    running::{MOST_ASKED_AGAIN, Running},
    session::{Server, Session, is_answer},
};
use crate::{
    model::Transport,
    observation::{ControlReply, DnsSeen, ReplyClass, Rotation},
};

/// Addresses of known names that are used for self-checks: a server may tell any number.
const MOST_KNOWN: usize = 8;

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

impl Session<'_> {
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
            ReplyClass::Silent => ControlReply::Silent,
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

    /// The closing controls, whatever time it is. A transport that was silent at the beginning is not waited for again.
    async fn closing(&mut self, opening: [ControlReply; 2]) -> [ControlReply; 2] {
        self.udp.extend();
        self.tcp.extend();
        let mut closing = opening;
        for transport in Transport::BOTH {
            if opening[transport as usize] != ControlReply::Silent {
                closing[transport as usize] = self.control(transport).await;
            }
        }
        closing
    }

    /// True when there are records of a service in a namespace that nobody has: such a server answers everything, and its
    /// answers prove nothing.
    async fn is_captured(&mut self) -> bool {
        let Some(name) = below(self.server.zone, &format!("{0}.{0}.svc", self.nobody)) else { return false };
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
                known.addresses.truncate(MOST_KNOWN);
            }
        }
        known
    }

    /// Asks what was denied once more, from other source ports and after caches may have been filled by others: a server
    /// that looks into its cache before its rules, or that is overloaded, answers now.
    async fn ask_again(&mut self, running: &mut [Running<'_>]) {
        let Some(first) = running.iter().filter_map(|r| r.first_denied).min() else { return };
        // In a short interval sooner than that, so that there is time for it.
        let Settings { ask_again, until, deadline, .. } = self.server.settings;
        sleep_until((first + ask_again).min(until)).await;
        // The other half of what is left is for the closing controls.
        let stop = until + deadline.saturating_duration_since(until) / 2;
        self.udp.renew();
        self.tcp.renew();
        for running in running {
            let denied = std::mem::take(&mut running.denied);
            let known = running.found.clone().filter(|_| !denied.is_empty());
            let times = (MOST_ASKED_AGAIN / denied.len().max(1)).clamp(1, 4);
            for (transport, question, class) in denied {
                for _ in 0..times {
                    if Instant::now() >= stop {
                        return;
                    }
                    let reply = self.ask(transport, &question).await;
                    running.seen.over[transport as usize].count_packets(&reply);
                    let mut told = std::mem::take(&mut running.seen.beside);
                    running.read(transport, &question, &reply, &mut told);
                    running.seen.beside = told;
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
        }
    }
}
