//! The attempts at one address, its witness around them, and the order of all.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::{Semaphore, SemaphorePermit, mpsc};

use super::Witness;
use crate::{
    model::{AddressKind, Family, Transport},
    observation::{AddressSeen, TcpOutcome, TcpSeen, WitnessSeen},
    pace::Pace,
    probe::{Reach, reach},
    vantage::Vantage,
};

/// One address of one check.
#[derive(Clone, Copy, Debug)]
pub(super) struct Job {
    /// Index of the check.
    pub check: usize,
    pub transport: Transport,
    pub address: SocketAddr,
    pub kind: AddressKind,
    /// See [`AddressSeen::listed`].
    pub listed: bool,
    /// Its finding is open.
    pub pinned: bool,
}

/// Pinned jobs first; then the ports of one address as far apart as they can be.
pub(super) fn order(jobs: &mut [Job]) {
    let mut seen: HashMap<IpAddr, u32> = HashMap::with_capacity(jobs.len());
    jobs.sort_by_cached_key(|job| {
        let turn = seen.entry(job.address.ip()).or_default();
        *turn += 1;
        (!job.pinned, *turn)
    });
}

/// Least time between the starts of two jobs at one address.
pub(super) struct Spacing {
    gap: Duration,
    next: HashMap<IpAddr, Instant>,
}

impl Spacing {
    pub fn new(gap: Duration) -> Self {
        Self { gap, next: HashMap::new() }
    }

    pub async fn wait(&mut self, address: IpAddr) {
        if self.gap.is_zero() {
            return;
        }
        let now = Instant::now();
        let at = self.next.get(&address).map_or(now, |next| (*next).max(now));
        self.next.insert(address, at + self.gap);
        if at > now {
            tokio::time::sleep_until(at.into()).await;
        }
    }
}

/// How the addresses of a boundary are tried, and where the results go.
pub(super) struct Attempts {
    pub own: Arc<dyn Vantage>,
    pub witness: Option<Witness>,
    pub attempts: u32,
    pub reach: Reach,
    pub spacing: Duration,
    pub pace: Arc<Pace>,
    pub in_flight: Arc<Semaphore>,
    pub jobs: Vec<Job>,
    pub done: mpsc::UnboundedSender<(usize, AddressSeen)>,
}

/// A job while it runs: it holds a place in flight, and leaves a result in any case. No address is forgotten, or its check
/// might pass without it.
///
/// Its fields are small, and its future has no second copy of them (`mut self` would make one): 512 bytes a task, and no more
/// than that for thousands in flight.
pub(super) struct Slot {
    of: Arc<Attempts>,
    index: u32,
    filled: AtomicBool,
}

impl Slot {
    /// Takes over a place in flight.
    pub fn new(of: Arc<Attempts>, index: u32, place: SemaphorePermit<'_>) -> Self {
        place.forget();
        Self { of, index, filled: AtomicBool::new(false) }
    }

    /// Runs the job to its result.
    pub async fn run(self) {
        let seen = self.of.run(self.job()).await;
        self.fill(seen);
    }

    fn job(&self) -> &Job {
        &self.of.jobs[self.index as usize]
    }

    fn fill(&self, seen: AddressSeen) {
        self.filled.store(true, Ordering::Relaxed);
        // Nobody waits for a sweep that was given up.
        let _ = self.of.done.send((self.job().check, seen));
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if !self.filled.load(Ordering::Relaxed) {
            let Job { address, kind, listed, .. } = *self.job();
            let now = Instant::now();
            let attempts = [TcpSeen::error(None)].into();
            let address = Some(address);
            self.fill(AddressSeen { address, kind, listed, attempts, witness: None, started: now, ended: now });
        }
        self.of.in_flight.add_permits(1);
    }
}

impl Attempts {
    /// Witness, attempts until one is open, witness.
    async fn run(&self, job: &Job) -> AddressSeen {
        // A virtual address has many ends, of which the witness would meet any: it cannot vouch for it.
        let family = Family::of(job.address.ip());
        let witness = self.witness.as_ref().filter(|w| job.kind == AddressKind::Endpoint && w.vantage.has(family));
        let mut vouched = match witness {
            None => None,
            Some(witness) => {
                let before = reach(job.transport, &*witness.vantage, &job.address, &self.reach).await;
                Some(Box::new(WitnessSeen { name: witness.name.clone(), before, after: None }))
            }
        };
        let started = Instant::now();
        let mut seen = Vec::with_capacity(self.attempts as usize);
        for attempt in 0..self.attempts {
            if attempt > 0 {
                tokio::time::sleep(self.spacing).await;
                self.pace.turn().await;
            }
            seen.push(reach(job.transport, &*self.own, &job.address, &self.reach).await);
            if seen[attempt as usize].outcome == TcpOutcome::Open {
                break;
            }
        }
        let ended = Instant::now();
        let open = seen.last().is_some_and(|s| s.outcome == TcpOutcome::Open);
        if let (Some(vouched), Some(witness), false) = (&mut vouched, witness, open) {
            self.pace.turn().await;
            vouched.after = Some(reach(job.transport, &*witness.vantage, &job.address, &self.reach).await);
        }
        AddressSeen {
            address: Some(job.address),
            kind: job.kind,
            listed: job.listed,
            attempts: seen.into_boxed_slice(),
            witness: vouched,
            started,
            ended,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{io, sync::atomic::AtomicU32};

    use super::*;

    #[test]
    fn pinned_first_and_ports_of_one_address_apart() {
        let job = |address: &str, pinned| Job {
            check: 0,
            transport: Transport::Tcp,
            address: address.parse().unwrap(),
            kind: AddressKind::Endpoint,
            listed: true,
            pinned,
        };
        let mut jobs =
            [job("127.0.0.1:1", false), job("127.0.0.1:2", false), job("127.0.0.2:1", false), job("127.0.0.3:9", true)];
        order(&mut jobs);
        let addresses: Vec<_> = jobs.iter().map(|j| j.address.to_string()).collect();
        assert_eq!(addresses, ["127.0.0.3:9", "127.0.0.1:1", "127.0.0.2:1", "127.0.0.1:2"]);
    }

    /// Counts the sockets that are asked for, and gives none.
    #[derive(Default)]
    struct Counting(AtomicU32);

    impl Vantage for Counting {
        fn tcp(&self, _: SocketAddr) -> io::Result<socket2::Socket> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Err(io::ErrorKind::Unsupported.into())
        }
        fn udp(&self, _: SocketAddr) -> io::Result<socket2::Socket> {
            Err(io::ErrorKind::Unsupported.into())
        }
        fn has(&self, _: Family) -> bool {
            true
        }
    }

    #[tokio::test]
    async fn a_witness_is_asked_about_endpoints_only() {
        for (kind, asked) in [(AddressKind::Endpoint, 2), (AddressKind::Virtual, 0)] {
            let vantage = Arc::new(Counting::default());
            let (done, _) = mpsc::unbounded_channel();
            let attempts = Attempts {
                own: Arc::new(Counting::default()),
                witness: Some(Witness { name: "w".into(), vantage: vantage.clone() }),
                attempts: 1,
                reach: Reach { timeout: Duration::from_secs(2), icmp_evidence: true },
                spacing: Duration::ZERO,
                pace: Arc::new(Pace::per_second(1000)),
                in_flight: Arc::new(Semaphore::new(1)),
                jobs: Vec::new(),
                done,
            };
            let address = "127.0.0.1:1".parse().unwrap();
            let seen = attempts
                .run(&Job { check: 0, transport: Transport::Tcp, address, kind, listed: true, pinned: false })
                .await;
            assert_eq!(vantage.0.load(Ordering::Relaxed), asked, "{kind}");
            assert_eq!(seen.witness.is_some(), asked > 0, "{kind}");
        }
    }
}
