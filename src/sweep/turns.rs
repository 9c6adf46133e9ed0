//! Whose turn it is: every pod of an identity speaks for it within a stated number of sweeps, new ones at once.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    inventory::{cri::Sandbox, stands::Speakers},
    plan::{Asked, Part},
};

/// More pods than this do not speak in one extra sweep because they are new; the rest has its turn soon.
const MOST_NEWCOMERS: usize = 8;

/// The turns of everybody who asks. They outlive a reload: whoever waited goes on waiting.
#[derive(Debug)]
pub struct Waiters {
    within: u32,
    turns: Mutex<HashMap<Asked, Turns>>,
}

impl Waiters {
    /// Every pod is to have its turn within so many sweeps.
    pub fn new(within: u32) -> Self {
        Self { within, turns: Mutex::default() }
    }

    /// The same, with another promise.
    #[must_use]
    pub fn promising(&self, within: u32) -> Self {
        Self { within, turns: Mutex::new(std::mem::take(&mut self.turns())) }
    }

    /// The pods that speak in the next sweep; of those that ask DNS only the first does. See [`Turns::next`].
    pub fn next(&self, asked: &Asked, speakers: &Speakers) -> Vec<Arc<Sandbox>> {
        let within = match (asked.2, speakers) {
            // One at a time, so that DNS is asked once a sweep.
            (Part::Dns, Speakers::Pods(pods)) => u32::try_from(pods.len()).unwrap_or(u32::MAX),
            _ => self.within,
        };
        self.turns().entry(asked.clone()).or_default().next(speakers, within)
    }

    /// All pods, where what is asked is a share only: it may be long until its next turn, and in step with the pods' turns it
    /// would never be had from some.
    pub fn all(&self, asked: &Asked, speakers: &Speakers) -> Vec<Arc<Sandbox>> {
        self.turns().entry(asked.clone()).or_default().next(speakers, 1)
    }

    /// See [`Turns::newcomers`].
    pub fn newcomers(&self, asked: &Asked, speakers: &Speakers) -> Vec<Arc<Sandbox>> {
        self.turns().entry(asked.clone()).or_default().newcomers(speakers)
    }

    /// Forgets all others.
    pub fn keep(&self, asked: &HashSet<Asked>) {
        self.turns().retain(|known, _| asked.contains(known));
    }

    fn turns(&self) -> MutexGuard<'_, HashMap<Asked, Turns>> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long each pod of one identity has waited.
#[derive(Debug, Default)]
pub struct Turns {
    sweeps: u64,
    waiting: HashMap<Arc<str>, Waiting>,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    /// The sweep after which it began to wait: that of its last turn, or the one before it was first seen.
    since: u64,
    has_spoken: bool,
    /// It came after the first sweep, and has not spoken yet.
    is_new: bool,
}

impl Turns {
    /// The pods that speak in the next sweep: so many that each has its turn `within` so many sweeps. First those that can
    /// wait no longer, so that no stream of new pods silences the others; then those that never had a turn; then those that
    /// wait longest. Empty where no pod speaks.
    pub fn next(&mut self, speakers: &Speakers, within: u32) -> Vec<Arc<Sandbox>> {
        let Speakers::Pods(pods) = speakers else { return Vec::new() };
        let here: HashSet<&Arc<str>> = pods.iter().map(|pod| &pod.id).collect();
        self.waiting.retain(|id, _| here.contains(id));
        let unseen = Waiting { since: self.sweeps, has_spoken: false, is_new: self.sweeps > 0 };
        self.sweeps += 1;
        let mut by_wait: Vec<(bool, Waiting, &Arc<Sandbox>)> = Vec::with_capacity(pods.len());
        for pod in pods.iter() {
            let waiting = *self.waiting.entry(pod.id.clone()).or_insert(unseen);
            by_wait.push((self.sweeps - waiting.since >= within.into(), waiting, pod));
        }
        // Stable, so that equals keep their order.
        by_wait.sort_by_key(|(is_due, waiting, _)| (!is_due, waiting.has_spoken, waiting.since));
        let due = by_wait.iter().filter(|(is_due, _, _)| *is_due).count();
        let count = pods.len().div_ceil(within.max(1) as usize).max(due);
        let chosen: Vec<_> = by_wait.into_iter().take(count).map(|(_, _, pod)| pod.clone()).collect();
        self.note(&chosen);
        chosen
    }

    /// Pods that came since the first sweep and never had a turn, some of them: they have it now.
    pub fn newcomers(&mut self, speakers: &Speakers) -> Vec<Arc<Sandbox>> {
        let Speakers::Pods(pods) = speakers else { return Vec::new() };
        if self.sweeps == 0 {
            return Vec::new();
        }
        let is_new = |pod: &&Arc<Sandbox>| self.waiting.get(&pod.id).is_none_or(|waiting| waiting.is_new);
        let chosen: Vec<_> = pods.iter().filter(is_new).take(MOST_NEWCOMERS).cloned().collect();
        self.note(&chosen);
        chosen
    }

    fn note(&mut self, chosen: &[Arc<Sandbox>]) {
        let spoke = Waiting { since: self.sweeps, has_spoken: true, is_new: false };
        self.waiting.extend(chosen.iter().map(|pod| (pod.id.clone(), spoke)));
    }
}

#[cfg(test)]
mod tests;
