//! Probes: they ask the network and return an observation. They never know what was expected.

pub mod dns;
mod dns_query;
mod icmp;
mod tcp;

use std::{net::SocketAddr, time::Duration};

use futures_util::future::Either;

use crate::{model::Transport, observation::TcpSeen, vantage::Vantage};

/// How it is tried whether an address can be reached.
#[derive(Clone, Copy, Debug)]
pub struct Reach {
    /// Time for one attempt.
    pub timeout: Duration,
    /// The kernel gives ICMP detail: without it an RST cannot be told from an ICMP error.
    pub icmp_evidence: bool,
}

/// Tries once: a TCP connect, or a DNS query over UDP. Never fails: local errors are an outcome.
///
/// With thousands of connects in flight the size of this future counts; queries are few, and boxed.
pub fn reach<'a>(
    transport: Transport,
    vantage: &'a dyn Vantage,
    peer: &'a SocketAddr,
    how: &'a Reach,
) -> impl Future<Output = TcpSeen> + Send + 'a {
    match transport {
        Transport::Tcp => Either::Left(tcp::connect(vantage, peer, how)),
        Transport::Udp => Either::Right(Box::pin(dns_query::ask(vantage, peer, how))),
    }
}
