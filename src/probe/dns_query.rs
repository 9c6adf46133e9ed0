//! One DNS query over UDP to a server that nothing may reach, and what it showed.

use std::{io, mem::MaybeUninit, net::SocketAddr, os::fd::AsRawFd, time::Instant};

use hickory_resolver::proto::rr::{Name, RecordType};
use nix::libc;
use socket2::SockRef;
use tokio::{net::UdpSocket, time::timeout};

use super::{
    Reach,
    dns::{Question, query_packet},
    icmp::{self, micros},
};
use crate::{
    model::Family,
    observation::{Icmp, TcpOutcome, TcpSeen},
    vantage::Vantage,
};

/// Asks for the root's SOA, which every DNS server answers somehow: any datagram in reply says that the way is open. Never
/// fails: local errors are an outcome.
pub async fn ask(vantage: &dyn Vantage, peer: &SocketAddr, how: &Reach) -> TcpSeen {
    let started = Instant::now();
    let socket = match vantage.udp(*peer).and_then(|socket| UdpSocket::from_std(socket.into())) {
        Ok(socket) => socket,
        Err(error) => return at_once(error.raw_os_error()),
    };
    let question = Question { name: Name::root(), kind: RecordType::SOA };
    let Some(packet) = query_packet(rand::random(), &question) else { return TcpSeen::error(None) };
    let kernel = SockRef::from(&socket);
    let number = |error: &io::Error| error.raw_os_error().unwrap_or(libc::EIO);
    // Not the socket's own send, which asks the reactor first: who is stalled meanwhile would take for silence that nothing left.
    let errno = match kernel.send(&packet) {
        Err(error) => Some(number(&error)),
        Ok(_) => {
            let mut buffer = [0; 512];
            let received = timeout(how.timeout, socket.recv(&mut buffer)).await;
            // Whoever was stalled so long may not have heard an answer that came in time: the kernel is asked once more.
            match received.unwrap_or_else(|_| kernel.recv(&mut [MaybeUninit::uninit(); 1])) {
                Ok(_) => {
                    let elapsed_us = micros(started);
                    return TcpSeen { outcome: TcpOutcome::Open, icmp: None, errno: None, elapsed_us };
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
                Err(error) => Some(number(&error)),
            }
        }
    };
    // The queue must be read before the descriptor is closed.
    let icmp = icmp::queued(socket.as_raw_fd());
    let outcome = classify(errno, icmp, Family::of(peer.ip()));
    TcpSeen { outcome, icmp, errno, elapsed_us: micros(started) }
}

/// The own routing table's, already when the socket is connected.
fn at_once(errno: Option<i32>) -> TcpSeen {
    let outcome = match errno {
        Some(libc::ENETUNREACH | libc::EHOSTUNREACH) => TcpOutcome::Unreachable,
        _ => TcpOutcome::Error,
    };
    TcpSeen { outcome, icmp: None, errno, elapsed_us: 0 }
}

/// Port unreachable is what a policy says, and as well a host without such a server: they cannot be told apart.
fn classify(errno: Option<i32>, icmp: Option<Icmp>, family: Family) -> TcpOutcome {
    match (icmp, family, errno) {
        (Some(Icmp { kind: 3, code: 3, .. }), Family::V4, _) | (Some(Icmp { kind: 1, code: 4, .. }), Family::V6, _) => {
            TcpOutcome::Refused
        }
        (Some(icmp), _, _) => icmp.outcome(family),
        (None, _, None) => TcpOutcome::Filtered,
        (None, _, Some(libc::ECONNREFUSED)) => TcpOutcome::Refused,
        (
            None,
            _,
            Some(libc::EHOSTUNREACH | libc::ENETUNREACH | libc::EACCES | libc::ENOPROTOOPT | libc::EHOSTDOWN),
        ) => TcpOutcome::Unreachable,
        // EPERM is a filter of the own host.
        (None, _, Some(_)) => TcpOutcome::Error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_unreachable_is_ambiguous_and_nothing_else() {
        let icmp = |kind, code| Some(Icmp { kind, code, offender: None });
        for (errno, icmp, family, expected) in [
            (None, None, Family::V4, TcpOutcome::Filtered),
            (Some(libc::ECONNREFUSED), icmp(3, 3), Family::V4, TcpOutcome::Refused),
            (Some(libc::ECONNREFUSED), icmp(1, 4), Family::V6, TcpOutcome::Refused),
            (Some(libc::ECONNREFUSED), None, Family::V4, TcpOutcome::Refused),
            (Some(libc::EHOSTUNREACH), icmp(3, 13), Family::V4, TcpOutcome::Rejected),
            (Some(libc::EACCES), icmp(1, 1), Family::V6, TcpOutcome::Rejected),
            (Some(libc::EHOSTUNREACH), icmp(3, 1), Family::V4, TcpOutcome::Unreachable),
            (Some(libc::EHOSTUNREACH), None, Family::V4, TcpOutcome::Unreachable),
            (Some(libc::EPERM), None, Family::V4, TcpOutcome::Error),
        ] {
            assert_eq!(classify(errno, icmp, family), expected, "{errno:?} {icmp:?}");
        }
    }
}
