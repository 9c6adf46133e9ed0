//! Table and words: hostile names do no harm, lines fit, and evidence reads well.

mod outputs;

use std::{net::SocketAddr, sync::Arc, time::Duration, time::Instant};

use jiff::Timestamp;
use proptest::prelude::*;

use super::{Run, json, metrics::Metrics, report::Report, table, words};
use crate::{
    config::SeriesConfig,
    inventory::{
        cri::{Network, PodDns, Sandbox},
        stands::Speakers,
    },
    ledger::{
        BoundaryView, CheckResult, CheckView, Closed, ControlState, DnsEvidence, Evidence, NodeView, Snapshot,
        SweepReport, Transition,
    },
    model::{
        AddressKind, CheckId, CheckKind, Expect, Identity, Mode, PodName, Reason, VantageMode, Verdict, Via,
        WitnessKind,
    },
    observation::{
        AddressSeen, ControlReply, DnsSeen, Icmp, NodeSeen, ReplyClass, TcpOutcome, TcpSeen, WitnessSaw, WitnessSeen,
    },
    plan::NotTested,
};

/// Names as a hostile server or pod could choose them: they erase, turn, hide, break lines and bring markup.
pub(super) const HOSTILE: [&str; 7] = [
    "\u{1b}[2J\u{1b}[31mred",
    "line\r\nbreak",
    "turned\u{202e}around\u{2066}\u{61c}",
    "hidden\u{200b}\u{feff}\u{2060}",
    "para\u{2028}graph\u{2029}",
    "<script>alert(1)</script>",
    "\"><img src=x onerror='x'>&",
];

pub(super) fn id(boundary: &str, kind: CheckKind, namespace: &str, target: &str, via: Option<Via>) -> Arc<CheckId> {
    Arc::new(CheckId {
        boundary: boundary.into(),
        expect: Expect::Blocked,
        kind,
        source: Arc::new(Identity { namespace: "web".into(), name: "own".into() }),
        target_namespace: namespace.into(),
        target: target.into(),
        via,
    })
}

pub(super) fn view(id: Arc<CheckId>, mode: Mode, reason: Reason, evidence: Evidence) -> CheckView {
    let (judged, at) = (Instant::now(), Timestamp::UNIX_EPOCH);
    let result = CheckResult { id: id.clone(), mode, reason, evidence, discovered: false, judged, at };
    CheckView { id, mode, result: Some(Arc::new(result)), round: Duration::from_secs(30), findings: [].into() }
}

pub(super) fn connect(outcome: TcpOutcome) -> TcpSeen {
    TcpSeen { outcome, icmp: None, errno: None, elapsed_us: 0 }
}

pub(super) fn address(address: &str, attempts: &[TcpSeen]) -> AddressSeen {
    let now = Instant::now();
    AddressSeen {
        address: Some(address.parse().unwrap()),
        kind: AddressKind::Endpoint,
        from: None,
        listed: true,
        attempts: attempts.into(),
        startup: None,
        sidecar: None,
        witness: None,
        started: now,
        ended: now,
    }
}

pub(super) fn tcp(addresses: Vec<(AddressSeen, Reason)>) -> Evidence {
    Evidence::Reach(addresses.into())
}

pub(super) fn dns(names: &[&str]) -> Evidence {
    let mut seen = DnsSeen::default();
    let over = &mut seen.over[0];
    (over.used, over.control, over.self_check) = (true, [ControlReply::Answered; 2], true);
    over.replies[ReplyClass::Answered as usize] = 2;
    names.iter().for_each(|name| seen.beside.names.add("payments", name));
    let server: SocketAddr = "127.0.0.53:53".parse().unwrap();
    Evidence::Dns(Box::new(DnsEvidence {
        server,
        kind: AddressKind::Endpoint,
        from: None,
        protected: ["payments".into()].into(),
        seen,
    }))
}

pub(super) fn snapshot(checks: Vec<CheckView>) -> Snapshot {
    let boundary = BoundaryView {
        name: "b".into(),
        from: "low".into(),
        to: "high".into(),
        expect: Expect::Blocked,
        vantage: VantageMode::Own,
        interval: Duration::from_secs(30),
        share_nodes: 1,
        share_sweeps: 1,
        untested: None,
        completed: None,
        took: None,
        span: None,
    };
    Snapshot { checks, boundaries: vec![boundary], ..Snapshot::default() }
}

fn rendered(snapshot: &Snapshot, width: Option<usize>) -> String {
    let mut out = Vec::new();
    table::write(&mut out, &Report::new(&run(), snapshot, Instant::now()), width).unwrap();
    String::from_utf8(out).unwrap()
}

/// The text as a terminal shows it: without the colours that the table itself writes.
fn shown(text: &str) -> String {
    let mut shown = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        shown.push_str(before);
        let end = after.find(|c: char| !c.is_ascii_digit() && c != ';').unwrap();
        assert_eq!(&after[end..=end], "m", "only colours");
        rest = &after[end + 1..];
    }
    shown + rest
}

fn is_harmless(c: char) -> bool {
    let bidi = ['\u{61c}', '\u{200e}', '\u{200f}'];
    let invisible = ['\u{200b}', '\u{200c}', '\u{200d}', '\u{2028}', '\u{2029}', '\u{2060}', '\u{feff}'];
    !c.is_control()
        && !bidi.contains(&c)
        && !invisible.contains(&c)
        && !('\u{202a}'..='\u{202e}').contains(&c)
        && !('\u{2066}'..='\u{2069}').contains(&c)
}

#[test]
fn hostile_names_do_no_harm_in_the_table() {
    for hostile in HOSTILE {
        let checks = |name: &str| {
            snapshot(vec![
                view(id("b", CheckKind::SrvWildcard, "", "system", None), Mode::Judge, Reason::Disclosed, dns(&[name])),
                view(
                    id("b", CheckKind::TcpConnect, name, name, Some(Via::Service)),
                    Mode::Judge,
                    Reason::Unresolved,
                    tcp(vec![]),
                ),
            ])
        };
        let (good, bad) = (checks("good"), checks(hostile));
        assert!(words::evidence(&bad.checks[0]).chars().all(is_harmless), "{hostile:?}");
        for width in [None, Some(80)] {
            let table = rendered(&bad, width);
            let escapes = |text: &str| text.matches('\u{1b}').count();
            assert_eq!(escapes(&table), escapes(&rendered(&good, width)), "{hostile:?}");
            assert!(shown(&table).lines().all(|line| line.chars().all(is_harmless)), "{hostile:?}: {table:?}");
        }
        // Nothing but the table's own lines.
        assert_eq!(rendered(&bad, None).lines().count(), rendered(&good, None).lines().count(), "{hostile:?}");
    }
}

#[test]
fn evidence_reads_well() {
    use TcpOutcome::*;
    let rejected = |code| TcpSeen {
        icmp: Some(Icmp { kind: 3, code, offender: Some("127.0.0.9".parse().unwrap()) }),
        ..connect(Rejected)
    };
    let witnessed = |before, after: Option<TcpOutcome>| {
        let witness = WitnessSeen {
            by: WitnessKind::Source,
            name: "w".into(),
            before: WitnessSaw::Connect(connect(before)),
            after: after.map(connect).map(WitnessSaw::Connect),
        };
        let seen = AddressSeen { witness: Some(Box::new(witness)), ..address("127.0.0.7:1", &[connect(Filtered)]) };
        vec![(seen, Reason::Blocked)]
    };
    let several = |n: u8| {
        (1..=n).map(|i| (address(&format!("127.0.0.{i}:1"), &[connect(Closed)]), Reason::Blocked)).collect::<Vec<_>>()
    };
    let errno = TcpSeen { errno: Some(24), ..connect(Error) };
    let unlisted = AddressSeen { listed: false, ..address("127.0.0.7:1", &[connect(Filtered)]) };
    let mut worst = several(4);
    worst[3].1 = Reason::Reached;
    for (evidence, expected) in [
        (tcp(several(1)), "127.0.0.1:1 closed"),
        (
            tcp(vec![(address("[::1]:1", &[connect(Filtered), connect(Filtered)]), Reason::Blocked)]),
            "[::1]:1 filtered 2×",
        ),
        (
            tcp(vec![(address("127.0.0.7:1", &[rejected(13), rejected(13), connect(Filtered)]), Reason::Blocked)]),
            "127.0.0.7:1 rejected by ICMP 3/13 from 127.0.0.9 2×, then filtered",
        ),
        (
            tcp(vec![(address("127.0.0.7:1", &[rejected(13), rejected(3)]), Reason::Blocked)]),
            "127.0.0.7:1 rejected by ICMP 3/13 from 127.0.0.9, then rejected by ICMP 3/3 from 127.0.0.9",
        ),
        (
            tcp(vec![(address("127.0.0.7:1", &[errno]), Reason::LocalError)]),
            "127.0.0.7:1 error (EMFILE: Too many open files)",
        ),
        (tcp(witnessed(Open, Some(Open))), "127.0.0.7:1 filtered, witness open"),
        (tcp(witnessed(Open, Some(Closed))), "127.0.0.7:1 filtered, witness open then closed"),
        (tcp(vec![(unlisted, Reason::Blocked)]), "127.0.0.7:1 filtered (no longer listed)"),
        (tcp(several(3)), "127.0.0.1:1 closed; 127.0.0.2:1 closed; 127.0.0.3:1 closed"),
        (tcp(worst), "127.0.0.4:1 closed; 127.0.0.1:1 closed; 127.0.0.2:1 closed; and 1 more"),
        (dns(&[]), "127.0.0.53:53: nothing disclosed (2 answered)"),
        (dns(&["a"]), "127.0.0.53:53: 1 name disclosed: a (2 answered)"),
        (dns(&["a", "b", "c", "d"]), "127.0.0.53:53: 4 names disclosed: a, b, c, … (2 answered)"),
    ] {
        let view = view(id("b", CheckKind::TcpConnect, "n", "t:1", None), Mode::Judge, Reason::Blocked, evidence);
        assert_eq!(words::evidence(&view), expected);
    }
}

#[test]
fn what_is_wrong_with_a_server_is_told() {
    use ControlReply::{Answered, Failed, NoListener, Refused, Silent};
    for (control, self_check, captured, expected) in [
        ([Answered, Failed], true, false, ", control not answered over udp"),
        ([NoListener, Answered], true, false, ", control not answered over udp"),
        ([Silent; 2], false, false, ", control not answered over udp"),
        ([Refused, Answered], true, false, ", control refused over udp"),
        ([NoListener; 2], false, false, ", nobody listens on udp"),
        ([Answered; 2], false, false, ", known name not found over udp"),
        ([Answered; 2], true, true, ", a name that nobody has was answered"),
    ] {
        let Evidence::Dns(mut evidence) = dns(&[]) else { unreachable!() };
        evidence.seen.captured = captured;
        (evidence.seen.over[0].control, evidence.seen.over[0].self_check) = (control, self_check);
        let id = id("b", CheckKind::SrvWildcard, "", "server", None);
        let view = view(id, Mode::Judge, Reason::Captured, Evidence::Dns(evidence));
        assert_eq!(words::evidence(&view), format!("127.0.0.53:53: nothing disclosed (2 answered){expected}"));
    }
}

#[test]
fn a_target_over_udp_is_told_from_one_over_tcp() {
    let check =
        |kind| view(id("b", kind, "n", "dns:53", Some(Via::Endpoint)), Mode::Judge, Reason::Blocked, tcp(vec![]));
    let shown = rendered(&snapshot(vec![check(CheckKind::TcpConnect), check(CheckKind::DnsQuery)]), None);
    assert!(shown.contains("n/dns:53 (endpoint)") && shown.contains("n/dns:53/udp (endpoint)"), "{shown}");
}

#[test]
fn the_worst_stands_first_and_reports_last() {
    let check = |target: &str, mode, reason| {
        view(id("b", CheckKind::TcpConnect, "n", target, Some(Via::Service)), mode, reason, tcp(vec![]))
    };
    let snapshot = snapshot(vec![
        check("pass", Mode::Judge, Reason::Blocked),
        check("report", Mode::Report, Reason::Disclosed),
        check("inconclusive", Mode::Judge, Reason::Lossy),
        check("fail", Mode::Judge, Reason::Reached),
        check("unverified", Mode::Judge, Reason::NoWitness),
    ]);
    let table = shown(&rendered(&snapshot, None));
    let rows: Vec<&str> = table.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(rows, ["FAIL", "INCONCLUSIVE", "UNVERIFIED", "PASS", "(reported)"]);
    assert!(
        table.starts_with("b  low → high, expected blocked: 1 fail, 1 inconclusive, 1 unverified, 1 pass\n"),
        "{table}"
    );
    let totals = Report::new(&run(), &snapshot, Instant::now()).totals;
    assert!(Verdict::ALL.iter().all(|verdict| totals.of(*verdict) == 1), "{totals}");
}

// --- From pods ---

const POD: &str = "web/shop-7d9f-x2x4q";
const POD_ADDRESS: &str = "127.0.200.7";

fn pod() -> Option<Arc<PodName>> {
    Some(Arc::new(PodName { sandbox: "0123abcd".into(), name: POD.into() }))
}

fn listening(before: Option<bool>, after: Option<bool>) -> Option<Box<WitnessSeen>> {
    let saw = |listening| WitnessSaw::Listener { listening };
    let name = "payments/ledger-0".into();
    Some(Box::new(WitnessSeen { by: WitnessKind::Listening, name, before: saw(before), after: Some(saw(after)) }))
}

fn vouched(by: WitnessKind, name: &str, before: TcpOutcome, after: TcpOutcome) -> Option<Box<WitnessSeen>> {
    let saw = |outcome| WitnessSaw::Connect(connect(outcome));
    Some(Box::new(WitnessSeen { by, name: name.into(), before: saw(before), after: Some(saw(after)) }))
}

fn co_resident(from: Option<(&[&str], usize)>, to: Option<(&[&str], usize)>) -> CheckView {
    let of =
        |pods: Option<(&[&str], usize)>| pods.map(|(some, count)| (some.iter().map(|p| (*p).into()).collect(), count));
    let mut id = Arc::unwrap_or_clone(id("b", CheckKind::NodeCoResidency, "", "high", None));
    id.source = Arc::new(Identity { namespace: "".into(), name: "low".into() });
    let seen = NodeSeen { from: of(from), to: of(to) };
    view(Arc::new(id), Mode::Judge, Reason::CoResident, Evidence::Node(Box::new(seen)))
}

/// A snapshot of a boundary that is probed from pods, with all that can be said of them.
pub(super) fn of_pods() -> Snapshot {
    let seen = |more: AddressSeen| AddressSeen { from: pod(), ..more };
    let reached = AddressSeen {
        startup: std::num::NonZeroU32::new(1_250),
        sidecar: Some(15_001),
        witness: listening(Some(true), Some(true)),
        ..address(&format!("{POD_ADDRESS}:5432"), &[connect(TcpOutcome::Open)])
    };
    let endpoint = id("b", CheckKind::TcpConnect, "payments", "ledger:5432", Some(Via::Endpoint));
    let mut tcp = view(endpoint, Mode::Judge, Reason::Reached, tcp(vec![(seen(reached), Reason::Reached)]));
    let mut ledger = crate::ledger::Ledger::default();
    tcp.findings = finding(&mut ledger, &tcp);
    let Evidence::Dns(evidence) = dns(&["a"]) else { unreachable!() };
    let evidence = Evidence::Dns(Box::new(DnsEvidence { from: pod(), ..*evidence }));
    let wildcard = view(id("b", CheckKind::SrvWildcard, "", "system", None), Mode::Judge, Reason::Disclosed, evidence);
    let node = co_resident(Some((&[POD], 12)), Some((&["payments/ledger-0"], 1)));
    let mut snapshot = snapshot(vec![tcp, wildcard, node]);
    snapshot.boundaries[0].vantage = VantageMode::Pods;
    let source = snapshot.checks[0].id.source.clone();
    snapshot.controls = vec![ControlState { source, kind: "sidecar", control: "15001 (Envoy)".into(), ok: false }];
    let zones = [("high".into(), 1), ("low".into(), 12)].into();
    snapshot.node = Some(NodeView { zones, runtime_answers: true });
    snapshot
}

/// The pod as the runtime tells of it.
fn sandbox() -> Sandbox {
    let name = pod().unwrap();
    Sandbox {
        id: name.sandbox.clone(),
        uid: name.sandbox.clone(),
        namespace: "web".into(),
        name: name.name.clone(),
        labels: None,
        created: Timestamp::UNIX_EPOCH,
        ready: true,
        running: true,
        network: Network::Host,
        addresses: Box::default(),
        dns: PodDns::default(),
    }
}

/// The finding that a ledger opens for a result.
fn finding(ledger: &mut crate::ledger::Ledger, view: &CheckView) -> Arc<[crate::ledger::Finding]> {
    let result = view.result.clone().unwrap();
    let (id, mode) = (view.id.clone(), view.mode);
    let question = crate::plan::Question::Reach {
        transport: crate::model::Transport::Tcp,
        kind: AddressKind::Endpoint,
        addresses: [crate::config::Address::Ip(POD_ADDRESS.parse().unwrap())].into(),
        port: 5432,
        vouched_by: None,
    };
    let config = crate::config::parse(
        std::path::Path::new("f"),
        "zones: {low: {}, high: {}}\nboundaries: [{name: b, from: low, to: high, dns: off}]\n",
    )
    .unwrap();
    let stand = crate::inventory::stands::Stand::own(&config, &[], "web");
    let mut plan = crate::plan::plan(&config, &[stand]);
    let leg = Arc::get_mut(&mut plan.legs[0]).unwrap();
    leg.reach = [crate::plan::Check { id, mode, question }].into();
    leg.stand.speakers = Speakers::Pods([Arc::new(sandbox())].into());
    ledger.follow(&plan, "hash", Instant::now());
    ledger.record(&crate::ledger::SweepReport {
        boundary: "b".into(),
        source: view.id.source.clone(),
        part: crate::plan::Part::Reach,
        started: Timestamp::UNIX_EPOCH,
        ended: Instant::now(),
        took: Duration::ZERO,
        results: vec![result],
        controls: Vec::new(),
    });
    ledger.snapshot().checks[0].findings.clone()
}

#[test]
fn evidence_from_pods_reads_well() {
    use TcpOutcome::*;
    let one = |more: AddressSeen| {
        words::evidence(&view(
            id("b", CheckKind::TcpConnect, "n", "t:1", None),
            Mode::Judge,
            Reason::Blocked,
            tcp(vec![(more, Reason::Blocked)]),
        ))
    };
    let from = || AddressSeen { from: pod(), ..address("127.0.0.7:1", &[connect(Filtered), connect(Filtered)]) };
    let plain = format!("from {POD} 127.0.0.7:1 filtered 2×");
    assert_eq!(one(from()), plain);
    for (seen, said) in [
        (AddressSeen { witness: listening(Some(true), Some(true)), ..from() }, ", witness payments/ledger-0 listening"),
        (
            AddressSeen { witness: listening(Some(true), Some(false)), ..from() },
            ", witness payments/ledger-0 listening then not listening",
        ),
        (
            AddressSeen { witness: listening(Some(true), None), ..from() },
            ", witness payments/ledger-0 listening then unclear",
        ),
        (AddressSeen { witness: listening(None, None), ..from() }, ", witness payments/ledger-0 unclear"),
        (
            AddressSeen { witness: listening(Some(false), Some(false)), ..from() },
            ", witness payments/ledger-0 not listening",
        ),
        (
            AddressSeen { witness: vouched(WitnessKind::Node, "this node", Open, Open), ..from() },
            ", witness this node open",
        ),
        (
            AddressSeen { witness: vouched(WitnessKind::Pod, "payments/prober", Open, Closed), ..from() },
            ", witness payments/prober open then closed",
        ),
        (AddressSeen { witness: vouched(WitnessKind::Source, "127.0.0.9", Open, Open), ..from() }, ", witness open"),
        (AddressSeen { sidecar: Some(15_001), ..from() }, ", a sidecar listens on 15001"),
        (AddressSeen { startup: std::num::NonZeroU32::new(1_250), ..from() }, ", at start-up open for 1250 ms"),
        (AddressSeen { listed: false, ..from() }, " (no longer listed)"),
    ] {
        assert_eq!(one(seen), plain.clone() + said);
    }
    // A pod that could not speak has nothing but its name.
    let mute = AddressSeen { from: pod(), address: None, ..address("127.0.0.7:1", &[]) };
    assert_eq!(one(mute).trim_end(), format!("from {POD}"));
    for (from, to, expected) in [
        (
            Some((&["web/a"][..], 1)),
            Some((&["pay/x", "pay/y"][..], 2)),
            "1 pod of zone low: web/a; 2 pods of zone high: pay/x, pay/y",
        ),
        (Some((&["web/a", "web/b"], 12)), Some((&[], 0)), "12 pods of zone low: web/a, web/b, …; 0 pods of zone high"),
        (None, None, ""),
    ] {
        assert_eq!(words::evidence(&co_resident(from, to)), expected);
    }
}

#[test]
fn who_asked_is_told_where_it_is_not_the_agent() {
    let mut snapshot = of_pods();
    let shown_rows = |snapshot: &Snapshot| shown(&rendered(snapshot, None));
    let told = shown_rows(&snapshot);
    for row in [
        "web/own → payments/ledger:5432 (endpoint)",
        "web/own → srv-wildcard at system",
        "  node-co-residency: low with high  ",
    ] {
        assert!(told.contains(row), "{row}: {told}");
    }
    assert!(told.contains(&format!("from {POD} {POD_ADDRESS}:5432 open")), "{told}");
    snapshot.boundaries[0].vantage = VantageMode::Own;
    let told = shown_rows(&snapshot);
    assert!(told.contains("  payments/ledger:5432 (endpoint)  ") && !told.contains("→ payments"), "{told}");
    let identity = |namespace: &str| Identity { namespace: namespace.into(), name: "app=web\u{202e}".into() };
    assert_eq!(table::source(VantageMode::Own, &identity("web")), "");
    assert_eq!(table::source(VantageMode::Pods, &identity("web")), " (web/app=web\\u{202e})");
    assert_eq!(table::source(VantageMode::Pods, &identity("")), " (app=web\\u{202e})");
}

pub(super) fn run() -> Run {
    Run { node: "node-1".into(), kernel: "6.18".into(), icmp_evidence: true }
}

#[test]
fn the_json_names_pods_and_nodes() {
    let (run, pods) = (run(), of_pods());
    let report = serde_json::to_value(json::Report::new(&run, &pods, Instant::now())).unwrap();
    assert_eq!(report["boundaries"][0]["vantage"], "pods");
    let errors = |report: &serde_json::Value| -> Vec<String> {
        let validator = jsonschema::validator_for(&json::schema()).unwrap();
        validator.iter_errors(report).map(|e| format!("{}: {e}", e.instance_path())).collect()
    };
    assert_eq!(errors(&report), [""; 0]);
    let mut wrong = report.clone();
    wrong["checks"][0]["addresses"][0]["witness"]["by"] = "nobody".into();
    assert_eq!(errors(&wrong).len(), 1);
    let [reach, asked, node] = [0, 1, 2].map(|at| &report["checks"][at]);
    let of_pod = &reach["addresses"][0];
    assert_eq!(
        (&of_pod["pod"], &of_pod["sidecar_port"], &of_pod["startup_seconds"]),
        (&POD.into(), &15_001.into(), &1.25.into())
    );
    let witness = serde_json::json!({"by": "listening", "name": "payments/ledger-0", "before": {"listening": true}, "after": {"listening": true}});
    assert_eq!(of_pod["witness"], witness);
    let unclear = serde_json::to_value(WitnessSaw::Listener { listening: None }).unwrap();
    assert_eq!(unclear, serde_json::json!({"listening": null}));
    assert_eq!(reach["findings"][0]["pod"], POD);
    assert_eq!(asked["dns"]["pod"], POD);
    let expected =
        serde_json::json!({"from": {"count": 12, "some": [POD]}, "to": {"count": 1, "some": ["payments/ledger-0"]}});
    assert_eq!(node["node"], expected);
    assert!(reach.get("node").is_none() && node.get("addresses").is_none() && node.get("dns").is_none());
    // From the own network there is no pod, and nothing is said of one.
    let own = snapshot(vec![view(
        id("b", CheckKind::TcpConnect, "n", "t:1", Some(Via::Endpoint)),
        Mode::Judge,
        Reason::Blocked,
        tcp(vec![(address("127.0.0.7:1", &[connect(TcpOutcome::Filtered)]), Reason::Blocked)]),
    )]);
    let report = serde_json::to_value(json::Report::new(&run, &own, Instant::now())).unwrap();
    let address = report["checks"][0]["addresses"][0].as_object().unwrap();
    for absent in ["pod", "sidecar_port", "startup_seconds", "witness"] {
        assert!(!address.contains_key(absent), "{absent}: {address:?}");
    }
    assert_eq!(report["boundaries"][0]["vantage"], "own");
}

fn report_of(snapshot: &Snapshot) -> SweepReport {
    SweepReport {
        boundary: "b".into(),
        source: snapshot.checks[0].id.source.clone(),
        part: crate::plan::Part::Reach,
        started: Timestamp::UNIX_EPOCH,
        ended: Instant::now(),
        took: Duration::from_secs(1),
        results: snapshot.checks.iter().filter_map(|view| view.result.clone()).collect(),
        controls: Vec::new(),
    }
}

#[test]
fn metrics_of_the_node_and_its_pods() {
    let metrics = Metrics::new(run(), crate::web::Web::open()).unwrap();
    let series = SeriesConfig { every_check: 100, worst_checks: 100 };
    let page = |snapshot: &Snapshot| metrics.page(snapshot, series, Instant::now());
    let mut snapshot = of_pods();
    metrics.announce("b");
    let before = page(&snapshot);
    assert!(
        before.contains("segprobe_startup_open_seconds_count{boundary=\"b\"} 0\n"),
        "zero from the start: {before}"
    );
    metrics.count(&report_of(&snapshot));
    let after = page(&snapshot);
    for line in [
        "segprobe_node_pods{zone=\"high\"} 1\n",
        "segprobe_node_pods{zone=\"low\"} 12\n",
        "segprobe_runtime_up 1\n",
        "segprobe_startup_open_seconds_count{boundary=\"b\"} 1\n",
        "segprobe_startup_open_seconds_sum{boundary=\"b\"} 1.25\n",
        "segprobe_startup_open_seconds_bucket{boundary=\"b\",le=\"1\"} 0\n",
        "segprobe_startup_open_seconds_bucket{boundary=\"b\",le=\"2.5\"} 1\n",
        "segprobe_boundary_info{boundary=\"b\",from=\"low\",to=\"high\",expect=\"blocked\",vantage=\"pods\"} 1\n",
        "segprobe_control_ok{source_namespace=\"web\",source=\"own\",control=\"15001 (Envoy)\",kind=\"sidecar\"} 0\n",
        "check=\"node-co-residency\",source_namespace=\"\",source=\"low\",target_namespace=\"\",target=\"high\",via=\"\",verdict=\"fail\"} 1\n",
        "segprobe_boundary_checks{boundary=\"b\",expect=\"blocked\",verdict=\"fail\",reason=\"co-resident\"} 1\n",
    ] {
        assert!(after.contains(line), "{line}: {after}");
    }
    // Whom the scraper may know of is the identity; a pod comes and goes.
    for secret in [POD, "shop-7d9f", "ledger-0", "0123abcd", POD_ADDRESS] {
        assert!(!after.contains(secret), "{secret}: {after}");
    }
    snapshot.node.as_mut().unwrap().runtime_answers = false;
    snapshot.boundaries[0].vantage = VantageMode::Own;
    let down = page(&snapshot);
    assert!(down.contains("segprobe_runtime_up 0\n") && down.contains("vantage=\"own\"} 1\n"), "{down}");
    snapshot.node = None;
    let none = page(&snapshot);
    assert!(
        !none.contains("segprobe_node_pods") && !none.contains("segprobe_runtime_up"),
        "nobody looks at pods: {none}"
    );
    metrics.forget("b");
    assert!(!page(&Snapshot::default()).contains("segprobe_startup_open_seconds_count"), "it went with its boundary");
}

/// What is logged of these, as logfmt.
fn logged(transitions: &[Transition], snapshot: &Snapshot) -> Vec<String> {
    use tracing_subscriber::{layer::SubscriberExt, registry};
    #[derive(Clone, Default)]
    struct Lines(Arc<std::sync::Mutex<Vec<u8>>>);
    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let lines = Lines::default();
    let view = |id: &crate::model::CheckId| snapshot.checks.iter().find(|view| *view.id == *id).cloned();
    let writer = lines.clone();
    let layer =
        tracing_logfmt::builder().with_target(false).with_timestamp(false).layer().with_writer(move || writer.clone());
    tracing::subscriber::with_default(registry().with(layer), || super::log::transitions(transitions, view, 3));
    let text = lines.0.lock().unwrap().clone();
    String::from_utf8(text).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn the_log_says_which_pod() {
    let snapshot = of_pods();
    let id = snapshot.checks[0].id.clone();
    let address = Some(format!("{POD_ADDRESS}:5432").parse().unwrap());
    let transitions = [
        Transition::Startup { id: id.clone(), from: pod(), address, length: Duration::from_millis(1_250) },
        Transition::Opened { id: id.clone(), from: pod(), address, reason: Reason::Reached },
        Transition::Closed {
            id: id.clone(),
            from: pod(),
            address,
            closed: Closed::Gone,
            after: Duration::from_secs(7),
        },
        Transition::Opened { id, from: None, address, reason: Reason::Reached },
    ];
    let lines = logged(&transitions, &snapshot);
    assert_eq!(lines.len(), 4, "{lines:?}");
    let common = "boundary=b check=tcp-connect source_namespace=web source=own target_namespace=payments target=ledger:5432 via=endpoint";
    let of_pod = format!("pod={POD} address={POD_ADDRESS}:5432");
    for (line, parts) in lines.iter().zip([
        &["event=startup", "open_seconds=1.25", "level=warn", &of_pod][..],
        &["event=finding-opened", "reason=reached", "level=warn", &of_pod],
        &["event=finding-closed", "how=gone", "open_seconds=7", &of_pod],
        &["event=finding-opened", "pod= "],
    ]) {
        assert!(line.contains(common) && parts.iter().all(|part| line.contains(part)), "{parts:?}: {line}");
    }
}

fn words_of(most: usize) -> impl Strategy<Value = String> {
    prop::string::string_regex(&format!("[a-z]{{1,{most}}}")).unwrap()
}

fn any_check() -> impl Strategy<Value = CheckView> {
    let addresses = prop::collection::vec((0u8..9, 0usize..3, prop::sample::select(TcpOutcome::ALL)), 0..5);
    let what = (words_of(20), words_of(40), prop::option::of(prop::sample::select(Via::ALL)), any::<bool>());
    (what, prop::sample::select(Reason::ALL), addresses, prop::collection::vec(words_of(30), 0..4)).prop_map(
        |((namespace, target, via, judge), reason, addresses, names)| {
            let mode = if judge { Mode::Judge } else { Mode::Report };
            let seen = |(ip, more, outcome): (u8, usize, TcpOutcome)| {
                let text = if ip < 5 {
                    format!("127.0.0.{ip}:5432")
                } else {
                    format!("[2001:db8:1111:2222:3333:4444:5555:{ip}]:5432")
                };
                (address(&text, &vec![connect(outcome); more + 1]), reason)
            };
            match via {
                Some(_) => {
                    let evidence = tcp(addresses.into_iter().map(seen).collect());
                    view(
                        id("b", CheckKind::TcpConnect, &namespace, &format!("{target}:5432"), via),
                        mode,
                        reason,
                        evidence,
                    )
                }
                None => {
                    let names: Vec<&str> = names.iter().map(String::as_str).collect();
                    view(id("b", CheckKind::SrvWildcard, "", &target, None), mode, reason, dns(&names))
                }
            }
        },
    )
}

proptest! {
    #[test]
    fn every_line_fits_the_terminal(
        checks in prop::collection::vec(any_check(), 0..6), zones in prop::array::uniform2(words_of(63)),
        name in words_of(63), width in prop::sample::select(vec![60usize, 80, 120, 200]), gaps in prop::collection::vec(words_of(30), 0..3),
    ) {
        let mut snapshot = snapshot(checks);
        let boundary = &mut snapshot.boundaries[0];
        [boundary.from, boundary.to] = zones.map(|z| z.as_str().into());
        boundary.name = name.as_str().into();
        snapshot.checks.iter_mut().for_each(|c| Arc::make_mut(&mut c.id).boundary = name.as_str().into());
        let gap = |what: String| NotTested {
            boundary: "b".into(), what: what.clone(), why: format!("{what} is not tested, because {what} is what it is, and it stays so"),
        };
        snapshot.not_tested = gaps.into_iter().map(gap).collect();
        let table = shown(&rendered(&snapshot, Some(width)));
        for line in table.lines() {
            // The first line of a row stands beside its verdict.
            let text = line.trim().trim_start_matches(|c: char| c.is_ascii_uppercase()).trim_start_matches("(reported)").trim();
            let fits = line.chars().count() <= width;
            prop_assert!(fits || !text.contains(' '), "{} > {width}: {line:?}", line.chars().count());
            prop_assert!(line.trim_end().len() == line.len() || fits);
        }
        // Narrow or wide, the words are the same.
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        prop_assert_eq!(words(&table), words(&shown(&rendered(&snapshot, None))));
    }

    #[test]
    fn plain_text_is_harmless(text in any::<String>()) {
        let plain = crate::model::plain(&text);
        prop_assert!(plain.chars().all(is_harmless));
        if text.chars().all(|c| c.is_ascii_graphic() || c == ' ') {
            prop_assert_eq!(plain, text);
        }
    }
}
