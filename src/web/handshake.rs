//! TLS handshakes, in turns: a signature costs the thread more than all else that a newcomer may ask for.

use std::{future::poll_fn, io, pin::Pin, sync::Arc, task::Poll};

use rustls::ServerConfig;
use tokio::sync::Semaphore;
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::stream::Stream;

/// Handshakes that go on between two looks at who else came: what piles up is sent away by newcomers before it costs a signature.
const AT_ONCE: usize = 4;

/// The turns of one listener, first come, first served.
#[derive(Clone, Debug)]
pub struct Handshakes(Arc<Semaphore>);

impl Handshakes {
    /// Nobody has a turn.
    pub fn new() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }

    /// Shakes hands. Whoever waits for the peer has no turn meanwhile.
    ///
    /// # Errors
    /// The peer cannot speak TLS, or went.
    pub async fn accept(&self, stream: Stream, config: Arc<ServerConfig>) -> io::Result<TlsStream<Stream>> {
        let mut accept = TlsAcceptor::from(config).accept(stream);
        loop {
            // It has nothing to write that the kernel would not take, so a peer that was not heard is what it waits for.
            if let Some(stream) = accept.get_ref() {
                stream.readable().await?;
            }
            let _turn = self.0.acquire().await.map_err(io::Error::other)?;
            tokio::task::yield_now().await;
            if let Poll::Ready(shaken) = poll_fn(|cx| Poll::Ready(Pin::new(&mut accept).poll(cx))).await {
                return shaken;
            }
        }
    }
}
