//! Findings of one check: which of its addresses failed, since when, and how near each is to its close.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;

use super::{CheckResult, Evidence, Transition};
use crate::{
    config::Address,
    model::{AddressKind, Reason, Verdict},
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
    /// The target no longer exists.
    Gone,
}

/// An address that failed where `blocked` is expected, from its first sight to its close.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
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

/// All open findings of one check.
#[derive(Debug, Default)]
pub(super) struct Findings(Vec<Finding>);

impl Findings {
    /// The open findings, the longest open first.
    pub fn open(&self) -> Arc<[Finding]> {
        // The empty slice is shared: thousands of checks have no finding.
        if self.0.is_empty() { Arc::default() } else { self.0.as_slice().into() }
    }

    /// Addresses to be probed whatever the plan says.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.0.iter().filter_map(|f| f.address)
    }

    /// Takes a result into account; returns the number of findings that it opened.
    pub fn record(&mut self, result: &CheckResult, transitions: &mut Vec<Transition>) -> u64 {
        let mut opened = 0;
        match &result.evidence {
            // A slice that told nothing did not ask again what was told: it neither closes a finding nor keeps it from closing.
            Evidence::Dns(dns) if result.reason.verdict() != Verdict::Fail && !dns.seen.is_complete() => {}
            Evidence::Dns(dns) => {
                opened += u64::from(self.pair(result, None, dns.kind, true, result.reason, transitions));
            }
            Evidence::Reach(addresses) => {
                for (seen, reason) in addresses {
                    opened += u64::from(self.pair(result, seen.address, seen.kind, seen.listed, *reason, transitions));
                }
            }
        }
        opened
    }

    /// One result of one pair; true when it opened a finding.
    fn pair(
        &mut self,
        result: &CheckResult,
        address: Option<SocketAddr>,
        kind: AddressKind,
        listed: bool,
        reason: Reason,
        transitions: &mut Vec<Transition>,
    ) -> bool {
        let known = self.0.iter().position(|f| f.address == address);
        match (reason.verdict(), known) {
            (Verdict::Fail, None) => {
                self.0.push(Finding {
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
                transitions.push(Transition::Opened { id: result.id.clone(), address, reason });
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
                    Reason::VantageOffline | Reason::Captured | Reason::Lossy | Reason::LocalError => finding.unlisted,
                    _ => finding.unlisted + 1,
                };
                let closed = match finding {
                    Finding { blocked, closes_at, .. } if *blocked >= *closes_at => Closed::Resolved,
                    Finding { unlisted: GONE_AFTER.., .. } => Closed::Gone,
                    _ => return false,
                };
                let after = result.judged.saturating_duration_since(finding.opened);
                self.0.remove(known);
                transitions.push(Transition::Closed { id: result.id.clone(), address, closed, after });
            }
            (_, None) => {}
        }
        false
    }

    /// Closes, as gone, what a new plan no longer lists. An address that a name once gave stays: the name may be hidden
    /// while the address is still open.
    pub fn keep_planned(
        &mut self,
        question: &Question,
        mut gone: impl FnMut(Option<SocketAddr>, Duration),
        now: Instant,
    ) {
        let listed = |finding: &Finding| match (question, finding.address) {
            (Question::Reach { addresses, port, .. }, Some(address)) => addresses.iter().any(|a| match a {
                Address::Ip(ip) => SocketAddr::new(*ip, *port) == address,
                Address::Name(_) => *port == address.port(),
            }),
            (Question::Reach { .. }, None) => false,
            (Question::Dns { .. }, _) => true,
        };
        self.0.retain(|finding| {
            let keep = listed(finding);
            if !keep {
                gone(finding.address, now.saturating_duration_since(finding.opened));
            }
            keep
        });
    }

    /// Closes everything.
    pub fn close_all(&mut self, now: Instant, mut gone: impl FnMut(Option<SocketAddr>, Duration)) {
        for finding in self.0.drain(..) {
            gone(finding.address, now.saturating_duration_since(finding.opened));
        }
    }
}
