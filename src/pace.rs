//! How fast packets may leave: a paced schedule, shared by whoever sends under one budget.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Timers are no finer than this, so a pace that is faster sends in small bursts of it.
const GRAIN: Duration = Duration::from_millis(2);

/// At most so many starts a second, evenly spaced; a pause is not made up for by a burst.
#[derive(Debug)]
pub struct Pace {
    gap: Duration,
    next: Mutex<Option<Instant>>,
}

impl Pace {
    /// `per_second` starts a second; it must not be 0 (the configuration refuses it).
    pub fn per_second(per_second: u32) -> Self {
        Self { gap: Duration::from_secs(1) / per_second.max(1), next: Mutex::new(None) }
    }

    /// Takes a turn and tells when it is, for a caller that has other things to wait for meanwhile.
    pub fn reserve(&self) -> Instant {
        let now = Instant::now();
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let at = next.map_or(now, |next| next.max(now.checked_sub(GRAIN).unwrap_or(now)));
        *next = Some(at + self.gap);
        at
    }

    /// True when a turn is so near that no timer can tell it from now.
    pub fn is_due(at: Instant) -> bool {
        at <= Instant::now() + GRAIN
    }
}

/// Who waits long for a turn waits until the next multiple of this: a hundred slow senders are woken together twelve times a
/// second and not each by itself, which costs more than what they send.
const STEP: Duration = Duration::from_millis(80);

/// Several paces at once: what starts waits for its turn in each of them.
#[derive(Clone, Debug)]
pub struct Paces {
    paces: Arc<[Arc<Pace>]>,
    in_step_since: Option<Instant>,
}

impl Paces {
    /// Under all of these.
    pub fn new(paces: impl IntoIterator<Item = Arc<Pace>>) -> Self {
        Self { paces: paces.into_iter().collect(), in_step_since: None }
    }

    /// The same, in step with all others since the same moment, where turns are at least a step of 80 ms apart. On average the
    /// pace stays what it is, and two turns are never closer than a step.
    #[must_use]
    pub fn in_step(self, since: Instant) -> Self {
        let is_slow = self.gap() >= STEP;
        Self { in_step_since: is_slow.then_some(since), ..self }
    }

    /// Waits for this caller's turn. Turns are given in the order of the calls.
    pub async fn turn(&self) {
        let at = self.in_step_at(self.reserve());
        if !Pace::is_due(at) {
            tokio::time::sleep_until(at).await;
        }
    }

    /// At least `least` from now, so that who waits so long is woken with the others that are in step.
    pub fn wait_in_step(&self, least: Duration) -> Duration {
        let now = Instant::now();
        self.in_step_at(now + least) - now
    }

    fn in_step_at(&self, at: Instant) -> Instant {
        let Some(since) = self.in_step_since else { return at };
        let steps = at.saturating_duration_since(since).as_nanos().div_ceil(STEP.as_nanos());
        since + STEP * u32::try_from(steps).unwrap_or(u32::MAX)
    }

    /// See [`Pace::reserve`].
    pub fn reserve(&self) -> Instant {
        self.paces.iter().map(|pace| pace.reserve()).max().unwrap_or_else(Instant::now)
    }

    /// Time between two turns: the slowest pace's.
    pub fn gap(&self) -> Duration {
        self.paces.iter().map(|pace| pace.gap).max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn starts_are_spaced_and_pauses_are_not_made_up_for() {
        let pace = Paces::new([Arc::new(Pace::per_second(10)), Arc::new(Pace::per_second(1_000))]);
        let begin = Instant::now();
        for _ in 0..11 {
            pace.turn().await;
        }
        let took = begin.elapsed();
        assert!((Duration::from_millis(995)..=Duration::from_millis(1005)).contains(&took), "{took:?}");

        tokio::time::sleep(Duration::from_secs(60)).await;
        let begin = Instant::now();
        for _ in 0..11 {
            pace.turn().await;
        }
        let took = begin.elapsed();
        assert!((Duration::from_millis(990)..=Duration::from_millis(1005)).contains(&took), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn slow_senders_are_woken_together_and_keep_their_pace() {
        let since = Instant::now();
        let senders: Vec<Paces> = (0..10).map(|_| Paces::new([Arc::new(Pace::per_second(5))]).in_step(since)).collect();
        let mut wakings = std::collections::BTreeSet::new();
        let sender = async |sender: &Paces, begins: u64| {
            // Each at a moment of its own.
            tokio::time::sleep(Duration::from_millis(begins)).await;
            let mut woken = Vec::new();
            for _ in 0..11 {
                sender.turn().await;
                woken.push(since.elapsed());
            }
            woken
        };
        let woken = futures_util::future::join_all(senders.iter().zip(1..).map(|(s, begins)| sender(s, begins))).await;
        for each in &woken {
            let took = *each.last().unwrap() - each[0];
            assert!((Duration::from_millis(1980)..=Duration::from_millis(2020)).contains(&took), "{took:?}");
            wakings.extend(each.iter().map(|at| at.as_millis() / 2));
        }
        assert_eq!(wakings.len(), 11, "{wakings:?}");
        // Who is fast is not put in step: it would be made slow.
        let fast = Paces::new([Arc::new(Pace::per_second(1_000))]).in_step(since);
        let begin = Instant::now();
        for _ in 0..1_001 {
            fast.turn().await;
        }
        let took = begin.elapsed();
        assert!((Duration::from_millis(980)..=Duration::from_millis(1020)).contains(&took), "{took:?}");
        assert_eq!(fast.wait_in_step(Duration::from_millis(3)), Duration::from_millis(3));

        let slow = &senders[0];
        for (least, waits) in [(0, 73), (73, 73), (74, 153), (2_000, 2_073)] {
            let begun = since + 750 * STEP + Duration::from_millis(7);
            tokio::time::sleep_until(begun).await;
            let waited = slow.wait_in_step(Duration::from_millis(least));
            assert_eq!(waited, Duration::from_millis(waits), "{least}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_fast_pace_is_kept_on_average() {
        let pace = Paces::new([Arc::new(Pace::per_second(10_000))]);
        let begin = Instant::now();
        for _ in 0..5_000 {
            pace.turn().await;
        }
        let took = begin.elapsed();
        assert!((Duration::from_millis(490)..=Duration::from_millis(510)).contains(&took), "{took:?}");
    }
}
