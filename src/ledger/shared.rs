//! The result of a check whose addresses are probed in turns, because nodes share the targets: the latest of each address.

use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use super::{CheckResult, Evidence, Pair};
use crate::{
    config::Address,
    model::{Reason, Verdict},
    observation::AddressSeen,
    plan::Question,
    verdict::judge_check,
};

/// What was seen of an address, and what was concluded of it.
type Seen = (AddressSeen, Reason);

/// A check whose addresses are probed in turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Latest {
    /// Its addresses; 0 where one of them is a name, which gives any number: those are probed together.
    addresses: usize,
}

impl Latest {
    pub fn of(question: &Question) -> Self {
        Self { addresses: listed(question).map_or(0, |listed| listed.len()) }
    }

    /// The latest of each address, after a sweep of some of them. `pinned` have open findings: they are probed in every sweep,
    /// whether their addresses are due or not.
    pub fn with(self, before: Option<&CheckResult>, fresh: &Arc<CheckResult>, pinned: &[Pair]) -> Arc<CheckResult> {
        let (Some(Evidence::Reach(old)), Evidence::Reach(new)) = (before.map(|b| &b.evidence), &fresh.evidence) else {
            return self.judged(fresh, None);
        };
        let is_pinned = |seen: &AddressSeen| {
            let is_it = |pair: &Pair| Some(pair.address) == seen.address && pair.from == seen.from;
            pinned.iter().any(is_it)
        };
        // Seen from all that speak.
        let due: HashSet<Option<SocketAddr>> =
            new.iter().filter(|(seen, _)| !is_mute(seen) && !is_pinned(seen)).map(|(seen, _)| seen.address).collect();
        let is_seen_again = |old: &AddressSeen| {
            let all_together = self.addresses == 0 && !due.is_empty();
            let same = |(new, _): &Seen| (new.address, &new.from) == (old.address, &old.from);
            all_together || due.contains(&old.address) || new.iter().any(same)
        };
        let kept = old.iter().filter(|(seen, _)| seen.listed && !is_mute(seen) && !is_seen_again(seen));
        let mut all: Vec<Seen> = kept.chain(new.iter()).cloned().collect();
        all.sort_by_key(|(seen, _)| seen.address);
        self.judged(fresh, Some(all.into()))
    }

    /// What is still planned of a result; none where that is nothing. `before` is what was planned when it was made.
    pub fn keep_planned(
        self,
        result: &Arc<CheckResult>,
        question: &Question,
        before: Option<Self>,
    ) -> Option<Arc<CheckResult>> {
        let (Some(listed), Evidence::Reach(addresses)) = (listed(question), &result.evidence) else {
            return Some(result.clone());
        };
        let is_planned = |seen: &AddressSeen| seen.address.is_none_or(|address| listed.contains(&address.ip()));
        if before == Some(self) && addresses.iter().all(|(seen, _)| is_planned(seen)) {
            return Some(result.clone());
        }
        retained(result, self, is_planned)
    }

    /// The same when all speak again; none where nothing is left.
    pub fn without_mutes(self, result: &Arc<CheckResult>) -> Option<Arc<CheckResult>> {
        retained(result, self, |seen| !is_mute(seen))
    }

    /// The verdict over all addresses. It is as old as what it rests on: a failure on the last that failed, anything else on all.
    pub fn judged(self, of: &CheckResult, addresses: Option<Box<[Seen]>>) -> Arc<CheckResult> {
        let addresses = match (addresses, &of.evidence) {
            (Some(addresses), _) => addresses,
            (None, Evidence::Reach(addresses)) => addresses.clone(),
            (None, Evidence::Dns(_) | Evidence::Node(_)) => Box::default(),
        };
        let seen: HashSet<SocketAddr> =
            addresses.iter().filter(|(seen, _)| seen.listed).filter_map(|(seen, _)| seen.address).collect();
        let is_known = seen.len() >= self.addresses || addresses.iter().any(|(seen, _)| is_mute(seen));
        let pending = (!is_known).then_some(Reason::Pending);
        let reason = judge_check(addresses.iter().map(|(_, reason)| *reason).chain(pending));
        let ended = |failed: bool| {
            let rests_on = move |(_, reason): &&Seen| !failed || reason.verdict() == Verdict::Fail;
            addresses.iter().filter(rests_on).map(|(seen, _)| seen.ended)
        };
        let judged = match reason.verdict() {
            Verdict::Fail => ended(true).max(),
            _ => ended(false).min(),
        };
        let (id, mode, discovered, at) = (of.id.clone(), of.mode, of.discovered, of.at);
        let judged = judged.unwrap_or(of.judged);
        Arc::new(CheckResult { id, mode, reason, evidence: Evidence::Reach(addresses), discovered, judged, at })
    }
}

impl CheckResult {
    /// True where somebody who should have spoken could not.
    pub(super) fn is_mute(&self) -> bool {
        matches!(&self.evidence, Evidence::Reach(addresses) if addresses.iter().any(|(seen, _)| is_mute(seen)))
    }
}

/// Where something is dropped or new, the verdict is another.
fn retained(
    result: &Arc<CheckResult>,
    latest: Latest,
    keep: impl Fn(&AddressSeen) -> bool,
) -> Option<Arc<CheckResult>> {
    let Evidence::Reach(addresses) = &result.evidence else { return Some(result.clone()) };
    let kept: Box<[Seen]> = addresses.iter().filter(|(seen, _)| keep(seen)).cloned().collect();
    (!kept.is_empty()).then(|| latest.judged(result, Some(kept)))
}

/// The addresses that a question lists; none where one of them is a name.
fn listed(question: &Question) -> Option<HashSet<IpAddr>> {
    let Question::Reach { addresses, .. } = question else { return None };
    let ip = |address: &Address| match address {
        Address::Ip(ip) => Some(*ip),
        Address::Name(_) => None,
    };
    addresses.iter().map(ip).collect()
}

/// True for the word of somebody who could not speak: it is of no address, and nothing was tried.
fn is_mute(seen: &AddressSeen) -> bool {
    seen.address.is_none() && seen.attempts.is_empty()
}
