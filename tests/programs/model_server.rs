//! The test DNS server's sockets: both transports, what it counts, and what policies make of them.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use hickory_resolver::proto::{
    op::{Message, ResponseCode},
    rr::RecordType,
};

use crate::{
    cluster_dns::{ClusterDns, Defences, Flavour, Inventory, Policy, Running, Transport},
    model_defences::query,
    support::{SOON, dns, loopback, wait_for},
};

const WEB: &str = "web.high.svc.cluster.local.";
const A: RecordType = RecordType::A;
/// Long enough for an answer that must not come.
const AWHILE: Duration = Duration::from_millis(300);

fn over_udp(server: SocketAddr, patience: Duration) -> Option<Message> {
    let socket = UdpSocket::bind((loopback(), 0)).unwrap();
    socket.set_read_timeout(Some(patience)).unwrap();
    socket.connect(server).unwrap();
    socket.send(&query(WEB, A).to_vec().unwrap()).ok()?;
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer).ok()?;
    Some(Message::from_vec(&buffer[..length]).unwrap())
}

fn over_tcp(stream: &mut TcpStream, patience: Duration) -> Option<Message> {
    dns::write(stream, &query(WEB, A).to_vec().unwrap());
    read(stream, patience)
}

fn read(stream: &mut TcpStream, patience: Duration) -> Option<Message> {
    stream.set_read_timeout(Some(patience)).unwrap();
    let mut length = [0; 2];
    stream.read_exact(&mut length).ok()?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message).ok()?;
    Some(Message::from_vec(&message).unwrap())
}

fn start() -> Running {
    ClusterDns::new(Flavour::CoreDns114, Inventory::recorded()).start(loopback())
}

#[test]
fn serves_both_transports_and_counts_who_asked() {
    let server = start();
    for _ in 0..3 {
        over_udp(server.address, SOON).unwrap();
    }
    let mut stream = TcpStream::connect(server.address).unwrap();
    // A query in two pieces, then more on the same connection.
    stream.write_all(&[0]).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    let octets = query(WEB, A).to_vec().unwrap();
    stream.write_all(&[&[u8::try_from(octets.len()).unwrap()], octets.as_slice()].concat()).unwrap();
    read(&mut stream, SOON).unwrap();
    for _ in 0..4 {
        over_tcp(&mut stream, SOON).unwrap();
    }
    let received = server.received();
    assert_eq!((received.of(Transport::Tcp, A), received.sources(Transport::Tcp)), (5, 1), "one connection");
    assert_eq!((received.of(Transport::Udp, A), received.sources(Transport::Udp)), (3, 3));
    assert!(server.disclosures().iter().all(|d| d.name == WEB && d.told.of("high") == [WEB.to_owned()].into()));
    server.forget();
    assert_eq!((server.received().total(), server.disclosures().len()), (0, 0));
}

#[test]
fn defences_change_while_it_runs() {
    let server = start();
    over_udp(server.address, SOON).unwrap();
    server.set(Defences { namespaces: Some(vec!["low".to_owned()]), ..Defences::default() });
    let answer = over_udp(server.address, SOON).unwrap();
    assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
}

#[test]
fn a_policy_silences_or_closes_one_transport() {
    let server = start();
    let policies = |udp, tcp| Defences { udp, tcp, ..Defences::default() };
    let refused = || TcpStream::connect(server.address).is_err();

    server.set(policies(Policy::Open, Policy::Closed));
    wait_for("TCP is closed", SOON, || refused().then_some(()));
    over_udp(server.address, SOON).unwrap();

    server.set(policies(Policy::Silent, Policy::Open));
    let mut stream = wait_for("TCP is open again", SOON, || TcpStream::connect(server.address).ok());
    over_tcp(&mut stream, SOON).unwrap();
    server.forget();
    assert!(over_udp(server.address, AWHILE).is_none());

    server.set(policies(Policy::Closed, Policy::Silent));
    let mut stream = TcpStream::connect(server.address).unwrap();
    assert!(over_tcp(&mut stream, AWHILE).is_none());
    wait_for("UDP is closed", SOON, || {
        let socket = UdpSocket::bind((loopback(), 0)).unwrap();
        socket.set_read_timeout(Some(AWHILE)).unwrap();
        socket.connect(server.address).unwrap();
        socket.send(&[0; 12]).unwrap();
        let error = socket.recv(&mut [0; 12]).unwrap_err();
        (error.kind() == std::io::ErrorKind::ConnectionRefused).then_some(())
    });
    assert!(server.disclosures().is_empty());
}

#[test]
fn is_gone_when_dropped() {
    let server = start();
    let address = server.address;
    let mut stream = TcpStream::connect(address).unwrap();
    over_tcp(&mut stream, SOON).unwrap();
    drop(server);
    assert!(TcpStream::connect(address).is_err());
    assert_eq!(stream.read(&mut [0; 1]).unwrap_or_default(), 0, "connections too");
}
