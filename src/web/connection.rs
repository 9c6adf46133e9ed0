//! One connection: its handshake, its requests, its limits.

use std::{
    convert::Infallible,
    pin::pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    BoxError, Router,
    body::{Bytes, HttpBody},
    http::Request,
    response::Response,
};
use futures_util::future::{BoxFuture, FutureExt};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use super::{Peer, handshake::Handshakes, live::ConnectionTls, places::Connected, stream::Stream};

/// Time for a request's headers, and what a connection may idle before them.
const HEADER_TIME: Duration = Duration::from_secs(10);
/// Most bytes of a request's headers, and most that waits unread or unsent in a connection's buffer.
const MOST_HEADER_BYTES: u32 = 16 << 10;
/// Most headers of a request.
const MOST_HEADERS: usize = 100;
/// A connection is asked to end after this: between two requests, so that no scraper notices.
pub const CONNECTION_TIME: Duration = Duration::from_secs(120);
/// HTTP/2: requests at once on a connection.
const MOST_STREAMS: u32 = 8;
/// HTTP/2: streams that the peer gave up, or that were refused, before the connection is.
const MOST_RESETS: usize = 32;
/// HTTP/2: what a peer may send before it is read, in bytes; no request has a body that is.
const WINDOW: u32 = 64 << 10;
/// HTTP/2: silence after which the peer is asked whether it is still there, and the time for its answer.
const PING_TIME: Duration = Duration::from_secs(10);

/// Serves until the peer, a limit or `stop` ends it.
pub async fn serve(
    stream: Stream,
    mut peer: Peer,
    app: Router,
    tls: Option<(ConnectionTls, Handshakes)>,
    place: Connected,
    stop: CancellationToken,
) {
    let Some((tls, handshakes)) = tls else {
        return answer(stream, Answerer { app, peer, place: Arc::new(place) }, Speaks::Http1, stop).await;
    };
    let shaken = tokio::select! {
        biased;
        () = place.cut().cancelled() => return,
        shaken = handshakes.accept(stream, tls.config) => shaken,
    };
    // A peer that cannot speak TLS, or not in time, hears no more.
    let Ok(stream) = shaken else { return };
    let session = stream.get_ref().1;
    peer.certificate = tls.verifies && session.peer_certificates().is_some();
    let speaks = if session.alpn_protocol() == Some(b"h2") { Speaks::Http2 } else { Speaks::Http1 };
    answer(stream, Answerer { app, peer, place: Arc::new(place) }, speaks, stop).await;
}

/// What was agreed on: HTTP/2 in the TLS handshake only.
enum Speaks {
    Http1,
    Http2,
}

async fn answer<S>(stream: S, answerer: Answerer, speaks: Speaks, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let place = answerer.place.clone();
    let builder = builder(&speaks);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(answerer)));
    let mut enough = pin!(async {
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(CONNECTION_TIME) => {}
        }
    });
    let mut ending = false;
    loop {
        tokio::select! {
            biased;
            () = place.cut().cancelled() => return,
            () = enough.as_mut(), if !ending => {
                ending = true;
                connection.as_mut().graceful_shutdown();
            }
            // How a scraper ends its connection is its own affair.
            _ = connection.as_mut() => return,
        }
    }
}

fn builder(speaks: &Speaks) -> auto::Builder<TokioExecutor> {
    let builder = auto::Builder::new(TokioExecutor::new());
    match speaks {
        Speaks::Http1 => {
            let mut builder = builder.http1_only();
            builder
                .http1()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIME)
                .max_buf_size(MOST_HEADER_BYTES as usize)
                .max_headers(MOST_HEADERS);
            builder
        }
        Speaks::Http2 => {
            let mut builder = builder.http2_only();
            builder
                .http2()
                .timer(TokioTimer::new())
                .max_concurrent_streams(MOST_STREAMS)
                .max_header_list_size(MOST_HEADER_BYTES)
                .max_pending_accept_reset_streams(MOST_RESETS)
                .max_local_error_reset_streams(MOST_RESETS)
                .initial_stream_window_size(WINDOW)
                .initial_connection_window_size(WINDOW)
                .max_send_buf_size(MOST_HEADER_BYTES as usize)
                .keep_alive_interval(PING_TIME)
                .keep_alive_timeout(PING_TIME);
            builder
        }
    }
}

/// Answers the requests of one connection, each in a place of its own.
#[derive(Clone)]
struct Answerer {
    app: Router,
    peer: Peer,
    place: Arc<Connected>,
}

impl<B> tower::Service<Request<B>> for Answerer
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let answering = self.place.answer();
        request.extensions_mut().insert(self.peer);
        let answer = tower::Service::call(&mut self.app, request);
        answer.map(|answer| answer.map(|answer| answer.map(|body| answering.hold(body)))).boxed()
    }
}
