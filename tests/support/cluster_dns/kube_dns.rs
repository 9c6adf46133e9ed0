//! kube-dns 1.26.7: skydns over a tree of records (kubernetes/dns pkg/dns/treecache, third_party/forked/skydns/server).
//! Nothing of it was recorded; this is its source, read. It has no zone transfer: AXFR is looked up like any other type.

use std::{collections::BTreeMap, net::IpAddr};

use hickory_resolver::proto::{
    op::ResponseCode,
    rr::{
        Name, RData, Record, RecordType,
        rdata::{CNAME, PTR, SOA, SRV},
    },
};

use super::{
    cluster::Cluster,
    defence::{Defences, reverse_address, reverse_zone},
    flavour::{Answer, Question, address, labels_before},
    inventory::{Kind, Service},
    reply::{Part, Reply},
    told::Fact,
};

/// One server's records.
pub struct KubeDns<'a> {
    cluster: &'a Cluster,
    ttl: u32,
}

/// A node of the tree: labels below it, and records at it.
#[derive(Default)]
pub struct Tree {
    children: BTreeMap<String, Tree>,
    entries: BTreeMap<String, Entry>,
}

#[derive(Clone)]
struct Entry {
    host: Host,
    port: u16,
    /// The record's own name, labels before the zone: `hash.svc.ns.svc`.
    labels: String,
    namespace: String,
}

#[derive(Clone)]
enum Host {
    Address(IpAddr),
    /// Labels before the zone.
    Name(String),
}

impl Tree {
    pub fn new(services: &[Service]) -> Self {
        let mut tree = Self::default();
        for service in services {
            tree.add(service);
        }
        tree
    }

    fn add(&mut self, service: &Service) {
        let node = self.below(&["svc", &service.namespace, &service.name]);
        let named = || service.ports.iter().filter_map(|port| Some((port, port.name.as_ref()?)));
        let records: Vec<(IpAddr, String, bool)> = match &service.kind {
            Kind::ClusterIp(addresses) => addresses.iter().map(|a| (*a, record_label(*a), false)).collect(),
            Kind::Headless => {
                let label =
                    |e: &super::inventory::Endpoint| e.hostname.clone().unwrap_or_else(|| record_label(e.address));
                service.endpoints.iter().map(|e| (e.address, label(e), true)).collect()
            }
        };
        for (address, label, endpoint) in records {
            let own = format!("{label}.{}", service.labels());
            let entry = |host, port| Entry { host, port, labels: own.clone(), namespace: service.namespace.clone() };
            node.entries.insert(label.clone(), entry(Host::Address(address), 0));
            for (port, name) in named() {
                let (target, number) =
                    if endpoint { (own.clone(), port.target) } else { (service.labels(), port.number) };
                let node = node.below(&[&format!("_{}", port.protocol.label()), &format!("_{name}")]);
                node.entries.insert(label.clone(), entry(Host::Name(target), number));
            }
        }
    }

    fn below(&mut self, path: &[&str]) -> &mut Self {
        path.iter().fold(self, |node, label| node.children.entry((*label).to_owned()).or_default())
    }

    /// getValuesForPathWithWildcards: `*` is every label but those of ports; at the end it is the node itself.
    fn find(&self, path: &[String]) -> Vec<&Entry> {
        let Some((last, path)) = path.split_last() else { return Vec::new() };
        let mut nodes = vec![self];
        for label in path {
            nodes = if label == "*" {
                let children = nodes.iter().flat_map(|node| &node.children);
                children.filter(|(label, _)| !label.starts_with('_')).map(|(_, node)| node).collect()
            } else {
                nodes.iter().filter_map(|node| node.children.get(label)).collect()
            };
        }
        let mut found = Vec::new();
        for node in nodes {
            match node.entries.get(last) {
                _ if last == "*" => found.extend(node.entries.values()),
                Some(entry) => found.push(entry),
                None => found.extend(node.children.get(last).into_iter().flat_map(|node| node.entries.values())),
            }
        }
        found
    }
}

/// A hash of the record (FNV-1a): what it is called where it has no name. Any stable one will do.
fn record_label(address: IpAddr) -> String {
    let octets = address.to_string();
    let hash = octets.bytes().fold(0x811c_9dc5_u32, |hash, octet| (hash ^ u32::from(octet)).wrapping_mul(0x0100_0193));
    format!("{hash:x}")
}

impl<'a> KubeDns<'a> {
    pub fn new(cluster: &'a Cluster, defences: &Defences) -> Self {
        Self { cluster, ttl: defences.ttl }
    }

    pub fn answer(&self, asked: &Question<'_>) -> Answer {
        if asked.kind == RecordType::ANY {
            return Reply::bare(ResponseCode::Refused).into();
        }
        let reverse =
            reverse_zone("in-addr.arpa.").zone_of(asked.name) || reverse_zone("ip6.arpa.").zone_of(asked.name);
        if reverse && asked.kind == RecordType::PTR {
            return self.reverse(asked.name).map_or(Answer::Forward, |reply| recursive(reply).into());
        }
        let Some(labels) = labels_before(asked.name, &self.cluster.inventory.zone) else { return Answer::Forward };
        let reply = match asked.kind {
            RecordType::SOA if labels.is_empty() => Reply::answers(vec![Part { record: self.soa(), fact: None }]),
            // Below the apex nothing is looked up.
            RecordType::NS if !labels.is_empty() => Reply::authoritative(ResponseCode::NoError),
            _ => self.look_up(asked, &labels),
        };
        if reply.answers.is_empty() {
            return recursive(Reply { authority: Some(self.soa()), additionals: Vec::new(), ..reply }).into();
        }
        recursive(reply).into()
    }

    fn look_up(&self, asked: &Question<'_>, labels: &[String]) -> Reply {
        let missing = || Reply::authoritative(ResponseCode::NXDomain);
        // Any address in any namespace, that it exists is not looked at.
        if let [pod, _, kind] = labels
            && kind == "pod"
        {
            let Ok(ip) = pod.replace('-', ".").parse::<IpAddr>() else { return missing() };
            let part = || address(asked.name.clone(), self.ttl, ip, None);
            return Reply::answers(if asked.kind == RecordType::A { vec![part()] } else { Vec::new() });
        }
        let path: Vec<_> = labels.iter().rev().cloned().collect();
        let found = self.cluster.tree.find(&path);
        if found.is_empty() {
            return missing();
        }
        let reply = match asked.kind {
            RecordType::A | RecordType::AAAA => {
                let wild = labels.iter().any(|label| label == "*");
                Reply::answers(self.addresses(asked.name, &found, Some(asked.kind), wild))
            }
            RecordType::SRV => self.srv(asked.name, &found),
            _ => Reply::authoritative(ResponseCode::NoError),
        };
        reply.telling(self.asked_for(labels))
    }

    /// What the existence of an answer gives away; nothing where it is a wildcard's.
    fn asked_for(&self, labels: &[String]) -> Option<Fact> {
        if labels.iter().any(|label| label == "*") {
            return None;
        }
        let object = labels.iter().position(|label| !label.starts_with('_'))?;
        let namespace = &labels[labels.len().checked_sub(2)?];
        Some(self.cluster.fact(namespace, &labels[object..].join(".")))
    }

    /// AddressRecords: the owner is the name that was asked for; a port's record is a CNAME to its service.
    fn addresses(&self, owner: &Name, found: &[&Entry], kind: Option<RecordType>, wild: bool) -> Vec<Part> {
        let wanted = |a: &IpAddr| kind.is_none_or(|kind| a.is_ipv4() == (kind == RecordType::A));
        let mut parts = Vec::new();
        for entry in found {
            match &entry.host {
                Host::Address(ip) if wanted(ip) => {
                    let fact = wild.then_some(Fact::Address(*ip));
                    parts.push(address(owner.clone(), self.ttl, *ip, fact));
                }
                Host::Address(_) => {}
                Host::Name(labels) => {
                    let (target, fact) = (self.cluster.name(labels), self.cluster.fact(&entry.namespace, labels));
                    let next = self.addresses(&target, &self.at(labels), kind, false);
                    if !next.is_empty() {
                        parts.push(Part::new(owner.clone(), self.ttl, RData::CNAME(CNAME(target)), Some(fact)));
                        parts.extend(next);
                    }
                }
            }
        }
        parts
    }

    /// Records at a name of the server's own.
    fn at(&self, labels: &str) -> Vec<&Entry> {
        let path: Vec<_> = labels.rsplit('.').map(str::to_owned).collect();
        self.cluster.tree.find(&path)
    }

    /// SRVRecords: a record that is an address becomes a target called by the record's own name.
    fn srv(&self, owner: &Name, found: &[&Entry]) -> Reply {
        let weight = u16::try_from(100 / found.len().max(1)).unwrap();
        let (mut answers, mut additionals) = (Vec::new(), Vec::new());
        for entry in found {
            let labels = if let Host::Name(labels) = &entry.host { labels } else { &entry.labels };
            let (target, fact) = (self.cluster.name(labels), Some(self.cluster.fact(&entry.namespace, labels)));
            let data = RData::SRV(SRV::new(0, weight, entry.port, target.clone()));
            answers.push(Part::new(owner.clone(), self.ttl, data, fact.clone()));
            match entry.host {
                Host::Address(ip) => additionals.push(address(target, self.ttl, ip, fact)),
                Host::Name(_) => additionals.extend(self.addresses(&target, &self.at(labels), None, false)),
            }
        }
        Reply { additionals, ..Reply::answers(answers) }
    }

    /// ClusterIPs, and endpoints of headless services that have a host name.
    fn reverse(&self, name: &Name) -> Option<Reply> {
        let ip = reverse_address(name)?;
        let (namespace, labels) = match self.cluster.with_cluster_ip(ip) {
            Some(service) => (&service.namespace, service.labels()),
            None => {
                let headless = |(service, _): &(&Service, _)| service.kind == Kind::Headless;
                let mut behind = self.cluster.with_endpoint(ip).filter(headless);
                behind.find_map(|(service, endpoint)| {
                    Some((&service.namespace, format!("{}.{}", endpoint.hostname.as_ref()?, service.labels())))
                })?
            }
        };
        let (data, fact) = (RData::PTR(PTR(self.cluster.name(&labels))), self.cluster.fact(namespace, &labels));
        Some(Reply::answers(vec![Part::new(name.clone(), self.ttl, data, Some(fact))]))
    }

    fn soa(&self) -> Record {
        let zone = &self.cluster.inventory.zone;
        let (mname, rname) = (self.cluster.name("ns.dns"), self.cluster.name("hostmaster"));
        let soa = SOA::new(mname, rname, 1_795_420_800, 28_800, 7200, 604_800, 60);
        Record::from_rdata(zone.clone(), 60, RData::SOA(soa))
    }
}

fn recursive(reply: Reply) -> Reply {
    Reply { recursion_available: true, ..reply }
}
