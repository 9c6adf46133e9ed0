//! One check of the JSON: its identity, its verdict, and all that it rests on.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Instant,
};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    ledger::{CheckView, DnsEvidence, Evidence, Finding},
    model::{AddressKind, CheckKind, Expect, Mode, PodName, Reason, Verdict, Via},
    observation::{AddressSeen, ControlReply, ReplyClass, TcpSeen, TransportSeen, WitnessSeen},
};

/// One question and its answer.
#[derive(Serialize, JsonSchema)]
pub struct Check<'a> {
    /// Name of the boundary.
    boundary: &'a str,
    /// What is expected of it.
    expect: Expect,
    /// What is asked.
    check: CheckKind,
    /// Whether its verdict counts.
    mode: Mode,
    /// Kubernetes namespace of who asks; empty where it is not known.
    source_namespace: &'a str,
    /// Who asks; for co-residency the zone.
    source: &'a str,
    /// Kubernetes namespace of the target; empty for DNS, co-residency and targets outside of the cluster.
    target_namespace: &'a str,
    /// `service:port`, the DNS server's name, or for co-residency the zone.
    target: &'a str,
    /// How the target is addressed; empty for DNS and co-residency.
    #[schemars(extend("enum" = via_words()))]
    via: &'static str,
    /// What is concluded at this moment.
    verdict: Verdict,
    /// Why: each reason belongs to one verdict.
    reason: Reason,
    /// The reason in a sentence.
    explanation: &'static str,
    /// When its evidence was complete; null before the first result.
    at: Option<Timestamp>,
    /// Open findings, the longest open first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    findings: Vec<OpenFinding<'a>>,
    /// Of checks of what can be reached: each address that was probed.
    #[serde(skip_serializing_if = "Option::is_none")]
    addresses: Option<Vec<Address<'a>>>,
    /// Of DNS techniques: what was seen of the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    dns: Option<Dns<'a>>,
    /// Of co-residency: the pods of the two zones on this node; a zone is null where the runtime does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<Node<'a>>,
}

/// Pods of the two zones on this node.
#[derive(Serialize, JsonSchema)]
struct Node<'a> {
    /// Of the zone that the boundary starts from.
    from: Option<Pods<'a>>,
    /// Of the zone that is protected.
    to: Option<Pods<'a>>,
}

/// Pods of one zone.
#[derive(Serialize, JsonSchema)]
struct Pods<'a> {
    /// How many there are.
    count: usize,
    /// `namespace/name` of some of them.
    some: &'a [Arc<str>],
}

/// A failure of what must be blocked, from its first sight to its close.
#[derive(Serialize, JsonSchema)]
struct OpenFinding<'a> {
    /// `namespace/name` of the pod that it was seen from; absent for the agent's own network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<&'a PodName>,
    /// Null for DNS, where the server is the check's target.
    address: Option<SocketAddr>,
    /// When it was first seen.
    since: Timestamp,
    /// When it was last seen to fail.
    last_failed: Timestamp,
    /// Why it failed last.
    reason: Reason,
    /// Blocked results in a row since then.
    blocked_in_a_row: u32,
    /// How many of them close it.
    closes_at: u32,
}

/// What was seen of one address of a target.
#[derive(Serialize, JsonSchema)]
struct Address<'a> {
    /// `namespace/name` of the pod that the attempts were made from; absent for the agent's own network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<&'a PodName>,
    /// Null where the name gave none, or no socket could be made.
    address: Option<SocketAddr>,
    /// Who answers there.
    kind: AddressKind,
    /// False where the target no longer has the address, and it is probed only because its finding is open.
    listed: bool,
    verdict: Verdict,
    reason: Reason,
    /// In their order; empty where no socket could be made at all.
    attempts: &'a [TcpSeen],
    /// It was open while the pod or the target was new, and then no more: seconds from the start of the newer of the two until it was first seen not open.
    #[serde(skip_serializing_if = "Option::is_none")]
    startup_seconds: Option<f64>,
    /// A port on which a known sidecar listens, where the attempts were made from.
    #[serde(skip_serializing_if = "Option::is_none")]
    sidecar_port: Option<u16>,
    /// What the witness saw of the target; absent where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    witness: Option<&'a WitnessSeen>,
}

/// What a technique saw of a DNS server.
#[derive(Serialize, JsonSchema)]
struct Dns<'a> {
    /// `namespace/name` of the pod that asked; absent for the agent's own network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<&'a PodName>,
    /// The server that was asked.
    server: SocketAddr,
    /// Names that were disclosed, by namespace, of whatever namespace.
    names: BTreeMap<&'a str, BTreeSet<&'a str>>,
    /// Addresses that were disclosed without a name, by namespace.
    addresses: BTreeMap<&'a str, BTreeSet<&'a str>>,
    /// What was disclosed past the bounds of what is kept: it is only counted.
    overflow: u64,
    /// The technique's questions by the class of their final reply; what there is none of is absent.
    replies: BTreeMap<ReplyClass, u32>,
    /// Queries put on the wire, repeats, self-check and controls included.
    sent: u32,
    /// Those of them that got a reply.
    answered: u32,
    /// Those of them that were repeats.
    retried: u32,
    /// Questions that stayed without an answer.
    lost: u32,
    /// Answers that were cut and could not be fetched whole.
    cut: u32,
    /// Questions that were denied, and a moment later were not.
    unsteady: u32,
    /// A name that nobody has was answered: the server answers everything.
    captured: bool,
    /// Replies with the AA flag.
    authoritative: u32,
    /// Extended DNS errors (RFC 8914) by info code.
    extended_errors: &'a BTreeMap<u16, u32>,
    /// Owner of the first SOA in a negative answer.
    soa: Option<&'a str>,
    /// What was seen over UDP; absent where the technique does not use it.
    #[serde(skip_serializing_if = "Option::is_none")]
    udp: Option<Over>,
    /// What was seen over TCP; absent where the technique does not use it.
    #[serde(skip_serializing_if = "Option::is_none")]
    tcp: Option<Over>,
    /// Questions asked in the round under way.
    asked: u64,
    /// All questions of the round.
    questions: u64,
    /// When the last clean round over everything ended; null before the first.
    last_full_coverage: Option<Timestamp>,
}

/// What was seen over one transport.
#[derive(Serialize, JsonSchema)]
struct Over {
    /// As above, over this transport.
    replies: BTreeMap<ReplyClass, u32>,
    /// As above.
    sent: u32,
    /// As above.
    answered: u32,
    /// As above.
    retried: u32,
    /// How the server's positive control was answered, before and after.
    control: [ControlReply; 2],
    /// The technique found what it may find.
    self_check: bool,
}

/// The words of `via`, and the empty one.
fn via_words() -> Vec<&'static str> {
    [""].into_iter().chain(Via::ALL.iter().map(|via| via.as_str())).collect()
}

impl<'a> Check<'a> {
    /// As it is served at `now`.
    pub fn new(view: &'a CheckView, now: Instant) -> Self {
        let (id, reason) = (&view.id, view.reason_at(now));
        let evidence = view.result.as_ref().map(|r| &r.evidence);
        Self {
            boundary: &id.boundary,
            expect: id.expect,
            check: id.kind,
            mode: view.mode,
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
        kind: seen.kind,
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

fn replies(count: impl Fn(ReplyClass) -> u32) -> BTreeMap<ReplyClass, u32> {
    ReplyClass::ALL.iter().map(|class| (*class, count(*class))).filter(|(_, n)| *n > 0).collect()
}
