//! Where sockets are born. Only this room makes sockets; a probe is handed a [`Vantage`] and never knows where it is.

mod in_pod;
mod listeners;
mod netns;
pub mod privileges;

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use nix::{
    ifaddrs::getifaddrs,
    sys::socket::{SockaddrStorage, setsockopt, sockopt},
};
use socket2::{Domain, Protocol, Socket, Type};

pub use in_pod::InPod;
pub use listeners::{Listeners, ListenersError, sock_diag};
pub use netns::{EnterError, Netns, NetnsId};

use crate::model::Family;

/// Makes the sockets of one place in the network: the own pod, another source address, or another pod's namespace.
///
/// Sockets are non-blocking, closed on exec, and hear ICMP errors (`IP_RECVERR`, `IPV6_RECVERR`): without that the
/// kernel reports an ICMPv6 rejection only after the second SYN, one second late, and without its type.
pub trait Vantage: Send + Sync + 'static {
    /// A TCP socket that can connect to `peer`. Errors are local: descriptors, memory, an address that went away.
    fn tcp(&self, peer: SocketAddr) -> io::Result<Socket>;
    /// A UDP socket that is connected to `peer`, so that it hears that nobody listens there.
    fn udp(&self, peer: SocketAddr) -> io::Result<Socket>;
    /// Takes a TCP socket back from whoever connected it to `peer` and heard nothing, for another connect. Here it is closed.
    fn take_back(&self, _socket: Socket, _peer: SocketAddr) {}
    /// False where this vantage has no address of the family, so that nothing of it can be measured.
    fn has(&self, family: Family) -> bool;
}

/// The network that the agent itself lives in, optionally from chosen source addresses.
#[derive(Clone, Debug, Default)]
pub struct Own {
    source: Option<[Option<SocketAddr>; 2]>,
}

impl Own {
    /// The kernel chooses the source address.
    pub const fn new() -> Self {
        Self { source: None }
    }

    /// Binds to these addresses, at most one of each family (the last wins); a family without one is not available.
    pub fn from_addresses(addresses: &[IpAddr]) -> Self {
        let of = |family| addresses.iter().rfind(|a| Family::of(**a) == family).map(|a| SocketAddr::new(*a, 0));
        Self { source: Some([of(Family::V4), of(Family::V6)]) }
    }

    /// The addresses of the calling thread's network, without those of loopback.
    ///
    /// # Errors
    /// What `getifaddrs(3)` said.
    pub fn addresses() -> io::Result<Vec<IpAddr>> {
        let ip = |address: SockaddrStorage| match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
            (Some(v4), _) => Some(IpAddr::V4(v4.ip())),
            (_, Some(v6)) => Some(IpAddr::V6(v6.ip())),
            _ => None,
        };
        let all = getifaddrs()?.filter_map(|interface| interface.address.and_then(ip));
        Ok(all.filter(|ip| !ip.is_loopback()).collect())
    }

    fn socket(&self, peer: SocketAddr, kind: Kind) -> io::Result<Socket> {
        let socket = born(Family::of(peer.ip()), kind)?;
        if let Some(sources) = &self.source {
            let source = sources[usize::from(peer.is_ipv6())].ok_or(io::ErrorKind::AddrNotAvailable)?;
            // Without this a bind takes a port of its own for each connect, and 28,000 of them are all there are.
            setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
            socket.bind(&source.into())?;
        }
        Ok(socket)
    }
}

impl Vantage for Own {
    fn tcp(&self, peer: SocketAddr) -> io::Result<Socket> {
        self.socket(peer, Kind::Tcp)
    }

    fn udp(&self, peer: SocketAddr) -> io::Result<Socket> {
        let socket = self.socket(peer, Kind::Udp)?;
        socket.connect(&peer.into())?;
        Ok(socket)
    }

    fn has(&self, family: Family) -> bool {
        self.source.is_none_or(|sources| sources[usize::from(family == Family::V6)].is_some())
    }
}

/// What a socket speaks.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Tcp,
    Udp,
}

/// Makes a socket in the network namespace of the calling thread, as [`Vantage`] promises it. There it stays.
fn born(family: Family, kind: Kind) -> io::Result<Socket> {
    let domain = match family {
        Family::V4 => Domain::IPV4,
        Family::V6 => Domain::IPV6,
    };
    let (kind, protocol) = match kind {
        Kind::Tcp => (Type::STREAM, Protocol::TCP),
        Kind::Udp => (Type::DGRAM, Protocol::UDP),
    };
    let socket = Socket::new(domain, kind.nonblocking().cloexec(), Some(protocol))?;
    match family {
        Family::V4 => setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?,
        Family::V6 => setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?,
    }
    Ok(socket)
}

/// Raises the soft limit of open descriptors to the hard one and returns it: a sweep needs one for each connect in flight.
///
/// # Errors
/// What `getrlimit(2)` or `setrlimit(2)` said.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(hard)
}

/// True when this kernel queues the ICMP errors of a connect (Linux 5.8 and newer; gVisor answers as an older one).
pub fn kernel_gives_icmp() -> bool {
    nix::sys::utsname::uname().is_ok_and(|u| release_gives_icmp(&u.release().to_string_lossy()))
}

fn release_gives_icmp(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (5, 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn icmp_detail_by_kernel_release() {
        for (release, expected) in [
            ("6.18.44-x", true),
            ("5.8.0", true),
            ("5.10", true),
            ("5.7.19", false),
            ("4.18.0-553.el8", false),
            ("4.4.0", false),
            ("", false),
        ] {
            assert_eq!(release_gives_icmp(release), expected, "{release}");
        }
    }

    #[test]
    fn a_source_of_one_family_has_no_other() {
        let own = Own::from_addresses(&["127.0.0.9".parse().unwrap()]);
        assert!(own.has(Family::V4) && !own.has(Family::V6));
        assert_eq!(own.tcp("[::1]:1".parse().unwrap()).unwrap_err().kind(), io::ErrorKind::AddrNotAvailable);
    }
}
