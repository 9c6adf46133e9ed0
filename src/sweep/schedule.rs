//! When boundaries are swept: each part at the boundary's interval, from a random phase and with jitter, never two sweeps of
//! one part from one identity at once; and new pods at once, beside whatever runs.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use rand::RngExt;
use tokio::{sync::watch, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Sweeper, Waiters, shares::Shares};
use crate::{
    inventory::{
        cri::Sandbox,
        stands::{Speakers, age},
    },
    ledger::{Carried, Ledger, SweepReport, Transition},
    plan::{Asked, Leg, Part, share::Due},
};

/// A pod that is younger was not there when the pods were last looked at.
const NEWBORN: Duration = Duration::from_secs(10);

/// What happens while sweeps run, for whoever counts and logs.
pub trait Observer: Send + Sync + 'static {
    /// A sweep was recorded.
    fn swept(&self, report: &SweepReport, transitions: &[Transition]);
    /// A sweep was still running when the next was due, so many times.
    fn overran(&self, boundary: &str, times: u64);
}

/// The running sweeps: one task for each part of each leg, started and stopped as identities come and go.
pub struct Schedule {
    sweeper: Arc<Sweeper>,
    ledger: Arc<Ledger>,
    observer: Arc<dyn Observer>,
    waiters: Arc<Waiters>,
    shares: Arc<Shares>,
    stop: CancellationToken,
    tasks: TaskTracker,
    /// A task whose sender is dropped ends what it began, and ends.
    legs: HashMap<Asked, watch::Sender<Arc<Leg>>>,
}

impl Schedule {
    /// Nothing runs yet.
    pub fn new(sweeper: Arc<Sweeper>, ledger: Arc<Ledger>, observer: Arc<dyn Observer>) -> Self {
        let waiters = Arc::new(Waiters::new(turn_within(&sweeper)));
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        Self { sweeper, ledger, observer, waiters, shares: Arc::default(), stop, tasks, legs: HashMap::new() }
    }

    /// Goes on with the turns of a schedule that was stopped.
    #[must_use]
    pub fn after(mut self, stopped: &Self) -> Self {
        self.waiters = Arc::new(stopped.waiters.promising(turn_within(&self.sweeper)));
        self.shares = stopped.shares.clone();
        self
    }

    /// Sweeps these legs from now on, and no others.
    pub fn follow(&mut self, legs: &[Arc<Leg>]) {
        let mut before = std::mem::take(&mut self.legs);
        for (leg, part) in legs.iter().flat_map(|leg| leg.parts().map(move |part| (leg, part))) {
            let asked = leg.asked(part);
            let running = match before.remove(&asked) {
                Some(running) => {
                    running.send_if_modified(|known| {
                        let changed = !Arc::ptr_eq(known, leg);
                        known.clone_from(leg);
                        changed
                    });
                    running
                }
                None => self.start(leg.clone(), part),
            };
            self.legs.insert(asked, running);
        }
        let asked: HashSet<Asked> = self.legs.keys().cloned().collect();
        self.waiters.keep(&asked);
        self.shares.keep(&asked);
    }

    fn start(&self, leg: Arc<Leg>, part: Part) -> watch::Sender<Arc<Leg>> {
        let asked = leg.asked(part);
        let (sender, legs) = watch::channel(leg);
        let sweeping = Sweeping {
            sweeper: self.sweeper.clone(),
            ledger: self.ledger.clone(),
            observer: self.observer.clone(),
            waiters: self.waiters.clone(),
            shares: self.shares.clone(),
            asked,
            legs,
        };
        let stop = self.stop.clone();
        self.tasks.spawn(async move { stop.run_until_cancelled(sweeping.run()).await });
        sender
    }

    /// Stops all sweeps and waits for their end.
    pub async fn stop(&mut self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

fn turn_within(sweeper: &Sweeper) -> u32 {
    sweeper.config.pods.as_ref().map_or(1, |pods| pods.turn_within)
}

/// Sweeps one part of one leg for ever, at its interval; and at once where a pod is new.
struct Sweeping {
    sweeper: Arc<Sweeper>,
    ledger: Arc<Ledger>,
    observer: Arc<dyn Observer>,
    waiters: Arc<Waiters>,
    shares: Arc<Shares>,
    asked: Asked,
    legs: watch::Receiver<Arc<Leg>>,
}

/// Why a sweep was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    Due,
    Newcomers,
}

/// A sweep that came to its end.
struct Swept {
    why: Why,
    leg: Arc<Leg>,
    /// What was due, where that was not everything.
    of: Option<Due>,
    report: SweepReport,
}

impl Sweeping {
    async fn run(mut self) {
        let interval = self.legs.borrow().boundary.boundary.interval;
        // The first sweep comes soon: a new agent is wanted for its verdicts, and a new pod may be open for a moment only.
        let mut due = Instant::now() + if is_new(&self.legs.borrow()) { Duration::ZERO } else { first(interval) };
        let mut running: FuturesUnordered<BoxFuture<'static, Swept>> = FuturesUnordered::new();
        let (mut sweeps, mut newcomers) = (false, false);
        let mut is_wanted = true;
        while is_wanted || !running.is_empty() {
            tokio::select! {
                biased;
                Some(Swept { why, leg, of, report }) = running.next() => {
                    let transitions = self.ledger.record(&report);
                    self.observer.swept(&report, &transitions);
                    match why {
                        Why::Newcomers => newcomers = false,
                        Why::Due => {
                            sweeps = false;
                            if let Some(of) = of {
                                self.shares.done(&self.asked, &leg, &of, &report);
                            }
                            let (next, missed) = next_due(due, Instant::now(), interval);
                            if missed > 0 {
                                self.observer.overran(&self.asked.0, missed);
                            }
                            due = next + jitter(interval);
                        }
                    }
                }
                changed = self.legs.changed(), if is_wanted => is_wanted = changed.is_ok(),
                () = tokio::time::sleep_until(due), if is_wanted && !sweeps => {
                    let leg = self.legs.borrow_and_update().clone();
                    let due = self.shares.due(&self.asked, &leg);
                    let speakers = &leg.stand.speakers;
                    let turn = match (&due, self.asked.2) {
                        (Some(_), Part::Reach) => self.waiters.all(&self.asked, speakers),
                        // Who asks DNS has its turn when there is something to ask, or the same would always ask the same.
                        (Some(due), Part::Dns) if !(0..leg.dns.len()).any(|check| due.has(check, 0)) => Vec::new(),
                        _ => self.waiters.next(&self.asked, speakers),
                    };
                    let carried = Carried { due, ..self.ledger.carried(&leg) };
                    running.push(self.sweep(Why::Due, leg, turn, carried));
                    sweeps = true;
                }
            }
            // A DNS server's lists go on from sweep to sweep: there the new have the next turn.
            if is_wanted && !newcomers && self.asked.2 == Part::Reach {
                let leg = self.legs.borrow().clone();
                let turn = self.waiters.newcomers(&self.asked, &leg.stand.speakers);
                if !turn.is_empty() {
                    let due = Shares::due_to_newcomers(&self.asked, &leg);
                    running.push(self.sweep(Why::Newcomers, leg, turn, Carried { due, ..Carried::default() }));
                    newcomers = true;
                }
            }
        }
    }

    fn sweep(&self, why: Why, leg: Arc<Leg>, turn: Vec<Arc<Sandbox>>, carried: Carried) -> BoxFuture<'static, Swept> {
        let (sweeper, part) = (self.sweeper.clone(), self.asked.2);
        async move {
            let report = sweeper.sweep(&leg, part, &turn, &carried).await;
            Swept { why, leg, of: carried.due, report }
        }
        .boxed()
    }
}

/// True where all that could speak came to be a moment ago.
fn is_new(leg: &Leg) -> bool {
    match &leg.stand.speakers {
        Speakers::Pods(pods) => pods.iter().all(|pod| age(pod) < NEWBORN),
        _ => false,
    }
}

/// Up to a tenth of the interval, and 3 s at most.
fn first(interval: Duration) -> Duration {
    rand::rng().random_range(Duration::ZERO..=(interval / 10).min(Duration::from_secs(3)))
}

/// Agents drift apart by up to a twentieth of the interval a sweep, so that they never fall in step.
fn jitter(interval: Duration) -> Duration {
    rand::rng().random_range(Duration::ZERO..=interval / 20)
}

/// The next start after `now`, and how many were missed on the way.
fn next_due(due: Instant, now: Instant, interval: Duration) -> (Instant, u64) {
    let mut next = due + interval;
    let mut missed = 0;
    while next < now {
        next += interval;
        missed += 1;
    }
    (next, missed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overruns_are_counted_and_never_stacked() {
        let (start, interval) = (Instant::now(), Duration::from_secs(30));
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(next_due(start, at(10), interval), (at(30), 0));
        assert_eq!(next_due(start, at(30), interval), (at(30), 0));
        assert_eq!(next_due(start, at(31), interval), (at(60), 1));
        assert_eq!(next_due(start, at(100), interval), (at(120), 3));
    }
}
