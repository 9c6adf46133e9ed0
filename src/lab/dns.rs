//! Two small DNS servers: one answers wildcards as CoreDNS did up to 1.8; one hides the protected namespace's names and
//! forgot the reverse zones, as CoreDNS' `namespace_labels` and an `acl` on the forward zone do.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use hickory_resolver::proto::{
    op::{Message, Query, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, PTR, SOA, SRV},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
};

use super::SERVICES;

/// What a server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Everything, wildcards included.
    Old,
    /// No name of `payments`, but what its addresses are called.
    Split,
}

const TTL: u32 = 30;

/// Serves UDP and TCP at the address until the runtime ends.
pub(super) async fn serve(address: SocketAddr, kind: Kind) -> io::Result<()> {
    let (socket, listener) = (UdpSocket::bind(address).await?, TcpListener::bind(address).await?);
    tokio::spawn(async move {
        let mut buffer = [0; 1500];
        loop {
            let Ok((length, peer)) = socket.recv_from(&mut buffer).await else { continue };
            if let Some(bytes) = answer(&buffer[..length], kind) {
                // A client that went away is no loss.
                let _ = socket.send_to(&bytes, peer).await;
            }
        }
    });
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve_stream(stream, kind));
        }
    });
    Ok(())
}

/// Until the client has no more questions.
async fn serve_stream(mut stream: TcpStream, kind: Kind) -> io::Result<()> {
    loop {
        let mut query = vec![0; usize::from(stream.read_u16().await?)];
        stream.read_exact(&mut query).await?;
        let Some(bytes) = answer(&query, kind) else { return Ok(()) };
        stream.write_u16(u16::try_from(bytes.len()).map_err(io::Error::other)?).await?;
        stream.write_all(&bytes).await?;
    }
}

fn answer(query: &[u8], kind: Kind) -> Option<Vec<u8>> {
    let query = Message::from_vec(query).ok()?;
    let question = query.queries.first()?;
    let zone = Name::from_ascii("cluster.local.").ok()?;
    let mut answer = Message::response(query.metadata.id, query.metadata.op_code);
    answer.metadata.authoritative = true;
    answer.metadata.recursion_desired = query.metadata.recursion_desired;
    answer.add_query(question.clone());
    let exists = records(&mut answer, question, &zone, kind)?;
    if answer.answers.is_empty() {
        let owner = if question.query_type == RecordType::PTR { Name::from_ascii("in-addr.arpa.").ok()? } else { zone };
        answer.add_authority(soa(owner)?);
        if !exists {
            answer.metadata.response_code = ResponseCode::NXDomain;
        }
    }
    answer.to_vec().ok()
}

fn soa(owner: Name) -> Option<Record> {
    let (primary, mailbox) = ("ns.dns.cluster.local.", "hostmaster.cluster.local.");
    let data = SOA::new(Name::from_ascii(primary).ok()?, Name::from_ascii(mailbox).ok()?, 1, 7200, 1800, 86400, TTL);
    Some(Record::from_rdata(owner, TTL, RData::SOA(data)))
}

/// Adds what the server tells; true where the name exists.
fn records(answer: &mut Message, question: &Query, zone: &Name, kind: Kind) -> Option<bool> {
    let name = &question.name;
    let mut add = |data| {
        answer.add_answer(Record::from_rdata(name.clone(), TTL, data));
    };
    if name == zone {
        if question.query_type == RecordType::SOA {
            answer.add_answer(soa(zone.clone())?);
        }
        return Some(true);
    }
    let visible = |namespace: &str| kind == Kind::Old || namespace != "payments";
    let wildcard = |label: &str| kind == Kind::Old && (label == "any" || label == "*");
    let labels: Vec<String> = name.iter().map(|l| String::from_utf8_lossy(l).to_ascii_lowercase()).collect();
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    let mut exists = false;
    for (namespace, service, (c, d), port) in SERVICES {
        let address = Ipv4Addr::new(127, 86, *c, *d);
        let target = Name::from_ascii(format!("{service}.{namespace}.svc.cluster.local.")).ok()?;
        match labels[..] {
            [.., "in-addr", "arpa"] if *name == Name::from(IpAddr::V4(address)) => add(RData::PTR(PTR(target))),
            [ns, "svc" | "pod", "cluster", "local"] => exists |= visible(namespace) && ns == *namespace,
            // As `pods insecure` does: whatever address it is asked for.
            [pod, ns, "pod", "cluster", "local"] if visible(namespace) && ns == *namespace => {
                exists = true;
                if let Ok(address) = pod.replace('-', ".").parse().map(A)
                    && question.query_type == RecordType::A
                {
                    add(RData::A(address));
                    return Some(true);
                }
            }
            [asked, ns, "svc", "cluster", "local"]
                if visible(namespace)
                    && (asked == *service || wildcard(asked))
                    && (ns == *namespace || wildcard(ns)) =>
            {
                exists = true;
                match question.query_type {
                    RecordType::SRV => add(RData::SRV(SRV::new(0, 100, *port, target))),
                    RecordType::A => add(RData::A(A(address))),
                    _ => {}
                }
            }
            _ => {}
        }
    }
    Some(exists)
}
