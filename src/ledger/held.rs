//! Failures at discovered addresses of one check that wait for discovery's next word: pods come and go, and addresses are used
//! again. The earliest of each pair waits, so that a breach is no finding later than the first heartbeat after it.

use std::{collections::HashSet, net::SocketAddr, sync::Arc, time::Instant};

use jiff::Timestamp;

use super::{CheckResult, Evidence, findings::Findings, shared::Latest};
use crate::{
    config::Address,
    inventory::stands::Speakers,
    model::{AddressKind, CheckId, Mode, Reason},
    observation::AddressSeen,
    plan::Question,
    verdict::{confirm, judge_check},
};

/// What waits of one check.
#[derive(Debug, Default)]
pub(super) struct Held(Vec<Waiting>);

#[derive(Debug)]
struct Waiting {
    seen: AddressSeen,
    reason: Reason,
    judged: Instant,
    at: Timestamp,
}

fn is_same(a: &AddressSeen, b: &AddressSeen) -> bool {
    (a.address, &a.from) == (b.address, &b.from)
}

impl Held {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Holds the failures of a result that `word` does not confirm, and gives what is known without them; nothing where it is the
    /// same. A pair with an open finding is known, and so is an address that is probed for its finding alone. Of each pair it is
    /// the earliest that waits, whatever the clock was when it was seen first.
    pub fn hold(
        mut self,
        result: &Arc<CheckResult>,
        word: Timestamp,
        findings: &Findings,
    ) -> (Self, Option<Arc<CheckResult>>) {
        let Evidence::Reach(addresses) = &result.evidence else { return (self, None) };
        let unconfirmed = |seen: &AddressSeen, reason: Reason| {
            let is_known = findings.iter().any(|f| (f.address, &f.from) == (seen.address, &seen.from));
            let waits = seen.listed && seen.kind == AddressKind::Endpoint && !is_known;
            if waits { confirm(reason, result.at, word) } else { reason }
        };
        let waits = |(seen, reason): &(AddressSeen, Reason)| unconfirmed(seen, *reason) != *reason;
        // Most checks fail nowhere, and need no copy.
        if !addresses.iter().any(waits) {
            return (self, None);
        }
        for (seen, reason) in addresses.iter().filter(|of| waits(of)) {
            let waiting = Waiting { seen: seen.clone(), reason: *reason, judged: result.judged, at: result.at };
            match self.0.iter_mut().find(|known| is_same(&known.seen, seen)) {
                Some(known) if known.at <= waiting.at => {}
                Some(known) => *known = waiting,
                None => self.0.push(waiting),
            }
        }
        let known = addresses.iter().map(|(seen, reason)| (seen.clone(), unconfirmed(seen, *reason)));
        (self, Some(Arc::new(with_addresses(result, known.collect()))))
    }

    /// Only what a new plan still lists: at other addresses nobody knows who answered. What pods saw that are gone stays once
    /// for each address: they may be many, and it is the word that they saw it that counts.
    pub fn keep_listed(mut self, question: &Question, speakers: &Speakers) -> Option<Self> {
        let Question::Reach { addresses, port, vouched_by: Some(_), .. } = question else { return None };
        let is_listed = |address: SocketAddr| {
            addresses.iter().any(|a| matches!(a, Address::Ip(ip) if SocketAddr::new(*ip, *port) == address))
        };
        self.0.sort_by_key(|waiting| waiting.at);
        let mut seen_by_the_gone = HashSet::new();
        self.0.retain(|Waiting { seen, .. }| {
            let mut is_first = |address| speakers.has(seen.from.as_deref()) || seen_by_the_gone.insert(address);
            seen.address.is_some_and(|address| is_listed(address) && is_first(address))
        });
        (!self.is_empty()).then_some(self)
    }

    /// Takes out what a word confirms, as the result that it was.
    pub fn confirmed(&mut self, id: &Arc<CheckId>, word: Timestamp) -> Option<CheckResult> {
        let is_confirmed = |w: &mut Waiting| confirm(w.reason, w.at, word) != Reason::UnconfirmedAddress;
        let confirmed: Vec<Waiting> = self.0.extract_if(.., is_confirmed).collect();
        let (judged, at) = confirmed.iter().map(|w| (w.judged, w.at)).min()?;
        let addresses: Box<[_]> = confirmed.into_iter().map(|w| (w.seen, w.reason)).collect();
        let reason = judge_check(addresses.iter().map(|(_, reason)| *reason));
        let evidence = Evidence::Reach(addresses);
        Some(CheckResult { id: id.clone(), mode: Mode::Judge, reason, evidence, discovered: true, judged, at })
    }
}

/// The latest result, where what waited is a finding now. `shared` where its addresses are probed in turns.
pub(super) fn with_findings(
    latest: &Arc<CheckResult>,
    confirmed: &CheckResult,
    shared: Option<Latest>,
) -> Arc<CheckResult> {
    let (Evidence::Reach(addresses), Evidence::Reach(now)) = (&latest.evidence, &confirmed.evidence) else {
        return latest.clone();
    };
    let addresses = addresses.iter().map(|(seen, reason)| {
        let waited = now.iter().find(|(other, _)| *reason == Reason::UnconfirmedAddress && is_same(other, seen));
        (seen.clone(), waited.map_or(*reason, |(_, reason)| *reason))
    });
    match shared {
        Some(shared) => shared.judged(latest, Some(addresses.collect())),
        None => Arc::new(with_addresses(latest, addresses.collect())),
    }
}

fn with_addresses(result: &CheckResult, addresses: Box<[(AddressSeen, Reason)]>) -> CheckResult {
    let CheckResult { id, mode, discovered, judged, at, .. } = result;
    let reason = judge_check(addresses.iter().map(|(_, reason)| *reason));
    let evidence = Evidence::Reach(addresses);
    CheckResult { id: id.clone(), mode: *mode, reason, evidence, discovered: *discovered, judged: *judged, at: *at }
}
