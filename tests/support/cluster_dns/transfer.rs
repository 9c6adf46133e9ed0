//! CoreDNS' zone transfer (plugin/kubernetes/xfr.go): every service of every exposed namespace under the name that was asked
//! for, be it the zone, a name below it or a reverse zone.

use hickory_resolver::proto::{
    rr::{
        Name, RData,
        rdata::{NS, SRV},
    },
    serialize::binary::BinEncodable,
};

use super::{
    coredns::CoreDns,
    flavour::{Flavour, address},
    inventory::{Kind, Port, Service},
    reply::{Part, Reply, soa},
};

/// Records of one message until 1.14.2, after which it is sent.
const RECORDS: usize = 500;
/// Octets of one message since 1.14.3 (coredns #8002).
const OCTETS: usize = 63_000;

/// All messages, SOA first and last.
pub fn messages(server: &CoreDns<'_>, zone: &Name) -> Vec<Reply> {
    let ttl = server.defences.ttl;
    let soa = || vec![Part { record: soa(zone, ttl), fact: None }];
    let (host, addresses, fact) = server.nameserver_host(zone);
    let mut nameserver = vec![Part::new(zone.clone(), ttl, RData::NS(NS(host.clone())), fact.clone())];
    nameserver.extend(addresses.into_iter().map(|a| address(host.clone(), 0, a, fact.clone())));

    let mut services: Vec<_> = server.cluster.inventory.services.iter().collect();
    services.retain(|service| server.exposed(&service.namespace));
    services.sort_by_key(|service| &service.name);
    let services = services.into_iter().flat_map(|service| records(server, zone, service));

    let all = soa().into_iter().chain(nameserver).chain(services).chain(soa());
    let mut batches = vec![Vec::new()];
    let mut octets = 0;
    for part in all {
        let size = part.record.to_bytes().unwrap().len();
        let batch = batches.last_mut().unwrap();
        let full = match server.flavour {
            Flavour::CoreDns18 => batch.len() > RECORDS,
            _ => octets + size > OCTETS,
        };
        if full {
            octets = 0;
            batches.push(vec![part]);
        } else {
            batch.push(part);
        }
        octets += size;
    }
    batches.into_iter().map(Reply::answers).collect()
}

fn records(server: &CoreDns<'_>, zone: &Name, service: &Service) -> Vec<Part> {
    let ttl = server.defences.ttl;
    let under = |labels: &str| Name::from_ascii(labels).unwrap().append_domain(zone).unwrap();
    let labels = service.labels();
    let fact = |labels: &str| Some(server.cluster.fact(&service.namespace, labels));
    let srv = |owner: &str, weight, port, target: &str| {
        Part::new(under(owner), ttl, RData::SRV(SRV::new(0, weight, port, under(target))), fact(target))
    };
    let named = |port: &Port| {
        let name = port.name.as_ref()?.to_ascii_lowercase();
        Some(format!("_{name}._{}.{labels}", port.protocol.label()))
    };
    let mut parts = Vec::new();
    if let Kind::ClusterIp(addresses) = &service.kind {
        parts.extend(addresses.iter().map(|a| address(under(&labels), ttl, *a, fact(&labels))));
        for port in &service.ports {
            parts.push(srv(&labels, 100, port.number, &labels));
            parts.extend(named(port).map(|owner| srv(&owner, 100, port.number, &labels)));
        }
        return parts;
    }
    let weight = u16::try_from(100 / service.endpoints.len().max(1)).unwrap().max(1);
    for endpoint in &service.endpoints {
        let host = format!("{}.{labels}", server.hostname(endpoint));
        parts.push(address(under(&labels), ttl, endpoint.address, fact(&labels)));
        parts.push(address(under(&host), ttl, endpoint.address, fact(&host)));
        for port in &service.ports {
            parts.extend(named(port).map(|owner| srv(&owner, weight, port.target, &host)));
        }
    }
    parts
}
