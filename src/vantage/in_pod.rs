//! The network of another pod, from outside: nothing is started in the pod.

use std::{
    io,
    mem::MaybeUninit,
    net::{IpAddr, SocketAddr},
    sync::{Mutex, MutexGuard, PoisonError},
};

use nix::libc;
use rustix::net::connect_unspec;
use socket2::Socket;

use super::{EnterError, Kind, Netns, Own, Vantage, born};
use crate::model::Family;

/// Sockets of one family and kind that are born in the first visit: about as many as a sweep has controls.
const FIRST_BATCH: usize = 16;

/// Sockets that are born in one visit, at most: then what the visit costs is little for each of them.
const LARGEST_BATCH: usize = 128;

/// Each batch is so many times as large as the last: a visit costs about as much as 20 sockets that nobody uses.
const GROWTH: usize = 4;

/// Seconds for which a batch lasts at a slow pace. A visit takes about as long as two probes.
const BATCH_LASTS: u32 = 4;

/// Makes its sockets in a pod's network namespace, to be used from anywhere.
///
/// They are born in batches that grow up to 128, or to what a few seconds take, and those that heard nothing are used again:
/// an agent whose silent connects each have a socket of their own takes a fifth more CPU. They are closed, and the namespace
/// with them, when this is dropped.
#[derive(Debug)]
pub struct InPod {
    netns: Netns,
    has: [bool; 2],
    largest_batch: usize,
    pools: [Mutex<Pool>; 4],
}

/// Sockets of one family and kind that nobody uses.
#[derive(Debug, Default)]
struct Pool {
    idle: Vec<Socket>,
    /// So many were born in the last visit.
    batch: usize,
}

impl InPod {
    /// Enters the namespace once, to see its addresses.
    ///
    /// # Errors
    /// The namespace cannot be entered.
    pub fn new(netns: Netns) -> Result<Self, EnterError> {
        let has = netns.visit(families)?;
        Ok(Self { netns, has, largest_batch: LARGEST_BATCH, pools: Default::default() })
    }

    /// For at most so many probes a second: then smaller batches do, and fewer sockets lie idle.
    #[must_use]
    pub fn for_pace(mut self, per_second: u32) -> Self {
        let taken = per_second.saturating_mul(BATCH_LASTS);
        self.largest_batch = usize::try_from(taken).unwrap_or(LARGEST_BATCH).clamp(FIRST_BATCH, LARGEST_BATCH);
        self
    }

    /// Where the sockets are born.
    pub const fn netns(&self) -> &Netns {
        &self.netns
    }

    fn pool(&self, family: Family, kind: Kind) -> MutexGuard<'_, Pool> {
        let pool = &self.pools[2 * usize::from(family == Family::V6) + usize::from(matches!(kind, Kind::Udp))];
        pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn socket(&self, family: Family, kind: Kind) -> io::Result<Socket> {
        let mut pool = self.pool(family, kind);
        if let Some(socket) = pool.idle.pop() {
            return Ok(socket);
        }
        let batch = (GROWTH * pool.batch).clamp(FIRST_BATCH, self.largest_batch);
        let idle = &mut pool.idle;
        let made = self.netns.visit(|| -> io::Result<Socket> {
            let first = born(family, kind)?;
            // Where descriptors run out, one is enough.
            idle.extend((1..batch).map_while(|_| born(family, kind).ok()));
            Ok(first)
        })?;
        pool.batch = batch;
        made
    }
}

impl Vantage for InPod {
    fn tcp(&self, peer: SocketAddr) -> io::Result<Socket> {
        self.socket(Family::of(peer.ip()), Kind::Tcp)
    }

    fn udp(&self, peer: SocketAddr) -> io::Result<Socket> {
        let socket = self.socket(Family::of(peer.ip()), Kind::Udp)?;
        socket.connect(&peer.into())?;
        Ok(socket)
    }

    fn take_back(&self, socket: Socket, peer: SocketAddr) {
        if is_as_new(&socket) {
            let mut pool = self.pool(Family::of(peer.ip()), Kind::Tcp);
            if pool.idle.len() < LARGEST_BATCH {
                pool.idle.push(socket);
            }
        }
    }

    fn has(&self, family: Family) -> bool {
        self.has[usize::from(family == Family::V6)]
    }
}

/// Which families have an address that leads out of the calling thread's namespace. Both, if it cannot be told.
fn families() -> [bool; 2] {
    let Ok(addresses) = Own::addresses() else { return [true, true] };
    let leads_out = |ip: &IpAddr| !matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
    let has = |family| addresses.iter().filter(|ip| leads_out(ip)).any(|ip| Family::of(*ip) == family);
    [has(Family::V4), has(Family::V6)]
}

/// Ends a socket's connect, as close(2) would. True where nothing is left of it: an ICMP error that came in the last moment
/// would be read as the next connect's.
fn is_as_new(socket: &Socket) -> bool {
    let mut nothing = [MaybeUninit::uninit(); 1];
    let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
    connect_unspec(socket).is_ok()
        && socket.recv_with_flags(&mut nothing, flags).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}
