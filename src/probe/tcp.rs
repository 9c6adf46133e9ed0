//! One TCP connect and what it showed, ICMP detail included.

use std::{
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd},
    time::{Duration, Instant},
};

use nix::{
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use socket2::SockRef;
use tokio::net::TcpStream;

use super::{
    Reach,
    icmp::{self, micros},
};
use crate::{
    model::Family,
    observation::{Icmp, TcpOutcome, TcpSeen},
    vantage::Vantage,
};

/// Connects once and closes with RST, so that neither end keeps TIME_WAIT. Never fails: local errors are an outcome.
///
/// Borrows all it can: with thousands in flight the size of this future counts.
#[expect(clippy::manual_async_fn, reason = "an async function's future would hold the arguments twice")]
pub fn connect<'a>(
    vantage: &'a dyn Vantage,
    peer: &'a SocketAddr,
    how: &'a Reach,
) -> impl Future<Output = TcpSeen> + Send + 'a {
    async move {
        let started = Instant::now();
        let socket = match vantage.tcp(*peer) {
            Ok(socket) => socket,
            Err(error) => return TcpSeen::error(error.raw_os_error()),
        };
        match socket.connect(&(*peer).into()) {
            Ok(()) => return open(&socket, started),
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
            Err(error) => return at_once(error.raw_os_error(), how.icmp_evidence),
        }
        // A near peer has answered by now: the handshake ran inside connect(2). Then the reactor need not be asked at all.
        if socket.peer_addr().is_ok() {
            return open(&socket, started);
        }
        let stream = match TcpStream::from_std(socket.into()) {
            Ok(stream) => stream,
            Err(error) => return TcpSeen::error(error.raw_os_error()),
        };
        // Not `writable()`: with thousands in flight its waiter's memory counts.
        let answered = std::future::poll_fn(|cx| stream.poll_write_ready(cx));
        match tokio::time::timeout(how.timeout, answered).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return TcpSeen::error(error.raw_os_error()),
            // Whoever was stalled so long may not have heard an answer that came in time.
            Err(_) if is_answered(&stream) => {}
            Err(_) => return silent(vantage, stream, *peer, started),
        }
        let errno = match stream.take_error() {
            Ok(error) => error.and_then(|e| e.raw_os_error()),
            Err(error) => return TcpSeen::error(error.raw_os_error()),
        };
        // A queued ICMP error wakes us too: only a peer's address says that the handshake is done.
        if errno.is_none() && stream.peer_addr().is_ok() {
            return open(&stream, started);
        }
        // The queue must be read before the descriptor is closed.
        let icmp = icmp::queued(stream.as_raw_fd());
        TcpSeen {
            outcome: match (errno, icmp) {
                (None, None) => TcpOutcome::Error,
                _ => classify(errno, icmp, Family::of(peer.ip()), how.icmp_evidence),
            },
            icmp,
            errno,
            elapsed_us: micros(started),
        }
    }
}

/// What is told where nothing was heard; the socket goes back to where it came from.
fn silent(vantage: &dyn Vantage, stream: TcpStream, peer: SocketAddr, started: Instant) -> TcpSeen {
    let elapsed_us = micros(started);
    if let Ok(socket) = stream.into_std() {
        vantage.take_back(socket.into(), peer);
    }
    TcpSeen { outcome: TcpOutcome::Filtered, icmp: None, errno: None, elapsed_us }
}

/// True where the kernel has something to tell, whether or not the reactor has heard of it. In doubt, true.
fn is_answered(stream: &TcpStream) -> bool {
    let mut descriptor = [PollFd::new(stream.as_fd(), PollFlags::POLLOUT)];
    poll(&mut descriptor, PollTimeout::ZERO) != Ok(0)
}

fn open<'a>(socket: impl Into<SockRef<'a>>, started: Instant) -> TcpSeen {
    let elapsed_us = micros(started);
    // Failure only means that the close is an ordinary one.
    let _ = socket.into().set_linger(Some(Duration::ZERO));
    TcpSeen { outcome: TcpOutcome::Open, icmp: None, errno: None, elapsed_us }
}

/// What connect(2) itself returned: mostly the own routing table, and loopback's RST.
fn at_once(errno: Option<i32>, icmp_evidence: bool) -> TcpSeen {
    let outcome = match errno {
        Some(libc::ENETUNREACH | libc::EHOSTUNREACH) => TcpOutcome::Unreachable,
        Some(libc::ECONNREFUSED) if icmp_evidence => TcpOutcome::Closed,
        Some(libc::ECONNREFUSED) => TcpOutcome::Refused,
        // EACCES (prohibit route), EINVAL (blackhole route), EPERM (a local filter), EADDRNOTAVAIL, …
        _ => TcpOutcome::Error,
    };
    TcpSeen { outcome, icmp: None, errno, elapsed_us: 0 }
}

/// The outcome of a connect that ended without success. No error number means that the time ran out.
/// Source: measured on Linux 6.18 for every ICMP type; see the lab's scenarios.
fn classify(errno: Option<i32>, icmp: Option<Icmp>, family: Family, icmp_evidence: bool) -> TcpOutcome {
    if let Some(icmp) = icmp {
        return icmp.outcome(family);
    }
    match errno {
        None | Some(libc::ETIMEDOUT) => TcpOutcome::Filtered,
        Some(libc::ECONNREFUSED) if icmp_evidence => TcpOutcome::Closed,
        Some(libc::ECONNREFUSED) => TcpOutcome::Refused,
        // Accepted, then reset before we looked: a RST in SYN_SENT would have been ECONNREFUSED.
        Some(libc::ECONNRESET | libc::EPIPE) => TcpOutcome::Open,
        // Some ICMP whose detail the kernel keeps for itself.
        Some(libc::EHOSTUNREACH | libc::ENETUNREACH | libc::EACCES | libc::ENOPROTOOPT | libc::EHOSTDOWN) => {
            TcpOutcome::Unreachable
        }
        Some(_) => TcpOutcome::Error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn icmp_decides_before_the_error_number() {
        let icmp = |kind, code| Some(Icmp { kind, code, offender: None });
        for code in 0..=15 {
            let expected =
                if [2, 3, 9, 10, 13].contains(&code) { TcpOutcome::Rejected } else { TcpOutcome::Unreachable };
            assert_eq!(classify(Some(libc::ECONNREFUSED), icmp(3, code), Family::V4, true), expected, "v4 3/{code}");
        }
        for code in 0..=7 {
            let expected = if [1, 4, 5, 6].contains(&code) { TcpOutcome::Rejected } else { TcpOutcome::Unreachable };
            assert_eq!(classify(Some(libc::EACCES), icmp(1, code), Family::V6, true), expected, "v6 1/{code}");
        }
        assert_eq!(classify(Some(libc::EHOSTUNREACH), icmp(11, 0), Family::V4, true), TcpOutcome::Unreachable);
        assert_eq!(classify(Some(libc::EHOSTUNREACH), icmp(3, 0), Family::V6, true), TcpOutcome::Unreachable);
    }

    #[test]
    fn error_numbers_without_icmp() {
        for (errno, evidence, expected) in [
            (None, true, TcpOutcome::Filtered),
            (Some(libc::ETIMEDOUT), true, TcpOutcome::Filtered),
            (Some(libc::ECONNREFUSED), true, TcpOutcome::Closed),
            (Some(libc::ECONNREFUSED), false, TcpOutcome::Refused),
            (Some(libc::ECONNRESET), true, TcpOutcome::Open),
            (Some(libc::EHOSTUNREACH), true, TcpOutcome::Unreachable),
            (Some(libc::EACCES), true, TcpOutcome::Unreachable),
            (Some(libc::ENOBUFS), true, TcpOutcome::Error),
        ] {
            assert_eq!(classify(errno, None, Family::V4, evidence), expected, "{errno:?} {evidence}");
        }
    }

    #[test]
    fn local_failures_are_never_read_as_blocks() {
        for errno in [libc::EACCES, libc::EPERM, libc::EINVAL, libc::EADDRNOTAVAIL, libc::EMFILE, libc::ENOBUFS] {
            assert_eq!(at_once(Some(errno), true).outcome, TcpOutcome::Error, "{errno}");
        }
        assert_eq!(at_once(Some(libc::ENETUNREACH), true).outcome, TcpOutcome::Unreachable);
        assert_eq!(at_once(None, true).outcome, TcpOutcome::Error);
    }
}
