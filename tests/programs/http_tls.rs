//! Clients that want the HTTP server down, over TLS and HTTP/2: the listener as a library, with a page as long as all buffers together.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use axum::{Router, routing::get};
use http::Request;
use rcgen::{CertificateParams, KeyPair};
use segprobe::web::{
    listener::{self, MOST_CONNECTIONS},
    live::ConnectionTls,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::{MissedTickBehavior, timeout},
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, ClientConnection, Error, RootCertStore, ServerConfig, SignatureAlgorithm, SignatureScheme,
        pki_types::{PrivateKeyDer, ServerName},
        server::{ClientHello, ResolvesServerCert},
        sign::{CertifiedKey, Signer, SigningKey},
    },
};
use tokio_util::sync::CancellationToken;

use crate::support::{SOON, loopback, slowdown};

const PAGE: usize = 1 << 20;
/// What an honest scraper is promised.
const A_SECOND: Duration = Duration::from_secs(1);

/// A listener, and what trusts its certificate.
struct Served {
    address: SocketAddr,
    trust: RootCertStore,
    stop: CancellationToken,
}

/// Runs a test and its servers on a runtime of their own.
fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(test);
}

impl Served {
    fn start(over_tls: bool) -> Self {
        Self::start_with(over_tls, |_| {})
    }

    fn start_with(over_tls: bool, set: impl FnOnce(&mut ServerConfig)) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["127.0.0.1".into()]).unwrap().self_signed(&key).unwrap();
        let mut trust = RootCertStore::empty();
        trust.add(certificate.der().clone()).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let mut tls = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        tls.alpn_protocols = vec![b"h2".into(), b"http/1.1".into()];
        set(&mut tls);
        let tls = over_tls.then(|| ConnectionTls { config: Arc::new(tls), verifies: false });

        let listener = listener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let app = Router::new().route("/", get(|| async { "x".repeat(PAGE) }));
        tokio::spawn(listener::serve(listener, app, move || tls.clone(), stop.clone()));
        Self { address, trust, stop }
    }

    async fn tcp(&self, from: Ipv4Addr) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((from, 0).into()).unwrap();
        timeout(SOON, socket.connect(self.address)).await.unwrap().unwrap()
    }

    async fn tls(&self, from: Ipv4Addr, protocol: &[u8]) -> std::io::Result<TlsStream<TcpStream>> {
        let mut config = ClientConfig::builder().with_root_certificates(self.trust.clone()).with_no_client_auth();
        config.alpn_protocols = if protocol.is_empty() { Vec::new() } else { vec![protocol.to_vec()] };
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let tcp = self.tcp(from).await;
        timeout(SOON, TlsConnector::from(Arc::new(config)).connect(name, tcp)).await.unwrap()
    }

    /// A scrape over HTTP/1.1 and TLS, and the time that it took.
    async fn scrape(&self, from: Ipv4Addr, protocol: &[u8]) -> Duration {
        let began = Instant::now();
        let mut stream = self.tls(from, protocol).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        timeout(SOON, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 200 ") && answer.len() > PAGE, "{} bytes", answer.len());
        began.elapsed()
    }

    /// Scrapes beside an attack: half of them are as quick as promised, by the time that this machine has for the server.
    async fn is_well(&self, what: &str, honest: Ipv4Addr) {
        let (mut took, mut busy) = (Vec::new(), 0.0);
        for _ in 0..9 {
            took.push(self.scrape(honest, b"http/1.1").await);
            busy += slowdown() / 9.0;
        }
        took.sort();
        assert!(
            took[took.len() / 2] < A_SECOND.mul_f64(busy),
            "{what}: {took:?} on a machine that is {busy} times slower"
        );
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn request() -> Request<()> {
    Request::get("https://127.0.0.1/").body(()).unwrap()
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A client that reads as little as it says.
async fn http2(
    stream: TlsStream<TcpStream>,
    window: u32,
) -> (h2::client::SendRequest<bytes::Bytes>, JoinSet<Result<(), h2::Error>>) {
    let (client, connection) =
        h2::client::Builder::new().initial_window_size(window).handshake::<_, bytes::Bytes>(stream).await.unwrap();
    let mut ends = JoinSet::new();
    ends.spawn(connection);
    (client, ends)
}

#[test]
fn the_handshake_says_which_http_is_spoken() {
    run(async {
        let served = Served::start(true);
        let from = loopback();
        for protocol in [b"http/1.1".as_slice(), b""] {
            served.scrape(from, protocol).await;
        }
        let (mut client, _ends) = http2(served.tls(from, b"h2").await.unwrap(), 1 << 20).await;
        let (answer, _) = client.send_request(request(), true).unwrap();
        let answer = timeout(SOON, answer).await.unwrap().unwrap();
        assert_eq!(answer.status(), 200);
        let (mut body, mut length) = (answer.into_body(), 0);
        while let Some(data) = timeout(SOON, body.data()).await.unwrap() {
            let read = data.unwrap().len();
            body.flow_control().release_capacity(read).unwrap();
            length += read;
        }
        assert_eq!(length, PAGE);
        // Headers without measure are refused.
        let mut long = request();
        for n in 0..40 {
            let name = http::HeaderName::from_bytes(format!("x-{n}").as_bytes()).unwrap();
            long.headers_mut().insert(name, "x".repeat(1_000).parse().unwrap());
        }
        let (answer, _) = client.send_request(long, true).unwrap();
        let refused = timeout(SOON, answer).await.unwrap();
        assert!(refused.is_err() || refused.as_ref().is_ok_and(|a| a.status() == 431), "{refused:?}");
    });
}

#[test]
fn plain_http_knows_no_http2() {
    run(async {
        let served = Served::start(false);
        let mut stream = served.tcp(loopback()).await;
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
        let mut answer = Vec::new();
        // A reset is as good.
        let _ = timeout(SOON, stream.read_to_end(&mut answer)).await.unwrap();
        let text = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || text.starts_with("HTTP/1.1 4") || text.starts_with("HTTP/1.1 5"), "{text:?}");
    });
}

/// Resets that one connection is never granted: more than fit into all buffers, 29 bytes each.
const MOST: u32 = 1_000_000;

#[test]
fn streams_that_are_reset_at_once_end_their_connection() {
    run(async {
        let served = Arc::new(Served::start(true));
        let (attacker, honest) = (loopback(), loopback());
        let mut attacks = JoinSet::new();
        for _ in 0..4 {
            let served = served.clone();
            attacks.spawn(async move {
                let mut stream = served.tls(attacker, b"h2").await.unwrap();
                stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
                stream.write_all(&frame(4, 0, 0, &[])).await.unwrap();
                let mut resets = 0;
                while resets < MOST {
                    // A hundred GETs, as the static table has them, and as many resets.
                    let ids = (resets..resets + 100).map(|n| 2 * n + 1);
                    let pairs = ids.map(|id| {
                        [frame(1, 5, id, &[0x82, 0x87, 0x84, 0x41, 1, b'x']), frame(3, 0, id, &[0, 0, 0, 8])]
                    });
                    let bytes = pairs.collect::<Vec<_>>().concat().concat();
                    if timeout(SOON, stream.write_all(&bytes)).await.unwrap().is_err() {
                        break;
                    }
                    resets += 100;
                }
                resets
            });
        }
        served.is_well("resets", honest).await;
        while let Some(attack) = attacks.join_next().await {
            let resets = attack.unwrap();
            assert!(resets < MOST, "{resets} resets were taken");
        }
    });
}

#[test]
fn who_opens_streams_and_reads_none_loses_the_connection() {
    run(async {
        let served = Served::start(true);
        let (attacker, honest) = (loopback(), loopback());
        let (mut ends, mut clients) = (JoinSet::new(), Vec::new());
        // 24 answers for 16 places.
        for _ in 0..3 {
            let (mut client, mut its_end) = http2(served.tls(attacker, b"h2").await.unwrap(), 10).await;
            for _ in 0..8 {
                client = client.ready().await.unwrap();
                let (answer, _) = client.send_request(request(), true).unwrap();
                clients.push(tokio::spawn(async move { timeout(SOON, answer).await.unwrap() }));
            }
            ends.spawn(async move { timeout(SOON, its_end.join_next()).await.unwrap().unwrap().unwrap() });
        }
        served.is_well("unread streams", honest).await;
        let first = ends.join_next().await.unwrap().unwrap();
        assert!(first.is_err(), "it was not cut: {first:?}");
    });
}

#[test]
fn handshakes_that_never_end_hold_nobody_up() {
    run(async {
        let served = Served::start(true);
        let (attacker, honest) = (loopback(), loopback());
        let mut silent = Vec::new();
        for _ in 0..300 {
            let mut stream = served.tcp(attacker).await;
            // The beginning of a handshake record that announces more than ever comes; it may be cut already.
            let _ = stream.write_all(&[22, 3, 1, 2, 0, 1]).await;
            silent.push(stream);
        }
        served.is_well("handshakes", honest).await;
        for mut stream in silent {
            // A reset, or an alert and the end.
            let _ = timeout(SOON, stream.read_to_end(&mut Vec::new())).await.expect("it is cut after 5 s");
        }
    });
}

/// What a signature takes of the server's thread here: as much as a long RSA key's on a slow machine.
const SIGNATURE: Duration = Duration::from_millis(4);

/// A key that takes its time.
#[derive(Debug)]
struct Slow<T>(T);

impl ResolvesServerCert for Slow<Arc<dyn ResolvesServerCert>> {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let pair = self.0.resolve(hello)?;
        Some(Arc::new(CertifiedKey::new(pair.cert.clone(), Arc::new(Slow(pair.key.clone())))))
    }
}

impl SigningKey for Slow<Arc<dyn SigningKey>> {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        Some(Box::new(Slow(self.0.choose_scheme(offered)?)))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.0.algorithm()
    }
}

impl Signer for Slow<Box<dyn Signer>> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        std::thread::sleep(SIGNATURE);
        self.0.sign(message)
    }

    fn scheme(&self) -> SignatureScheme {
        self.0.scheme()
    }
}

/// Whether the server has not cut a connection; what it has written is thrown away.
fn is_open(stream: &TcpStream) -> bool {
    let mut answer = [0; 4096];
    match stream.try_read(&mut answer) {
        Ok(read) => read > 0,
        Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
    }
}

/// Many times more handshakes than the server could sign: newcomers are let in all the same, and the flood goes before it is signed for.
#[test]
fn a_flood_of_whole_handshakes_holds_nobody_up() {
    run(async {
        let served =
            Arc::new(Served::start_with(true, |tls| tls.cert_resolver = Arc::new(Slow(tls.cert_resolver.clone()))));
        let (attacker, honest) = (loopback(), loopback());
        let trusting = ClientConfig::builder().with_root_certificates(served.trust.clone()).with_no_client_auth();
        let mut client = ClientConnection::new(Arc::new(trusting), "127.0.0.1".try_into().unwrap()).unwrap();
        let mut hello = Vec::new();
        client.write_tls(&mut hello).unwrap();
        let (flooding, cut) = (served.clone(), Arc::new(AtomicUsize::new(0)));
        let (counted, end) = (cut.clone(), CancellationToken::new());
        let (ended, end_it) = (end.clone(), end.drop_guard());
        let flood = async move {
            let mut held: Vec<TcpStream> = Vec::new();
            let mut clock = tokio::time::interval(Duration::from_millis(10));
            // A busy machine gets no burst for what it missed.
            clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                clock.tick().await;
                let before = held.len();
                held.retain(is_open);
                counted.fetch_add(before - held.len(), Ordering::Relaxed);
                // Twice as many as there are places: faster than the server lets them in, they would only fill the kernel's queue.
                for _ in 0..10.min((2 * MOST_CONNECTIONS).saturating_sub(held.len())) {
                    let mut stream = flooding.tcp(attacker).await;
                    // It may be cut already.
                    let _ = stream.write_all(&hello).await;
                    held.push(stream);
                }
            }
        };
        // Attackers are elsewhere: they may take the server's time, but not this machine's.
        let elsewhere = thread::spawn(move || {
            rustix::process::setpriority_process(None, 19).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(ended.run_until_cancelled(flood));
        });
        let full = async {
            while cut.load(Ordering::Relaxed) < MOST_CONNECTIONS {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(SOON, full).await.expect("the flood has more connections than there are places");
        served.is_well("whole handshakes", honest).await;
        drop(end_it);
        elsewhere.join().unwrap();
    });
}
