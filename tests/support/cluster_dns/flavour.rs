//! The servers that can be played, and what they have in common.

use std::net::IpAddr;

use hickory_resolver::proto::{
    op::ResponseCode,
    rr::{
        Name, RData,
        rdata::{A, AAAA, TXT},
    },
};

use super::{
    Transport,
    cluster::Cluster,
    coredns::CoreDns,
    defence::Defences,
    kube_dns::KubeDns,
    reply::{Overflow, Part, Reply},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// 1.8.7: the last with wildcards.
    CoreDns18,
    /// 1.14.7.
    CoreDns114,
    /// 1.26.7: `*` in any label, no namespaces, no transfer. It has none of CoreDNS' options (pods, namespaces, transfer).
    KubeDns,
}

/// What the server itself makes of a question.
pub enum Answer {
    Reply(Box<Reply>),
    /// Several messages: a zone transfer.
    Transfer(Vec<Reply>),
    /// Not ours: whoever is asked next.
    Forward,
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Self {
        Self::Reply(Box::new(reply))
    }
}

impl Flavour {
    /// EDE in acl's denials since CoreDNS 1.9.4 (coredns #5512).
    pub fn has_extended_errors(self) -> bool {
        self == Self::CoreDns114
    }

    pub fn overflow(self, transport: Transport) -> Overflow {
        match (self, transport) {
            (Self::KubeDns, Transport::Tcp) => Overflow::ServFail,
            _ => Overflow::Cut,
        }
    }

    pub fn answer(self, cluster: &Cluster, defences: &Defences, question: &Question<'_>) -> Answer {
        match self {
            Self::KubeDns => KubeDns::new(cluster, defences).answer(question),
            _ => CoreDns::new(self, cluster, defences).answer(question),
        }
    }

    /// Class CHAOS: REFUSED by CoreDNS without the `chaos` plugin; skydns tells its version.
    pub fn chaos(self, question: &Question<'_>) -> Reply {
        if self != Self::KubeDns {
            return Reply::bare(ResponseCode::Refused);
        }
        let name = question.name.to_ascii().to_ascii_lowercase();
        if name != "version.bind." && name != "version.server." {
            return Reply::bare(ResponseCode::ServFail);
        }
        let mut part = Part::new(question.name.clone(), 0, RData::TXT(TXT::new(vec!["2.5.3a".into()])), None);
        part.record.dns_class = hickory_resolver::proto::rr::DNSClass::CH;
        Reply { recursion_available: true, ..Reply::answers(vec![part]) }
    }
}

/// One question of class IN.
pub struct Question<'a> {
    pub name: &'a Name,
    pub kind: hickory_resolver::proto::rr::RecordType,
    pub transport: Transport,
    /// The one SOA that IXFR needs is in the query's authority section.
    pub has_soa: bool,
}

/// Labels of `name` before `zone`, in lower case; `None` where it is not of that zone.
pub fn labels_before(name: &Name, zone: &Name) -> Option<Vec<String>> {
    if !zone.zone_of(name) {
        return None;
    }
    // Not `num_labels`, which does not count a leading `*`.
    let before = name.iter().count() - zone.iter().count();
    Some(name.iter().take(before).map(|label| String::from_utf8_lossy(label).to_ascii_lowercase()).collect())
}

/// An address record.
pub fn address(owner: Name, ttl: u32, address: IpAddr, fact: Option<super::told::Fact>) -> Part {
    let data = match address {
        IpAddr::V4(v4) => RData::A(A(v4)),
        IpAddr::V6(v6) => RData::AAAA(AAAA(v6)),
    };
    Part::new(owner, ttl, data, fact)
}
