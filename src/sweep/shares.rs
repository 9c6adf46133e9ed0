//! What is due in a sweep where nodes share the targets: the addresses whose turn it is, and those that missed theirs.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;

use crate::{
    config::Address,
    ledger::{CheckResult, Evidence, SweepReport},
    model::{CheckId, Verdict},
    observation::AddressSeen,
    plan::{
        Asked, Check, Leg, Question,
        share::{Due, Share, Slot},
    },
};

/// After a sweep that took long, or a clock that was set, the turns of so many epochs are had at once; those before are made up for
/// a few in each sweep.
const MOST_EPOCHS: u64 = 3;

/// The number of the interval that a moment of the wall clock is in. All nodes count alike, so that they take turns without a word.
pub fn epoch(now: Timestamp, interval: Duration) -> u64 {
    let interval = interval.as_millis().max(1);
    let epoch = u128::try_from(now.as_millisecond()).unwrap_or(0) / interval;
    u64::try_from(epoch).unwrap_or(u64::MAX)
}

/// What everybody who asks remembers of his turns. It outlives a reload.
#[derive(Debug, Default)]
pub struct Shares(Mutex<HashMap<Asked, Memory>>);

impl Shares {
    /// What is due in a sweep that begins now; none where that is everything.
    pub(super) fn due(&self, asked: &Asked, leg: &Leg) -> Option<Due> {
        let share = leg.share(asked.2)?;
        let now = epoch(Timestamp::now(), leg.boundary.boundary.interval);
        Some(self.memories().entry(asked.clone()).or_default().due(share, now))
    }

    /// What is due at once to who came in between: no more than to those who are there.
    pub(super) fn due_to_newcomers(asked: &Asked, leg: &Leg) -> Option<Due> {
        let share = leg.share(asked.2)?;
        let now = epoch(Timestamp::now(), leg.boundary.boundary.interval);
        Some(Memory::default().due(share, now))
    }

    /// A sweep of what was due is over.
    pub(super) fn done(&self, asked: &Asked, leg: &Leg, due: &Due, report: &SweepReport) {
        let results: HashMap<&Arc<CheckId>, &CheckResult> =
            report.results.iter().map(|result| (&result.id, &**result)).collect();
        let mut seen = Vec::with_capacity(due.slots().len());
        let mut slots = due.slots().iter().peekable();
        for (index, check) in leg.part(asked.2).iter().enumerate() {
            let of_check = due.share().of_check(index);
            while let Some(slot) = slots.next_if(|slot| of_check.contains(&(**slot as usize))) {
                let in_check = *slot as usize - of_check.start;
                let alone = of_check.len() > 1;
                seen.push(results.get(&check.id).and_then(|result| worst(check, result, in_check, alone)));
            }
        }
        if let Some(memory) = self.memories().get_mut(asked) {
            memory.done(due, &seen);
        }
    }

    /// Forgets all others.
    pub(super) fn keep(&self, asked: &HashSet<Asked>) {
        self.memories().retain(|known, _| asked.contains(known));
    }

    fn memories(&self) -> MutexGuard<'_, HashMap<Asked, Memory>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The worst that was seen of one of a check's addresses where each has a turn of its own, else of all; none where that was not
/// probed.
fn worst(check: &Check, result: &CheckResult, address: usize, alone: bool) -> Option<Verdict> {
    let (Evidence::Reach(addresses), Question::Reach { addresses: asked, .. }) = (&result.evidence, &check.question)
    else {
        return Some(result.reason.verdict());
    };
    let is_it = |seen: &AddressSeen| match asked.get(address) {
        Some(Address::Ip(ip)) if alone => seen.address.is_some_and(|at| at.ip() == *ip),
        // A name that was not resolved was asked, too.
        _ => seen.address.is_some() || !seen.attempts.is_empty(),
    };
    addresses.iter().filter(|(seen, _)| is_it(seen)).map(|(_, reason)| reason.verdict()).min()
}

/// When each slot of a share was last probed.
#[derive(Debug, Default)]
pub struct Memory {
    /// The epoch of the last sweep that came to its end.
    swept: Option<u64>,
    share: Arc<Share>,
    /// Of each slot of the share.
    slots: Box<[Last]>,
}

#[derive(Clone, Copy, Debug)]
struct Last {
    /// The epoch in which it was probed; before that, in which it would have had its turn.
    probed: u64,
    /// What was seen failed or told nothing: it is probed once more, in the next sweep.
    again: bool,
}

impl Memory {
    /// What is due in a sweep that begins in the epoch `now`: whatever had its turn since the last sweep; and of what missed its
    /// turn or was doubtful as much as there is in one turn, so that making up never more than doubles the load.
    pub fn due(&mut self, share: &Arc<Share>, now: u64) -> Due {
        self.follow(share, now);
        // Where the clock was set back, this epoch comes again.
        let since = self.swept.filter(|swept| *swept <= now).unwrap_or(now.saturating_sub(1));
        let epochs = (now - since).min(MOST_EPOCHS).min(share.sweeps.into());
        let (mut due, mut missed) = (Vec::new(), Vec::new());
        if share.nodes == 0 {
            return Due::new(share.clone(), now, Box::default());
        }
        let since_turn = since_turn(share, now);
        for (index, (slot, last)) in (0..).zip(share.slots().iter().zip(&self.slots)) {
            if since_turn(slot) < epochs {
                due.push(index);
            } else if last.again || now.saturating_sub(last.probed) > u64::from(share.within()) {
                missed.push((last.probed, index));
            }
        }
        if !missed.is_empty() {
            missed.sort_unstable();
            let in_a_turn = share.slots().len().div_ceil(share.sweeps.max(1) as usize);
            due.extend(missed.into_iter().take(in_a_turn).map(|(_, index)| index));
            due.sort_unstable();
        }
        Due::new(share.clone(), now, due.into())
    }

    /// What is known of a slot is known by its key, whatever else is planned or shared by whom.
    fn follow(&mut self, share: &Arc<Share>, now: u64) {
        if Arc::ptr_eq(&self.share, share) {
            return;
        }
        let known: HashMap<u64, Last> =
            self.share.slots().iter().map(|slot| slot.key).zip(self.slots.iter().copied()).collect();
        // What was never seen is as if it had had its turn: agents that start together must not make up for something together.
        let since_turn = since_turn(share, now);
        let new = |slot: &Slot| Last { probed: now.saturating_sub(since_turn(slot)), again: false };
        let last = |slot: &Slot| known.get(&slot.key).copied().unwrap_or_else(|| new(slot));
        self.slots = share.slots().iter().map(last).collect();
        self.share = share.clone();
    }

    /// What was seen at each slot that was due, in order; none where it was not probed.
    pub fn done(&mut self, due: &Due, seen: &[Option<Verdict>]) {
        self.swept = Some(due.epoch());
        // Nothing is due of another share before this sweep is over.
        for (slot, seen) in due.slots().iter().zip(seen).filter(|_| Arc::ptr_eq(&self.share, due.share())) {
            let Some(last) = self.slots.get_mut(*slot as usize) else { continue };
            let is_doubtful = seen.is_none_or(|verdict| verdict <= Verdict::Inconclusive);
            // Once: what is never well must not be probed by all nodes in every sweep.
            last.again = is_doubtful && !last.again;
            if seen.is_some() {
                last.probed = due.epoch();
            }
        }
    }
}

/// How many epochs ago a slot had its turn; 0 where it is now.
fn since_turn(share: &Share, now: u64) -> impl Fn(&Slot) -> u64 {
    let sweeps = u64::from(share.sweeps.max(1));
    let this_turn = now % sweeps;
    move |slot| {
        let turn = u64::from(slot.turn);
        if turn <= this_turn { this_turn - turn } else { (this_turn + sweeps).saturating_sub(turn) }
    }
}

#[cfg(test)]
mod tests;
