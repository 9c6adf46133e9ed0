//! What every form of the result tells: the boundaries in their order, each with its rows, the worst first, and what was not
//! tested. Made from a snapshot without copying it; table, JUnit, TAP, Markdown, SARIF and the page write from it.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;

use super::{Run, VERSION, words};
use crate::{
    ledger::{BoundaryView, CheckView, Evidence, Snapshot},
    model::{CheckKind, Identity, Mode, Reason, VantageMode, Verdict, plain},
    plan::NotTested,
};

/// The whole result, as it is told at one moment.
#[derive(Debug)]
pub struct Report<'a> {
    /// Whose result it is.
    pub header: Header<'a>,
    /// How many checks have each verdict; those that are reported only do not count.
    pub totals: Totals,
    /// Every boundary, in the order of the configuration.
    pub sections: Vec<Section<'a>>,
    /// Unverified checks count as inconclusive ones: nothing but proof will do.
    pub require_witness: bool,
}

/// Which program told what about which configuration, from where and when.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
pub struct Header<'a> {
    /// Version of segprobe.
    pub version: &'static str,
    /// SHA-256 over the configuration's files, in hex.
    pub config_hash: &'a str,
    /// The node, as Kubernetes names it.
    pub node: &'a str,
    /// Release of its kernel.
    pub kernel: &'a str,
    /// The kernel gives ICMP detail: a rejected connect is told from a closed port.
    pub icmp_evidence: bool,
    /// Start of the first of the sweeps that the result rests on; null before all.
    pub started: Option<Timestamp>,
    /// End of the last of them; null before all.
    pub ended: Option<Timestamp>,
}

impl<'a> Header<'a> {
    /// Of a snapshot of this run.
    pub fn new(run: &'a Run, snapshot: &'a Snapshot) -> Self {
        let spans = snapshot.boundaries.iter().filter_map(|b| b.span);
        Self {
            version: VERSION,
            config_hash: &snapshot.config_hash,
            node: &run.node,
            kernel: &run.kernel,
            icmp_evidence: run.icmp_evidence,
            started: spans.clone().map(|(started, _)| started).min(),
            ended: spans.map(|(_, ended)| ended).max(),
        }
    }
}

/// One boundary.
#[derive(Debug)]
pub struct Section<'a> {
    /// What it is and when it was swept.
    pub boundary: &'a BoundaryView,
    /// Its checks: those that are judged before those that are only reported, the worst first.
    pub rows: Vec<Row<'a>>,
    /// How many of them have each verdict; those that are reported only do not count.
    pub totals: Totals,
    /// What is not tested of it, or cannot be proven.
    pub not_tested: Vec<&'a NotTested>,
    /// Why nothing of it was tested, where that is so: a pass of the others says nothing of it.
    pub untested: Option<&'a str>,
}

impl Section<'_> {
    /// `low → high, expected blocked: 1 fail, 2 pass`.
    pub fn heading(&self) -> String {
        let BoundaryView { from, to, expect, .. } = self.boundary;
        format!("{from} → {to}, expected {expect}: {}", self.totals)
    }
}

/// One check and what is said of it.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// The check and its latest result.
    pub view: &'a CheckView,
    /// Why its verdict is what it is, at this moment.
    pub reason: Reason,
    /// Several sources ask the same, so that the source is part of its name.
    pub has_source: bool,
}

/// What a row is to whoever asked for an exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// A fail: exit code 1.
    Failed,
    /// Inconclusive, or unverified where a witness is required: exit code 2.
    Undecided,
    /// Unverified: nothing was proven, and exit code 0.
    Unproven,
    /// A pass.
    Passed,
    /// Reported only: it counts for nothing.
    Reported,
}

impl<'a> Row<'a> {
    /// The one verdict of its reason.
    pub const fn verdict(&self) -> Verdict {
        self.reason.verdict()
    }

    /// Its verdict in a word: `reported` where it does not count.
    pub const fn word(&self) -> &'static str {
        match self.view.mode {
            Mode::Judge => self.verdict().as_str(),
            Mode::Report => "reported",
        }
    }

    /// What it does to the exit code.
    pub fn weight(&self, require_witness: bool) -> Weight {
        match (self.view.mode, self.verdict()) {
            (Mode::Report, _) => Weight::Reported,
            (_, Verdict::Fail) => Weight::Failed,
            (_, Verdict::Inconclusive) => Weight::Undecided,
            (_, Verdict::Unverified) if require_witness => Weight::Undecided,
            (_, Verdict::Unverified) => Weight::Unproven,
            (_, Verdict::Pass) => Weight::Passed,
        }
    }

    /// Who asks: `web/app=web`; for co-residency the zone.
    pub fn source(&self) -> String {
        named(&self.view.id.source)
    }

    /// What is asked for: `payments/ledger:5432 (endpoint)`, `srv-wildcard at 10.96.0.10:53`.
    pub fn target(&self) -> String {
        let id = &self.view.id;
        let udp = if id.kind == CheckKind::DnsQuery { "/udp" } else { "" };
        plain(&match id.via {
            Some(via) if id.target_namespace.is_empty() => format!("{}{udp} ({via})", id.target),
            Some(via) => format!("{}/{}{udp} ({via})", id.target_namespace, id.target),
            None if id.kind == CheckKind::NodeCoResidency => {
                format!("{}: {} with {}", id.kind, id.source.name, id.target)
            }
            None => format!("{} at {}", id.kind, id.target),
        })
    }

    /// What tells it from the other rows of its boundary.
    pub fn name(&self) -> String {
        if self.has_source { format!("{} → {}", self.source(), self.target()) } else { self.target() }
    }

    /// What its result rests on, in one line without control characters.
    pub fn evidence(&self) -> String {
        words::evidence(self.view)
    }

    /// Reason, explanation and evidence in one line; of what is only reported the evidence alone.
    pub fn text(&self) -> String {
        match self.view.mode {
            Mode::Judge => format!("{}: {}. {}", self.reason, self.reason.explain(), self.evidence()),
            Mode::Report => self.evidence(),
        }
    }

    /// Since when the longest of its open findings is open.
    pub fn since(&self) -> Option<Timestamp> {
        self.view.findings.first().map(|finding| finding.since)
    }

    /// From the first to the last attempt; none where it was not measured.
    pub fn took(&self) -> Option<Duration> {
        let Evidence::Reach(addresses) = &self.view.result.as_ref()?.evidence else { return None };
        let started = addresses.iter().map(|(seen, _)| seen.started).min()?;
        let ended = addresses.iter().map(|(seen, _)| seen.ended).max()?;
        Some(ended.saturating_duration_since(started))
    }
}

impl<'a> Report<'a> {
    /// The snapshot as it is served at `now`.
    pub fn new(run: &'a Run, snapshot: &'a Snapshot, now: Instant) -> Self {
        let mut sections: Vec<Section<'a>> = snapshot.boundaries.iter().map(Section::new).collect();
        let at: HashMap<&str, usize> = snapshot.boundaries.iter().zip(0..).map(|(b, at)| (&*b.name, at)).collect();
        let mut totals = Totals::default();
        for view in &snapshot.checks {
            let Some(section) = at.get(&*view.id.boundary).and_then(|at| sections.get_mut(*at)) else { continue };
            let has_source =
                section.boundary.vantage == VantageMode::Pods && view.id.kind != CheckKind::NodeCoResidency;
            let row = Row { view, reason: view.reason_at(now), has_source };
            totals.add(&row);
            section.totals.add(&row);
            section.rows.push(row);
        }
        for gap in &snapshot.not_tested {
            if let Some(section) = at.get(&*gap.boundary).and_then(|at| sections.get_mut(*at)) {
                section.not_tested.push(gap);
            }
        }
        sections.iter_mut().for_each(|s| s.rows.sort_by_key(|row| (row.view.mode, row.reason)));
        Self { header: Header::new(run, snapshot), totals, sections, require_witness: false }
    }

    /// The same where unverified checks may count as inconclusive ones.
    #[must_use]
    pub fn requiring_witness(self, require_witness: bool) -> Self {
        Self { require_witness, ..self }
    }

    /// Boundaries of which nothing was tested, and why.
    pub fn untested(&self) -> impl Iterator<Item = (&'a BoundaryView, &'a str)> {
        self.sections.iter().filter_map(|section| Some((section.boundary, section.untested?)))
    }

    /// All rows, boundary by boundary.
    pub fn rows(&self) -> impl Iterator<Item = &Row<'a>> {
        self.sections.iter().flat_map(|section| &section.rows)
    }

    /// What is not tested or not provable, boundary by boundary.
    pub fn not_tested(&self) -> impl Iterator<Item = &'a NotTested> {
        self.sections.iter().flat_map(|section| section.not_tested.iter().copied())
    }

    /// 0 pass and unverified, 1 a fail, 2 inconclusive and no fail: so is a boundary of which nothing was tested.
    pub fn exit_code(&self) -> u8 {
        let is_undecided = self.totals.of(Verdict::Inconclusive) > 0
            || self.require_witness && self.totals.of(Verdict::Unverified) > 0
            || self.untested().next().is_some();
        match () {
            () if self.totals.of(Verdict::Fail) > 0 => 1,
            () if is_undecided => 2,
            () => 0,
        }
    }
}

impl<'a> Section<'a> {
    fn new(boundary: &'a BoundaryView) -> Self {
        Self {
            boundary,
            rows: Vec::new(),
            totals: Totals::default(),
            not_tested: Vec::new(),
            untested: boundary.untested.as_deref(),
        }
    }
}

/// How many checks have each verdict. Shown as `1 fail, 2 pass`: what there is none of is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals(pub [usize; 4]);

impl Totals {
    /// Of some rows.
    pub fn of_rows<'a>(rows: impl IntoIterator<Item = &'a Row<'a>>) -> Self {
        let mut totals = Self::default();
        rows.into_iter().for_each(|row| totals.add(row));
        totals
    }

    /// Checks of one verdict.
    pub const fn of(self, verdict: Verdict) -> usize {
        self.0[verdict as usize]
    }

    fn add(&mut self, row: &Row<'_>) {
        self.0[row.verdict() as usize] += usize::from(row.view.mode == Mode::Judge);
    }
}

impl std::fmt::Display for Totals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let some = Verdict::ALL.iter().filter(|v| self.of(**v) > 0);
        let words: Vec<String> = some.map(|v| format!("{} {v}", self.of(*v))).collect();
        f.write_str(&if words.is_empty() { "no checks".into() } else { words.join(", ") })
    }
}

/// `web/app=web`; without a namespace where it has none, as those whom the runtime does not tell.
pub fn named(source: &Identity) -> String {
    if source.namespace.is_empty() {
        plain(&source.name)
    } else {
        plain(&format!("{}/{}", source.namespace, source.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_leave_out_zeros() {
        assert_eq!(Totals([1, 0, 0, 12]).to_string(), "1 fail, 12 pass");
        assert_eq!(Totals::default().to_string(), "no checks");
    }
}
