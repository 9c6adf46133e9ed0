//! DNS servers for tests: plain sockets, so that they can lie in every way, and one honest way to answer.

use std::{
    collections::HashSet,
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{Arc, LazyLock, Mutex},
    thread,
};

use hickory_resolver::proto::{
    op::{Message, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, PTR, SOA, SRV},
    },
};

/// Answers one query over UDP.
pub type Udp = fn(&Message, &Replier);
/// Answers one query over TCP.
pub type Tcp = fn(&Message, &mut TcpStream);

/// Sends datagrams to the one who asked.
#[derive(Clone)]
pub struct Replier {
    socket: Arc<UdpSocket>,
    peer: SocketAddr,
}

impl Replier {
    pub fn send(&self, bytes: &[u8]) {
        // One who went away is no loss.
        let _ = self.socket.send_to(bytes, self.peer);
    }
}

/// Serves on an address of its own until the test run ends. Without `tcp` nobody listens there.
pub fn serve(udp: Udp, tcp: Option<Tcp>) -> SocketAddr {
    serve_over(Some(udp), tcp)
}

/// The same, for those who may have nobody at UDP.
pub fn serve_over(udp: Option<Udp>, tcp: Option<Tcp>) -> SocketAddr {
    let listener = TcpListener::bind((super::loopback(), 0)).unwrap();
    let address = listener.local_addr().unwrap();
    if let Some(answer) = tcp {
        thread::spawn(move || {
            for stream in listener.incoming() {
                thread::spawn(move || serve_stream(stream.ok()?, answer));
            }
        });
    }
    if let Some(answer) = udp {
        let socket = Arc::new(UdpSocket::bind(address).unwrap());
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                let Ok((length, peer)) = socket.recv_from(&mut buffer) else { continue };
                if let Ok(query) = Message::from_vec(&buffer[..length]) {
                    answer(&query, &Replier { socket: socket.clone(), peer });
                }
            }
        });
    }
    address
}

/// One query after the other, until the client or the answer closes the connection.
fn serve_stream(mut stream: TcpStream, answer: Tcp) -> Option<()> {
    loop {
        let mut length = [0; 2];
        stream.read_exact(&mut length).ok()?;
        let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut query).ok()?;
        answer(&Message::from_vec(&query).ok()?, &mut stream);
    }
}

/// Closes the connection for both sides.
pub fn close(stream: &TcpStream) {
    // One who went away is no loss.
    let _ = stream.shutdown(Shutdown::Both);
}

/// Writes a message with its length before it.
pub fn write(stream: &mut TcpStream, bytes: &[u8]) {
    let length = u16::try_from(bytes.len()).unwrap().to_be_bytes();
    // One who went away is no loss.
    let _ = stream.write_all(&[&length, bytes].concat());
}

pub fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

/// An authoritative answer without records.
pub fn empty(query: &Message) -> Message {
    let mut answer = Message::response(query.metadata.id, query.metadata.op_code);
    answer.metadata.authoritative = true;
    answer.queries = query.queries.clone();
    answer
}

pub fn with_code(query: &Message, code: ResponseCode) -> Vec<u8> {
    let mut answer = empty(query);
    answer.metadata.response_code = code;
    answer.to_vec().unwrap()
}

/// An SRV record of the name that was asked for.
pub fn srv(query: &Message, target: Name) -> Record {
    Record::from_rdata(query.queries[0].name.clone(), 30, RData::SRV(SRV::new(0, 100, 5432, target)))
}

/// An A record of the name that was asked for.
pub fn a(query: &Message, address: Ipv4Addr) -> Record {
    Record::from_rdata(query.queries[0].name.clone(), 30, RData::A(A(address)))
}

/// A PTR record of the name that was asked for.
pub fn ptr(query: &Message, target: Name) -> Record {
    Record::from_rdata(query.queries[0].name.clone(), 30, RData::PTR(PTR(target)))
}

/// The SOA of the cluster's zone.
pub fn soa() -> Record {
    let soa = SOA::new(name("ns.dns.cluster.local."), name("hostmaster.cluster.local."), 1, 7200, 1800, 86400, 30);
    Record::from_rdata(name("cluster.local."), 30, RData::SOA(soa))
}

/// The name that must not be told, and the address of its only pod.
pub const SECRET: &str = "ledger.payments.svc.cluster.local.";
pub const SECRET_ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 99, 0, 40);

const KNOWN: &str = "kubernetes.default.svc.cluster.local.";

/// What is asked, in lower case, and its type.
pub fn asked(query: &Message) -> (String, RecordType) {
    (query.queries[0].name.to_ascii().to_ascii_lowercase(), query.queries[0].query_type)
}

/// A split server of `cluster.local`: it has `kubernetes.default`, its address, the pod of those who ask, and nothing of
/// the protected namespace.
pub fn honest(query: &Message) -> Vec<u8> {
    let (name_asked, kind) = asked(query);
    let mut answer = empty(query);
    match (name_asked.strip_suffix("cluster.local.").unwrap_or(&name_asked), kind) {
        (_, RecordType::AXFR) => answer.metadata.response_code = ResponseCode::Refused,
        ("", RecordType::SOA) => {
            answer.add_answer(soa());
        }
        ("kubernetes.default.svc.", RecordType::SRV) => {
            answer.add_answer(srv(query, name(KNOWN)));
        }
        ("kubernetes.default.svc.", RecordType::A) => {
            answer.add_answer(a(query, Ipv4Addr::new(127, 96, 0, 1)));
        }
        ("1.0.96.127.in-addr.arpa.", RecordType::PTR) => {
            answer.add_answer(ptr(query, name(KNOWN)));
        }
        ("127-0-0-1.web.pod.", RecordType::A) => {
            answer.add_answer(a(query, Ipv4Addr::LOCALHOST));
        }
        ("" | "svc." | "default.svc." | "default.pod." | "kubernetes.default.svc.", _) => {
            answer.add_authority(soa());
        }
        _ => {
            answer.metadata.response_code = ResponseCode::NXDomain;
            answer.add_authority(soa());
        }
    }
    answer.to_vec().unwrap()
}

/// The same, but it tells the secret in every way there is.
pub fn leaky(query: &Message) -> Vec<u8> {
    let mut answer = empty(query);
    let (name_asked, kind) = asked(query);
    match (name_asked.as_str(), kind) {
        ("cluster.local.", RecordType::AXFR) => {
            let service = Record::from_rdata(name(SECRET), 30, RData::A(A(SECRET_ADDRESS)));
            answer.add_answers([soa(), service, soa()]);
        }
        ("any.any.svc.cluster.local." | SECRET, RecordType::SRV) => {
            answer.add_answer(srv(query, name(SECRET)));
        }
        (SECRET | "127-99-0-40.payments.pod.cluster.local.", RecordType::A) => {
            answer.add_answer(a(query, SECRET_ADDRESS));
        }
        ("40.0.99.127.in-addr.arpa.", RecordType::PTR) => {
            answer.add_answer(ptr(query, name(SECRET)));
        }
        ("payments.svc.cluster.local." | "payments.pod.cluster.local." | SECRET, _) => {
            answer.add_authority(soa());
        }
        _ => return honest(query),
    }
    answer.to_vec().unwrap()
}

/// True for the questions of a technique: neither a control nor a self-check nor about what nobody has.
pub fn is_technique(query: &Message) -> bool {
    let (asked, kind) = asked(query);
    let known = ["kubernetes.", "default.", "127-0-0-1.", "1.0.96.127."];
    let nobodys = ["segprobe-", "192-0-2-77.", "2001-db8--77."];
    kind != RecordType::SOA
        && !known.iter().chain(&nobodys).any(|of| asked.starts_with(of))
        && !asked.contains(".segprobe-")
}

/// Questions that came already.
pub type Seen = LazyLock<Mutex<HashSet<(String, RecordType)>>>;

/// True when this question was not asked before.
pub fn is_first(seen: &Seen, query: &Message) -> bool {
    seen.lock().unwrap().insert(asked(query))
}
