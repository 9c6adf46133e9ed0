//! `rate_limit`: a token bucket over all requests, whoever asks.

use std::time::{Duration, Instant};

use super::file::Rate;

/// The bucket.
#[derive(Debug)]
pub struct Bucket {
    rate: Rate,
    /// When it is, or would have been, full again.
    full_at: Instant,
}

impl Bucket {
    /// A full one.
    pub fn new(rate: Rate, now: Instant) -> Self {
        Self { rate, full_at: now }
    }

    /// Takes a token, or tells how long there will be none.
    pub fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let Rate { interval, burst } = self.rate;
        let full_at = self.full_at.max(now) + interval;
        let missing = full_at - now;
        match missing.checked_sub(interval.saturating_mul(burst)) {
            None | Some(Duration::ZERO) => {
                self.full_at = full_at;
                Ok(())
            }
            Some(wait) => Err(wait),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_one_in_each_interval() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut bucket = Bucket::new(Rate { interval: Duration::from_millis(100), burst: 3 }, start);
        for _ in 0..3 {
            assert_eq!(bucket.take(at(0)), Ok(()));
        }
        assert_eq!(bucket.take(at(0)), Err(Duration::from_millis(100)));
        assert_eq!(bucket.take(at(60)), Err(Duration::from_millis(40)));
        assert_eq!(bucket.take(at(100)), Ok(()), "what was refused cost nothing");
        assert!(bucket.take(at(100)).is_err());
        // After a long rest there are no more than a burst.
        let taken = (0..10).filter(|_| bucket.take(at(60_000)).is_ok()).count();
        assert_eq!(taken, 3);
    }
}
