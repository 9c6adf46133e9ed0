//! When boundaries are swept: each at its own interval, from a random phase and with jitter, never two sweeps of one
//! boundary at once.

use std::{collections::HashMap, sync::Arc, time::Duration};

use rand::Rng;
use tokio::{sync::watch, time::Instant};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use super::{Sweeper, Turns};
use crate::{
    inventory::stands::{Speakers, age},
    ledger::{Ledger, SweepReport, Transition},
    model::Identity,
    plan::Leg,
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

/// The running sweeps: one task for each leg, started and stopped as identities come and go.
pub struct Schedule {
    sweeper: Arc<Sweeper>,
    ledger: Arc<Ledger>,
    observer: Arc<dyn Observer>,
    stop: CancellationToken,
    tasks: TaskTracker,
    legs: HashMap<(Arc<str>, Arc<Identity>), Running>,
}

struct Running {
    leg: watch::Sender<Arc<Leg>>,
    /// Stops it when it is dropped.
    _stop: DropGuard,
}

impl Schedule {
    /// Nothing runs yet.
    pub fn new(sweeper: Arc<Sweeper>, ledger: Arc<Ledger>, observer: Arc<dyn Observer>) -> Self {
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        Self { sweeper, ledger, observer, stop, tasks, legs: HashMap::new() }
    }

    /// Sweeps these legs from now on, and no others.
    pub fn follow(&mut self, legs: &[Arc<Leg>]) {
        let mut before = std::mem::take(&mut self.legs);
        for leg in legs {
            let key = (leg.boundary.boundary.name.clone(), leg.stand.source.identity.clone());
            let running = match before.remove(&key) {
                Some(running) => {
                    running.leg.send_if_modified(|known| {
                        let changed = !Arc::ptr_eq(known, leg);
                        known.clone_from(leg);
                        changed
                    });
                    running
                }
                None => self.start(leg.clone()),
            };
            self.legs.insert(key, running);
        }
    }

    fn start(&self, leg: Arc<Leg>) -> Running {
        let stop = self.stop.child_token();
        let (sender, receiver) = watch::channel(leg);
        let (sweeper, ledger) = (self.sweeper.clone(), self.ledger.clone());
        let (observer, told) = (self.observer.clone(), stop.clone());
        self.tasks.spawn(async move {
            let _ = told.run_until_cancelled(keep_sweeping(sweeper, ledger, observer, receiver)).await;
        });
        Running { leg: sender, _stop: stop.drop_guard() }
    }

    /// Stops all sweeps and waits for their end.
    pub async fn stop(&mut self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Sweeps one leg for ever, at its interval; and at once where a pod is new.
async fn keep_sweeping(
    sweeper: Arc<Sweeper>,
    ledger: Arc<Ledger>,
    observer: Arc<dyn Observer>,
    mut legs: watch::Receiver<Arc<Leg>>,
) {
    let interval = legs.borrow().boundary.boundary.interval;
    let within = sweeper.config.pods.as_ref().map_or(1, |pods| pods.turn_within);
    let mut turns = Turns::default();
    // The first sweep comes soon: a new agent is wanted for its verdicts, and a new pod may be open for a moment only.
    let mut due = Instant::now() + if is_new(&legs.borrow()) { Duration::ZERO } else { first(interval) };
    loop {
        let (turn, is_due) = tokio::select! {
            () = tokio::time::sleep_until(due) => (turns.next(&legs.borrow_and_update().stand.speakers, within), true),
            Ok(()) = legs.changed() => (turns.newcomers(&legs.borrow_and_update().stand.speakers), false),
        };
        if turn.is_empty() && !is_due {
            continue;
        }
        let leg = legs.borrow().clone();
        let carried = ledger.carried(&leg);
        let report = sweeper.sweep(&leg, &turn, &carried).await;
        let transitions = ledger.record(&report);
        observer.swept(&report, &transitions);
        if is_due {
            let (next, missed) = next_due(due, Instant::now(), interval);
            if missed > 0 {
                observer.overran(&leg.boundary.boundary.name, missed);
            }
            due = next + jitter(interval);
        }
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
