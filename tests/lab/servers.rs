//! Who answers in the lab: listeners of several tempers, and a DNS server for names.

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    net::{IpAddr, SocketAddr, TcpStream},
    sync::mpsc,
    thread::JoinHandle,
    time::Duration,
};

use hickory_resolver::proto::{
    op::{Message, ResponseCode},
    rr::{
        RData, Record, RecordType,
        rdata::{A, AAAA},
    },
};
use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, UdpSocket};
use tokio_util::sync::CancellationToken;

use crate::network::Namespace;

/// How a listener treats those who connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Temper {
    /// Accepts and closes.
    Open,
    /// Accepts and resets.
    Reset,
    /// Never accepts, and its backlog is full.
    Full,
}

/// Names and their addresses.
pub type Names = BTreeMap<String, Vec<IpAddr>>;

/// The servers of one namespace; they end when this is dropped.
pub struct Servers {
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Servers {
    /// Returns when all of them listen.
    pub fn start(
        namespace: &Namespace,
        listeners: Vec<(SocketAddr, Temper)>,
        dns: Option<(SocketAddr, Names)>,
    ) -> Self {
        let stop = CancellationToken::new();
        let (told, ready) = mpsc::channel();
        let until = stop.clone();
        let thread = namespace.spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let full: Vec<FullBacklog> = of(&listeners, Temper::Full).map(FullBacklog::new).collect();
                for address in of(&listeners, Temper::Open) {
                    tokio::spawn(accept(listen(address), false));
                }
                for address in of(&listeners, Temper::Reset) {
                    tokio::spawn(accept(listen(address), true));
                }
                if let Some((address, names)) = dns {
                    tokio::spawn(answer_names(UdpSocket::bind(address).await.expect("a DNS server"), names));
                }
                told.send(()).expect("somebody waits for it");
                until.cancelled().await;
                drop(full);
            });
        });
        let servers = Self { stop, thread: Some(thread) };
        ready.recv().expect("the servers listen");
        servers
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            // It tells of its own panic.
            let _ = thread.join();
        }
    }
}

fn of(listeners: &[(SocketAddr, Temper)], temper: Temper) -> impl Iterator<Item = SocketAddr> {
    listeners.iter().filter(move |(_, t)| *t == temper).map(|(address, _)| *address)
}

fn bound(address: SocketAddr, backlog: i32) -> Socket {
    let socket =
        Socket::new(Domain::for_address(address), Type::STREAM.nonblocking().cloexec(), None).expect("a socket");
    socket.set_reuse_address(true).expect("SO_REUSEADDR");
    socket.bind(&address.into()).unwrap_or_else(|e| panic!("bind {address}: {e}"));
    socket.listen(backlog).expect("listen");
    socket
}

fn listen(address: SocketAddr) -> TcpListener {
    TcpListener::from_std(bound(address, 4096).into()).expect("a listener")
}

async fn accept(listener: TcpListener, reset: bool) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        if reset {
            stream.set_zero_linger().expect("SO_LINGER");
        }
    }
}

/// A listener whose queue holds two connections that nobody accepts: the kernel drops every further SYN.
struct FullBacklog {
    _listener: Socket,
    _waiting: Vec<Socket>,
}

impl FullBacklog {
    fn new(address: SocketAddr) -> Self {
        let listener = bound(address, 1);
        let connect = |_| {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), None).expect("a socket");
            // In progress, for ever or not.
            let _ = socket.connect(&address.into());
            socket
        };
        let waiting = (0..4).map(connect).collect();
        let further = TcpStream::connect_timeout(&address, Duration::from_millis(200));
        let silent = further.as_ref().is_err_and(|e| e.kind() == ErrorKind::TimedOut);
        assert!(silent, "the backlog of {address} is not full: {further:?}");
        Self { _listener: listener, _waiting: waiting }
    }
}

async fn answer_names(socket: UdpSocket, names: Names) {
    let mut buffer = [0; 1500];
    loop {
        let Ok((length, peer)) = socket.recv_from(&mut buffer).await else { continue };
        if let Ok(query) = Message::from_vec(&buffer[..length]) {
            let bytes = answer(&query, &names).to_vec().expect("a message");
            // A client that went away is no loss.
            let _ = socket.send_to(&bytes, peer).await;
        }
    }
}

fn answer(query: &Message, names: &Names) -> Message {
    let mut answer = Message::response(query.metadata.id, query.metadata.op_code);
    answer.metadata.recursion_desired = query.metadata.recursion_desired;
    answer.metadata.recursion_available = true;
    let Some(question) = query.queries.first() else { return answer };
    answer.add_query(question.clone());
    match names.get(question.name.to_ascii().trim_end_matches('.')) {
        None => answer.metadata.response_code = ResponseCode::NXDomain,
        Some(addresses) => {
            for address in addresses {
                let data = match (address, question.query_type) {
                    (IpAddr::V4(ip), RecordType::A) => RData::A(A(*ip)),
                    (IpAddr::V6(ip), RecordType::AAAA) => RData::AAAA(AAAA(*ip)),
                    _ => continue,
                };
                answer.add_answer(Record::from_rdata(question.name.clone(), 1, data));
            }
        }
    }
    answer
}
