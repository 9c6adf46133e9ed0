//! Names to addresses, afresh each time, through hickory and with the vantage's own sockets.

use std::{
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use hickory_resolver::{
    Resolver,
    config::{NameServerConfig, ResolveHosts, ResolverConfig},
    net::{
        NetError,
        runtime::{DnsUdpSocket, RuntimeProvider, TokioHandle, TokioTime, iocompat::AsyncIoTokioAsStd},
    },
    proto::rr::{RData, RecordType},
};
use nix::libc;
use tokio::{
    io::ReadBuf,
    net::{TcpStream, UdpSocket},
};

use crate::vantage::Vantage;

/// Resolves names against one set of servers. Keeps nothing: no cache, no hosts file, no search list.
pub struct Names {
    resolver: Resolver<Sockets>,
}

/// More addresses of one name than this are not probed.
const MOST_ADDRESSES: usize = 256;

impl Names {
    /// # Errors
    /// hickory cannot be set up; not expected.
    pub fn new(
        vantage: Arc<dyn Vantage>,
        servers: &[SocketAddr],
        timeout: Duration,
        attempts: u32,
    ) -> Result<Self, NetError> {
        let servers = servers.iter().map(|server| {
            let mut config = NameServerConfig::udp_and_tcp(server.ip());
            config.connections.iter_mut().for_each(|c| c.port = server.port());
            config
        });
        let config = ResolverConfig::from_parts(None, Vec::new(), servers.collect());
        let mut builder = Resolver::builder_with_config(config, Sockets { vantage, handle: TokioHandle::default() });
        let options = builder.options_mut();
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        options.timeout = timeout;
        options.attempts = attempts as usize;
        options.ndots = 0;
        options.os_port_selection = true;
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

/// hickory's view of a vantage.
#[derive(Clone)]
struct Sockets {
    vantage: Arc<dyn Vantage>,
    handle: TokioHandle,
}

type Boxed<T> = Pin<Box<dyn Send + Future<Output = io::Result<T>>>>;

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
