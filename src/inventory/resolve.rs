//! Names to addresses, afresh each time, through hickory and with the vantage's own sockets, at the vantage's pace.

use std::{
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::{Stream, stream};
use hickory_resolver::{
    ConnectionProvider, PoolContext, Resolver,
    config::{ConnectionConfig, NameServerConfig, ProtocolConfig, ResolveHosts, ResolverConfig},
    net::{
        DnsHandle, NetError,
        runtime::{DnsUdpSocket, RuntimeProvider, TokioHandle, TokioTime, iocompat::AsyncIoTokioAsStd},
        tcp::TcpClientStream,
        udp::UdpClientStream,
        xfer::{DnsExchange, FirstAnswer},
    },
    proto::{
        op::{DnsRequest, DnsResponse},
        rr::{RData, RecordType},
    },
};
use nix::libc;
use tokio::{
    io::ReadBuf,
    net::{TcpStream, UdpSocket},
};

use crate::{pace::Paces, vantage::Vantage};

/// Resolves names against one set of servers. Keeps nothing: no cache, no hosts file, no search list.
pub struct Names {
    resolver: Resolver<Connections>,
}

/// More addresses of one name than this are not probed.
const MOST_ADDRESSES: usize = 256;

/// hickory gives a question up after this, waits for turns included; that a server is silent is told by `timeout`.
const MOST_PATIENCE: Duration = Duration::from_secs(24 * 60 * 60);

impl Names {
    /// Every connect over TCP and every question waits for its turn in `paces`; a question counts as lost after `attempts`
    /// of `timeout` each at every server.
    ///
    /// # Errors
    /// hickory cannot be set up; not expected.
    pub fn new(
        vantage: Arc<dyn Vantage>,
        servers: &[SocketAddr],
        timeout: Duration,
        attempts: u32,
        paces: Paces,
    ) -> Result<Self, NetError> {
        let servers = servers.iter().map(|server| {
            let mut config = NameServerConfig::udp_and_tcp(server.ip());
            config.connections.iter_mut().for_each(|c| c.port = server.port());
            config
        });
        let config = ResolverConfig::from_parts(None, Vec::new(), servers.collect());
        let sockets = Sockets { vantage, handle: TokioHandle::default() };
        let mut builder = Resolver::builder_with_config(config, Connections { sockets, timeout, paces });
        let options = builder.options_mut();
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        options.timeout = MOST_PATIENCE;
        // Those after the first.
        options.attempts = attempts.saturating_sub(1) as usize;
        options.ndots = 0;
        // A server that is asked beside another takes turns for nothing.
        options.num_concurrent_reqs = 1;
        Ok(Self { resolver: builder.build()? })
    }

    /// IPv4 and IPv6 addresses of an absolute name, in order and without duplicates.
    ///
    /// # Errors
    /// Neither family gave an address: the name has none, or the servers did not answer.
    pub async fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, NetError> {
        let (v4, v6) =
            tokio::join!(self.resolver.lookup(name, RecordType::A), self.resolver.lookup(name, RecordType::AAAA));
        let mut addresses: Vec<IpAddr> = Vec::new();
        for lookup in [&v4, &v6].into_iter().flatten() {
            addresses.extend(lookup.answers().iter().filter_map(|record| match &record.data {
                RData::A(a) => Some(IpAddr::V4(a.0)),
                RData::AAAA(a) => Some(IpAddr::V6(a.0)),
                _ => None,
            }));
        }
        addresses.sort_unstable();
        addresses.dedup();
        addresses.truncate(MOST_ADDRESSES);
        match (addresses.is_empty(), v4) {
            (true, Err(error)) => Err(error),
            _ => Ok(addresses),
        }
    }
}

type Boxed<T, E = io::Error> = Pin<Box<dyn Send + Future<Output = Result<T, E>>>>;

/// Connections to servers that keep a pace. hickory's own repeat a question three times a second, and their time runs while it
/// waits for its turn.
#[derive(Clone)]
struct Connections {
    sockets: Sockets,
    timeout: Duration,
    paces: Paces,
}

impl ConnectionProvider for Connections {
    type Conn = Paced;
    type FutureConn = Boxed<Paced, NetError>;
    type RuntimeProvider = Sockets;

    fn new_connection(
        &self,
        ip: IpAddr,
        config: &ConnectionConfig,
        _: &PoolContext,
    ) -> Result<Self::FutureConn, NetError> {
        let Self { sockets, timeout, paces } = self.clone();
        let server = SocketAddr::new(ip, config.port);
        let exchange: Boxed<_, NetError> = match config.protocol {
            ProtocolConfig::Udp => {
                let udp = UdpClientStream::builder(server, sockets).with_timeout(Some(timeout));
                let udp = udp.with_os_port_selection(true).with_max_retries(1);
                Box::pin(async { Ok(udp.exchange()) })
            }
            ProtocolConfig::Tcp => {
                let paces = paces.clone();
                Box::pin(async move {
                    paces.turn().await;
                    TcpClientStream::exchange(server, None, timeout, None, sockets).await
                })
            }
        };
        Ok(Box::pin(async { Ok(Paced { exchange: exchange.await?, paces }) }))
    }

    fn runtime_provider(&self) -> &Sockets {
        &self.sockets
    }
}

/// A connection whose questions wait for their turns, before their time begins.
#[derive(Clone)]
struct Paced {
    exchange: DnsExchange<Sockets>,
    paces: Paces,
}

impl DnsHandle for Paced {
    type Response = Pin<Box<dyn Send + Stream<Item = Result<DnsResponse, NetError>>>>;
    type Runtime = Sockets;

    fn send(&self, request: DnsRequest) -> Self::Response {
        let Self { exchange, paces } = self.clone();
        Box::pin(stream::once(async move {
            paces.turn().await;
            exchange.send(request).first_answer().await
        }))
    }
}

/// hickory's view of a vantage.
#[derive(Clone)]
struct Sockets {
    vantage: Arc<dyn Vantage>,
    handle: TokioHandle,
}

impl RuntimeProvider for Sockets {
    type Handle = TokioHandle;
    type Timer = TokioTime;
    type Udp = Udp;
    type Tcp = AsyncIoTokioAsStd<TcpStream>;

    fn create_handle(&self) -> TokioHandle {
        self.handle.clone()
    }

    fn connect_tcp(&self, server: SocketAddr, _: Option<SocketAddr>, timeout: Option<Duration>) -> Boxed<Self::Tcp> {
        let vantage = self.vantage.clone();
        Box::pin(async move {
            let socket = vantage.tcp(server)?;
            match socket.connect(&server.into()) {
                Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
                _ => {}
            }
            let stream = TcpStream::from_std(socket.into())?;
            tokio::time::timeout(timeout.unwrap_or(Duration::from_secs(5)), stream.writable()).await??;
            stream.take_error()?.map_or(Ok(AsyncIoTokioAsStd(stream)), Err)
        })
    }

    fn bind_udp(&self, _: SocketAddr, server: SocketAddr) -> Boxed<Self::Udp> {
        // Ready at once: hickory opens another socket for each poll otherwise (hickory#2110).
        let socket = self.vantage.udp(server).and_then(|s| UdpSocket::from_std(s.into()));
        Box::pin(std::future::ready(socket.map(|socket| Udp { socket, server })))
    }
}

/// A connected UDP socket.
struct Udp {
    socket: UdpSocket,
    server: SocketAddr,
}

impl DnsUdpSocket for Udp {
    type Time = TokioTime;

    fn poll_recv_from(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<(usize, SocketAddr)>> {
        let mut buffer = ReadBuf::new(buf);
        ready!(self.socket.poll_recv(cx, &mut buffer))?;
        Poll::Ready(Ok((buffer.filled().len(), self.server)))
    }

    fn poll_send_to(&self, cx: &mut Context<'_>, buf: &[u8], _: SocketAddr) -> Poll<io::Result<usize>> {
        self.socket.poll_send(cx, buf)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{TcpListener, UdpSocket as StdUdpSocket},
        thread,
    };

    use hickory_resolver::proto::{
        op::Message,
        rr::{Record, rdata::A},
    };
    use tokio::time::Instant;

    use super::*;
    use crate::{pace::Pace, vantage::Own};

    const TIMEOUT: Duration = Duration::from_millis(150);

    /// An answer over TCP; over UDP it is cut.
    fn answer(query: &[u8], cut: bool) -> Vec<u8> {
        let query = Message::from_vec(query).unwrap();
        let mut response = query.clone().into_response();
        response.metadata.truncation = cut;
        let asked = &query.queries[0];
        if !cut && asked.query_type() == RecordType::A {
            response.answers.push(Record::from_rdata(asked.name().clone(), 1, RData::A(A::new(192, 0, 2, 1))));
        }
        response.to_vec().unwrap()
    }

    /// A server on loopback that answers over TCP only, and how many questions it gets over UDP.
    fn server() -> (SocketAddr, std::sync::mpsc::Receiver<()>) {
        // A port that is free over TCP may be taken over UDP.
        let bound = std::iter::repeat_with(|| {
            let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = tcp.local_addr().unwrap();
            Some((tcp, address, StdUdpSocket::bind(address).ok()?))
        });
        let (tcp, address, udp) = bound.take(100).flatten().next().unwrap();
        let (asked, questions) = std::sync::mpsc::channel();
        thread::spawn(move || {
            let mut query = [0; 512];
            while let Ok((length, from)) = udp.recv_from(&mut query) {
                udp.send_to(&answer(&query[..length], true), from).unwrap();
                let _ = asked.send(());
            }
        });
        thread::spawn(move || {
            for mut stream in tcp.incoming().map_while(Result::ok) {
                thread::spawn(move || {
                    let mut length = [0; 2];
                    while stream.read_exact(&mut length).is_ok() {
                        let mut query = vec![0; u16::from_be_bytes(length).into()];
                        stream.read_exact(&mut query).unwrap();
                        let answer = answer(&query, false);
                        let length = u16::try_from(answer.len()).unwrap().to_be_bytes();
                        stream.write_all(&[&length[..], &answer].concat()).unwrap();
                    }
                });
            }
        });
        (address, questions)
    }

    #[tokio::test]
    async fn waiting_for_turns_is_no_silence_whatever_carries_the_question() {
        let (server, questions) = server();
        // Two questions over UDP, and over TCP again with a connect at least: none before the turn of the last is over.
        let paces = Paces::new([Arc::new(Pace::per_second(5))]);
        let names = Names::new(Arc::new(Own::new()), &[server], TIMEOUT, 1, paces).unwrap();
        let began = Instant::now();
        assert_eq!(names.addresses("ledger.example.").await.unwrap(), [IpAddr::from([192, 0, 2, 1])]);
        assert_eq!(questions.try_iter().count(), 2);
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(4 * 200 - 50), "five turns: {took:?}");
    }

    #[tokio::test]
    async fn a_silent_server_is_asked_so_often_and_no_more() {
        let silent = StdUdpSocket::bind("127.0.0.1:0").unwrap();
        silent.set_nonblocking(true).unwrap();
        let timeout = Duration::from_millis(500);
        let names = Names::new(
            Arc::new(Own::new()),
            &[silent.local_addr().unwrap()],
            timeout,
            2,
            Paces::new([Arc::new(Pace::per_second(1_000))]),
        );
        let began = Instant::now();
        names.unwrap().addresses("ledger.example.").await.unwrap_err();
        assert!(began.elapsed() >= 2 * timeout, "{:?}", began.elapsed());
        let asked = std::iter::from_fn(|| silent.recv(&mut [0; 512]).ok()).count();
        assert_eq!(asked, 2 * 2, "A and AAAA");
    }
}
