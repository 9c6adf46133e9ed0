//! A reply before it is a message: records with what each of them gives away, so that what is cut off is not counted.

use hickory_resolver::proto::{
    op::{Edns, Message, Query, ResponseCode},
    rr::{
        Name, RData, Record,
        rdata::{
            SOA,
            opt::{EdnsCode, EdnsOption, OPT},
        },
    },
};

use super::told::{Fact, Told};

/// A message's header, twelve octets, bounds how many records can follow; a record has at least eleven.
const SMALLEST_RECORD: usize = 11;

/// What is larger than the transport's limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// Cut, with TC=1. CoreDNS does it over TCP too (miekg/dns `Truncate`, CoreDNS `request.Scrub`).
    Cut,
    /// SERVFAIL: kube-dns over TCP (skydns `overflowOrTruncated`).
    ServFail,
}

/// A record and what it gives away.
#[derive(Clone, Debug)]
pub struct Part {
    pub record: Record,
    pub fact: Option<Fact>,
}

impl Part {
    pub fn new(owner: Name, ttl: u32, data: RData, fact: Option<Fact>) -> Self {
        Self { record: Record::from_rdata(owner, ttl, data), fact }
    }
}

/// Extended DNS error, in an OPT of the server's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opt {
    /// The client's, echoed.
    Echo,
    /// CoreDNS' acl: 4,096 octets and DO, even where the client sent none (coredns #5512).
    Error(u16),
    /// None even where the client sent one: Cilium's proxy makes its own message.
    Never,
}

#[derive(Clone, Debug)]
pub struct Reply {
    pub code: ResponseCode,
    pub authoritative: bool,
    pub recursion_available: bool,
    pub answers: Vec<Part>,
    pub authority: Option<Record>,
    pub additionals: Vec<Part>,
    /// What the reply gives away by being what it is: existence, told by NODATA.
    pub facts: Vec<Fact>,
    pub opt: Opt,
}

impl Reply {
    /// Nothing but a code.
    pub fn bare(code: ResponseCode) -> Self {
        let (answers, additionals, facts) = (Vec::new(), Vec::new(), Vec::new());
        let (authoritative, recursion_available) = (false, false);
        Self { code, authoritative, recursion_available, answers, authority: None, additionals, facts, opt: Opt::Echo }
    }

    pub fn authoritative(code: ResponseCode) -> Self {
        Self { authoritative: true, ..Self::bare(code) }
    }

    pub fn answers(answers: Vec<Part>) -> Self {
        Self { answers, ..Self::authoritative(ResponseCode::NoError) }
    }

    /// NODATA or NXDOMAIN with the zone's SOA.
    pub fn negative(code: ResponseCode, soa: Record) -> Self {
        Self { authority: Some(soa), ..Self::authoritative(code) }
    }

    pub fn telling(mut self, facts: impl IntoIterator<Item = Fact>) -> Self {
        self.facts.extend(facts);
        self
    }

    /// Octets on the wire, and what they give away.
    pub fn encode(&self, query: &Message, limit: usize, overflow: Overflow) -> (Vec<u8>, Told) {
        let all = self.answers.len() + self.additionals.len();
        let fitting = |kept| self.fitting(query, kept, limit);
        if let Some(octets) = fitting(all) {
            return (octets, self.told(all));
        }
        if overflow == Overflow::ServFail {
            return (Self::bare(ResponseCode::ServFail).message(query, 0).to_vec().unwrap(), Told::default());
        }
        // The largest number of records that fits.
        let (mut fits, mut too_many) = (0, all.min(limit / SMALLEST_RECORD + 1));
        while too_many - fits > 1 {
            let middle = usize::midpoint(fits, too_many);
            if fitting(middle).is_some() {
                fits = middle;
            } else {
                too_many = middle;
            }
        }
        let mut message = self.message(query, fits);
        message.metadata.truncation = true;
        (message.to_vec().unwrap(), self.told(fits))
    }

    fn fitting(&self, query: &Message, kept: usize, limit: usize) -> Option<Vec<u8>> {
        let octets = self.message(query, kept).to_vec().unwrap();
        // The codec cuts by itself at the end of its numbers, and says so.
        let cut_by_codec = octets[2] & 2 != 0;
        (octets.len() <= limit && !cut_by_codec).then_some(octets)
    }

    fn told(&self, kept: usize) -> Told {
        let parts = self.answers.iter().chain(&self.additionals).take(kept);
        self.facts.iter().chain(parts.filter_map(|part| part.fact.as_ref())).collect()
    }

    fn message(&self, query: &Message, kept: usize) -> Message {
        let mut message = Message::response(query.metadata.id, query.metadata.op_code);
        message.queries = query.queries.clone();
        message.metadata.response_code = self.code;
        message.metadata.authoritative = self.authoritative;
        message.metadata.recursion_desired = query.metadata.recursion_desired;
        message.metadata.recursion_available = self.recursion_available;
        message.answers = self.answers.iter().take(kept).map(|part| part.record.clone()).collect();
        message.authorities = self.authority.iter().cloned().collect();
        let rest = kept.saturating_sub(self.answers.len());
        message.additionals = self.additionals.iter().take(rest).map(|part| part.record.clone()).collect();
        message.edns = self.edns(query.edns.as_ref());
        message
    }

    fn edns(&self, asked: Option<&Edns>) -> Option<Edns> {
        let mut edns = Edns::new();
        edns.set_max_payload(asked.map_or(4096, Edns::max_payload));
        match self.opt {
            Opt::Never => return None,
            Opt::Echo => {
                edns.set_dnssec_ok(asked?.flags().dnssec_ok);
            }
            Opt::Error(code) => {
                edns.set_dnssec_ok(true);
                let option = EdnsOption::Unknown(15, code.to_be_bytes().to_vec());
                *edns.options_mut() = OPT::new(vec![(EdnsCode::Unknown(15), option)]);
            }
        }
        Some(edns)
    }
}

/// A zone's SOA as CoreDNS' kubernetes plugin makes it. The serial is a time in the life of the cluster: any will do.
pub fn soa(zone: &Name, ttl: u32) -> Record {
    let name = |labels: &str| Name::from_ascii(labels).unwrap().append_domain(zone).unwrap();
    let soa = SOA::new(name("ns.dns"), name("hostmaster"), 1_795_422_618, 7200, 1800, 86400, ttl);
    Record::from_rdata(zone.clone(), ttl.min(300), RData::SOA(soa))
}

/// The question of a query that has exactly one.
pub fn question(query: &Message) -> Option<&Query> {
    match query.queries.as_slice() {
        [question] => Some(question),
        _ => None,
    }
}
