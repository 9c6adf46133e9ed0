//! What a server was asked and what it gave away.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::SocketAddr,
    time::Instant,
};

use hickory_resolver::proto::rr::{Name, RecordType};

use super::{
    ClusterDns, Transport,
    told::{Disclosure, Told},
};

#[derive(Default)]
pub struct Log {
    pub received: Received,
    pub disclosures: Vec<Disclosure>,
    /// What allowed clients asked, and when.
    pub cached: HashMap<(Name, RecordType), Instant>,
    forwarded: usize,
}

/// Queries that reached the server, those that it dropped too.
#[derive(Clone, Debug, Default)]
pub struct Received {
    pub queries: BTreeMap<(Transport, RecordType), usize>,
    /// Distinct ones: how many sockets, or connections, the client used.
    pub sources: BTreeMap<Transport, BTreeSet<SocketAddr>>,
    total: usize,
}

impl Received {
    pub fn total(&self) -> usize {
        self.total
    }

    pub fn of(&self, transport: Transport, kind: RecordType) -> usize {
        self.queries.get(&(transport, kind)).copied().unwrap_or_default()
    }

    /// Distinct source addresses and ports.
    pub fn sources(&self, transport: Transport) -> usize {
        self.sources.get(&transport).map_or(0, BTreeSet::len)
    }
}

impl Log {
    /// Counts one more query.
    pub fn received(&mut self, transport: Transport, kind: RecordType, client: SocketAddr) -> usize {
        *self.received.queries.entry((transport, kind)).or_default() += 1;
        self.received.sources.entry(transport).or_default().insert(client);
        self.received.total += 1;
        self.received.total
    }

    /// Counts one more forwarded query.
    pub fn forwarded(&mut self) -> usize {
        self.forwarded += 1;
        self.forwarded
    }
}

/// What a test reads.
impl ClusterDns {
    /// Queries so far, since `forget` at most.
    pub fn received(&self) -> Received {
        self.log().received.clone()
    }

    /// Every answer that gave something away, in order.
    pub fn disclosures(&self) -> Vec<Disclosure> {
        self.log().disclosures.clone()
    }

    /// All that was given away by answers to such questions.
    pub fn told(&self, by: impl Fn(&Disclosure) -> bool) -> Told {
        let mut all = Told::default();
        for disclosure in self.log().disclosures.iter().filter(|disclosure| by(disclosure)) {
            all.merge(&disclosure.told);
        }
        all
    }

    /// Begins both records anew.
    pub fn forget(&self) {
        let mut log = self.log();
        log.disclosures.clear();
        log.received = Received::default();
    }
}
