//! From results to what is served: findings open at once and close slowly, and what is old or gone says so.

use std::{net::IpAddr, slice};

use proptest::{prelude::*, sample::select};

use super::*;
use crate::{
    config::{Address, Boundary},
    model::{AddressKind, ClosedRule, Via},
    observation::{TcpOutcome, TcpSeen},
    plan::{BoundaryPlan, Check, NotTested, Question},
};

const ROUND: Duration = Duration::from_secs(30);
const PORT: u16 = 5432;

fn boundary(name: &str, expect: Expect) -> Boundary {
    Boundary {
        name: name.into(),
        from: "low".into(),
        to: "high".into(),
        expect,
        interval: ROUND,
        timeout: Duration::from_secs(2),
        attempts: 2,
        closed: ClosedRule::Fail,
        techniques: Vec::new(),
    }
}

fn id(boundary: &str, expect: Expect, kind: CheckKind, target: &str) -> Arc<CheckId> {
    let source = Arc::new(Identity { namespace: "web".into(), name: "own".into() });
    let via = (kind == CheckKind::TcpConnect).then_some(Via::Endpoint);
    let (boundary, target) = (boundary.into(), target.into());
    Arc::new(CheckId { boundary, expect, kind, source, target_namespace: "payments".into(), target, via })
}

fn ip(last: u8) -> IpAddr {
    [127, 0, 1, last].into()
}

fn pair(last: u8) -> SocketAddr {
    SocketAddr::new(ip(last), PORT)
}

fn tcp(id: &Arc<CheckId>, kind: AddressKind, addresses: impl IntoIterator<Item = Address>) -> Check {
    let addresses = addresses.into_iter().collect();
    Check {
        id: id.clone(),
        mode: Mode::Judge,
        question: Question::Reach { transport: crate::model::Transport::Tcp, kind, addresses, port: PORT },
    }
}

fn plan(boundaries: Vec<(Boundary, Vec<Check>)>) -> Plan {
    let planned = |(boundary, checks)| BoundaryPlan {
        boundary,
        checks,
        namespaces: Vec::new(),
        services: Default::default(),
        known_addresses: Default::default(),
        pods: Default::default(),
        witnessed: false,
    };
    Plan {
        boundaries: boundaries.into_iter().map(planned).collect(),
        source: Arc::new(Identity { namespace: "web".into(), name: "own".into() }),
        negative: Vec::new(),
        positive: Vec::new(),
        positive_udp: Vec::new(),
        resolver: Vec::new(),
        not_tested: Vec::new(),
    }
}

/// One address of a result: who it is, whether the target still lists it, and what was concluded.
type Of = (u8, bool, Reason);

/// A ledger with a clock and one boundary `b`.
struct Bench {
    ledger: Ledger,
    start: Instant,
    now: Instant,
}

impl Bench {
    fn new(plan: &Plan) -> Self {
        let start = Instant::now();
        let bench = Self { ledger: Ledger::default(), start, now: start };
        assert_eq!(bench.ledger.follow(plan, "hash", start), []);
        bench
    }

    fn follow(&self, plan: &Plan) -> Vec<Transition> {
        self.ledger.follow(plan, "hash", self.now)
    }

    fn result(&self, id: &Arc<CheckId>, kind: AddressKind, of: &[Of]) -> Arc<CheckResult> {
        let seen = |(last, listed, reason): &Of| {
            let attempt = TcpSeen { outcome: TcpOutcome::Filtered, icmp: None, errno: None, elapsed_us: 0 };
            let seen = AddressSeen {
                address: Some(pair(*last)),
                kind,
                listed: *listed,
                attempts: [attempt].into(),
                witness: None,
                started: self.now,
                ended: self.now,
            };
            (seen, *reason)
        };
        let reason = of.iter().map(|(_, _, reason)| *reason).min().unwrap();
        self.concluded(id, Mode::Judge, reason, Evidence::Reach(of.iter().map(seen).collect()))
    }

    fn dns(&self, id: &Arc<CheckId>, mode: Mode, reason: Reason) -> Arc<CheckResult> {
        let evidence = DnsEvidence {
            server: ([127, 0, 0, 53], 53).into(),
            kind: Endpoint,
            protected: [].into(),
            seen: DnsSeen::default(),
        };
        self.concluded(id, mode, reason, Evidence::Dns(Box::new(evidence)))
    }

    fn concluded(&self, id: &Arc<CheckId>, mode: Mode, reason: Reason, evidence: Evidence) -> Arc<CheckResult> {
        let at = Timestamp::UNIX_EPOCH + jiff::SignedDuration::try_from(self.now - self.start).unwrap();
        Arc::new(CheckResult { id: id.clone(), mode, reason, evidence, judged: self.now, at })
    }

    /// Records results as one sweep, a round after the last.
    fn record(&mut self, results: &[Arc<CheckResult>]) -> Vec<Transition> {
        let report = SweepReport {
            boundary: "b".into(),
            started: Timestamp::UNIX_EPOCH,
            ended: self.now,
            took: Duration::from_secs(3),
            results: results.to_vec(),
            controls: Vec::new(),
        };
        let transitions = self.ledger.record(&report);
        self.now += ROUND;
        transitions
    }

    fn sweep(&mut self, id: &Arc<CheckId>, kind: AddressKind, of: &[Of]) -> Vec<Transition> {
        let result = self.result(id, kind, of);
        self.record(&[result])
    }

    fn view(&self, id: &CheckId) -> CheckView {
        self.ledger.snapshot().checks.iter().find(|v| *v.id == *id).unwrap().clone()
    }

    /// What is served right after the last sweep.
    fn served(&self, id: &CheckId) -> Reason {
        self.view(id).reason_at(self.now - ROUND)
    }
}

/// One check of one endpoint, and a ledger that follows it.
fn one(kind: AddressKind) -> (Bench, Arc<CheckId>) {
    let id = id("b", Expect::Blocked, CheckKind::TcpConnect, "ledger:5432");
    let plan =
        plan(vec![(boundary("b", Expect::Blocked), vec![tcp(&id, kind, [Address::Ip(ip(1)), Address::Ip(ip(2))])])]);
    (Bench::new(&plan), id)
}

fn opened(transitions: &[Transition]) -> Vec<Option<SocketAddr>> {
    let opened = |t: &Transition| match t {
        Transition::Opened { address, .. } => Some(*address),
        _ => None,
    };
    transitions.iter().filter_map(opened).collect()
}

fn closed(transitions: &[Transition]) -> Vec<(Option<SocketAddr>, Closed)> {
    let closed = |t: &Transition| match t {
        Transition::Closed { address, closed, .. } => Some((*address, *closed)),
        _ => None,
    };
    transitions.iter().filter_map(closed).collect()
}

use AddressKind::{Endpoint, Virtual};
use Reason::{Blocked, Captured, LocalError, Lossy, NoWitness, Reached, TargetDown, VantageOffline, VirtualAddress};

#[test]
fn a_finding_opens_at_once_and_closes_after_three_or_ten_in_a_row() {
    for (kind, blocked, needed) in [(Endpoint, Blocked, 3), (Endpoint, NoWitness, 3), (Virtual, VirtualAddress, 10)] {
        let (mut bench, id) = one(kind);
        assert_eq!(opened(&bench.sweep(&id, kind, &[(1, true, Reached)])), [Some(pair(1))]);
        assert_eq!(bench.served(&id), Reached);
        assert_eq!(bench.ledger.carried("b").pinned[&id], [pair(1)]);
        for times in 1..needed {
            assert_eq!(closed(&bench.sweep(&id, kind, &[(1, true, blocked)])), [], "{kind} {times}");
            assert_eq!(bench.served(&id), Reason::FindingOpen);
            assert_eq!((bench.view(&id).findings[0].blocked, bench.view(&id).findings[0].closes_at), (times, needed));
        }
        let transitions = bench.sweep(&id, kind, &[(1, true, blocked)]);
        assert_eq!(closed(&transitions), [(Some(pair(1)), Closed::Resolved)], "{kind}");
        let Some(Transition::Closed { after, .. }) = transitions.first() else { panic!("{transitions:?}") };
        assert_eq!(*after, ROUND * needed);
        assert_eq!(bench.served(&id), blocked);
        assert!(bench.view(&id).findings.is_empty() && bench.ledger.carried("b").pinned.is_empty());
    }
}

#[test]
fn what_was_not_measured_neither_counts_nor_resets_and_a_fail_resets() {
    let (mut bench, id) = one(Endpoint);
    let blocked = |bench: &Bench| bench.view(&id).findings[0].blocked;
    for (reason, count) in [
        (Reached, 0),
        (Blocked, 1),
        (Blocked, 2),
        (VantageOffline, 2),
        (TargetDown, 2),
        (Reached, 0),
        (Blocked, 1),
        (VantageOffline, 1),
        (NoWitness, 2),
    ] {
        assert_eq!(closed(&bench.sweep(&id, Endpoint, &[(1, true, reason)])), []);
        assert_eq!(blocked(&bench), count, "{reason}");
    }
    assert_eq!(bench.served(&id), Reason::FindingOpen);
    assert_eq!(closed(&bench.sweep(&id, Endpoint, &[(1, true, Blocked)])), [(Some(pair(1)), Closed::Resolved)]);
}

#[test]
fn each_address_has_a_finding_of_its_own() {
    let (mut bench, id) = one(Endpoint);
    let transitions = bench.sweep(&id, Endpoint, &[(1, true, Reached), (2, true, Reached)]);
    assert_eq!(opened(&transitions), [Some(pair(1)), Some(pair(2))]);
    for _ in 0..2 {
        bench.sweep(&id, Endpoint, &[(1, true, Blocked), (2, true, Reached)]);
    }
    let transitions = bench.sweep(&id, Endpoint, &[(1, true, Blocked), (2, true, Blocked)]);
    assert_eq!(closed(&transitions), [(Some(pair(1)), Closed::Resolved)]);
    assert_eq!(bench.served(&id), Reason::FindingOpen);
    assert_eq!(bench.ledger.carried("b").pinned[&id], [pair(2)]);
    // A sweep that did not probe the pair says nothing of it.
    for _ in 0..20 {
        assert_eq!(closed(&bench.sweep(&id, Endpoint, &[(1, true, Blocked)])), []);
    }
}

#[test]
fn findings_are_counted_by_boundary_and_kind() {
    let (mut bench, id) = one(Endpoint);
    let key = ("b".into(), CheckKind::TcpConnect);
    assert_eq!(bench.ledger.snapshot().findings[&key], FindingCount::default());
    bench.sweep(&id, Endpoint, &[(1, true, Reached), (2, true, Blocked)]);
    bench.sweep(&id, Endpoint, &[(1, true, Reached), (2, true, Reached)]);
    bench.sweep(&id, Endpoint, &[(1, true, Reached), (2, true, Blocked)]);
    let last = Some(Timestamp::from_second(30).unwrap());
    assert_eq!(bench.ledger.snapshot().findings[&key], FindingCount { total: 2, last });
}

#[test]
fn what_a_new_plan_leaves_out_is_gone_at_once() {
    let (mut bench, id) = one(Endpoint);
    let of = |addresses: &[u8]| {
        let addresses: Vec<Address> = addresses.iter().map(|a| Address::Ip(ip(*a))).collect();
        plan(vec![(boundary("b", Expect::Blocked), vec![tcp(&id, Endpoint, addresses)])])
    };
    bench.sweep(&id, Endpoint, &[(1, true, Reached), (2, true, Reached)]);
    assert_eq!(closed(&bench.follow(&of(&[1, 2]))), []);
    assert_eq!(closed(&bench.follow(&of(&[2, 3]))), [(Some(pair(1)), Closed::Gone)]);
    assert_eq!(bench.served(&id), Reached, "the rest is kept");
    let nothing = plan(vec![(boundary("b", Expect::Blocked), vec![])]);
    assert_eq!(closed(&bench.follow(&nothing)), [(Some(pair(2)), Closed::Gone)]);
    assert!(bench.ledger.snapshot().checks.is_empty());
    // A sweep that was under way says nothing any more.
    assert_eq!(bench.sweep(&id, Endpoint, &[(2, true, Reached)]), []);
    assert!(bench.ledger.snapshot().checks.is_empty());
}

#[test]
fn an_address_of_a_name_is_gone_after_three_sweeps_without_it_in_a_row() {
    let id = id("b", Expect::Blocked, CheckKind::TcpConnect, "vault:5432");
    let named = plan(vec![(boundary("b", Expect::Blocked), vec![tcp(&id, Virtual, [Address::Name("vault.".into())])])]);
    let mut bench = Bench::new(&named);
    bench.sweep(&id, Virtual, &[(1, true, Reached)]);
    assert_eq!(closed(&bench.follow(&named)), [], "a reload does not ask the name");
    // The name gives it only now and then: it is not gone.
    for listed in [false, false, true, false, false, true] {
        assert_eq!(closed(&bench.sweep(&id, Virtual, &[(1, listed, TargetDown)])), []);
    }
    // The name hides it, and it is open: it is not gone either.
    for reason in [TargetDown, TargetDown, Reached, TargetDown, TargetDown] {
        assert_eq!(closed(&bench.sweep(&id, Virtual, &[(1, false, reason)])), []);
    }
    // A vantage that sees nothing cannot see that it is gone.
    for blind in [VantageOffline, Captured, Lossy, LocalError, VantageOffline] {
        assert_eq!(closed(&bench.sweep(&id, Virtual, &[(1, false, blind)])), [], "{blind}");
    }
    assert_eq!(closed(&bench.sweep(&id, Virtual, &[(1, false, TargetDown)])), [(Some(pair(1)), Closed::Gone)]);
}

#[test]
fn pending_until_the_first_result_and_stale_after_three_rounds() {
    for first in [Blocked, NoWitness, VantageOffline, Reached] {
        let (mut bench, id) = one(Endpoint);
        assert_eq!(bench.view(&id).reason_at(bench.start + 100 * ROUND), Reason::Pending);
        bench.sweep(&id, Endpoint, &[(1, true, first)]);
        let view = bench.view(&id);
        assert_eq!(view.reason_at(bench.start + 3 * ROUND), first);
        assert_eq!(view.reason_at(bench.start + 3 * ROUND + Duration::from_nanos(1)), Reason::Stale, "{first}");
        // A clock that is read before the result was judged is no reason to doubt it.
        assert_eq!(view.reason_at(bench.start), first);
    }
}

#[test]
fn an_open_finding_goes_stale_like_everything() {
    let (mut bench, id) = one(Endpoint);
    bench.sweep(&id, Endpoint, &[(1, true, Reached)]);
    bench.sweep(&id, Endpoint, &[(1, true, Blocked)]);
    assert_eq!(bench.view(&id).reason_at(bench.start + 4 * ROUND), Reason::FindingOpen);
    assert_eq!(bench.view(&id).reason_at(bench.start + 5 * ROUND), Reason::Stale);
}

#[test]
fn a_disclosure_is_a_finding_where_it_is_judged() {
    let dns = id("b", Expect::Blocked, CheckKind::SrvWildcard, "system");
    let check = |mode| {
        let question = Question::Dns { server: ([127, 0, 0, 53], 53).into(), kind: Endpoint };
        plan(vec![(boundary("b", Expect::Blocked), vec![Check { id: dns.clone(), mode, question }])])
    };
    let mut bench = Bench::new(&check(Mode::Judge));
    let result = bench.dns(&dns, Mode::Judge, Reason::Disclosed);
    assert_eq!(opened(&bench.record(&[result])), [None]);
    assert!(bench.ledger.carried("b").pinned.is_empty(), "a server needs no pin: it is asked in every sweep");
    assert_eq!(bench.follow(&check(Mode::Judge)), [], "a reload that changes nothing keeps it open");
    for last in [false, false, true] {
        let result = bench.dns(&dns, Mode::Judge, Reason::NothingDisclosed);
        assert_eq!(closed(&bench.record(&[result])).len(), usize::from(last));
    }
    // Made a mere report, it has no findings: what is open is over, and a result of the old question says nothing.
    let result = bench.dns(&dns, Mode::Judge, Reason::Disclosed);
    bench.record(slice::from_ref(&result));
    assert_eq!(closed(&bench.follow(&check(Mode::Report))), [(None, Closed::Gone)]);
    assert_eq!(bench.view(&dns).reason_at(bench.now), Reason::Pending);
    assert_eq!(bench.record(&[result]), []);
    let result = bench.dns(&dns, Mode::Report, Reason::Disclosed);
    let transitions = bench.record(&[result]);
    assert_eq!((opened(&transitions), bench.served(&dns)), (vec![], Reason::Disclosed));
    assert_eq!(bench.ledger.snapshot().findings[&("b".into(), CheckKind::SrvWildcard)].total, 2);
}

#[test]
fn an_outage_where_open_is_expected_is_no_finding() {
    let id = id("b", Expect::Open, CheckKind::TcpConnect, "ledger:5432");
    let check = tcp(&id, Endpoint, [Address::Ip(ip(1))]);
    let mut bench = Bench::new(&plan(vec![(boundary("b", Expect::Open), vec![check])]));
    let transitions = bench.sweep(&id, Endpoint, &[(1, true, Reason::NotReached)]);
    assert_eq!(opened(&transitions), []);
    assert_eq!(bench.served(&id), Reason::NotReached);
    assert!(bench.ledger.carried("b").pinned.is_empty() && bench.ledger.snapshot().findings.is_empty());
    bench.sweep(&id, Endpoint, &[(1, true, Reason::Reachable)]);
    assert_eq!(bench.served(&id), Reason::Reachable);
}

#[test]
fn changes_are_told_once() {
    let (mut bench, id) = one(Endpoint);
    let changes = |transitions: &[Transition]| -> Vec<(Option<Reason>, Reason)> {
        let change = |t: &Transition| match t {
            Transition::Changed { from, to, .. } => Some((*from, *to)),
            _ => None,
        };
        transitions.iter().filter_map(change).collect()
    };
    for (reason, told) in [
        (Blocked, vec![(None, Blocked)]),
        (Blocked, vec![]),
        (Reached, vec![(Some(Blocked), Reached)]),
        (Blocked, vec![(Some(Reached), Reason::FindingOpen)]),
        (Blocked, vec![]),
        (Blocked, vec![(Some(Reason::FindingOpen), Blocked)]),
    ] {
        assert_eq!(changes(&bench.sweep(&id, Endpoint, &[(1, true, reason)])), told);
    }
    bench.now += 5 * ROUND;
    let transitions = bench.sweep(&id, Endpoint, &[(1, true, Blocked)]);
    assert_eq!(changes(&transitions), [(Some(Reason::Stale), Blocked)]);
}

#[test]
fn boundaries_keep_their_last_sweep_and_their_order() {
    let (mut bench, id) = one(Endpoint);
    bench.sweep(&id, Endpoint, &[(1, true, Blocked)]);
    let check = tcp(&id, Endpoint, [Address::Ip(ip(1))]);
    let mut next =
        plan(vec![(boundary("new", Expect::Blocked), vec![]), (boundary("b", Expect::Blocked), vec![check])]);
    next.not_tested.push(NotTested { boundary: "b".into(), what: "UDP".into(), why: "because".into() });
    bench.follow(&next);
    let snapshot = bench.ledger.snapshot();
    let boundaries: Vec<_> = snapshot.boundaries.iter().map(|b| (&*b.name, b.took)).collect();
    assert_eq!(boundaries, [("new", None), ("b", Some(Duration::from_secs(3)))]);
    assert_eq!(snapshot.boundaries[1].completed, Some(Timestamp::from_second(3).unwrap()));
    assert_eq!((snapshot.not_tested.len(), &*snapshot.config_hash), (1, "hash"));
    // The finding counts of a boundary that is gone go with it.
    bench.follow(&plan(vec![(boundary("new", Expect::Blocked), vec![])]));
    assert!(bench.ledger.snapshot().findings.is_empty());
}

#[test]
fn a_control_of_several_boundaries_is_as_good_as_its_worst_sweep() {
    let checks = |name| (boundary(name, Expect::Blocked), vec![]);
    let bench = Bench::new(&plan(vec![checks("a"), checks("b")]));
    let source = Arc::new(Identity { namespace: "web".into(), name: "own".into() });
    let report = |boundary: &str, ok| SweepReport {
        boundary: boundary.into(),
        started: Timestamp::UNIX_EPOCH,
        ended: bench.now,
        took: Duration::ZERO,
        results: Vec::new(),
        controls: vec![ControlState { source: source.clone(), kind: "loss", control: "ipv4".into(), ok }],
    };
    for (a, b, ok) in [(true, true, true), (true, false, false), (false, true, false)] {
        bench.ledger.record(&report("a", a));
        bench.ledger.record(&report("b", b));
        let controls = &bench.ledger.snapshot().controls;
        assert_eq!(controls.iter().map(|c| c.ok).collect::<Vec<_>>(), [ok]);
    }
}

// --- Whatever the results are ---

/// What happens to the two checks, each of two addresses: a sweep, or a reload that keeps some addresses.
#[derive(Clone, Debug)]
enum Step {
    /// For each check and address: not probed, or probed with whether it was listed and what was concluded.
    Sweep([[Option<(bool, Reason)>; 2]; 2]),
    /// For each check and address: still planned.
    Reload([[bool; 2]; 2]),
}

const KINDS: [AddressKind; 2] = [Endpoint, Virtual];

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Mostly blocked, so that findings do close.
    let reason = prop_oneof![
        8 => select(vec![Blocked, NoWitness, VirtualAddress]),
        1 => select(vec![Reached, Reason::HostAnswered]),
        2 => select(vec![VantageOffline, TargetDown, Reason::Captured, Reason::Lossy]),
    ];
    let seen = prop::option::weighted(0.95, (prop::bool::weighted(0.8), reason));
    let sweep = prop::array::uniform2(prop::array::uniform2(seen)).prop_map(Step::Sweep);
    let reload = prop::array::uniform2(prop::array::uniform2(prop::bool::weighted(0.8))).prop_map(Step::Reload);
    prop::collection::vec(prop_oneof![20 => sweep, 1 => reload], 1..60)
}

/// What the test itself knows of one pair.
#[derive(Clone, Debug, Default)]
struct History {
    open: bool,
    /// Measured results since the finding opened, in order: true for a fail.
    measured: Vec<bool>,
    /// Whether it was listed, in each sweep that probed it and did not reach it, since it opened or was reached.
    listed: Vec<bool>,
    planned: bool,
}

proptest! {
    #[test]
    fn a_finding_never_closes_without_its_pair_having_been_probed(steps in steps()) {
        let ids = ["endpoint:5432", "virtual:5432"].map(|t| id("b", Expect::Blocked, CheckKind::TcpConnect, t));
        let planned = |keep: [[bool; 2]; 2]| {
            let check = |c: usize| {
                let kept = (0u8..2).filter(|a| keep[c][usize::from(*a)]).map(|a| Address::Ip(ip(a)));
                tcp(&ids[c], KINDS[c], kept)
            };
            plan(vec![(boundary("b", Expect::Blocked), vec![check(0), check(1)])])
        };
        let mut bench = Bench::new(&planned([[true; 2]; 2]));
        let mut history: [[History; 2]; 2] = Default::default();
        history.iter_mut().flatten().for_each(|h| h.planned = true);
        let mut ever_opened = 0;
        for step in steps {
            let (transitions, swept) = match step {
                Step::Reload(keep) => {
                    for (c, a) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                        history[c][a].planned = keep[c][a];
                    }
                    (bench.follow(&planned(keep)), false)
                }
                Step::Sweep(results) => {
                    let mut reports = Vec::new();
                    for c in 0..2 {
                        let mut of: Vec<Of> = Vec::new();
                        for a in 0..2u8 {
                            let Some((listed, reason)) = results[c][usize::from(a)] else { continue };
                            let history = &mut history[c][usize::from(a)];
                            of.push((a, listed, reason));
                            if reason.verdict() == Verdict::Fail {
                                ever_opened += u64::from(!history.open);
                                history.open = true;
                                history.listed.clear();
                            } else {
                                history.listed.push(listed);
                            }
                            if reason.verdict() != Verdict::Inconclusive {
                                history.measured.push(reason.verdict() == Verdict::Fail);
                            }
                        }
                        if !of.is_empty() {
                            reports.push(bench.result(&ids[c], KINDS[c], &of));
                        }
                    }
                    (bench.record(&reports), true)
                }
            };
            for transition in &transitions {
                let Transition::Closed { id, address, closed, .. } = transition else { continue };
                let c = usize::from(*id != ids[0]);
                let a = usize::from(*address != Some(pair(0)));
                let history = &mut history[c][a];
                prop_assert!(history.open);
                match closed {
                    Closed::Resolved => {
                        let needed = [3, 10][c];
                        let last = history.measured.iter().rev().take(needed);
                        prop_assert!(last.len() == needed && last.into_iter().all(|failed| !failed), "{:?}", history);
                    }
                    Closed::Gone => {
                        let unlisted = history.listed.iter().rev().take(3);
                        prop_assert!(!history.planned || (unlisted.len() == 3 && unlisted.into_iter().all(|listed| !listed)));
                    }
                }
                history.open = false;
            }
            let snapshot = bench.ledger.snapshot();
            for (c, id) in ids.iter().enumerate() {
                let view = bench.view(id);
                let open: Vec<SocketAddr> = (0..2u8).filter(|a| history[c][usize::from(*a)].open).map(pair).collect();
                let mut shown: Vec<SocketAddr> = view.findings.iter().filter_map(|f| f.address).collect();
                shown.sort();
                prop_assert_eq!(&open, &shown);
                let mut pinned = bench.ledger.carried("b").pinned.remove(id).unwrap_or_default();
                pinned.sort();
                prop_assert_eq!(&open, &pinned);
                if swept && !open.is_empty() {
                    let served = view.reason_at(bench.now);
                    prop_assert!(served.verdict() == Verdict::Fail || served == Reason::Stale, "{}", served);
                }
            }
            prop_assert_eq!(snapshot.findings[&("b".into(), CheckKind::TcpConnect)].total, ever_opened);
        }
    }
}
