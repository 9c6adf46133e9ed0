//! Questions to one server in one sweep, over UDP and TCP.

use std::net::SocketAddr;

use hickory_resolver::proto::rr::Name;

use super::{Question, Reply, Settings, tcp::Tcp, udp::Udp};
use crate::{
    model::Transport,
    observation::{ReplyClass, TransportSeen},
    pace::Paces,
    vantage::Vantage,
};

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
    pub pace: &'a Paces,
    /// Names that this vantage may know.
    pub known_names: &'a [Name],
    /// The vantage's Kubernetes namespace, where it is known.
    pub own_namespace: &'a str,
}

/// Packets of the questions that techniques share.
#[derive(Clone, Copy, Default)]
pub(super) struct Packets {
    pub sent: u32,
    pub answered: u32,
    pub retried: u32,
}

impl Packets {
    pub fn count(&mut self, reply: &Reply) {
        self.sent += reply.sent;
        self.answered += u32::from(is_answer(reply.class));
        self.retried += reply.sent.saturating_sub(1);
    }
}

pub(super) const fn is_answer(class: ReplyClass) -> bool {
    !matches!(class, ReplyClass::Silent | ReplyClass::NoListener | ReplyClass::Error)
}

/// Questions to one server in one sweep.
pub(super) struct Session<'a> {
    pub server: &'a Server<'a>,
    pub udp: Udp<'a>,
    pub tcp: Tcp<'a>,
    /// Transports that are worth asking over.
    pub usable: [bool; 2],
    /// A label that nobody has.
    pub nobody: String,
    /// Packets of the questions that belong to no technique alone.
    pub shared: [Packets; 2],
}

impl<'a> Session<'a> {
    pub fn new(server: &'a Server<'a>) -> Self {
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
    pub async fn ask_all(&mut self, transport: Transport, questions: &[Question]) -> Vec<Reply> {
        let lost = || Reply { class: ReplyClass::Silent, message: None, sent: 0 };
        let mut replies: Vec<Reply> = questions.iter().map(|_| lost()).collect();
        let take = |index: usize, _, reply| replies[index] = reply;
        let questions = questions.iter().cloned().enumerate();
        match transport {
            Transport::Udp => self.udp.ask(questions, self.udp.deadline(), take).await,
            Transport::Tcp => self.tcp.ask(questions.collect(), take).await,
        }
        replies
    }

    pub async fn ask(&mut self, transport: Transport, question: &Question) -> Reply {
        let reply = self.ask_all(transport, std::slice::from_ref(question)).await.pop();
        reply.unwrap_or(Reply { class: ReplyClass::Silent, message: None, sent: 0 })
    }

    /// A question that belongs to no technique alone.
    pub async fn ask_shared(&mut self, transport: Transport, question: &Question) -> Reply {
        let reply = self.ask(transport, question).await;
        self.shared[transport as usize].count(&reply);
        reply
    }

    /// Over what it is worth asking.
    pub fn usable(&self) -> impl Iterator<Item = Transport> + use<> {
        let usable = self.usable;
        Transport::BOTH.into_iter().filter(move |transport| usable[*transport as usize])
    }
}

impl TransportSeen {
    pub(super) fn count_packets(&mut self, reply: &Reply) {
        let mut packets = Packets::default();
        packets.count(reply);
        self.sent += packets.sent;
        self.answered += packets.answered;
        self.retried += packets.retried;
    }
}
