//! The HTTP server: a thread and a runtime of its own, so that nothing a scraper does delays a sweep; accepting, and a good end.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs},
    thread,
    time::{Duration, Instant},
};

use axum::Router;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{net::TcpListener, sync::oneshot, time::MissedTickBehavior};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Peer,
    connection::{self, CONNECTION_TIME},
    handshake::Handshakes,
    is_loopback,
    live::ConnectionTls,
    places::Places,
    stream::Stream,
};

/// Connections at once; a newcomer takes the place of another.
pub const MOST_CONNECTIONS: usize = 256;
/// Answers under way at once, to all connections together.
const MOST_ANSWERS: usize = 16;
/// Time for an answer, from the request to the last of it handed over: a reader of one byte a second is cut.
const ANSWER_TIME: Duration = Duration::from_secs(30);
/// Time that open requests get at the end.
const DRAIN_TIME: Duration = Duration::from_secs(5);
/// Connections that wait to be accepted; the kernel may allow fewer.
const BACKLOG: i32 = 4096;
/// What the kernel keeps of an answer that is not read, and of a request, in bytes; Linux takes it twice.
const KERNEL_BUFFER: usize = 32 << 10;
/// Lower than the sweeps', which have 0: of a machine that has too little, they get ten times as much.
const NICE: i32 = 10;

/// Binds `address`; `:port` means all addresses, IPv6 and IPv4.
///
/// # Errors
/// What the system said; the address is in the caller's hands.
pub fn bind(address: &str) -> io::Result<std::net::TcpListener> {
    let Some(port) = address.strip_prefix(':') else {
        let mut last = io::Error::other("no address");
        for address in address.to_socket_addrs()? {
            match listen(address) {
                Ok(listener) => return Ok(listener),
                Err(error) => last = error,
            }
        }
        return Err(last);
    };
    let port: u16 = port.parse().map_err(io::Error::other)?;
    let every = |ip: IpAddr| listen(SocketAddr::new(ip, port));
    // A machine without IPv6 has no `::` to bind.
    every(Ipv6Addr::UNSPECIFIED.into()).or_else(|_| every(Ipv4Addr::UNSPECIFIED.into()))
}

/// What is set here is what accepted connections have.
fn listen(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_send_buffer_size(KERNEL_BUFFER)?;
    socket.set_recv_buffer_size(KERNEL_BUFFER)?;
    // A peer that is gone, or reads nothing at all.
    socket.set_tcp_user_timeout(Some(ANSWER_TIME))?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Serves until told to stop, then lets open requests finish for a short while. Each connection gets the TLS configuration of the
/// moment, or none.
///
/// # Errors
/// The listener cannot be used, or the server's thread cannot be had.
pub async fn serve(
    listener: std::net::TcpListener,
    app: Router,
    tls: impl Fn() -> Option<ConnectionTls> + Send + 'static,
    stop: CancellationToken,
) -> io::Result<()> {
    let (ended, end) = oneshot::channel();
    thread::Builder::new().name("http".into()).spawn(move || {
        // Of this thread, and so of all that it makes. Where that is not allowed, the kernel is fair.
        let _ = rustix::process::setpriority_process(None, NICE);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let served = runtime.and_then(|runtime| {
            // A task like the connections': after each burst that it accepts they have their turn, so that nothing piles up.
            let served = runtime.block_on(runtime.spawn(accept(listener, app, tls, stop)));
            runtime.shutdown_background();
            served.map_err(io::Error::other)?
        });
        // Nobody listens any more where the program ends.
        let _ = ended.send(served);
    })?;
    end.await.unwrap_or_else(|_| Err(io::Error::other("its thread ended")))
}

async fn accept(
    listener: std::net::TcpListener,
    app: Router,
    tls: impl Fn() -> Option<ConnectionTls>,
    stop: CancellationToken,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let places = Places::new(MOST_CONNECTIONS, MOST_ANSWERS);
    let handshakes = Handshakes::new();
    let connections = TaskTracker::new();
    let mut clock = tokio::time::interval(Duration::from_secs(1));
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let (stream, peer) = tokio::select! {
            () = stop.cancelled() => break,
            // No work at rest.
            _ = clock.tick(), if !places.is_empty() => {
                let ago = |time| Instant::now().checked_sub(time);
                places.cut_overdue(ago(CONNECTION_TIME + ANSWER_TIME), ago(ANSWER_TIME));
                continue;
            }
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                // A peer that went before it was accepted.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(_) => {
                    // Out of descriptors, mostly: it passes.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        let loopback = stream.local_addr().is_ok_and(|local| is_loopback(local.ip())) && is_loopback(peer.ip());
        let place = places.connect(peer.ip());
        let peer = Peer { address: peer, loopback, certificate: false };
        let tls = tls().map(|tls| (tls, handshakes.clone()));
        let served = connection::serve(Stream::new(stream), peer, app.clone(), tls, place, stop.clone());
        connections.spawn(Box::pin(served));
    }
    drop(listener);
    connections.close();
    let _ = tokio::time::timeout(DRAIN_TIME, connections.wait()).await;
    Ok(())
}
