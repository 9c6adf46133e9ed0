//! The latest results, what changed, and the findings: the state between sweep and export.
//!
//! Sweeps are recorded; readers take an immutable [`Snapshot`]. Nothing that reads can change anything.

mod findings;

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use jiff::Timestamp;

use crate::{
    model::{AddressKind, CheckId, CheckKind, Expect, Identity, Mode, Reason, Verdict},
    observation::{AddressSeen, DnsSeen, Rotation},
    plan::Plan,
};
use findings::Findings;
pub use findings::{Closed, Finding};

/// What one sweep found out.
#[derive(Debug)]
pub struct SweepReport {
    /// The boundary.
    pub boundary: Arc<str>,
    /// Wall clock at its start, for people and files only.
    pub started: Timestamp,
    /// When the last result was judged, on the monotonic clock.
    pub ended: Instant,
    /// How long it took.
    pub took: Duration,
    /// One result for each check that was due.
    pub results: Vec<Arc<CheckResult>>,
    /// What the controls said.
    pub controls: Vec<ControlState>,
}

/// The result of one check in one sweep.
#[derive(Debug)]
pub struct CheckResult {
    /// Which check.
    pub id: Arc<CheckId>,
    /// Whether it counts.
    pub mode: Mode,
    /// What was concluded in this sweep, without regard to findings that are still open.
    pub reason: Reason,
    /// What it rests on.
    pub evidence: Evidence,
    /// When its evidence was complete, on the monotonic clock.
    pub judged: Instant,
    /// The same for people.
    pub at: Timestamp,
}

impl CheckResult {
    /// How far the lists of a DNS check were asked; empty for TCP.
    pub fn lists(&self) -> &[Rotation] {
        match &self.evidence {
            Evidence::Dns(dns) => &dns.seen.lists,
            Evidence::Reach(_) => &[],
        }
    }
}

/// What a result rests on.
#[derive(Debug)]
pub enum Evidence {
    /// Each address with what was concluded of it.
    Reach(Box<[(AddressSeen, Reason)]>),
    /// What the technique saw of the server.
    Dns(Box<DnsEvidence>),
}

/// What one sweep leaves to the next.
#[derive(Debug, Default)]
pub struct Carried {
    /// Addresses with open findings: they come first in every sweep, whatever their names give now.
    pub pinned: HashMap<Arc<CheckId>, Vec<SocketAddr>>,
    /// The latest results of DNS checks: long lists go on where these ended.
    pub dns: HashMap<Arc<CheckId>, Arc<CheckResult>>,
}

/// What a DNS result rests on.
#[derive(Debug)]
pub struct DnsEvidence {
    /// The server that was asked.
    pub server: SocketAddr,
    /// Who answers there.
    pub kind: AddressKind,
    /// The namespaces that must not be disclosed.
    pub protected: Arc<[Arc<str>]>,
    /// What was seen.
    pub seen: DnsSeen,
}

/// Whether a control of a vantage was trustworthy in the last sweep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlState {
    /// Whose control.
    pub source: Arc<Identity>,
    /// `positive`, `negative` or `loss`.
    pub kind: &'static str,
    /// What was tried: an address, or a family for `loss`.
    pub control: Arc<str>,
    /// 1 = trustworthy.
    pub ok: bool,
}

/// What changed, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transition {
    /// A finding was opened.
    Opened {
        /// The check.
        id: Arc<CheckId>,
        /// The address; none for DNS.
        address: Option<SocketAddr>,
        /// Why.
        reason: Reason,
    },
    /// A finding was closed.
    Closed {
        /// The check.
        id: Arc<CheckId>,
        /// The address; none for DNS.
        address: Option<SocketAddr>,
        /// How.
        closed: Closed,
        /// How long it was open.
        after: Duration,
    },
    /// A check's reason changed.
    Changed {
        /// The check.
        id: Arc<CheckId>,
        /// Before; none at the first result.
        from: Option<Reason>,
        /// Now.
        to: Reason,
    },
}

/// The state at one moment, to be read without locks.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Every planned check, in the order of identities.
    pub checks: Vec<CheckView>,
    /// Every boundary, in the order of the configuration.
    pub boundaries: Vec<BoundaryView>,
    /// Findings ever opened, by boundary and kind; zeros included.
    pub findings: BTreeMap<(Arc<str>, CheckKind), FindingCount>,
    /// Controls of the last sweeps.
    pub controls: Vec<ControlState>,
    /// SHA-256 of the configuration.
    pub config_hash: Arc<str>,
    /// What is not tested.
    pub not_tested: Vec<crate::plan::NotTested>,
}

/// A planned check and the latest that is known of it.
#[derive(Clone, Debug)]
pub struct CheckView {
    /// Its identity.
    pub id: Arc<CheckId>,
    /// Whether it counts.
    pub mode: Mode,
    /// The latest result; none before the first.
    pub result: Option<Arc<CheckResult>>,
    /// Time between two of its results, as planned.
    pub round: Duration,
    /// Its open findings, the longest open first.
    pub findings: Arc<[Finding]>,
}

impl CheckView {
    /// What is served at a moment: a result older than three of its rounds says nothing any more, and a check with an
    /// open finding stays failed until the finding is closed.
    pub fn reason_at(&self, now: Instant) -> Reason {
        match &self.result {
            None => Reason::Pending,
            Some(result) if now.saturating_duration_since(result.judged) > 3 * self.round => Reason::Stale,
            Some(result) if !self.findings.is_empty() && result.reason.verdict() != Verdict::Fail => {
                Reason::FindingOpen
            }
            Some(result) => result.reason,
        }
    }
}

/// A boundary for readers.
#[derive(Clone, Debug)]
pub struct BoundaryView {
    /// Its name.
    pub name: Arc<str>,
    /// Zone of the vantage.
    pub from: Arc<str>,
    /// Zone of the targets.
    pub to: Arc<str>,
    /// What is promised.
    pub expect: Expect,
    /// Time between the starts of two sweeps.
    pub interval: Duration,
    /// End of the last sweep; none before the first.
    pub completed: Option<Timestamp>,
    /// How long it took.
    pub took: Option<Duration>,
}

/// Findings ever opened on one boundary by one kind of check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FindingCount {
    /// How many.
    pub total: u64,
    /// When the last was opened.
    pub last: Option<Timestamp>,
}

/// Records sweeps and publishes snapshots.
#[derive(Debug, Default)]
pub struct Ledger {
    state: Mutex<State>,
    snapshot: ArcSwap<Snapshot>,
}

#[derive(Debug, Default)]
struct State {
    checks: BTreeMap<Arc<CheckId>, Entry>,
    boundaries: Vec<BoundaryView>,
    counts: BTreeMap<(Arc<str>, CheckKind), FindingCount>,
    controls: BTreeMap<Arc<str>, Vec<ControlState>>,
    config_hash: Arc<str>,
    not_tested: Vec<crate::plan::NotTested>,
}

#[derive(Debug)]
struct Entry {
    mode: Mode,
    round: Duration,
    result: Option<Arc<CheckResult>>,
    findings: Findings,
}

impl Ledger {
    /// The current snapshot.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Makes the ledger follow a plan: new checks are pending, results and findings of checks that stay are kept, what is
    /// no longer planned vanishes, its findings as `gone`.
    pub fn follow(&self, plan: &Plan, config_hash: &str, now: Instant) -> Vec<Transition> {
        let mut state = self.state();
        let mut transitions = Vec::new();
        let mut before = std::mem::take(&mut state.checks);
        let views = std::mem::take(&mut state.boundaries);
        for planned in &plan.boundaries {
            let boundary = &planned.boundary;
            let known = views.iter().find(|v| v.name == boundary.name);
            state.boundaries.push(BoundaryView {
                name: boundary.name.clone(),
                from: boundary.from.clone(),
                to: boundary.to.clone(),
                expect: boundary.expect,
                interval: boundary.interval,
                completed: known.and_then(|v| v.completed),
                took: known.and_then(|v| v.took),
            });
            for check in &planned.checks {
                if boundary.expect == Expect::Blocked && check.mode == Mode::Judge {
                    state.counts.entry((boundary.name.clone(), check.id.kind)).or_default();
                }
                // With another mode it is another question: what was known of it goes the way of what is not planned.
                let same = before.get(&check.id).is_some_and(|entry| entry.mode == check.mode);
                let known = if same { before.remove(&check.id) } else { None };
                let mut entry = known.unwrap_or_else(|| Entry {
                    mode: check.mode,
                    round: boundary.interval,
                    result: None,
                    findings: Findings::default(),
                });
                entry.round = boundary.interval;
                entry.findings.keep_planned(
                    &check.question,
                    |address, after| {
                        transitions.push(Transition::Closed {
                            id: check.id.clone(),
                            address,
                            closed: Closed::Gone,
                            after,
                        });
                    },
                    now,
                );
                state.checks.insert(check.id.clone(), entry);
            }
        }
        for (id, mut entry) in before {
            entry.findings.close_all(now, |address, after| {
                transitions.push(Transition::Closed { id: id.clone(), address, closed: Closed::Gone, after });
            });
        }
        let State { boundaries, counts, controls, .. } = &mut *state;
        counts.retain(|(boundary, _), _| boundaries.iter().any(|b| b.name == *boundary));
        controls.retain(|boundary, _| boundaries.iter().any(|b| b.name == *boundary));
        state.config_hash = config_hash.into();
        state.not_tested = plan.not_tested.clone();
        self.publish(&state);
        transitions
    }

    /// Records a sweep. Results of checks that are no longer planned, or no longer in that mode, are dropped.
    pub fn record(&self, report: &SweepReport) -> Vec<Transition> {
        let mut state = self.state();
        let mut transitions = Vec::new();
        for result in &report.results {
            let known = state.checks.get_mut(&result.id).filter(|entry| entry.mode == result.mode);
            let Some(entry) = known else { continue };
            let before = view(&result.id, entry).reason_at(report.ended);
            let first = entry.result.is_none();
            let mut opened = 0;
            if result.id.expect == Expect::Blocked && result.mode == Mode::Judge {
                opened = entry.findings.record(result, &mut transitions);
            }
            entry.result = Some(result.clone());
            let now = view(&result.id, entry).reason_at(report.ended);
            if first || before != now {
                let from = (!first).then_some(before);
                transitions.push(Transition::Changed { id: result.id.clone(), from, to: now });
            }
            if opened > 0 {
                let count = state.counts.entry((report.boundary.clone(), result.id.kind)).or_default();
                count.total += opened;
                count.last = Some(result.at);
            }
        }
        state.controls.insert(report.boundary.clone(), report.controls.clone());
        if let Some(boundary) = state.boundaries.iter_mut().find(|b| b.name == report.boundary) {
            boundary.completed = Some(report.started + jiff::SignedDuration::try_from(report.took).unwrap_or_default());
            boundary.took = Some(report.took);
        }
        self.publish(&state);
        transitions
    }

    /// What the next sweep of a boundary has to go on with.
    pub fn carried(&self, boundary: &str) -> Carried {
        let state = self.state();
        let mut carried = Carried::default();
        for (id, entry) in state.checks.iter().filter(|(id, _)| *id.boundary == *boundary) {
            let addresses: Vec<SocketAddr> = entry.findings.addresses().collect();
            if !addresses.is_empty() {
                carried.pinned.insert(id.clone(), addresses);
            }
            if let Some(result) = &entry.result
                && let Evidence::Dns(_) = &result.evidence
            {
                carried.dns.insert(id.clone(), result.clone());
            }
        }
        carried
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, state: &State) {
        let mut controls: Vec<ControlState> = Vec::new();
        for control in state.controls.values().flatten() {
            // One control serves several boundaries: it is as good as its worst sweep.
            let same = |c: &&mut ControlState| {
                (&c.source, c.kind, &c.control) == (&control.source, control.kind, &control.control)
            };
            match controls.iter_mut().find(same) {
                Some(known) => known.ok &= control.ok,
                None => controls.push(control.clone()),
            }
        }
        self.snapshot.store(Arc::new(Snapshot {
            checks: state.checks.iter().map(|(id, entry)| view(id, entry)).collect(),
            boundaries: state.boundaries.clone(),
            findings: state.counts.clone(),
            controls,
            config_hash: state.config_hash.clone(),
            not_tested: state.not_tested.clone(),
        }));
    }
}

fn view(id: &Arc<CheckId>, entry: &Entry) -> CheckView {
    CheckView {
        id: id.clone(),
        mode: entry.mode,
        result: entry.result.clone(),
        round: entry.round,
        findings: entry.findings.open(),
    }
}

#[cfg(test)]
mod tests;
