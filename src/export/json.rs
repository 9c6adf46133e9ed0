//! The JSON of all checks, for `/api/v1/checks` and `check --output json`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Instant,
};

use serde::{Serialize, Serializer};

use super::{Run, VERSION};
use crate::{
    ledger::{BoundaryView, CheckView, DnsEvidence, Evidence, Finding, Snapshot},
    model::{PodName, Reason, Verdict},
    observation::{AddressSeen, ControlReply, ReplyClass, TcpSeen, TransportSeen, WitnessSeen},
    plan::NotTested,
};

/// Version of the format: raised when a reader of the old one would be misled.
pub const FORMAT: u32 = 1;

/// The document; serializes straight from the snapshot.
#[derive(Serialize)]
pub struct Report<'a> {
    format: u32,
    version: &'static str,
    config_hash: &'a str,
    node: &'a str,
    kernel: &'a str,
    icmp_evidence: bool,
    started: Option<jiff::Timestamp>,
    ended: Option<jiff::Timestamp>,
    not_tested: &'a [NotTested],
    #[serde(serialize_with = "boundaries")]
    boundaries: &'a [BoundaryView],
    #[serde(serialize_with = "checks")]
    checks: (&'a [CheckView], Instant),
}

impl<'a> Report<'a> {
    /// The snapshot as it is served at `now`.
    pub fn new(run: &'a Run, snapshot: &'a Snapshot, now: Instant) -> Self {
        let spans = snapshot.boundaries.iter().filter_map(|b| b.span);
        Self {
            format: FORMAT,
            version: VERSION,
            config_hash: &snapshot.config_hash,
            node: &run.node,
            kernel: &run.kernel,
            icmp_evidence: run.icmp_evidence,
            started: spans.clone().map(|(started, _)| started).min(),
            ended: spans.map(|(_, ended)| ended).max(),
            not_tested: &snapshot.not_tested,
            boundaries: &snapshot.boundaries,
            checks: (&snapshot.checks, now),
        }
    }
}

fn boundaries<S: Serializer>(boundaries: &[BoundaryView], serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Boundary<'a> {
        name: &'a str,
        from: &'a str,
        to: &'a str,
        expect: &'static str,
        vantage: &'static str,
        interval_seconds: f64,
        share_nodes: u32,
        share_sweeps: u32,
        last_completed: Option<jiff::Timestamp>,
        last_duration_seconds: Option<f64>,
    }
    serializer.collect_seq(boundaries.iter().map(|b| Boundary {
        name: &b.name,
        from: &b.from,
        to: &b.to,
        expect: b.expect.as_str(),
        vantage: b.vantage.as_str(),
        interval_seconds: b.interval.as_secs_f64(),
        share_nodes: b.share_nodes,
        share_sweeps: b.share_sweeps,
        last_completed: b.completed,
        last_duration_seconds: b.took.map(|t| t.as_secs_f64()),
    }))
}

#[derive(Serialize)]
struct Check<'a> {
    boundary: &'a str,
    expect: &'static str,
    check: &'static str,
    mode: &'static str,
    source_namespace: &'a str,
    source: &'a str,
    target_namespace: &'a str,
    target: &'a str,
    via: &'static str,
    verdict: Verdict,
    reason: Reason,
    explanation: &'static str,
    at: Option<jiff::Timestamp>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    findings: Vec<OpenFinding<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    addresses: Option<Vec<Address<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dns: Option<Dns<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<Node<'a>>,
}

/// Pods of the two zones on this node; absent where the runtime does not tell.
#[derive(Serialize)]
struct Node<'a> {
    from: Option<Pods<'a>>,
    to: Option<Pods<'a>>,
}

#[derive(Serialize)]
struct Pods<'a> {
    count: usize,
    some: &'a [Arc<str>],
}

#[derive(Serialize)]
struct OpenFinding<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<&'a PodName>,
    address: Option<SocketAddr>,
    since: jiff::Timestamp,
    last_failed: jiff::Timestamp,
    reason: Reason,
    blocked_in_a_row: u32,
    closes_at: u32,
}

#[derive(Serialize)]
struct Address<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<&'a PodName>,
    address: Option<SocketAddr>,
    kind: &'static str,
    listed: bool,
    verdict: Verdict,
    reason: Reason,
    attempts: &'a [TcpSeen],
    #[serde(skip_serializing_if = "Option::is_none")]
    startup_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sidecar_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    witness: Option<&'a WitnessSeen>,
}

#[derive(Serialize)]
struct Dns<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<&'a PodName>,
    server: SocketAddr,
    /// All that was disclosed, of whatever namespace.
    names: BTreeMap<&'a str, BTreeSet<&'a str>>,
    addresses: BTreeMap<&'a str, BTreeSet<&'a str>>,
    overflow: u64,
    replies: BTreeMap<&'static str, u32>,
    sent: u32,
    answered: u32,
    retried: u32,
    lost: u32,
    cut: u32,
    unsteady: u32,
    captured: bool,
    authoritative: u32,
    extended_errors: &'a BTreeMap<u16, u32>,
    soa: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    udp: Option<Over>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tcp: Option<Over>,
    asked: u64,
    questions: u64,
    last_full_coverage: Option<jiff::Timestamp>,
}

#[derive(Serialize)]
struct Over {
    replies: BTreeMap<&'static str, u32>,
    sent: u32,
    answered: u32,
    retried: u32,
    control: [ControlReply; 2],
    self_check: bool,
}

fn checks<S: Serializer>((checks, now): &(&[CheckView], Instant), serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(checks.iter().map(|view| check(view, *now)))
}

fn check(view: &CheckView, now: Instant) -> Check<'_> {
    let (id, reason) = (&view.id, view.reason_at(now));
    let evidence = view.result.as_ref().map(|r| &r.evidence);
    Check {
        boundary: &id.boundary,
        expect: id.expect.as_str(),
        check: id.kind.as_str(),
        mode: view.mode.as_str(),
        source_namespace: &id.source.namespace,
        source: &id.source.name,
        target_namespace: &id.target_namespace,
        target: &id.target,
        via: id.via_str(),
        verdict: reason.verdict(),
        reason,
        explanation: reason.explain(),
        at: view.result.as_ref().map(|r| r.at),
        findings: view.findings.iter().map(open_finding).collect(),
        addresses: match evidence {
            Some(Evidence::Reach(addresses)) => Some(addresses.iter().map(|(seen, r)| address(seen, *r)).collect()),
            _ => None,
        },
        dns: match evidence {
            Some(Evidence::Dns(evidence)) => Some(dns(evidence)),
            _ => None,
        },
        node: match evidence {
            Some(Evidence::Node(seen)) => Some(Node { from: pods(&seen.from), to: pods(&seen.to) }),
            _ => None,
        },
    }
}

fn pods(seen: &Option<(Vec<Arc<str>>, usize)>) -> Option<Pods<'_>> {
    seen.as_ref().map(|(some, count)| Pods { count: *count, some })
}

fn open_finding(finding: &Finding) -> OpenFinding<'_> {
    OpenFinding {
        pod: finding.from.as_deref(),
        address: finding.address,
        since: finding.since,
        last_failed: finding.last_failed,
        reason: finding.reason,
        blocked_in_a_row: finding.blocked,
        closes_at: finding.closes_at,
    }
}

fn address(seen: &AddressSeen, reason: Reason) -> Address<'_> {
    Address {
        pod: seen.from.as_deref(),
        address: seen.address,
        kind: seen.kind.as_str(),
        listed: seen.listed,
        verdict: reason.verdict(),
        reason,
        attempts: &seen.attempts,
        startup_seconds: seen.startup.map(|milliseconds| f64::from(milliseconds.get()) / 1e3),
        sidecar_port: seen.sidecar,
        witness: seen.witness.as_deref(),
    }
}

fn dns(evidence: &DnsEvidence) -> Dns<'_> {
    let seen = &evidence.seen;
    let sum = |of: fn(&TransportSeen) -> u32| seen.over.iter().map(of).sum();
    let [udp, tcp] = &seen.over;
    let (asked, questions) = seen.progress();
    Dns {
        pod: evidence.from.as_deref(),
        server: evidence.server,
        names: seen.names(),
        addresses: seen.addresses(),
        overflow: seen.overflow(),
        replies: replies(|class| seen.count(class)),
        sent: sum(|over| over.sent),
        answered: sum(|over| over.answered),
        retried: sum(|over| over.retried),
        lost: seen.rounds().map(|round| round.lost).sum(),
        cut: seen.rounds().map(|round| round.cut).sum(),
        unsteady: seen.unsteady,
        captured: seen.captured,
        authoritative: seen.authoritative,
        extended_errors: &seen.extended_errors,
        soa: seen.soa.as_deref(),
        udp: udp.used.then(|| over(udp)),
        tcp: tcp.used.then(|| over(tcp)),
        asked,
        questions,
        last_full_coverage: seen.covered(),
    }
}

fn over(seen: &TransportSeen) -> Over {
    Over {
        replies: replies(|class| seen.count(class)),
        sent: seen.sent,
        answered: seen.answered,
        retried: seen.retried,
        control: seen.control,
        self_check: seen.self_check,
    }
}

fn replies(count: impl Fn(ReplyClass) -> u32) -> BTreeMap<&'static str, u32> {
    ReplyClass::ALL.iter().map(|class| (class.as_str(), count(*class))).filter(|(_, n)| *n > 0).collect()
}
