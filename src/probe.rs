//! Probes: they ask the network and return an observation. They never know what was expected.

pub mod dns;
mod dns_query;
mod icmp;
mod tcp;

use std::{net::SocketAddr, time::Duration};

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
pub async fn reach(transport: Transport, vantage: &dyn Vantage, peer: &SocketAddr, how: &Reach) -> TcpSeen {
    match transport {
        Transport::Tcp => tcp::connect(vantage, peer, how).await,
        // Boxed: with thousands of connects in flight the size of this future counts, and queries are few.
        Transport::Udp => Box::pin(dns_query::ask(vantage, peer, how)).await,
    }
}
