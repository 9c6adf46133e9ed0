//! When boundaries are swept: each at its own interval, from a random phase and with jitter, never two sweeps of one
//! boundary at once.

use std::{sync::Arc, time::Duration};

use rand::Rng;
use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::Sweeper;
use crate::ledger::{Ledger, SweepReport, Transition};

/// What happens while sweeps run, for whoever counts and logs.
pub trait Observer: Send + Sync + 'static {
    /// A sweep was recorded.
    fn swept(&self, report: &SweepReport, transitions: &[Transition]);
    /// A sweep was still running when the next was due, so many times.
    fn overran(&self, boundary: &str, times: u64);
}

/// Sweeps every boundary until told to stop. Each boundary has a task of its own in `tasks`.
pub fn run(
    sweeper: &Arc<Sweeper>,
    ledger: &Arc<Ledger>,
    observer: &Arc<dyn Observer>,
    stop: &CancellationToken,
    tasks: &TaskTracker,
) {
    for index in 0..sweeper.plan.boundaries.len() {
        let (sweeper, ledger) = (sweeper.clone(), ledger.clone());
        let (observer, stop) = (observer.clone(), stop.clone());
        tasks.spawn(async move {
            let planned = &sweeper.plan.boundaries[index];
            let interval = planned.boundary.interval;
            // The first sweep comes soon: a new agent is wanted for its verdicts.
            let mut due = Instant::now() + first(interval);
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep_until(due) => {}
                }
                let carried = ledger.carried(&planned.boundary.name);
                let report = tokio::select! {
                    () = stop.cancelled() => return,
                    report = sweeper.sweep(planned, &carried) => report,
                };
                let transitions = ledger.record(&report);
                observer.swept(&report, &transitions);
                let (next, missed) = next_due(due, Instant::now(), interval);
                if missed > 0 {
                    observer.overran(&planned.boundary.name, missed);
                }
                due = next + jitter(interval);
            }
        });
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
