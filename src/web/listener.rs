//! The HTTP server's sockets: connections, their limits, and a good end.

use std::{io, sync::Arc, time::Duration};

use axum::{Extension, Router};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;

use super::{Peer, Web, is_loopback};

/// Connections served at once; more wait in the kernel's backlog.
const MOST_CONNECTIONS: usize = 64;
/// Time for a TLS handshake.
const HANDSHAKE_TIME: Duration = Duration::from_secs(5);
/// Time for a request's headers.
const HEADER_TIME: Duration = Duration::from_secs(10);
/// A connection's whole life: a reader of one byte a second is cut.
const CONNECTION_TIME: Duration = Duration::from_secs(120);
/// Time that open requests get at the end.
const DRAIN_TIME: Duration = Duration::from_secs(5);

/// Binds `address`; `:port` means all addresses, IPv6 and IPv4.
///
/// # Errors
/// What the system said; the address is in the caller's hands.
pub fn bind(address: &str) -> io::Result<std::net::TcpListener> {
    let listener = match address.strip_prefix(':') {
        None => std::net::TcpListener::bind(address)?,
        Some(port) => {
            let port: u16 = port.parse().map_err(io::Error::other)?;
            // A machine without IPv6 has no `::` to bind.
            std::net::TcpListener::bind(("::", port)).or_else(|_| std::net::TcpListener::bind(("0.0.0.0", port)))?
        }
    };
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Serves until told to stop, then lets open requests finish for a short while.
///
/// # Errors
/// The listener cannot be used.
pub async fn serve(listener: std::net::TcpListener, app: Router, web: Web, stop: CancellationToken) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let app = web.guard(app);
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { break };
        let (stream, peer) = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(_) => {
                    // Out of descriptors, mostly: it passes.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        let loopback = stream.local_addr().is_ok_and(|local| is_loopback(local.ip())) && is_loopback(peer.ip());
        let peer = Peer { address: peer, loopback, certificate: false };
        let (app, web, watcher) = (app.clone(), web.clone(), graceful.watcher());
        tokio::spawn(async move {
            let connection = async {
                let Some(tls) = web.tls() else {
                    let service = TowerToHyperService::new(app.layer(Extension(peer)));
                    let connection = http().http1_only().serve_connection(TokioIo::new(stream), service).into_owned();
                    let _ = watcher.watch(connection).await;
                    return;
                };
                let verifies = web.verifies(&tls);
                let Some(stream) = shake_hands(stream, tls).await else { return };
                let (_, session) = stream.get_ref();
                let peer = Peer { certificate: verifies && session.peer_certificates().is_some(), ..peer };
                let service = TowerToHyperService::new(app.layer(Extension(peer)));
                let http =
                    if session.alpn_protocol() == Some(b"h2") { http().http2_only() } else { http().http1_only() };
                let _ = watcher.watch(http.serve_connection(TokioIo::new(stream), service).into_owned()).await;
            };
            // How a scraper ends its connection is its own affair.
            let _ = tokio::time::timeout(CONNECTION_TIME, connection).await;
            drop(place);
        });
    }
    let _ = tokio::time::timeout(DRAIN_TIME, graceful.shutdown()).await;
    Ok(())
}

fn http() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIME).max_buf_size(32 << 10);
    builder
}

async fn shake_hands(stream: TcpStream, tls: Arc<rustls::ServerConfig>) -> Option<TlsStream<TcpStream>> {
    tokio::time::timeout(HANDSHAKE_TIME, TlsAcceptor::from(tls).accept(stream)).await.ok()?.ok()
}
