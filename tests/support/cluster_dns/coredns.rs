//! CoreDNS' kubernetes plugin, 1.8.7 and 1.14.7: parse.go, kubernetes.go, reverse.go and handler.go of those tags, checked
//! against recorded answers. Wildcards went with 1.9.0 (coredns #5019).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use hickory_resolver::proto::{
    op::ResponseCode,
    rr::{
        Name, RData, RecordType,
        rdata::{NS, PTR, SRV, TXT},
    },
};

use super::{
    Transport,
    cluster::Cluster,
    defence::{Defences, Pods, reverse_address, reverse_zone},
    flavour::{Answer, Flavour, Question, address, labels_before},
    inventory::{Endpoint, Kind, Port, Service},
    reply::{Part, Reply, soa},
    request::{NoItems, Request},
    told::Fact,
};

/// One server's view of a cluster.
pub struct CoreDns<'a> {
    pub flavour: Flavour,
    pub cluster: &'a Cluster,
    pub defences: &'a Defences,
}

/// An address and port of a service or of an endpoint, under the name that the server has for it.
struct Hit {
    /// Labels before the zone.
    labels: String,
    namespace: String,
    address: IpAddr,
    /// `None` where the service has no ports.
    port: Option<u16>,
}

impl<'a> CoreDns<'a> {
    pub fn new(flavour: Flavour, cluster: &'a Cluster, defences: &'a Defences) -> Self {
        Self { flavour, cluster, defences }
    }

    pub fn answer(&self, question: &Question<'_>) -> Answer {
        let zones = [self.cluster.inventory.zone.clone(), reverse_zone("in-addr.arpa."), reverse_zone("ip6.arpa.")];
        let Some(zone) = zones.iter().find(|zone| zone.zone_of(question.name)) else { return Answer::Forward };
        let reverse = zone != &self.cluster.inventory.zone;
        if matches!(question.kind, RecordType::AXFR | RecordType::IXFR) {
            return self.transfer(question);
        }
        let labels = labels_before(question.name, zone).unwrap_or_default();
        // The case of the query is kept.
        let zone = question.name.trim_to(zone.iter().count());
        match self.records(question, &zone, &labels, reverse) {
            Ok(reply) if reply.answers.is_empty() => {
                let soa = soa(&zone, self.defences.ttl);
                Reply { authority: Some(soa), additionals: Vec::new(), ..reply }.into()
            }
            Ok(reply) => reply.into(),
            Err(NoItems) if reverse => Answer::Forward,
            Err(NoItems) => Reply::negative(ResponseCode::NXDomain, soa(&zone, self.defences.ttl)).into(),
        }
    }

    /// An answer; NODATA where it has no records.
    fn records(&self, asked: &Question<'_>, zone: &Name, labels: &[String], reverse: bool) -> Result<Reply, NoItems> {
        let nodata = || Reply::authoritative(ResponseCode::NoError);
        let apex = labels.is_empty();
        match asked.kind {
            // Looks nothing up except at the apex.
            RecordType::SOA if apex => {
                let record = soa(zone, self.defences.ttl);
                return Ok(Reply::answers(vec![Part { record, fact: None }]));
            }
            RecordType::SOA => return Ok(nodata()),
            RecordType::NS if apex => return Ok(self.nameserver(zone)),
            RecordType::PTR => {
                if let Some(address) = reverse_address(asked.name) {
                    return self.reverse(asked.name, address);
                }
            }
            RecordType::TXT if !reverse && labels == ["dns-version"] => {
                let text = RData::TXT(TXT::new(vec!["1.1.0".into()]));
                return Ok(Reply::answers(vec![Part::new(asked.name.clone(), 28_800, text, None)]));
            }
            // No names until 1.10.1 (coredns #5737), since then only those of services and pods.
            RecordType::TXT if self.wildcards() => return Ok(nodata()),
            _ if !reverse && labels == ["ns", "dns"] => return Ok(self.nameserver_address(asked)),
            _ => {}
        }
        let Some(request) = Request::parse(labels)? else {
            return if asked.kind == RecordType::TXT { Err(NoItems) } else { Ok(nodata()) };
        };
        if reverse {
            return Err(NoItems);
        }
        if !self.wildcard(request.namespace) && !self.exposed(request.namespace) {
            return Err(NoItems);
        }
        let hits = if request.pod { self.pods(&request)? } else { self.services(&request)? };
        if asked.kind == RecordType::TXT && hits.is_empty() {
            return Err(NoItems);
        }
        Ok(match asked.kind {
            RecordType::A | RecordType::AAAA => self.addresses(asked, &request, &hits),
            RecordType::SRV => self.srv(asked, &request, &hits),
            _ => nodata().telling(self.asked_for(&request)),
        })
    }

    /// `any` and `*` in a name; only the old versions know them.
    fn wildcard(&self, label: &str) -> bool {
        self.wildcards() && matches!(label, "any" | "*")
    }

    fn wildcards(&self) -> bool {
        self.flavour == Flavour::CoreDns18
    }

    /// True where forward names and transfers may speak of a namespace.
    pub fn exposed(&self, namespace: &str) -> bool {
        self.cluster.has_namespace(namespace)
            && self.listed(namespace)
            && !self.defences.unlabelled.iter().any(|n| n == namespace)
    }

    /// True where option `namespaces` allows it: all that PTR looks at.
    fn listed(&self, namespace: &str) -> bool {
        self.defences.namespaces.as_ref().is_none_or(|list| list.iter().any(|n| n == namespace))
    }

    /// What the very existence of an answer to this request gives away.
    fn asked_for(&self, request: &Request<'_>) -> Option<Fact> {
        let Request { namespace, service, .. } = *request;
        if self.wildcard(namespace) {
            return None;
        }
        let fact = |labels: String| Some(self.cluster.fact(namespace, &labels));
        if request.pod {
            let one = !service.is_empty() && !self.wildcard(service);
            let verified = one && self.defences.pods == Pods::Verified;
            // A pod's name is made up of the address that was asked for, so without `verified` it tells no pod.
            return fact(if verified { format!("{service}.{namespace}.pod") } else { format!("{namespace}.pod") });
        }
        if service.is_empty() || self.wildcard(service) {
            return fact(format!("{namespace}.svc"));
        }
        match request.endpoint.filter(|endpoint| !self.wildcard(endpoint)) {
            Some(endpoint) => fact(format!("{endpoint}.{service}.{namespace}.svc")),
            None => fact(format!("{service}.{namespace}.svc")),
        }
    }

    /// The same for an answer with records: a wildcard's answer does not name what was asked for.
    fn asked_by_name(&self, request: &Request<'_>) -> Option<Fact> {
        let wild = self.wildcard(request.namespace) || (!request.pod && self.wildcard(request.service));
        if wild { None } else { self.asked_for(request) }
    }

    /// findPods.
    fn pods(&self, request: &Request<'_>) -> Result<Vec<Hit>, NoItems> {
        let Request { namespace, service: pod, .. } = *request;
        if self.defences.pods == Pods::Disabled {
            return Err(NoItems);
        }
        if pod.is_empty() {
            return Ok(Vec::new());
        }
        let dashes = if pod.matches('-').count() == 3 && !pod.contains("--") { "." } else { ":" };
        let hit = |address, namespace: &str| Hit {
            labels: format!("{pod}.{namespace}.pod"),
            namespace: namespace.into(),
            address,
            port: None,
        };
        let nothing = || if self.wildcard(pod) && !self.wildcard(namespace) { Ok(Vec::new()) } else { Err(NoItems) };
        let Ok(address) = pod.replace('-', dashes).parse() else { return nothing() };
        if self.defences.pods == Pods::Insecure {
            return Ok(vec![hit(address, namespace)]);
        }
        let meant = |n: &&str| if self.wildcard(namespace) { self.exposed(n) } else { *n == namespace };
        let found: Vec<_> = self.cluster.pod_namespaces(address).filter(meant).map(|n| hit(address, n)).collect();
        if found.is_empty() { nothing() } else { Ok(found) }
    }

    /// findServices.
    fn services(&self, request: &Request<'_>) -> Result<Vec<Hit>, NoItems> {
        let Request { namespace, service, .. } = *request;
        let (any_namespace, any_service) = (self.wildcard(namespace), self.wildcard(service));
        if service.is_empty() {
            return Ok(Vec::new());
        }
        let hits: Vec<Hit> = if any_namespace || any_service {
            let all = self.cluster.inventory.services.iter();
            all.filter(|s| if any_namespace { self.exposed(&s.namespace) } else { s.namespace == namespace })
                .filter(|s| any_service || s.name == service)
                .flat_map(|s| self.hits(s, request))
                .collect()
        } else {
            self.cluster.service(namespace, service).into_iter().flat_map(|s| self.hits(s, request)).collect()
        };
        // A namespace that exists and has nothing that matches is NODATA only to a wildcard.
        let exists = any_service && !any_namespace;
        if hits.is_empty() && !exists { Err(NoItems) } else { Ok(hits) }
    }

    fn hits(&self, service: &Service, request: &Request<'_>) -> Vec<Hit> {
        // A service without ports has one that nobody sees (port -1 in CoreDNS).
        let ports = |of: fn(&Port) -> u16| -> Vec<Option<u16>> {
            let all = service.ports.iter().filter(|port| self.port_matches(port, request)).map(|port| Some(of(port)));
            if service.ports.is_empty() && request.port.is_none() { vec![None] } else { all.collect() }
        };
        let hit = |labels: &str, address, port| Hit {
            labels: labels.into(),
            namespace: service.namespace.clone(),
            address,
            port,
        };
        if let (Kind::ClusterIp(addresses), None) = (&service.kind, request.endpoint) {
            let labels = service.labels();
            let every = ports(|port| port.number).into_iter();
            return every
                .flat_map(|port| addresses.iter().map(|a| hit(&labels, *a, port)).collect::<Vec<_>>())
                .collect();
        }
        let mut hits = Vec::new();
        for endpoint in &service.endpoints {
            let host = self.hostname(endpoint);
            if request.endpoint.is_none_or(|asked| self.wildcard(asked) || asked == host) {
                let labels = format!("{host}.{}", service.labels());
                hits.extend(ports(|port| port.target).into_iter().map(|port| hit(&labels, endpoint.address, port)));
            }
        }
        hits
    }

    fn port_matches(&self, port: &Port, request: &Request<'_>) -> bool {
        let Some((name, protocol)) = request.port else { return true };
        // What `_` alone leaves matches everything since the wildcards went.
        let any = |label: &str| self.wildcard(label) || (!self.wildcards() && label.is_empty());
        let named = port.name.as_deref().unwrap_or_default().eq_ignore_ascii_case(name);
        (any(name) || named) && (any(protocol) || protocol == port.protocol.label())
    }

    /// endpointHostname: its own, or its address with dashes.
    pub fn hostname(&self, endpoint: &Endpoint) -> String {
        if let Some(hostname) = &endpoint.hostname {
            return hostname.to_ascii_lowercase();
        }
        let mut dashed = endpoint.address.to_string().replace(['.', ':'], "-");
        // 1.12.3: a label must not end in a dash.
        if dashed.ends_with('-') && !self.wildcards() {
            dashed.push('0');
        }
        dashed
    }

    fn addresses(&self, asked: &Question<'_>, request: &Request<'_>, hits: &[Hit]) -> Reply {
        let named = self.asked_by_name(request);
        let wild = named.is_none() || request.endpoint.is_some_and(|endpoint| self.wildcard(endpoint));
        let mut seen = BTreeSet::new();
        let wanted = |hit: &&Hit| hit.address.is_ipv4() == (asked.kind == RecordType::A) && seen.insert(hit.address);
        let part = |hit: &Hit| {
            let fact = wild.then_some(Fact::Address(hit.address));
            address(asked.name.clone(), self.defences.ttl, hit.address, fact)
        };
        let answers: Vec<_> = hits.iter().filter(wanted).map(part).collect();
        let told = if answers.is_empty() { self.asked_for(request) } else { named };
        Reply::answers(answers).telling(told)
    }

    /// plugin.SRV: duplicates count in the weight but are not sent.
    fn srv(&self, asked: &Question<'_>, request: &Request<'_>, hits: &[Hit]) -> Reply {
        let weight = u16::try_from(100 / hits.len().max(1)).unwrap().max(1);
        let (mut targets, mut addresses) = (BTreeSet::new(), BTreeSet::new());
        let (mut answers, mut additionals) = (Vec::new(), Vec::new());
        for hit in hits {
            let Some(port) = hit.port else { continue };
            let target = self.cluster.name(&hit.labels);
            let fact = self.cluster.fact(&hit.namespace, &hit.labels);
            if targets.insert((&hit.labels, port)) {
                let data = RData::SRV(SRV::new(0, weight, port, target.clone()));
                answers.push(Part::new(asked.name.clone(), self.defences.ttl, data, Some(fact.clone())));
            }
            if addresses.insert((&hit.labels, hit.address)) {
                additionals.push(address(target, self.defences.ttl, hit.address, Some(fact)));
            }
        }
        let told = if answers.is_empty() { self.asked_for(request) } else { self.asked_by_name(request) };
        Reply { additionals, ..Reply::answers(answers) }.telling(told)
    }

    /// serviceRecordForIP: the one service of a ClusterIP, or every service that an endpoint is behind.
    fn reverse(&self, name: &Name, address: IpAddr) -> Result<Reply, NoItems> {
        let part = |namespace: &str, labels: &str| {
            let data = RData::PTR(PTR(self.cluster.name(labels)));
            Part::new(name.clone(), self.defences.ttl, data, Some(self.cluster.fact(namespace, labels)))
        };
        if let Some(service) = self.cluster.with_cluster_ip(address).filter(|s| self.listed(&s.namespace)) {
            return Ok(Reply::answers(vec![part(&service.namespace, &service.labels())]));
        }
        let behind = self.cluster.with_endpoint(address).filter(|(service, _)| self.listed(&service.namespace));
        let names: BTreeMap<_, _> = behind
            .map(|(service, endpoint)| {
                (format!("{}.{}", self.hostname(endpoint), service.labels()), &service.namespace)
            })
            .collect();
        let answers: Vec<_> = names.iter().map(|(labels, namespace)| part(namespace, labels)).collect();
        if answers.is_empty() { Err(NoItems) } else { Ok(Reply::answers(answers)) }
    }

    /// NS at the apex names the service in front of the server, whatever its namespace, or else `ns.dns` (nsAddrs).
    fn nameserver(&self, zone: &Name) -> Reply {
        let (host, addresses, fact) = self.nameserver_host(zone);
        let ns = Part::new(zone.clone(), self.defences.ttl, RData::NS(NS(host.clone())), fact.clone());
        let glue = addresses.into_iter().map(|a| address(host.clone(), self.defences.ttl, a, fact.clone())).collect();
        Reply { additionals: glue, ..Reply::answers(vec![ns]) }
    }

    fn nameserver_address(&self, asked: &Question<'_>) -> Reply {
        let (_, addresses, _) = self.nameserver_host(&self.cluster.inventory.zone);
        let wanted = |a: &IpAddr| match asked.kind {
            RecordType::A => a.is_ipv4(),
            RecordType::AAAA => a.is_ipv6(),
            _ => false,
        };
        let part = |a| address(asked.name.clone(), self.defences.ttl, a, Some(Fact::Address(a)));
        Reply::answers(addresses.into_iter().filter(wanted).map(part).collect())
    }

    /// Name under the zone that was asked for, addresses, and what the name gives away.
    pub fn nameserver_host(&self, zone: &Name) -> (Name, Vec<IpAddr>, Option<Fact>) {
        let under = |labels: &str| Name::from_ascii(labels).unwrap().append_domain(zone).unwrap();
        match self.cluster.nameserver() {
            Some(service) => {
                let addresses = match &service.kind {
                    Kind::ClusterIp(addresses) => addresses.clone(),
                    Kind::Headless => service.endpoints.iter().map(|e| e.address).collect(),
                };
                let fact = self.cluster.fact(&service.namespace, &service.labels());
                (under(&service.labels()), addresses, Some(fact))
            }
            // The server's own pod, which nobody asks for.
            None => (under("ns.dns"), vec![IpAddr::from([10, 244, 0, 2])], None),
        }
    }

    /// Plugin transfer, which comes before kubernetes; that alone refuses (coredns #4510).
    fn transfer(&self, asked: &Question<'_>) -> Answer {
        let refused = !self.defences.transfer || asked.transport == Transport::Udp;
        if refused {
            return Reply::bare(ResponseCode::Refused).into();
        }
        if asked.kind == RecordType::IXFR && !asked.has_soa {
            return Reply::bare(ResponseCode::ServFail).into();
        }
        Answer::Transfer(super::transfer::messages(self, asked.name))
    }
}
