//! The attempts at one address, its witness around them, and the order of all.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::task::TaskTracker;

use super::{
    Progress,
    witnesses::{Voucher, Witnesses},
};
use crate::{
    model::{AddressKind, PodName, Transport},
    observation::{AddressSeen, TcpOutcome, TcpSeen},
    pace::Paces,
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
struct Spacing {
    gap: Duration,
    next: HashMap<IpAddr, Instant>,
}

impl Spacing {
    fn new(gap: Duration) -> Self {
        Self { gap, next: HashMap::new() }
    }

    async fn wait(&mut self, address: IpAddr) {
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

/// How the addresses of a boundary are tried from one place, and what was seen of them.
pub(super) struct Attempts {
    pub from: Option<Arc<PodName>>,
    pub vantage: Arc<dyn Vantage>,
    pub sidecar: Option<u16>,
    pub witnesses: Arc<Witnesses>,
    pub attempts: u32,
    pub reach: Reach,
    pub spacing: Duration,
    pub pace: Paces,
    /// Until then what is open may be open only because the vantage's pod is new, or that of the target.
    pub new_until: Option<Instant>,
    pub new_targets: HashMap<IpAddr, Instant>,
    pub startup_window: Duration,
    pub in_flight: Arc<Semaphore>,
    pub progress: Arc<Progress>,
    pub jobs: Vec<Job>,
    /// Of each job what was seen, once it is done: all in one piece, so that what stays does not lie scattered among what comes
    /// and goes with thousands of connects.
    pub seen: Box<[Mutex<Option<AddressSeen>>]>,
}

/// A job while it runs: it holds a place in flight.
///
/// Its fields are small, and its future has no second copy of them (`mut self` would make one): 512 bytes a task, and no more
/// than that for thousands in flight.
struct Slot {
    of: Arc<Attempts>,
    index: u32,
}

impl Slot {
    /// Takes over a place in flight.
    fn new(of: Arc<Attempts>, index: u32, place: SemaphorePermit<'_>) -> Self {
        place.forget();
        Self { of, index }
    }

    /// Runs the job to its result.
    async fn run(self) {
        let seen = self.of.run(&self.of.jobs[self.index as usize]).await;
        *lock(&self.of.seen[self.index as usize]) = Some(seen);
        self.of.progress.finish();
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.of.in_flight.add_permits(1);
    }
}

impl Attempts {
    /// Starts all jobs under the budgets, each as a task of its own.
    pub async fn start(self: Arc<Self>, tasks: TaskTracker) {
        let mut spacing = Spacing::new(self.spacing);
        for (index, job) in (0..).zip(&self.jobs) {
            spacing.wait(job.address.ip()).await;
            self.pace.turn().await;
            let Ok(place) = self.in_flight.acquire().await else { break };
            tasks.spawn(Slot::new(self.clone(), index, place).run());
        }
    }

    /// Takes what was seen, with the index of its check, when all is done. A job that did not come to its end tells so: no
    /// address is forgotten, or its check might pass without it.
    pub fn take_seen(&self) -> impl Iterator<Item = (usize, AddressSeen)> {
        self.jobs.iter().zip(&self.seen).map(|(job, seen)| {
            let not_done = || {
                let now = Instant::now();
                self.seen(job, [TcpSeen::error(None)].into(), now, now)
            };
            (job.check, lock(seen).take().unwrap_or_else(not_done))
        })
    }

    /// The attempts, and what not every job has around them: boxed, because with thousands in flight this future's size
    /// counts.
    async fn run(&self, job: &Job) -> AddressSeen {
        if let Some(witnessed) = self.witnessed(job) {
            return witnessed.await;
        }
        let started = Instant::now();
        let attempts = self.attempts(job).await;
        self.seen(job, attempts.into_boxed_slice(), started, Instant::now())
    }

    /// The longer run of a job that has a witness, or that may be open only because somebody is new.
    fn witnessed<'a>(&'a self, job: &'a Job) -> Option<Pin<Box<dyn Future<Output = AddressSeen> + Send + 'a>>> {
        let voucher = self.witnesses.of(job.transport, job.kind, job.address);
        let new_until = self.new_until(job);
        let is_plain = voucher.is_none() && new_until.is_none();
        (!is_plain).then(|| Box::pin(self.run_witnessed(job, voucher, new_until)) as _)
    }

    /// Witness, attempts, attempts again where what was open is only new, witness.
    async fn run_witnessed(
        &self,
        job: &Job,
        voucher: Option<Voucher<'_>>,
        new_until: Option<(Duration, Instant)>,
    ) -> AddressSeen {
        let mut witness = match &voucher {
            None => None,
            Some(voucher) => Some(Box::new(voucher.before(job.transport, &job.address, &self.reach).await)),
        };
        let mut started = Instant::now();
        let mut attempts = self.attempts(job).await;
        let startup = match new_until {
            Some((since, until)) if is_open(&attempts) => self.outlive(job, since, until).await,
            _ => None,
        };
        if startup.is_some() {
            started = Instant::now();
            attempts = self.attempts(job).await;
        }
        let ended = Instant::now();
        if let (Some(seen), Some(Voucher::Connecting(witness)), false) = (&mut witness, &voucher, is_open(&attempts)) {
            self.pace.turn().await;
            seen.after = Some(witness.look(job.transport, &job.address, &self.reach).await);
        }
        let seen = self.seen(job, attempts.into_boxed_slice(), started, ended);
        AddressSeen { startup, witness, ..seen }
    }

    /// Attempts until one is open.
    async fn attempts(&self, job: &Job) -> Vec<TcpSeen> {
        let mut seen = Vec::with_capacity(self.attempts as usize);
        for attempt in 0..self.attempts {
            if attempt > 0 {
                tokio::time::sleep(self.pace.wait_in_step(self.spacing)).await;
                self.pace.turn().await;
            }
            // Hundreds of pods' silent connects end together, and more begin with them.
            let how = Reach { timeout: self.pace.wait_in_step(self.reach.timeout), ..self.reach };
            seen.push(reach(job.transport, &*self.vantage, &job.address, &how).await);
            if is_open(&seen) {
                break;
            }
        }
        seen
    }

    /// How long the newer of the job's vantage and target has been there, and until when it is new.
    fn new_until(&self, job: &Job) -> Option<(Duration, Instant)> {
        let until = self.new_until.max(self.new_targets.get(&job.address.ip()).copied())?;
        let left = until.checked_duration_since(Instant::now())?;
        Some((self.startup_window.saturating_sub(left), until))
    }

    /// Tries again until it is blocked, or nobody is new. Gives the time from the newer one's start until it was first blocked,
    /// in milliseconds; none where it never was: it stays open, or its pod ended before.
    async fn outlive(&self, job: &Job, since: Duration, until: Instant) -> Option<NonZeroU32> {
        let began = Instant::now();
        while Instant::now() < until {
            tokio::time::sleep(self.spacing).await;
            self.pace.turn().await;
            // It was blocked when it was sent, not when the wait for its answer was over.
            let tried = began.elapsed();
            let seen = reach(job.transport, &*self.vantage, &job.address, &self.reach).await;
            if is_blocked(seen.outcome) {
                let length = u32::try_from((since + tried).as_millis()).unwrap_or(u32::MAX);
                return NonZeroU32::new(length.max(1));
            }
        }
        None
    }

    fn seen(&self, job: &Job, attempts: Box<[TcpSeen]>, started: Instant, ended: Instant) -> AddressSeen {
        AddressSeen {
            address: Some(job.address),
            kind: job.kind,
            from: self.from.clone(),
            listed: job.listed,
            attempts,
            startup: None,
            sidecar: self.sidecar,
            witness: None,
            started,
            ended,
        }
    }
}

/// True where somebody, if only by silence, kept it from being open; false where it could not be tried.
const fn is_blocked(outcome: TcpOutcome) -> bool {
    use TcpOutcome::{Closed, Filtered, Refused, Rejected};
    matches!(outcome, Closed | Filtered | Refused | Rejected)
}

fn lock(seen: &Mutex<Option<AddressSeen>>) -> MutexGuard<'_, Option<AddressSeen>> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_open(seen: &[TcpSeen]) -> bool {
    seen.last().is_some_and(|last| last.outcome == TcpOutcome::Open)
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::atomic::{AtomicU32, Ordering},
    };

    use super::{super::witnesses::Witness, *};
    use crate::model::{Family, WitnessKind};

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

    fn attempts_from(witnesses: Witnesses) -> Attempts {
        Attempts {
            from: None,
            vantage: Arc::new(Counting::default()),
            sidecar: None,
            witnesses: Arc::new(witnesses),
            attempts: 1,
            reach: Reach { timeout: Duration::from_secs(2), icmp_evidence: true },
            spacing: Duration::ZERO,
            pace: Paces::new([]),
            new_until: None,
            new_targets: HashMap::new(),
            startup_window: Duration::ZERO,
            in_flight: Arc::new(Semaphore::new(1)),
            progress: Arc::default(),
            jobs: Vec::new(),
            seen: Box::default(),
        }
    }

    /// tokio makes tasks in steps of 128 bytes, and adds less than 64 to the future.
    #[test]
    fn a_task_in_flight_is_small() {
        let (attempts, tasks) = (Arc::new(attempts_from(Witnesses::default())), TaskTracker::new());
        let size = std::mem::size_of_val(&tasks.track_future(Slot { of: attempts, index: 0 }.run()));
        assert!(size <= 512 - 64, "{size}");
    }

    #[test]
    fn a_job_that_did_not_come_to_its_end_is_no_silence() {
        let (address, kind) = ("127.0.0.1:1".parse().unwrap(), AddressKind::Endpoint);
        let job = Job { check: 7, transport: Transport::Tcp, address, kind, listed: true, pinned: false };
        let seen = [Mutex::default()].into();
        let attempts = Attempts { jobs: vec![job], seen, ..attempts_from(Witnesses::default()) };
        let taken: Vec<_> = attempts.take_seen().map(|(check, seen)| (check, seen.attempts[0].outcome)).collect();
        assert_eq!(taken, [(7, TcpOutcome::Error)]);
    }

    #[tokio::test]
    async fn a_witness_is_asked_about_endpoints_only() {
        for (kind, asked) in [(AddressKind::Endpoint, 2), (AddressKind::Virtual, 0)] {
            let vantage = Arc::new(Counting::default());
            let witness = Witness::new(WitnessKind::Source, "w".into(), vantage.clone());
            let attempts = attempts_from(Witnesses { connecting: vec![witness], ..Witnesses::default() });
            let address = "127.0.0.1:1".parse().unwrap();
            let seen = attempts
                .run(&Job { check: 0, transport: Transport::Tcp, address, kind, listed: true, pinned: false })
                .await;
            assert_eq!(vantage.0.load(Ordering::Relaxed), asked, "{kind}");
            assert_eq!(seen.witness.is_some(), asked > 0, "{kind}");
        }
    }
}
