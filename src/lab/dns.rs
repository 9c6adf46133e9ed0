//! Two small DNS servers: one answers wildcards as CoreDNS did up to 1.8, one serves a split view without the protected zone.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
};

use hickory_resolver::proto::{
    op::{Message, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, SOA, SRV},
    },
};
use tokio::net::UdpSocket;

use super::SERVICES;

/// What a server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Everything, wildcards included.
    Old,
    /// Nothing of `payments`.
    Split,
}

const TTL: u32 = 30;

/// Serves UDP at the address until the runtime ends.
pub(super) async fn serve(address: SocketAddr, kind: Kind) -> io::Result<()> {
    let socket = UdpSocket::bind(address).await?;
    tokio::spawn(async move {
        let mut buffer = [0; 1500];
        loop {
            let Ok((length, peer)) = socket.recv_from(&mut buffer).await else { continue };
            let answer = Message::from_vec(&buffer[..length]).ok().and_then(|query| answer(&query, kind));
            if let Some(bytes) = answer.and_then(|answer| answer.to_vec().ok()) {
                // A client that went away is no loss.
                let _ = socket.send_to(&bytes, peer).await;
            }
        }
    });
    Ok(())
}

fn answer(query: &Message, kind: Kind) -> Option<Message> {
    let question = query.queries.first()?;
    let zone = Name::from_ascii("cluster.local.").ok()?;
    let mut answer = Message::response(query.metadata.id, query.metadata.op_code);
    answer.metadata.authoritative = true;
    answer.metadata.recursion_desired = query.metadata.recursion_desired;
    answer.add_query(question.clone());
    let soa = SOA::new(
        Name::from_ascii("ns.dns.cluster.local.").ok()?,
        Name::from_ascii("hostmaster.cluster.local.").ok()?,
        1,
        7200,
        1800,
        86400,
        30,
    );
    let soa = Record::from_rdata(zone.clone(), TTL, RData::SOA(soa));
    if question.name == zone {
        match question.query_type {
            RecordType::SOA => answer.add_answer(soa),
            _ => answer.add_authority(soa),
        };
        return Some(answer);
    }
    let Some((service, namespace)) = asked(&question.name, &zone) else {
        answer.metadata.response_code = ResponseCode::NXDomain;
        answer.add_authority(soa);
        return Some(answer);
    };
    let wildcard = |label: &str| kind == Kind::Old && (label == "any" || label == "*");
    let mut found = false;
    for (ns, name, (c, d), port) in SERVICES {
        let visible = kind == Kind::Old || *ns != "payments";
        let asked_for = (service == *name || wildcard(&service)) && (namespace == *ns || wildcard(&namespace));
        if !visible || !asked_for {
            continue;
        }
        found = true;
        let target = Name::from_ascii(format!("{name}.{ns}.svc.cluster.local.")).ok()?;
        let address = RData::A(A(Ipv4Addr::new(127, 86, *c, *d)));
        match question.query_type {
            RecordType::SRV => {
                let srv = RData::SRV(SRV::new(0, 100, *port, target.clone()));
                answer.add_answer(Record::from_rdata(question.name.clone(), TTL, srv));
                answer.add_additional(Record::from_rdata(target, TTL, address));
            }
            RecordType::A => {
                answer.add_answer(Record::from_rdata(question.name.clone(), TTL, address));
            }
            _ => {}
        }
    }
    if answer.answers.is_empty() {
        answer.add_authority(soa);
        if !found {
            answer.metadata.response_code = ResponseCode::NXDomain;
        }
    }
    Some(answer)
}

/// `(service, namespace)` of `service.namespace.svc.cluster.local.`.
fn asked(name: &Name, zone: &Name) -> Option<(String, String)> {
    let labels: Vec<String> = name.iter().map(|l| String::from_utf8_lossy(l).to_ascii_lowercase()).collect();
    match &labels[..] {
        [service, namespace, svc, _, _] if svc == "svc" && zone.zone_of(name) => {
            Some((service.clone(), namespace.clone()))
        }
        _ => None,
    }
}
