//! DNS servers for tests: plain sockets, so that they can lie in every way, and one honest way to answer.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::Arc,
    thread,
};

use hickory_resolver::proto::{
    op::{Message, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, SOA, SRV},
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
    let socket = Arc::new(UdpSocket::bind((super::loopback(), 0)).unwrap());
    let address = socket.local_addr().unwrap();
    if let Some(answer) = tcp {
        let listener = TcpListener::bind(address).unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                thread::spawn(move || serve_stream(stream.ok()?, answer));
            }
        });
    }
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        loop {
            let Ok((length, peer)) = socket.recv_from(&mut buffer) else { continue };
            if let Ok(query) = Message::from_vec(&buffer[..length]) {
                udp(&query, &Replier { socket: socket.clone(), peer });
            }
        }
    });
    address
}

fn serve_stream(mut stream: TcpStream, answer: Tcp) -> Option<()> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).ok()?;
    let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut query).ok()?;
    answer(&Message::from_vec(&query).ok()?, &mut stream);
    Some(())
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

fn soa() -> Record {
    let soa = SOA::new(name("ns.dns.cluster.local."), name("hostmaster.cluster.local."), 1, 7200, 1800, 86400, 30);
    Record::from_rdata(name("cluster.local."), 30, RData::SOA(soa))
}

/// A split server of `cluster.local`: it has a zone, `kubernetes.default`, and nothing else.
pub fn honest(query: &Message) -> Vec<u8> {
    let mut answer = empty(query);
    let (asked, kind) = (query.queries[0].name.to_ascii().to_ascii_lowercase(), query.queries[0].query_type);
    match (asked.as_str(), kind) {
        ("cluster.local.", RecordType::SOA) => {
            answer.add_answer(soa());
        }
        ("kubernetes.default.svc.cluster.local.", RecordType::SRV) => {
            answer.add_answer(srv(query, name("kubernetes.default.svc.cluster.local.")));
        }
        ("kubernetes.default.svc.cluster.local.", RecordType::A) => {
            let address = RData::A(A(Ipv4Addr::new(127, 0, 0, 1)));
            answer.add_answer(Record::from_rdata(query.queries[0].name.clone(), 30, address));
        }
        ("kubernetes.default.svc.cluster.local.", _) => {
            answer.add_authority(soa());
        }
        _ => {
            answer.metadata.response_code = ResponseCode::NXDomain;
            answer.add_authority(soa());
        }
    }
    answer.to_vec().unwrap()
}

/// True for the questions of a technique: neither a control nor the self-check nor the name that nobody has.
pub fn is_technique(query: &Message) -> bool {
    let asked = query.queries[0].name.to_ascii().to_ascii_lowercase();
    asked.ends_with(".svc.cluster.local.") && !asked.starts_with("kubernetes.") && !asked.starts_with("segprobe-")
}
