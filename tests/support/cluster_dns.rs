//! A cluster's DNS server to be tested against: it answers like CoreDNS 1.8.7, CoreDNS 1.14.7 or kube-dns from one inventory,
//! behind any defences, and keeps a record of everything it gave away. Where real servers were recorded
//! (`tests/data/dns.jsonl`) it answers as they did: `tests/programs/model_dns.rs` compares them.
//!
//! ```text
//! let server = ClusterDns::new(Flavour::CoreDns114, Inventory::recorded())
//!     .with(Defences { transfer: true, ..Defences::default() })
//!     .start(loopback());
//! // … ask server.address …
//! let told = server.told(|disclosure| disclosure.kind == RecordType::PTR);
//! ```

#![allow(dead_code, unused_imports, reason = "shared by several test programs, of which each uses a part")]

#[path = "cluster_dns/cluster.rs"]
mod cluster;
#[path = "cluster_dns/coredns.rs"]
mod coredns;
#[path = "cluster_dns/defence.rs"]
mod defence;
#[path = "cluster_dns/flavour.rs"]
mod flavour;
#[path = "cluster_dns/inventory.rs"]
mod inventory;
#[path = "cluster_dns/kube_dns.rs"]
mod kube_dns;
#[path = "cluster_dns/log.rs"]
mod log;
#[path = "cluster_dns/reply.rs"]
mod reply;
#[path = "cluster_dns/request.rs"]
mod request;
#[path = "cluster_dns/server.rs"]
mod server;
#[path = "cluster_dns/told.rs"]
mod told;
#[path = "cluster_dns/transfer.rs"]
mod transfer;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, RwLock},
    time::{Duration, Instant},
};

use hickory_resolver::proto::{
    op::{Message, ResponseCode},
    rr::{DNSClass, Name, RecordType},
};

use self::{
    cluster::Cluster,
    defence::Seen,
    flavour::{Answer, Question},
    log::Log,
    reply::Reply,
};
pub use self::{
    defence::{Acl, AclAction, Cilium, Defences, Firewall, FirewallAction, Pods, Policy, Template, Upstream, View},
    flavour::Flavour,
    inventory::{Inventory, Kind, Protocol, Service},
    log::Received,
    server::Running,
    told::{Disclosure, Told},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    Udp,
    Tcp,
}

/// A server that does not listen yet: messages in, messages out.
pub struct ClusterDns {
    flavour: Flavour,
    cluster: Cluster,
    settings: RwLock<Arc<Settings>>,
    log: Mutex<Log>,
}

/// What can be changed while it runs.
struct Settings {
    defences: Defences,
    /// What the low zone's server block knows.
    low: Option<Cluster>,
}

impl ClusterDns {
    /// Undefended.
    pub fn new(flavour: Flavour, inventory: Inventory) -> Self {
        let settings = Settings { defences: Defences::default(), low: None };
        let (settings, log) = (RwLock::new(Arc::new(settings)), Mutex::default());
        Self { flavour, cluster: Cluster::new(inventory), settings, log }
    }

    pub fn with(self, defences: Defences) -> Self {
        self.set(defences);
        self
    }

    /// Takes effect with the next query.
    pub fn set(&self, defences: Defences) {
        let low = defences.view.as_ref().map(|view| Cluster::new(self.cluster.inventory.only(&view.namespaces)));
        *self.settings.write().unwrap() = Arc::new(Settings { defences, low });
    }

    /// The present ones, to change one of them.
    pub fn defences(&self) -> Defences {
        self.settings().defences.clone()
    }

    pub fn inventory(&self) -> &Inventory {
        &self.cluster.inventory
    }

    fn settings(&self) -> Arc<Settings> {
        self.settings.read().unwrap().clone()
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap()
    }

    /// Somebody whom nothing is denied asked this at that time: see `Defences::cache_before_acl`.
    pub fn another_client_asked(&self, name: &str, kind: RecordType, at: Instant) {
        let name = Name::from_ascii(name).unwrap().to_lowercase();
        self.log().cached.insert((name, kind), at);
    }

    /// The messages that a query is answered, several for a transfer, none for silence.
    pub fn answer(&self, query: &[u8], transport: Transport, client: SocketAddr) -> Vec<Vec<u8>> {
        let Ok(query) = Message::from_vec(query) else { return Vec::new() };
        let Some(question) = reply::question(&query) else {
            return vec![Reply::bare(ResponseCode::FormErr).encode(&query, 512, reply::Overflow::Cut).0];
        };
        let count = self.log().received(transport, question.query_type, client);
        let limit = match transport {
            Transport::Tcp => 65_535,
            Transport::Udp => query.edns.as_ref().map_or(512, |edns| usize::from(edns.max_payload().max(512))),
        };
        let (mut messages, mut told) = (Vec::new(), Told::default());
        for reply in self.replies(&query, count, transport, client) {
            let (message, facts) = reply.encode(&query, limit, self.flavour.overflow(transport));
            messages.push(message);
            told.merge(&facts);
        }
        if !told.is_empty() {
            let name = question.name.to_ascii().to_ascii_lowercase();
            self.log().disclosures.push(Disclosure { name, kind: question.query_type, transport, client, told });
        }
        messages
    }

    /// From the network's edge inwards: Cilium, load, acl and firewall, template, view, the server itself, its upstream.
    fn replies(&self, query: &Message, count: usize, transport: Transport, client: SocketAddr) -> Vec<Reply> {
        let settings = self.settings();
        let defences = &settings.defences;
        let asked = &query.queries[0];
        if let Some(cilium) = &defences.cilium
            && !(cilium.udp_only && transport == Transport::Tcp)
            && cilium.denies(&asked.name)
        {
            return vec![cilium.denial()];
        }
        let is_nth = |every: Option<usize>| every.is_some_and(|every| count.is_multiple_of(every));
        if is_nth(defences.shed) {
            return Vec::new();
        }
        if is_nth(defences.overload) {
            return vec![Reply::bare(ResponseCode::Refused)];
        }
        let has_soa = query.authorities.len() == 1 && query.authorities[0].record_type() == RecordType::SOA;
        let question = Question { name: &asked.name, kind: asked.query_type, transport, has_soa };
        if asked.query_class != DNSClass::IN {
            return vec![self.flavour.chaos(&question)];
        }
        let cluster = if defences.cache_before_acl && self.is_cached(&question, defences.ttl) {
            &self.cluster
        } else {
            match (defences.denial(self.flavour, &asked.name), defences.view.as_ref().map(|v| v.of(client.ip()))) {
                (Some(replies), _) => return replies,
                (None, Some(Seen::Nothing)) => return vec![Reply::bare(ResponseCode::Refused)],
                (None, Some(Seen::Low)) => settings.low.as_ref().unwrap_or(&self.cluster),
                (None, _) => &self.cluster,
            }
        };
        if let Some(reply) = defences.templated(&asked.name, asked.query_type) {
            return vec![reply];
        }
        match self.flavour.answer(cluster, defences, &question) {
            Answer::Reply(reply) => vec![*reply],
            Answer::Transfer(replies) => replies,
            Answer::Forward => {
                let count = self.log().forwarded();
                vec![defences.upstream.answer(&asked.name, asked.query_type, count)]
            }
        }
    }

    fn is_cached(&self, question: &Question<'_>, ttl: u32) -> bool {
        // A transfer is never cached.
        let key = (question.name.to_lowercase(), question.kind);
        let asked = self.log().cached.get(&key).copied();
        let lives = |at: Instant| Instant::now().saturating_duration_since(at) < Duration::from_secs(ttl.into());
        question.kind != RecordType::AXFR && asked.is_some_and(lives)
    }
}
