//! The latest results, what changed, and the findings: the state between sweep and export.
//!
//! Sweeps are recorded; readers take an immutable [`Snapshot`]. Nothing that reads can change anything.

mod findings;
mod held;
mod shared;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};

use crate::{
    config::Heartbeat,
    inventory::stands::Speakers,
    model::{AddressKind, CheckId, CheckKind, Expect, Identity, Mode, PodName, Reason, VantageMode, Verdict},
    observation::{AddressSeen, DnsSeen, NodeSeen, Rotation},
    plan::{Asked, BoundaryPlan, Leg, Part, Plan, share::Due},
};
use findings::Findings;
pub use findings::{Closed, Finding};
use held::Held;
use shared::Latest;

/// What one sweep found out.
#[derive(Debug)]
pub struct SweepReport {
    /// The boundary.
    pub boundary: Arc<str>,
    /// From where.
    pub source: Arc<Identity>,
    /// What was asked.
    pub part: Part,
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

impl SweepReport {
    /// True where nothing was due, and nothing was sent.
    fn is_idle(&self) -> bool {
        self.results.is_empty() && self.controls.is_empty()
    }
}

/// The result of one check: of one sweep; in the ledger, where nodes share the targets, of the last sweeps of its addresses.
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
    /// Its addresses were found by discovery, and a heartbeat vouches for them.
    pub discovered: bool,
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
            Evidence::Reach(_) | Evidence::Node(_) => &[],
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
    /// Which pods run on this node.
    Node(Box<NodeSeen>),
}

/// What one sweep leaves to the next.
#[derive(Debug, Default)]
pub struct Carried {
    /// Pairs of vantage and address with open findings: they come first in every sweep, whatever their names give now.
    pub pinned: HashMap<Arc<CheckId>, Vec<Pair>>,
    /// The pod from which a DNS finding is open: it goes on asking.
    pub dns_from: Option<Arc<PodName>>,
    /// DNS checks with open findings: they are asked in every sweep.
    pub dns_open: HashSet<Arc<CheckId>>,
    /// The latest results of DNS checks: long lists go on where these ended.
    pub dns: HashMap<Arc<CheckId>, Arc<CheckResult>>,
    /// Where nodes share the targets, what is due to this one; none where all is due.
    pub due: Option<Due>,
}

impl Carried {
    /// Whether an address of a check is due, both by their index.
    pub fn is_due(&self, check: usize, address: usize) -> bool {
        self.due.as_ref().is_none_or(|due| due.has(check, address))
    }

    /// True where there is nothing to do.
    pub fn is_idle(&self) -> bool {
        self.pinned.is_empty() && self.due.as_ref().is_some_and(|due| due.slots().is_empty())
    }
}

/// A vantage and an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The pod; none for the agent's own network.
    pub from: Option<Arc<PodName>>,
    /// The address.
    pub address: SocketAddr,
}

/// What a DNS result rests on.
#[derive(Debug)]
pub struct DnsEvidence {
    /// The server that was asked.
    pub server: SocketAddr,
    /// Who answers there.
    pub kind: AddressKind,
    /// The pod that asked; none for the agent's own network.
    pub from: Option<Arc<PodName>>,
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
    /// `positive`, `negative`, `loss` or `sidecar`.
    pub kind: &'static str,
    /// What was tried: an address; a family for `loss`; the port and the mesh for `sidecar`.
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
        /// The pod that it was seen from; none for the agent's own network.
        from: Option<Arc<PodName>>,
        /// The address; none for DNS.
        address: Option<SocketAddr>,
        /// Why.
        reason: Reason,
    },
    /// A finding was closed.
    Closed {
        /// The check.
        id: Arc<CheckId>,
        /// The pod that it was seen from; none for the agent's own network.
        from: Option<Arc<PodName>>,
        /// The address; none for DNS.
        address: Option<SocketAddr>,
        /// How.
        closed: Closed,
        /// How long it was open.
        after: Duration,
    },
    /// What was open while the pod or the target was new is not open any more.
    Startup {
        /// The check.
        id: Arc<CheckId>,
        /// The pod that it was seen from; none for the agent's own network.
        from: Option<Arc<PodName>>,
        /// The address.
        address: Option<SocketAddr>,
        /// From the start of the newer of the two until it was first seen blocked.
        length: Duration,
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
    /// This node's pods, where they are looked at.
    pub node: Option<NodeView>,
    /// When discovery last vouched for each of its target files.
    pub heartbeats: BTreeMap<Arc<str>, Timestamp>,
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

/// What is known of this node's pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeView {
    /// Running pods of each zone.
    pub zones: BTreeMap<Arc<str>, usize>,
    /// The container runtime answered the last time it was asked.
    pub runtime_answers: bool,
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
    /// Where the sockets of its probes are born.
    pub vantage: VantageMode,
    /// Time between the starts of two sweeps.
    pub interval: Duration,
    /// Nodes that share the targets: 1 where every agent probes all of them, 0 where it is not known how many there are.
    pub share_nodes: u32,
    /// Sweeps within which this node probes each target; 0 where it probes none.
    pub share_sweeps: u32,
    /// Why nothing of it is tested, where that is so: a pass of the others says nothing of it.
    pub untested: Option<Arc<str>>,
    /// End of the last sweep, of several sources the one that is longest ago; none before the first.
    pub completed: Option<Timestamp>,
    /// How long it took; of several sources the longest.
    pub took: Option<Duration>,
    /// From the start of the first to the end of the last of these sweeps.
    pub span: Option<(Timestamp, Timestamp)>,
}

/// Findings ever opened on one boundary by one kind of check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FindingCount {
    /// How many.
    pub total: u64,
    /// When the last was opened.
    pub last: Option<Timestamp>,
}

/// Records sweeps and gives snapshots.
#[derive(Debug, Default)]
pub struct Ledger {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    checks: BTreeMap<Arc<CheckId>, Entry>,
    boundaries: Vec<BoundaryView>,
    counts: BTreeMap<(Arc<str>, CheckKind), FindingCount>,
    /// All that is planned, with its last sweep; none before the first.
    sources: BTreeMap<Asked, Option<Swept>>,
    /// Boundaries of which all that was planned has been swept: whoever joins them later does not take that back.
    swept: BTreeSet<Arc<str>>,
    config_hash: Arc<str>,
    not_tested: Vec<crate::plan::NotTested>,
    node: Option<NodeView>,
    /// The target files that discovery vouches for, as checks count them.
    vouching: Arc<[Arc<str>]>,
    /// Its latest word for each.
    heartbeats: BTreeMap<Arc<str>, Timestamp>,
    /// Failures at discovered addresses that wait for its next word.
    held: BTreeMap<Arc<CheckId>, Held>,
    /// As it was last asked for; none where something was recorded since. Many identities are recorded for each that asks.
    snapshot: Option<Arc<Snapshot>>,
}

/// The last sweep of one part of one boundary from one source.
#[derive(Debug)]
struct Swept {
    started: Timestamp,
    completed: Timestamp,
    took: Duration,
    controls: Vec<ControlState>,
}

#[derive(Debug)]
struct Entry {
    mode: Mode,
    vouched_by: Option<u16>,
    round: Duration,
    result: Option<Arc<CheckResult>>,
    findings: Findings,
    /// Where nodes share the targets, so that a sweep probes some of the addresses only: how many there are.
    shared: Option<Latest>,
    /// Who can ask it again.
    speakers: Speakers,
}

impl Ledger {
    /// The current snapshot.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        let mut state = self.state();
        if let Some(snapshot) = &state.snapshot {
            return snapshot.clone();
        }
        let snapshot = Arc::new(Snapshot::of(&state));
        state.snapshot = Some(snapshot.clone());
        snapshot
    }

    /// What is known of one check now, without a snapshot of all; none where it is not planned.
    pub fn view(&self, id: &CheckId) -> Option<CheckView> {
        let state = self.state();
        state.checks.get_key_value(id).map(|(id, entry)| view(id, entry))
    }

    /// Makes the ledger follow a plan: new checks are pending, results and findings of checks that stay are kept, what is
    /// no longer planned vanishes, its findings as `gone`.
    pub fn follow(&self, plan: &Plan, config_hash: &str, now: Instant) -> Vec<Transition> {
        let mut state = self.state();
        let mut transitions = Vec::new();
        let mut before = std::mem::take(&mut state.checks);
        let mut still_held = BTreeMap::new();
        state.boundaries = plan.boundaries.iter().map(|planned| boundary_view(planned)).collect();
        for (name, gap) in plan.untested() {
            let why = gap.map_or("it asks for nothing", |gap| &gap.why);
            state.boundaries.iter_mut().filter(|b| b.name == *name).for_each(|b| b.untested = Some(why.into()));
        }
        for planned in &plan.boundaries {
            let boundary = &planned.boundary;
            let co_residency = boundary.co_residency.map(|mode| (CheckKind::NodeCoResidency, mode));
            let reach = planned.reach.iter().map(|check| (check.id.kind, check.mode));
            let kinds = reach.chain(boundary.techniques.iter().copied()).chain(co_residency);
            for (kind, _) in kinds.filter(|(_, mode)| boundary.expect == Expect::Blocked && *mode == Mode::Judge) {
                state.counts.entry((boundary.name.clone(), kind)).or_default();
            }
        }
        for (leg, part) in plan.legs.iter().flat_map(|leg| leg.parts().map(move |part| (leg, part))) {
            for (index, check) in leg.part(part).iter().enumerate() {
                let round = leg.round(part, index);
                // With another mode it is another question: what was known of it goes the way of what is not planned.
                let same = before.get(&check.id).is_some_and(|entry| entry.mode == check.mode);
                let known = if same { before.remove(&check.id) } else { None };
                let mut entry = known.unwrap_or_else(|| Entry {
                    mode: check.mode,
                    vouched_by: None,
                    round,
                    result: None,
                    findings: Findings::default(),
                    shared: None,
                    speakers: leg.stand.speakers.clone(),
                });
                entry.round = round;
                entry.vouched_by = check.question.vouched_by();
                if let Some(held) = state.held.remove(&check.id)
                    && let Some(held) = held.keep_listed(&check.question, &leg.stand.speakers)
                {
                    still_held.insert(check.id.clone(), held);
                }
                // What DNS tells is told as a whole.
                let shared = leg.share(part).filter(|_| part == Part::Reach).map(|_| Latest::of(&check.question));
                if let (Some(latest), Some(result)) = (shared, &entry.result) {
                    entry.result = latest.keep_planned(result, &check.question, entry.shared);
                }
                entry.shared = shared;
                entry.speakers = leg.stand.speakers.clone();
                let mut gone = |finding: &Finding| transitions.push(finding.closed(&check.id, Closed::Gone, now));
                entry.findings.keep_planned(&check.question, &mut gone);
                entry.findings.keep_standing(&entry.speakers, gone);
                state.checks.insert(check.id.clone(), entry);
            }
        }
        for (id, entry) in before {
            transitions.extend(entry.findings.iter().map(|finding| finding.closed(&id, Closed::Gone, now)));
        }
        let State { boundaries, counts, sources, swept, .. } = &mut *state;
        swept.retain(|boundary| boundaries.iter().any(|b| b.name == *boundary));
        counts.retain(|(boundary, _), _| boundaries.iter().any(|b| b.name == *boundary));
        let mut known = std::mem::take(sources);
        let planned = plan.legs.iter().flat_map(|leg| leg.parts().map(|part| leg.asked(part)));
        *sources = planned.map(|asked| (asked.clone(), known.remove(&asked).flatten())).collect();
        state.held = still_held;
        state.vouching = plan.vouching.clone();
        state.heartbeats.retain(|file, _| plan.vouching.contains(file));
        state.config_hash = config_hash.into();
        state.not_tested = plan.not_tested.clone();
        state.snapshot = None;
        transitions
    }

    /// Notes what is known of this node's pods.
    pub fn note_node(&self, node: Option<NodeView>) {
        let mut state = self.state();
        state.node = node;
        state.snapshot = None;
    }

    /// Notes discovery's words for target files, after [`Ledger::follow`] was told what they list: what failed at their addresses
    /// before that is now a finding.
    pub fn vouch(&self, heartbeats: &[Heartbeat], now: Instant) -> Vec<Transition> {
        let mut state = self.state();
        let is_news = |heartbeat: &&Heartbeat| {
            state.vouching.contains(&heartbeat.file) && state.heartbeats.get(&heartbeat.file) != Some(&heartbeat.at)
        };
        let news: Vec<_> = heartbeats.iter().filter(is_news).map(|h| (h.file.clone(), h.at)).collect();
        if news.is_empty() {
            return Vec::new();
        }
        state.heartbeats.extend(news);
        let mut transitions = Vec::new();
        for (id, mut held) in std::mem::take(&mut state.held) {
            let word = state.word_for(&id);
            let Some(entry) = state.checks.get_mut(&id) else { continue };
            let before = view(&id, entry).reason_at(now);
            let Some(confirmed) = word.and_then(|word| held.confirmed(&id, word)) else {
                state.held.insert(id, held);
                continue;
            };
            let opened = entry.record_findings(&confirmed, now, &mut transitions);
            let shared = entry.shared;
            entry.result = entry.result.take().map(|result| held::with_findings(&result, &confirmed, shared));
            let after = view(&id, entry).reason_at(now);
            if before != after {
                transitions.push(Transition::Changed { id: id.clone(), from: Some(before), to: after });
            }
            let count = state.counts.entry((id.boundary.clone(), id.kind)).or_default();
            count.total += opened;
            // Whoever watches it wants to know when the finding was opened.
            let since = SignedDuration::try_from(now.saturating_duration_since(confirmed.judged)).unwrap_or_default();
            count.last = Some(confirmed.at.saturating_add(since).unwrap_or(confirmed.at));
            if !held.is_empty() {
                state.held.insert(id, held);
            }
        }
        state.snapshot = None;
        transitions
    }

    /// Records a sweep. Results of checks that are no longer in that mode are dropped, and of those that are no longer planned
    /// all but what failed: it is told, and is over.
    pub fn record(&self, report: &SweepReport) -> Vec<Transition> {
        let mut state = self.state();
        let state = &mut *state;
        let mut transitions = Vec::new();
        let mut is_shared = false;
        for result in &report.results {
            let Some(entry) = state.checks.get_mut(&result.id) else {
                state.record_last_words(report, result, &mut transitions);
                continue;
            };
            if entry.mode != result.mode {
                continue;
            }
            let word = entry.vouched_by.and_then(|file| state.vouching.get(usize::from(file)));
            let unconfirmed = match word {
                Some(file) if result.id.expect == Expect::Blocked && result.mode == Mode::Judge => {
                    let word = state.heartbeats.get(file).copied().unwrap_or(Timestamp::MIN);
                    let held = state.held.remove(&result.id).unwrap_or_default();
                    let (held, unconfirmed) = held.hold(result, word, &entry.findings);
                    if !held.is_empty() {
                        state.held.insert(result.id.clone(), held);
                    }
                    unconfirmed
                }
                _ => None,
            };
            let result = unconfirmed.as_ref().unwrap_or(result);
            let before = view(&result.id, entry).reason_at(report.ended);
            let first = entry.result.is_none();
            if let Evidence::Reach(addresses) = &result.evidence {
                let startups = addresses.iter().filter_map(|(seen, _)| Some((seen, seen.startup?)));
                transitions.extend(startups.map(|(seen, milliseconds)| Transition::Startup {
                    id: result.id.clone(),
                    from: seen.from.clone(),
                    address: seen.address,
                    length: Duration::from_millis(milliseconds.get().into()),
                }));
            }
            let pinned: Vec<Pair> = entry.findings.pairs().collect();
            let mut opened = 0;
            if result.id.expect == Expect::Blocked && result.mode == Mode::Judge {
                opened = entry.record_findings(result, report.ended, &mut transitions);
            }
            is_shared |= entry.shared.is_some();
            entry.result = Some(match entry.shared {
                Some(latest) => latest.with(entry.result.as_deref(), result, &pinned),
                None => result.clone(),
            });
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
        if is_shared {
            state.hear_again(report);
        }
        let asked = (report.boundary.clone(), report.source.clone(), report.part);
        if let Some(swept) = state.sources.get_mut(&asked) {
            let before = swept.take().map(|before| before.controls).unwrap_or_default();
            *swept = Some(Swept {
                started: report.started,
                completed: report.started + jiff::SignedDuration::try_from(report.took).unwrap_or_default(),
                took: report.took,
                controls: if report.is_idle() { before } else { report.controls.clone() },
            });
            let mut of_boundary = state.sources.iter().filter(|((boundary, ..), _)| *boundary == report.boundary);
            if of_boundary.all(|(_, swept)| swept.is_some()) {
                state.swept.insert(report.boundary.clone());
            }
        }
        state.snapshot = None;
        transitions
    }

    /// What the next sweep of a boundary from a source has to go on with.
    pub fn carried(&self, leg: &Leg) -> Carried {
        let state = self.state();
        let mut carried = Carried::default();
        for check in leg.checks() {
            let Some((id, entry)) = state.checks.get_key_value(&check.id) else { continue };
            let pairs: Vec<Pair> = entry.findings.pairs().collect();
            if !pairs.is_empty() {
                carried.pinned.insert(id.clone(), pairs);
            }
            if let Some(result) = &entry.result
                && let Evidence::Dns(_) = &result.evidence
            {
                carried.dns.insert(id.clone(), result.clone());
                if entry.findings.iter().next().is_some() {
                    carried.dns_open.insert(id.clone());
                }
                carried.dns_from = carried.dns_from.or_else(|| entry.findings.iter().find_map(|f| f.from.clone()));
            }
        }
        carried
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    /// Takes a result into account; returns the number of findings that it opened. Those from a pod that ended while it was probed
    /// from, or while they waited, are over at once.
    fn record_findings(&mut self, result: &CheckResult, now: Instant, transitions: &mut Vec<Transition>) -> u64 {
        let opened = self.findings.record(result, transitions);
        self.findings.keep_standing(&self.speakers, |finding| {
            transitions.push(finding.closed(&result.id, Closed::Gone, now));
        });
        opened
    }
}

impl State {
    /// Discovery's latest word for the addresses of a check; the dawn of time where there is none yet.
    fn word_for(&self, id: &CheckId) -> Option<Timestamp> {
        let file = self.vouching.get(usize::from(self.checks.get(id)?.vouched_by?))?;
        Some(self.heartbeats.get(file).copied().unwrap_or(Timestamp::MIN))
    }

    /// Where nodes share the targets, a pod that could not speak makes every check doubtful until a sweep in which it does.
    fn hear_again(&mut self, report: &SweepReport) {
        let told: BTreeSet<&Arc<CheckId>> = report.results.iter().map(|result| &result.id).collect();
        let of_sweep = |id: &CheckId| id.boundary == report.boundary && id.source == report.source;
        for (id, entry) in self.checks.iter_mut().filter(|(id, entry)| entry.shared.is_some() && of_sweep(id)) {
            if let (Some(latest), Some(result)) = (entry.shared, &entry.result)
                && !told.contains(id)
                && result.is_mute()
            {
                entry.result = latest.without_mutes(result);
            }
        }
    }

    /// The last pod of an identity ended while it was probed from: what it reached is a finding that is gone.
    fn record_last_words(&mut self, report: &SweepReport, result: &CheckResult, transitions: &mut Vec<Transition>) {
        let counted = self.counts.get_mut(&(report.boundary.clone(), result.id.kind));
        // Nobody says any more whose a discovered address was.
        let counts = result.mode == Mode::Judge && !result.discovered;
        let Some(count) = counted.filter(|_| counts) else { return };
        let mut findings = Findings::default();
        let opened = findings.record(result, transitions);
        transitions.extend(findings.iter().map(|finding| finding.closed(&result.id, Closed::Gone, result.judged)));
        if opened > 0 {
            count.total += opened;
            count.last = Some(result.at);
        }
    }
}

impl Snapshot {
    fn of(state: &State) -> Self {
        let mut controls: BTreeMap<(&Arc<Identity>, &str, &Arc<str>), ControlState> = BTreeMap::new();
        for control in state.sources.values().flatten().flat_map(|swept| &swept.controls) {
            // One control serves several boundaries and pods: it is as good as its worst sweep.
            let ControlState { source, kind, control: name, ok } = control;
            controls.entry((source, *kind, name)).or_insert_with(|| control.clone()).ok &= *ok;
        }
        Self {
            checks: state.checks.iter().map(|(id, entry)| view(id, entry)).collect(),
            boundaries: state.boundaries.iter().map(|view| with_sweeps(view, state)).collect(),
            findings: state.counts.clone(),
            controls: controls.into_values().collect(),
            config_hash: state.config_hash.clone(),
            not_tested: state.not_tested.clone(),
            node: state.node.clone(),
            heartbeats: state.heartbeats.clone(),
        }
    }
}

fn boundary_view(planned: &BoundaryPlan) -> BoundaryView {
    let boundary = &planned.boundary;
    let (share_nodes, share_sweeps) =
        planned.share.as_ref().map_or((1, 1), |share| (share.nodes, share.within_sweeps()));
    BoundaryView {
        share_nodes,
        share_sweeps,
        name: boundary.name.clone(),
        from: boundary.from.clone(),
        to: boundary.to.clone(),
        expect: boundary.expect,
        vantage: planned.mode,
        interval: boundary.interval,
        untested: None,
        completed: None,
        took: None,
        span: None,
    }
}

/// A boundary is swept when all of it was swept from each of its sources.
fn with_sweeps(view: &BoundaryView, state: &State) -> BoundaryView {
    if !state.swept.contains(&view.name) {
        return view.clone();
    }
    let of_boundary = || state.sources.iter().filter(|((boundary, ..), _)| *boundary == view.name);
    let sweeps = || of_boundary().filter_map(|(_, swept)| swept.as_ref());
    let completed = sweeps().map(|swept| swept.completed).min();
    let took = sweeps().map(|swept| swept.took).max();
    let began = sweeps().map(|swept| swept.started).min();
    let span = began.zip(sweeps().map(|swept| swept.completed).max());
    BoundaryView { completed, took, span, ..view.clone() }
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
