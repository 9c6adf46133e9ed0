//! How fast packets may leave: a paced schedule, shared by whoever sends under one budget.

use std::{
    sync::{Mutex, PoisonError},
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

    /// Waits for this caller's turn. Turns are given in the order of the calls.
    pub async fn turn(&self) {
        let at = self.reserve();
        if !Self::is_due(at) {
            tokio::time::sleep_until(at).await;
        }
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

    /// Time between two turns.
    pub const fn gap(&self) -> Duration {
        self.gap
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn starts_are_spaced_and_pauses_are_not_made_up_for() {
        let pace = Pace::per_second(10);
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
    async fn a_fast_pace_is_kept_on_average() {
        let pace = Pace::per_second(10_000);
        let begin = Instant::now();
        for _ in 0..5_000 {
            pace.turn().await;
        }
        let took = begin.elapsed();
        assert!((Duration::from_millis(490)..=Duration::from_millis(510)).contains(&took), "{took:?}");
    }
}
