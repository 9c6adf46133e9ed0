//! TLS handshakes, in turns: a signature costs the thread more than all else that a newcomer may ask for.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use rustls::ServerConfig;
use tokio::{sync::Semaphore, time::timeout};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::stream::Stream;

/// Handshakes that go on between two looks at who else came: what piles up is sent away by newcomers before it costs a signature.
const AT_ONCE: usize = 4;

/// How long a handshake may wait for its peer in all. Waiting for a turn and computing do not count: under a flood, or on a busy
/// machine, they may take longer, and a peer that answers must not lose its connection because of them.
const PEER_TIME: Duration = Duration::from_secs(5);

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
    /// The peer cannot speak TLS, went, or was waited for too long.
    pub async fn accept(&self, stream: Stream, config: Arc<ServerConfig>) -> io::Result<TlsStream<Stream>> {
        let mut accept = TlsAcceptor::from(config).accept(stream);
        let mut left = PEER_TIME;
        loop {
            // It has nothing to write that the kernel would not take, so a peer that was not heard is what it waits for.
            if let Some(stream) = accept.get_ref() {
                let began = Instant::now();
                timeout(left, stream.readable()).await??;
                left = left.saturating_sub(began.elapsed());
            }
            let _turn = self.0.acquire().await.map_err(io::Error::other)?;
            tokio::task::yield_now().await;
            if let Poll::Ready(shaken) = poll_fn(|cx| Poll::Ready(Pin::new(&mut accept).poll(cx))).await {
                return shaken;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};
    use rustls::{
        ClientConfig, RootCertStore,
        pki_types::{PrivateKeyDer, ServerName},
    };
    use tokio::net::{TcpListener, TcpStream};
    use tokio_rustls::TlsConnector;

    use super::*;

    fn configs() -> (Arc<ServerConfig>, Arc<ClientConfig>) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["127.0.0.1".into()]).unwrap().self_signed(&key).unwrap();
        let mut trust = RootCertStore::empty();
        trust.add(certificate.der().clone()).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let server =
            ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key);
        let client = ClientConfig::builder().with_root_certificates(trust).with_no_client_auth();
        (Arc::new(server.unwrap()), Arc::new(client))
    }

    async fn connected() -> (TcpStream, Stream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (peer, Stream::new(listener.accept().await.unwrap().0))
    }

    #[tokio::test]
    async fn waiting_for_a_turn_costs_the_peer_no_time() {
        let ((server, client), handshakes) = (configs(), Handshakes::new());
        let (peer, stream) = connected().await;
        let turns = handshakes.0.clone().acquire_many_owned(u32::try_from(AT_ONCE).unwrap()).await.unwrap();
        let serving = tokio::spawn({
            let handshakes = handshakes.clone();
            async move { handshakes.accept(stream, server).await.map(drop) }
        });
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let shaking = tokio::spawn(TlsConnector::from(client).connect(name, peer));
        tokio::time::sleep(PEER_TIME + Duration::from_millis(500)).await;
        assert!(!serving.is_finished());
        drop(turns);
        shaking.await.unwrap().unwrap();
        serving.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_silent_peer_is_not_waited_for() {
        let ((server, _), (_peer, stream)) = (configs(), connected().await);
        let began = Instant::now();
        let error = Handshakes::new().accept(stream, server).await.map(drop).unwrap_err();
        assert!(error.kind() == io::ErrorKind::TimedOut && began.elapsed() >= PEER_TIME, "{error}");
    }
}
