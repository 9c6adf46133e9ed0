//! Sockets and threads around a server: UDP and TCP on one port, ended when it is dropped.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{ClusterDns, Policy, Transport};

/// How soon a thread notices that the server ends or that a policy changed.
const TICK: Duration = Duration::from_millis(20);
/// An idle connection is kept so long, as CoreDNS does.
const IDLE: Duration = Duration::from_secs(10);
/// One who does not read is given up.
const WRITE: Duration = Duration::from_secs(5);

/// A server that answers, until it is dropped.
pub struct Running {
    pub address: SocketAddr,
    server: Arc<ClusterDns>,
    ends: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl ClusterDns {
    /// Listens on a port of its own at this address.
    pub fn start(self, ip: impl Into<IpAddr>) -> Running {
        self.start_at((ip.into(), 0).into())
    }

    pub fn start_at(self, address: SocketAddr) -> Running {
        let udp = UdpSocket::bind(address).unwrap();
        let address = udp.local_addr().unwrap();
        let tcp = TcpListener::bind(address).unwrap();
        let (server, ends) = (Arc::new(self), Arc::new(AtomicBool::new(false)));
        let for_udp = Serving { server: server.clone(), ends: ends.clone(), address };
        let for_tcp = Serving { server: server.clone(), ends: ends.clone(), address };
        let threads = vec![thread::spawn(move || for_udp.udp(udp)), thread::spawn(move || for_tcp.tcp(tcp))];
        Running { address, server, ends, threads }
    }
}

impl Deref for Running {
    type Target = ClusterDns;

    fn deref(&self) -> &ClusterDns {
        &self.server
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // Its panic was printed when it happened.
            let _ = thread.join();
        }
    }
}

#[derive(Clone)]
struct Serving {
    server: Arc<ClusterDns>,
    ends: Arc<AtomicBool>,
    address: SocketAddr,
}

impl Serving {
    fn ends(&self) -> bool {
        self.ends.load(Ordering::Relaxed)
    }

    fn udp(&self, socket: UdpSocket) {
        let mut socket = Some(socket);
        let mut buffer = [0; 4096];
        while !self.ends() {
            let policy = self.server.settings().defences.udp;
            let Some(open) = keep(&mut socket, policy, || UdpSocket::bind(self.address)) else { continue };
            open.set_read_timeout(Some(TICK)).unwrap();
            let Ok((length, client)) = open.recv_from(&mut buffer) else { continue };
            // Asked anew: the wait may have begun before a change.
            if self.server.settings().defences.udp == Policy::Open {
                for message in self.server.answer(&buffer[..length], Transport::Udp, client) {
                    // One who went away is no loss.
                    let _ = open.send_to(&message, client);
                }
            }
        }
    }

    fn tcp(&self, listener: TcpListener) {
        let mut listener = Some(listener);
        let mut connections = Vec::new();
        while !self.ends() {
            let policy = self.server.settings().defences.tcp;
            let Some(open) = keep(&mut listener, policy, || TcpListener::bind(self.address)) else { continue };
            open.set_nonblocking(true).unwrap();
            match open.accept() {
                Ok((stream, client)) => {
                    let serving = self.clone();
                    connections.push(thread::spawn(move || serving.connection(stream, client)));
                }
                // Shorter than a tick: every connection waits for it.
                Err(_) => thread::sleep(TICK / 10),
            }
        }
        for connection in connections {
            let _ = connection.join();
        }
    }

    /// Queries one after the other, until the client is done or idle.
    fn connection(&self, mut stream: TcpStream, client: SocketAddr) {
        let ready = stream.set_nonblocking(false).and_then(|()| stream.set_read_timeout(Some(TICK)));
        if ready.and_then(|()| stream.set_write_timeout(Some(WRITE))).is_err() {
            return;
        }
        while let Some(query) = self.query(&mut stream) {
            if self.server.settings().defences.tcp != Policy::Open {
                continue;
            }
            for message in self.server.answer(&query, Transport::Tcp, client) {
                let length = u16::try_from(message.len()).unwrap().to_be_bytes();
                if stream.write_all(&[&length, message.as_slice()].concat()).is_err() {
                    return;
                }
            }
        }
    }

    fn query(&self, stream: &mut TcpStream) -> Option<Vec<u8>> {
        let mut length = [0; 2];
        self.read(stream, &mut length)?;
        let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
        self.read(stream, &mut query)?;
        Some(query)
    }

    /// Fills the buffer; `None` when the client is gone or idle, or the server ends.
    fn read(&self, stream: &mut TcpStream, mut buffer: &mut [u8]) -> Option<()> {
        let mut heard = Instant::now();
        while !buffer.is_empty() {
            match stream.read(buffer) {
                Ok(0) => return None,
                Ok(count) => {
                    heard = Instant::now();
                    buffer = &mut buffer[count..];
                }
                Err(error) if is_wait(&error) && heard.elapsed() < IDLE && !self.ends() => {}
                Err(_) => return None,
            }
        }
        Some(())
    }
}

fn is_wait(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

/// The socket, closed and opened again as the policy says.
fn keep<S>(socket: &mut Option<S>, policy: Policy, open: impl FnOnce() -> io::Result<S>) -> Option<&S> {
    if policy == Policy::Closed {
        *socket = None;
    } else if socket.is_none() {
        *socket = open().ok();
    }
    if socket.is_none() {
        thread::sleep(TICK);
    }
    socket.as_ref()
}
