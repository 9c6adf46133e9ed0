//! Findings of one check: which of its addresses failed, since when, and how near each is to its close.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use jiff::Timestamp;

use super::{CheckResult, Evidence, Pair, Transition};
use crate::{
    config::Address,
    inventory::stands::Speakers,
    model::{AddressKind, CheckId, PodName, Reason, Verdict},
    observation::AddressSeen,
    plan::Question,
};

/// Blocked results in a row that close a finding of an endpoint or a DNS server.
const CLOSES_ENDPOINT: u32 = 3;
/// The same for a virtual address, where one backend of several may be the leak.
const CLOSES_VIRTUAL: u32 = 10;

/// Sweeps in a row in which a name no longer gives the address and it is not reached: then it is gone.
const GONE_AFTER: u32 = 3;

/// How a finding ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// Blocked often enough in a row.
    Resolved,
    /// Either end no longer exists.
    Gone,
}

/// An address that failed where `blocked` is expected, from its first sight to its close.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The pod that it was seen from; none for the agent's own network.
    pub from: Option<Arc<PodName>>,
    /// The address; none for DNS, where the server is the check's target.
    pub address: Option<SocketAddr>,
    /// When it was first seen, for people.
    pub since: Timestamp,
    /// When it was last seen to fail, for people.
    pub last_failed: Timestamp,
    /// Why it failed last.
    pub reason: Reason,
    /// Blocked results in a row since then.
    pub blocked: u32,
    /// How many of them close it.
    pub closes_at: u32,
    opened: Instant,
    unlisted: u32,
}

/// What one result says of one pair.
#[derive(Clone, Copy)]
struct Seen<'a> {
    from: &'a Option<Arc<PodName>>,
    address: Option<SocketAddr>,
    kind: AddressKind,
    listed: bool,
    reason: Reason,
}

impl Finding {
    pub(super) fn closed(&self, id: &Arc<CheckId>, closed: Closed, now: Instant) -> Transition {
        let after = now.saturating_duration_since(self.opened);
        Transition::Closed { id: id.clone(), from: self.from.clone(), address: self.address, closed, after }
    }
}

/// All open findings of one check.
#[derive(Debug, Default)]
pub(super) struct Findings(Vec<Finding>);

impl Findings {
    /// The open findings, the longest open first.
    pub fn open(&self) -> Arc<[Finding]> {
        // The empty slice is shared: thousands of checks have no finding.
        if self.0.is_empty() { Arc::default() } else { self.0.as_slice().into() }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Finding> {
        self.0.iter()
    }

    /// What is to be probed whatever the plan says, and from where.
    pub fn pairs(&self) -> impl Iterator<Item = Pair> {
        self.0.iter().filter_map(|f| Some(Pair { from: f.from.clone(), address: f.address? }))
    }

    /// Takes a result into account; returns the number of findings that it opened.
    pub fn record(&mut self, result: &CheckResult, transitions: &mut Vec<Transition>) -> u64 {
        let mut opened = 0;
        match &result.evidence {
            // A slice that told nothing did not ask again what was told: it neither closes a finding nor keeps it from closing.
            Evidence::Dns(dns) if result.reason.verdict() != Verdict::Fail && !dns.seen.is_complete() => {}
            Evidence::Dns(dns) => {
                let seen = Seen { from: &dns.from, address: None, kind: dns.kind, listed: true, reason: result.reason };
                opened += u64::from(self.pair(result, seen, transitions));
            }
            Evidence::Node(_) => {
                let kind = AddressKind::Endpoint;
                let seen = Seen { from: &None, address: None, kind, listed: true, reason: result.reason };
                opened += u64::from(self.pair(result, seen, transitions));
            }
            Evidence::Reach(addresses) => {
                for (seen, reason) in addresses {
                    let AddressSeen { from, address, kind, listed, .. } = seen;
                    let seen = Seen { from, address: *address, kind: *kind, listed: *listed, reason: *reason };
                    opened += u64::from(self.pair(result, seen, transitions));
                }
            }
        }
        opened
    }

    /// One result of one pair; true when it opened a finding.
    fn pair(&mut self, result: &CheckResult, seen: Seen<'_>, transitions: &mut Vec<Transition>) -> bool {
        let Seen { from, address, kind, listed, reason } = seen;
        let known = self.0.iter().position(|f| (f.address, &f.from) == (address, from));
        match (reason.verdict(), known) {
            (Verdict::Fail, None) => {
                self.0.push(Finding {
                    from: from.clone(),
                    address,
                    since: result.at,
                    last_failed: result.at,
                    reason,
                    blocked: 0,
                    closes_at: match kind {
                        AddressKind::Endpoint => CLOSES_ENDPOINT,
                        AddressKind::Virtual => CLOSES_VIRTUAL,
                    },
                    opened: result.judged,
                    unlisted: 0,
                });
                transitions.push(Transition::Opened { id: result.id.clone(), from: from.clone(), address, reason });
                return true;
            }
            (Verdict::Fail, Some(known)) => {
                let finding = &mut self.0[known];
                (finding.last_failed, finding.reason) = (result.at, reason);
                (finding.blocked, finding.unlisted) = (0, 0);
            }
            (verdict, Some(known)) => {
                let finding = &mut self.0[known];
                // What was not measured neither closes a finding nor starts its count anew.
                finding.blocked += u32::from(verdict != Verdict::Inconclusive);
                finding.unlisted = match reason {
                    _ if listed => 0,
                    // A vantage that sees nothing cannot see that an address is gone.
                    Reason::VantageOffline
                    | Reason::VantageClosed
                    | Reason::VantageGone
                    | Reason::Captured
                    | Reason::Lossy
                    | Reason::LocalError => finding.unlisted,
                    _ => finding.unlisted + 1,
                };
                let closed = match finding {
                    Finding { blocked, closes_at, .. } if *blocked >= *closes_at => Closed::Resolved,
                    Finding { unlisted: GONE_AFTER.., .. } => Closed::Gone,
                    _ => return false,
                };
                transitions.push(self.0.remove(known).closed(&result.id, closed, result.judged));
            }
            (_, None) => {}
        }
        false
    }

    /// Closes, as gone, what a new plan no longer lists. An address that a name once gave stays: the name may be hidden
    /// while the address is still open.
    pub fn keep_planned(&mut self, question: &Question, mut gone: impl FnMut(&Finding)) {
        let listed = |finding: &Finding| match (question, finding.address) {
            (Question::Reach { addresses, port, .. }, Some(address)) => addresses.iter().any(|a| match a {
                Address::Ip(ip) => SocketAddr::new(*ip, *port) == address,
                Address::Name(_) => *port == address.port(),
            }),
            (Question::Reach { .. }, None) => false,
            (Question::Dns { .. } | Question::CoResidency, _) => true,
        };
        self.0.extract_if(.., |finding| !listed(finding)).for_each(|finding| gone(&finding));
    }

    /// Closes, as gone, what was seen from a pod that is not there any more: nobody can ask that again.
    pub fn keep_standing(&mut self, speakers: &Speakers, mut gone: impl FnMut(&Finding)) {
        let stands = |finding: &Finding| speakers.has(finding.from.as_deref());
        self.0.extract_if(.., |finding| !stands(finding)).for_each(|finding| gone(&finding));
    }
}
