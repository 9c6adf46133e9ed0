//! How HTTP is served, whatever is served: sockets and their limits, TLS, who may ask. It knows nothing of verdicts.

mod clients;
mod connection;
mod crowd;
mod file;
mod guard;
mod handshake;
pub mod listener;
pub mod live;
mod logins;
mod passwords;
mod places;
mod rate;
mod stream;
mod tls;

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

pub use live::Web;

/// Who asks; the listener puts it beside every request, as an extension.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// It came over the loopback address, from this machine.
    pub loopback: bool,
    /// It showed a client certificate, and a CA of the web configuration vouches for it.
    pub certificate: bool,
}

/// Whether who asks has proven to be somebody, by a password or a verified certificate; [`Web::guard`] puts it beside every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authenticated(pub bool);

/// Whether an address is of loopback, IPv4 mapped into IPv6 too.
pub fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// What one peer may have at least: whoever has an IPv6 address has the 2^64 beside it too.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_addresses_are_loopback_too() {
        assert!(is_loopback("::ffff:127.0.0.1".parse().unwrap()));
        assert!(!is_loopback("::ffff:10.0.0.1".parse().unwrap()));
    }
}
