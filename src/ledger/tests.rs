//! From results to what is served: findings open at once and close slowly, and what is old or gone says so.

use std::{cell::RefCell, net::IpAddr, slice};

use proptest::{prelude::*, sample::select};

use super::*;
use crate::{
    config::{Address, Boundary},
    inventory::{
        cri::{Network, PodDns, Sandbox},
        stands::{Source, Speakers, Stand},
    },
    model::{AddressKind, ClosedRule, Via},
    observation::{TcpOutcome, TcpSeen},
    plan::{
        Check, NotTested, Question,
        share::{Share, Slot},
    },
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
        co_residency: None,
    }
}

fn source() -> Arc<Identity> {
    Arc::new(Identity { namespace: "web".into(), name: "own".into() })
}

fn id(boundary: &str, expect: Expect, kind: CheckKind, target: &str) -> Arc<CheckId> {
    let source = source();
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
        question: Question::Reach {
            transport: crate::model::Transport::Tcp,
            kind,
            addresses,
            port: PORT,
            vouched_by: None,
        },
    }
}

fn plan(boundaries: Vec<(Boundary, Vec<Check>)>) -> Plan {
    plan_from(boundaries, &Speakers::Own)
}

fn plan_from(boundaries: Vec<(Boundary, Vec<Check>)>, speakers: &Speakers) -> Plan {
    plan_shared(boundaries, speakers, None)
}

fn plan_shared(boundaries: Vec<(Boundary, Vec<Check>)>, speakers: &Speakers, share: Option<Share>) -> Plan {
    let share = share.map(Arc::new);
    let identity = source();
    let source = Arc::new(Source { identity, zone: None, system_dns: Box::default() });
    let leg = |(boundary, checks): (Boundary, Vec<Check>)| {
        let checks: Arc<[Check]> = checks.into();
        let planned = BoundaryPlan {
            boundary,
            mode: VantageMode::Own,
            reach: checks.clone(),
            namespaces: Vec::new(),
            services: Default::default(),
            known_addresses: Default::default(),
            pods: Default::default(),
            witnessed: false,
            share: share.clone(),
            not_tested: Vec::new(),
        };
        Arc::new(Leg {
            boundary: Arc::new(planned),
            stand: Stand { source: source.clone(), speakers: speakers.clone() },
            reach: checks,
            dns: Box::default(),
            dns_share: None,
            controls: Arc::default(),
            not_tested: Vec::new(),
        })
    };
    let legs: Vec<Arc<Leg>> = boundaries.into_iter().map(leg).collect();
    let boundaries = legs.iter().map(|leg| leg.boundary.clone()).collect();
    Plan { boundaries, legs, not_tested: Vec::new(), vouching: Arc::default() }
}

/// One address of a result: who it is, whether the target still lists it, and what was concluded.
type Of = (u8, bool, Reason);

/// A ledger with a clock and one boundary `b`.
struct Bench {
    ledger: Ledger,
    legs: RefCell<Vec<Arc<Leg>>>,
    start: Instant,
    now: Instant,
    discovered: bool,
}

impl Bench {
    fn new(plan: &Plan) -> Self {
        let start = Instant::now();
        let bench = Self { ledger: Ledger::default(), legs: RefCell::default(), start, now: start, discovered: false };
        assert_eq!(bench.follow(plan), []);
        bench
    }

    fn carried(&self) -> Carried {
        self.ledger.carried(&self.legs.borrow()[0])
    }

    /// What is pinned of a check, without the vantage.
    fn pinned(&self, id: &Arc<CheckId>) -> Vec<SocketAddr> {
        let pinned = self.carried().pinned.remove(id).unwrap_or_default();
        pinned.into_iter().map(|pair| pair.address).collect()
    }

    fn follow(&self, plan: &Plan) -> Vec<Transition> {
        self.legs.replace(plan.legs.clone());
        self.ledger.follow(plan, "hash", self.now)
    }

    fn result(&self, id: &Arc<CheckId>, kind: AddressKind, of: &[Of]) -> Arc<CheckResult> {
        let seen = |(last, listed, reason): &Of| {
            let attempt = TcpSeen { outcome: TcpOutcome::Filtered, icmp: None, errno: None, elapsed_us: 0 };
            let seen = AddressSeen {
                address: Some(pair(*last)),
                kind,
                from: None,
                listed: *listed,
                attempts: [attempt].into(),
                startup: None,
                sidecar: None,
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
            from: None,
            protected: [].into(),
            seen: DnsSeen::default(),
        };
        self.concluded(id, mode, reason, Evidence::Dns(Box::new(evidence)))
    }

    fn concluded(&self, id: &Arc<CheckId>, mode: Mode, reason: Reason, evidence: Evidence) -> Arc<CheckResult> {
        let at = Timestamp::UNIX_EPOCH + jiff::SignedDuration::try_from(self.now - self.start).unwrap();
        Arc::new(CheckResult {
            id: id.clone(),
            mode,
            reason,
            evidence,
            discovered: self.discovered,
            judged: self.now,
            at,
        })
    }

    /// Records results as one sweep, a round after the last.
    fn record(&mut self, results: &[Arc<CheckResult>]) -> Vec<Transition> {
        let report = SweepReport {
            boundary: "b".into(),
            source: source(),
            part: crate::plan::Part::Reach,
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
        assert_eq!(bench.pinned(&id), [pair(1)]);
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
        assert!(bench.view(&id).findings.is_empty() && bench.carried().pinned.is_empty());
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
    assert_eq!(bench.pinned(&id), [pair(2)]);
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
    // What a sweep that was under way did not reach says nothing any more.
    assert_eq!(bench.sweep(&id, Endpoint, &[(2, true, Blocked), (3, true, Reason::VantageGone)]), []);
    assert!(bench.ledger.snapshot().checks.is_empty());
}

#[test]
fn what_the_last_pod_of_an_identity_reached_is_told_although_it_is_gone() {
    let (mut bench, id) = one(Endpoint);
    let key = ("b".into(), CheckKind::TcpConnect);
    bench.follow(&plan(vec![(boundary("b", Expect::Blocked), vec![])]));
    let told = bench.sweep(&id, Endpoint, &[(1, true, Reached), (2, true, Reason::VantageGone)]);
    assert_eq!(opened(&told), [Some(pair(1))]);
    assert_eq!(closed(&told), [(Some(pair(1)), Closed::Gone)]);
    let snapshot = bench.ledger.snapshot();
    assert_eq!((snapshot.findings[&key].total, snapshot.checks.len()), (1, 0));
    // A boundary that is no more has nobody to tell.
    bench.follow(&plan(vec![]));
    assert_eq!(bench.sweep(&id, Endpoint, &[(1, true, Reached)]), []);
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
    assert!(bench.carried().pinned.is_empty(), "a server needs no pin: it is asked in every sweep");
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
    assert!(bench.carried().pinned.is_empty() && bench.ledger.snapshot().findings.is_empty());
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
    let checks = |name| {
        let id = id(name, Expect::Blocked, CheckKind::TcpConnect, "ledger:5432");
        (boundary(name, Expect::Blocked), vec![tcp(&id, Endpoint, [Address::Ip(ip(1))])])
    };
    let bench = Bench::new(&plan(vec![checks("a"), checks("b")]));
    let source = source();
    let report = |boundary: &str, ok| SweepReport {
        boundary: boundary.into(),
        source: source.clone(),
        part: crate::plan::Part::Reach,
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

// --- From pods ---

fn pod(name: &str) -> Arc<PodName> {
    Arc::new(PodName { sandbox: name.into(), name: format!("web/{name}").into() })
}

fn sandbox(name: &str) -> Arc<Sandbox> {
    Arc::new(Sandbox {
        id: name.into(),
        uid: name.into(),
        namespace: "web".into(),
        name: name.into(),
        labels: Some(Default::default()),
        created: Timestamp::UNIX_EPOCH,
        ready: true,
        running: true,
        network: Network::Host,
        addresses: Box::default(),
        dns: PodDns::default(),
    })
}

fn speakers(names: &[&str]) -> Speakers {
    Speakers::Pods(names.iter().map(|name| sandbox(name)).collect())
}

/// One check of one endpoint of each kind, asked from these pods.
fn of_pods(id: &Arc<CheckId>, names: &[&str]) -> Plan {
    let check = tcp(id, Endpoint, [Address::Ip(ip(1)), Address::Ip(ip(2))]);
    plan_from(vec![(boundary("b", Expect::Blocked), vec![check])], &speakers(names))
}

impl Bench {
    /// A sweep in which some pods spoke: each with its address and what was concluded.
    fn sweep_from(&mut self, id: &Arc<CheckId>, of: &[(&str, u8, Reason)]) -> Vec<Transition> {
        let seen = |(from, last, reason): &(&str, u8, Reason)| {
            let result = self.result(id, Endpoint, &[(*last, true, *reason)]);
            let Evidence::Reach(seen) = &result.evidence else { panic!() };
            (AddressSeen { from: Some(pod(from)), ..seen[0].0.clone() }, *reason)
        };
        let evidence = Evidence::Reach(of.iter().map(seen).collect());
        let reason = of.iter().map(|(_, _, reason)| *reason).min().unwrap();
        let result = self.concluded(id, Mode::Judge, reason, evidence);
        self.record(&[result])
    }

    fn pinned_pairs(&self, id: &Arc<CheckId>) -> Vec<(String, SocketAddr)> {
        let pinned = self.carried().pinned.remove(id).unwrap_or_default();
        pinned.into_iter().map(|pair| (pair.from.unwrap().sandbox.to_string(), pair.address)).collect()
    }
}

/// What was opened or closed, with the pod that it was seen from.
fn from_whom(transitions: &[Transition]) -> Vec<String> {
    let line = |t: &Transition| {
        let (what, from, address) = match t {
            Transition::Opened { from, address, .. } => ("opened".to_owned(), from, address),
            Transition::Closed { from, address, closed, .. } => (format!("{closed:?}").to_lowercase(), from, address),
            _ => return None,
        };
        let from = from.as_ref().map_or("nobody", |from| &from.sandbox);
        Some(format!("{what} {from} {}", address.map_or("-".into(), |a| a.ip().to_string())))
    };
    transitions.iter().filter_map(line).collect()
}

fn one_of_pods(names: &[&str]) -> (Bench, Arc<CheckId>) {
    let id = id("b", Expect::Blocked, CheckKind::TcpConnect, "ledger:5432");
    (Bench::new(&of_pods(&id, names)), id)
}

#[test]
fn what_one_pod_may_says_nothing_of_another() {
    let (mut bench, id) = one_of_pods(&["x", "y"]);
    assert_eq!(from_whom(&bench.sweep_from(&id, &[("x", 1, Reached)])), ["opened x 127.0.1.1"]);
    assert_eq!(bench.pinned_pairs(&id), [("x".into(), pair(1))]);
    // The other's turn: nothing of the first was asked again.
    for _ in 0..12 {
        assert_eq!(from_whom(&bench.sweep_from(&id, &[("y", 1, Blocked)])), [""; 0]);
        assert_eq!(bench.served(&id), Reason::FindingOpen);
    }
    // Its own address too: the pair is what counts.
    assert_eq!(from_whom(&bench.sweep_from(&id, &[("x", 2, Blocked), ("x", 2, Blocked), ("x", 2, Blocked)])), [""; 0]);
    let transitions = bench.sweep_from(&id, &[("y", 1, Reached), ("x", 1, Blocked)]);
    assert_eq!(from_whom(&transitions), ["opened y 127.0.1.1"]);
    assert_eq!(bench.pinned_pairs(&id), [("x".into(), pair(1)), ("y".into(), pair(1))]);
    bench.sweep_from(&id, &[("x", 1, Blocked)]);
    assert_eq!(from_whom(&bench.sweep_from(&id, &[("x", 1, Blocked)])), ["resolved x 127.0.1.1"]);
    assert_eq!(bench.served(&id), Reason::FindingOpen);
    assert_eq!(bench.ledger.snapshot().findings[&("b".into(), CheckKind::TcpConnect)].total, 2);
}

#[test]
fn a_pod_that_leaves_takes_its_findings_with_it() {
    let (mut bench, id) = one_of_pods(&["x", "y"]);
    bench.sweep_from(&id, &[("x", 1, Reached), ("y", 2, Reached)]);
    assert_eq!(from_whom(&bench.follow(&of_pods(&id, &["y", "x"]))), [""; 0], "another order is no change");
    assert_eq!(from_whom(&bench.follow(&of_pods(&id, &["y", "z"]))), ["gone x 127.0.1.1"]);
    assert_eq!(bench.pinned_pairs(&id), [("y".into(), pair(2))]);
    // A restart of the pod is another sandbox, under the same name.
    let again = |sandbox: &str| {
        let sandbox = Arc::new(Sandbox { name: "y".into(), ..(*self::sandbox(sandbox)).clone() });
        let check = tcp(&id, Endpoint, [Address::Ip(ip(1)), Address::Ip(ip(2))]);
        plan_from(vec![(boundary("b", Expect::Blocked), vec![check])], &Speakers::Pods([sandbox].into()))
    };
    assert_eq!(from_whom(&bench.follow(&again("y2"))), ["gone y 127.0.1.2"]);
    // The identity without any pod: the runtime does not tell, and nothing can be asked again.
    bench.sweep_from(&id, &[("y2", 1, Reached)]);
    let check = tcp(&id, Endpoint, [Address::Ip(ip(1))]);
    let nobody = Speakers::Nobody(Reason::RuntimeUnreadable);
    let transitions = bench.follow(&plan_from(vec![(boundary("b", Expect::Blocked), vec![check])], &nobody));
    assert_eq!(from_whom(&transitions), ["gone y2 127.0.1.1"]);
}

#[test]
fn a_pod_that_left_while_it_was_probed_from_leaves_no_finding_open() {
    let (mut bench, id) = one_of_pods(&["x", "y"]);
    bench.follow(&of_pods(&id, &["y"]));
    let transitions = bench.sweep_from(&id, &[("x", 1, Reached), ("y", 1, Blocked)]);
    assert_eq!(from_whom(&transitions), ["opened x 127.0.1.1", "gone x 127.0.1.1"]);
    assert_eq!(bench.ledger.snapshot().findings[&("b".into(), CheckKind::TcpConnect)].total, 1, "it was counted");
    assert!(bench.pinned_pairs(&id).is_empty(), "nobody could close it");
    bench.sweep_from(&id, &[("y", 1, Blocked)]);
    assert_eq!(bench.served(&id), Blocked);
}

#[test]
fn an_identity_that_leaves_takes_its_checks_with_it() {
    let (mut bench, id) = one_of_pods(&["x"]);
    bench.sweep_from(&id, &[("x", 1, Reached)]);
    let other = Arc::new(CheckId {
        source: Arc::new(Identity { namespace: "web".into(), name: "other".into() }),
        ..(*id).clone()
    });
    assert_eq!(from_whom(&bench.follow(&of_pods(&other, &["x"]))), ["gone x 127.0.1.1"], "the pod's labels changed");
    let checks: Vec<_> = bench.ledger.snapshot().checks.iter().map(|view| view.id.clone()).collect();
    assert_eq!(checks, [other]);
    assert_eq!(bench.ledger.snapshot().findings[&("b".into(), CheckKind::TcpConnect)].total, 1, "it was counted");
}

#[test]
fn the_agents_own_findings_need_no_pod() {
    let (mut bench, id) = one(Endpoint);
    bench.sweep(&id, Endpoint, &[(1, true, Reached)]);
    assert_eq!(bench.carried().pinned[&id], [Pair { from: None, address: pair(1) }]);
    // From own to pods: the own network is no vantage any more, and the pair is asked by nobody.
    let (mut bench, id) = one_of_pods(&["x"]);
    bench.sweep_from(&id, &[("x", 1, Reached)]);
    let own = plan(vec![(boundary("b", Expect::Blocked), vec![tcp(&id, Endpoint, [Address::Ip(ip(1))])])]);
    assert_eq!(from_whom(&bench.follow(&own)), ["gone x 127.0.1.1"]);
}

#[test]
fn who_saw_a_disclosure_goes_on_asking() {
    let dns = id("b", Expect::Blocked, CheckKind::SrvWildcard, "system");
    let question = Question::Dns { server: ([127, 0, 0, 53], 53).into(), kind: Endpoint };
    let check = Check { id: dns.clone(), mode: Mode::Judge, question };
    let of = |names: &[&str]| plan_from(vec![(boundary("b", Expect::Blocked), vec![check.clone()])], &speakers(names));
    let mut bench = Bench::new(&of(&["x", "y"]));
    let asked = |bench: &Bench, from: &str, reason| {
        let result = bench.dns(&dns, Mode::Judge, reason);
        let Evidence::Dns(evidence) = &result.evidence else { panic!() };
        let DnsEvidence { server, kind, protected, .. } = &**evidence;
        let (from, protected) = (Some(pod(from)), protected.clone());
        let evidence = DnsEvidence { server: *server, kind: *kind, from, protected, seen: DnsSeen::default() };
        bench.concluded(&dns, Mode::Judge, reason, Evidence::Dns(Box::new(evidence)))
    };
    assert_eq!(bench.carried().dns_from, None);
    let result = asked(&bench, "x", Reason::NothingDisclosed);
    bench.record(&[result]);
    assert_eq!(bench.carried().dns_from, None, "a good result pins nobody");
    let result = asked(&bench, "y", Reason::Disclosed);
    assert_eq!(from_whom(&bench.record(&[result])), ["opened y -"]);
    assert_eq!(bench.carried().dns_from, Some(pod("y")));
    for _ in 0..4 {
        let result = asked(&bench, "x", Reason::NothingDisclosed);
        assert_eq!(from_whom(&bench.record(&[result])), [""; 0]);
    }
    for last in [false, false, true] {
        let result = asked(&bench, "y", Reason::NothingDisclosed);
        assert_eq!(from_whom(&bench.record(&[result])), if last { vec!["resolved y -"] } else { vec![] });
    }
    assert_eq!(bench.carried().dns_from, None);
    let result = asked(&bench, "y", Reason::Disclosed);
    bench.record(&[result]);
    assert_eq!(from_whom(&bench.follow(&of(&["x"]))), ["gone y -"]);
}

#[test]
fn pods_side_by_side_are_a_finding_of_the_node() {
    let node = id("b", Expect::Blocked, CheckKind::NodeCoResidency, "high");
    let of = |mode| {
        let check = Check { id: node.clone(), mode, question: Question::CoResidency };
        let with = Boundary { co_residency: Some(mode), ..boundary("b", Expect::Blocked) };
        plan_from(vec![(with, vec![check])], &Speakers::Node)
    };
    let seen = |bench: &Bench, mode, reason| bench.concluded(&node, mode, reason, Evidence::Node(Box::default()));
    let mut bench = Bench::new(&of(Mode::Judge));
    let key = ("b".into(), CheckKind::NodeCoResidency);
    assert_eq!(bench.ledger.snapshot().findings[&key].total, 0, "from the start");
    let result = seen(&bench, Mode::Judge, Reason::CoResident);
    assert_eq!(from_whom(&bench.record(&[result])), ["opened nobody -"]);
    assert_eq!(bench.ledger.snapshot().findings[&key].total, 1);
    assert!(bench.carried().pinned.is_empty() && bench.carried().dns_from.is_none());
    assert_eq!(from_whom(&bench.follow(&of(Mode::Judge))), [""; 0]);
    for (reason, served, told) in [
        (Reason::Apart, Reason::FindingOpen, vec![]),
        (Reason::RuntimeUnreadable, Reason::FindingOpen, vec![]),
        (Reason::Apart, Reason::FindingOpen, vec![]),
        (Reason::Apart, Reason::Apart, vec!["resolved nobody -"]),
    ] {
        let result = seen(&bench, Mode::Judge, reason);
        assert_eq!(from_whom(&bench.record(&[result])), told);
        assert_eq!(bench.served(&node), served);
    }
    let mut bench = Bench::new(&of(Mode::Report));
    let result = seen(&bench, Mode::Report, Reason::CoResident);
    assert_eq!(from_whom(&bench.record(&[result])), [""; 0]);
    assert!(bench.ledger.snapshot().findings.is_empty(), "a report has no findings to count");
}

#[test]
fn what_was_open_while_new_is_told_and_no_finding() {
    let (mut bench, id) = one_of_pods(&["x"]);
    let result = bench.result(&id, Endpoint, &[(1, true, Blocked), (2, true, Blocked)]);
    let Evidence::Reach(seen) = &result.evidence else { panic!() };
    let startup = |milliseconds| std::num::NonZeroU32::new(milliseconds);
    let evidence = Evidence::Reach(
        [(1500, 0), (0, 1)]
            .map(|(milliseconds, at)| {
                (AddressSeen { from: Some(pod("x")), startup: startup(milliseconds), ..seen[at].0.clone() }, Blocked)
            })
            .into(),
    );
    let result = bench.concluded(&id, Mode::Judge, Blocked, evidence);
    let transitions = bench.record(&[result]);
    let length = Duration::from_millis(1500);
    let told = Transition::Startup { id: id.clone(), from: Some(pod("x")), address: Some(pair(1)), length };
    assert_eq!(transitions.iter().filter(|t| matches!(t, Transition::Startup { .. })).collect::<Vec<_>>(), [&told]);
    assert_eq!((from_whom(&transitions), bench.served(&id)), (vec![], Blocked));
}

/// A plan with one check from each of these identities.
fn from_identities(names: &[&str]) -> (Plan, Vec<Arc<CheckId>>) {
    let mut whole = plan(vec![(boundary("b", Expect::Blocked), vec![])]);
    let of = |name: &&str| {
        let identity = Arc::new(Identity { namespace: "web".into(), name: (*name).into() });
        let shared = id("b", Expect::Blocked, CheckKind::TcpConnect, "ledger:5432");
        let id = Arc::new(CheckId { source: identity.clone(), ..(*shared).clone() });
        let source = Arc::new(Source { identity, zone: Some("low".into()), system_dns: Box::default() });
        let leg = Leg {
            boundary: whole.boundaries[0].clone(),
            stand: Stand { source, speakers: speakers(&[name]) },
            reach: [tcp(&id, Endpoint, [Address::Ip(ip(1))])].into(),
            dns: Box::default(),
            dns_share: None,
            controls: Arc::default(),
            not_tested: Vec::new(),
        };
        (Arc::new(leg), id)
    };
    let (legs, ids) = names.iter().map(of).unzip();
    whole.legs = legs;
    (whole, ids)
}

#[test]
fn a_boundary_is_as_far_as_the_slowest_of_its_sources() {
    let (both, ids) = from_identities(&["x", "y"]);
    let bench = Bench::new(&both);
    let sweep = |name: &str, started: i64, took: u64, ok: bool| {
        let source = ids.iter().map(|id| id.source.clone()).find(|source| &*source.name == name).unwrap();
        let control = ControlState { source: source.clone(), kind: "loss", control: "ipv4".into(), ok };
        bench.ledger.record(&SweepReport {
            boundary: "b".into(),
            source,
            part: crate::plan::Part::Reach,
            started: Timestamp::from_second(started).unwrap(),
            ended: bench.now,
            took: Duration::from_secs(took),
            results: Vec::new(),
            controls: vec![control],
        });
    };
    let view = || bench.ledger.snapshot().boundaries[0].clone();
    let at = |seconds| Some(Timestamp::from_second(seconds).unwrap());
    assert_eq!((view().completed, view().took, view().span), (None, None, None));
    sweep("x", 100, 5, true);
    assert_eq!((view().completed, view().took), (None, None), "one that never was swept is not hidden either");
    sweep("y", 90, 2, false);
    assert_eq!((view().completed, view().took), (at(92), Some(Duration::from_secs(5))));
    assert_eq!(view().span, at(90).zip(at(105)));
    sweep("x", 130, 1, true);
    assert_eq!(view().completed, at(92), "one that hangs is not hidden by one that works");
    // Who comes later is not missed before its first sweep.
    bench.follow(&from_identities(&["x", "y", "z"]).0);
    assert_eq!(view().completed, at(92));
    bench.follow(&both);
    // Controls of two sources are kept apart, whatever their names.
    let controls = || -> Vec<(String, bool)> {
        bench.ledger.snapshot().controls.iter().map(|c| (c.source.name.to_string(), c.ok)).collect()
    };
    assert_eq!(controls(), [("x".into(), true), ("y".into(), false)]);
    // Who goes takes them along, and holds nobody back any more.
    bench.follow(&from_identities(&["x"]).0);
    assert_eq!((controls(), view().completed), (vec![("x".into(), true)], at(131)));
    bench.follow(&from_identities(&[]).0);
    assert_eq!((controls(), view().completed), (vec![], None));
}

#[test]
fn what_several_pods_of_an_identity_control_is_as_good_as_the_worst() {
    let (plan, ids) = from_identities(&["x"]);
    let bench = Bench::new(&plan);
    for (first, second, expected) in [(true, true, true), (false, true, false), (true, false, false)] {
        let control =
            |ok| ControlState { source: ids[0].source.clone(), kind: "positive", control: "127.0.0.1:53".into(), ok };
        bench.ledger.record(&SweepReport {
            boundary: "b".into(),
            source: ids[0].source.clone(),
            part: crate::plan::Part::Reach,
            started: Timestamp::UNIX_EPOCH,
            ended: bench.now,
            took: Duration::ZERO,
            results: Vec::new(),
            controls: vec![control(first), control(second)],
        });
        assert_eq!(bench.ledger.snapshot().controls, [control(expected)]);
    }
}

#[test]
fn a_snapshot_is_made_once_for_all_that_ask_and_never_changes() {
    let (mut bench, id) = one(Endpoint);
    let before = bench.ledger.snapshot();
    assert!(Arc::ptr_eq(&before, &bench.ledger.snapshot()));
    bench.sweep(&id, Endpoint, &[(1, true, Reached)]);
    let after = bench.ledger.snapshot();
    assert!(before.checks[0].result.is_none() && after.checks[0].result.is_some());
    bench.ledger.note_node(Some(NodeView::default()));
    assert!(after.node.is_none() && bench.ledger.snapshot().node.is_some());
    bench.follow(&plan(vec![]));
    assert!(bench.ledger.snapshot().checks.is_empty() && after.checks.len() == 1);
}

// --- Where nodes share the targets ---

/// One check of these addresses, of which a sweep probes some only: each is due once in four sweeps.
fn shared(addresses: &[u8], speakers: &Speakers) -> (Plan, Arc<CheckId>) {
    let id = id("b", Expect::Blocked, CheckKind::TcpConnect, "ledger:5432");
    let check = tcp(&id, Endpoint, addresses.iter().map(|last| Address::Ip(ip(*last))));
    let share = Share::of_slots(12, 4, addresses.iter().map(|last| Slot { key: u64::from(*last), turn: 0 }).collect());
    (plan_shared(vec![(boundary("b", Expect::Blocked), vec![check])], speakers, Some(share)), id)
}

/// The addresses that a result rests on, and what was concluded of each.
fn rests_on(view: &CheckView) -> Vec<(Option<SocketAddr>, Reason)> {
    let Some(Evidence::Reach(addresses)) = view.result.as_ref().map(|result| &result.evidence) else {
        return Vec::new();
    };
    addresses.iter().map(|(seen, reason)| (seen.address, *reason)).collect()
}

#[test]
fn a_share_of_the_addresses_is_no_verdict_over_all() {
    let (plan, id) = shared(&[1, 2, 3], &Speakers::Own);
    let mut bench = Bench::new(&plan);
    assert_eq!(bench.view(&id).round, 4 * ROUND);
    // What was never probed is pending, whatever the others say.
    bench.sweep(&id, Endpoint, &[(1, true, Reason::Blocked)]);
    assert_eq!(bench.served(&id), Reason::Pending);
    bench.sweep(&id, Endpoint, &[(2, true, Reason::NoWitness)]);
    assert_eq!(bench.served(&id), Reason::Pending);
    bench.record(&[]);
    bench.sweep(&id, Endpoint, &[(3, true, Reason::Blocked)]);
    assert_eq!(bench.served(&id), Reason::NoWitness, "the worst of all");
    // The next of one address takes the place of its last, and no other's.
    bench.sweep(&id, Endpoint, &[(2, true, Reason::Blocked)]);
    assert_eq!(bench.served(&id), Reason::Blocked);
    let all = [1, 2, 3].map(|last| (Some(pair(last)), Reason::Blocked));
    assert_eq!(rests_on(&bench.view(&id)), all);

    // It is as old as the oldest of them, which was probed in the first sweep: stale after three rounds of four sweeps.
    let first = bench.start;
    assert_eq!(bench.view(&id).reason_at(first + 12 * ROUND), Reason::Blocked);
    assert_eq!(bench.view(&id).reason_at(first + 12 * ROUND + ROUND / 2), Reason::Stale);
    // Whoever fails is worse than whoever is old, and pending does not hide it.
    bench.now = first + 13 * ROUND;
    bench.sweep(&id, Endpoint, &[(2, true, Reason::Reached)]);
    assert_eq!(bench.served(&id), Reason::Reached);
}

/// A failure is as old as the last: nothing pins those of what must be open, and one that is old must not hide a new one.
#[test]
fn an_old_failure_makes_no_new_one_stale() {
    let id = id("b", Expect::Open, CheckKind::TcpConnect, "ledger:5432");
    let check = tcp(&id, Endpoint, [Address::Ip(ip(1)), Address::Ip(ip(2))]);
    let share = Share::of_slots(12, 4, [1, 2].map(|key| Slot { key, turn: 0 }).into());
    let of_open = vec![(boundary("b", Expect::Open), vec![check])];
    let mut bench = Bench::new(&plan_shared(of_open, &Speakers::Own, Some(share)));
    bench.sweep(&id, Endpoint, &[(1, true, Reason::NotReached)]);
    bench.now += 13 * ROUND;
    assert_eq!(bench.served(&id), Reason::Stale);
    bench.sweep(&id, Endpoint, &[(2, true, Reason::NotReached)]);
    assert_eq!(bench.served(&id), Reason::NotReached);
}

#[test]
fn only_what_was_probed_counts_for_a_finding() {
    let (plan, id) = shared(&[1, 2], &Speakers::Own);
    let mut bench = Bench::new(&plan);
    assert_eq!(opened(&bench.sweep(&id, Endpoint, &[(1, true, Reason::Reached)])), [Some(pair(1))]);
    assert_eq!(bench.pinned(&id), [pair(1)]);
    // Sweeps of others neither close it nor open it anew.
    for _ in 0..5 {
        let transitions = bench.sweep(&id, Endpoint, &[(2, true, Reason::Blocked)]);
        assert_eq!((opened(&transitions), closed(&transitions)), (vec![], vec![]));
        assert_eq!((bench.served(&id), bench.pinned(&id)), (Reason::Reached, vec![pair(1)]));
    }
    assert_eq!(bench.ledger.snapshot().findings.values().map(|count| count.total).sum::<u64>(), 1);
    // It is pinned, and closes by sweeps of its own.
    for left in [2, 1, 0] {
        let transitions = bench.sweep(&id, Endpoint, &[(1, true, Reason::Blocked)]);
        assert_eq!(closed(&transitions).len(), usize::from(left == 0));
    }
    assert_eq!(bench.served(&id), Reason::Blocked);
}

#[test]
fn what_a_plan_no_longer_lists_no_longer_counts() {
    let (plan, id) = shared(&[1, 2], &Speakers::Own);
    let mut bench = Bench::new(&plan);
    bench.sweep(&id, Endpoint, &[(1, true, Reason::Blocked), (2, true, Reason::NoWitness)]);
    assert_eq!(bench.served(&id), Reason::NoWitness);
    // The same again, as when only the nodes changed: nothing is lost.
    bench.follow(&shared(&[1, 2], &Speakers::Own).0);
    assert_eq!(bench.served(&id), Reason::NoWitness);
    bench.follow(&shared(&[1], &Speakers::Own).0);
    assert_eq!(bench.served(&id), Reason::Blocked);
    // One that is new is pending, until it has its turn.
    bench.follow(&shared(&[1, 3], &Speakers::Own).0);
    assert_eq!(bench.served(&id), Reason::Pending);
    bench.sweep(&id, Endpoint, &[(3, true, Reason::Blocked)]);
    assert_eq!(bench.served(&id), Reason::Blocked);
    // Nothing is left: as if it had never been probed.
    bench.follow(&shared(&[4], &Speakers::Own).0);
    assert_eq!(bench.served(&id), Reason::Pending);
}

#[test]
fn where_all_are_probed_in_every_sweep_the_last_sweep_is_all_that_counts() {
    let (mut bench, id) = one(Endpoint);
    bench.sweep(&id, Endpoint, &[(1, true, Reason::Blocked), (2, true, Reason::NoWitness)]);
    bench.sweep(&id, Endpoint, &[(1, true, Reason::Blocked)]);
    assert_eq!((bench.served(&id), bench.view(&id).round), (Reason::Blocked, ROUND));
}

#[test]
fn who_could_not_speak_is_doubtful_until_he_speaks() {
    let (plan, id) = shared(&[1, 2], &speakers(&["x"]));
    let mut bench = Bench::new(&plan);
    bench.sweep_from(&id, &[("x", 1, Reason::Blocked), ("x", 2, Reason::Blocked)]);
    let mute = |bench: &Bench| {
        let of = AddressSeen {
            address: None,
            attempts: Box::default(),
            kind: Endpoint,
            from: None,
            listed: true,
            startup: None,
            sidecar: None,
            witness: None,
            started: bench.now,
            ended: bench.now,
        };
        bench.concluded(&id, Mode::Judge, Reason::VantageClosed, Evidence::Reach([(of, Reason::VantageClosed)].into()))
    };
    let nobody = mute(&bench);
    bench.record(&[nobody]);
    assert_eq!(bench.served(&id), Reason::VantageClosed);
    assert_eq!(rests_on(&bench.view(&id)).len(), 3);
    // A sweep with nothing to do tells nothing.
    bench.record(&[]);
    assert_eq!(bench.served(&id), Reason::VantageClosed);
    bench.sweep_from(&id, &[("x", 1, Reason::Blocked)]);
    assert_eq!(bench.served(&id), Reason::Blocked);
    assert_eq!(rests_on(&bench.view(&id)).len(), 2);
}

#[test]
fn all_checks_are_heard_again_when_one_of_them_is() {
    let names = ["ledger:5432", "vault:8200"];
    let ids = names.map(|target| id("b", Expect::Blocked, CheckKind::TcpConnect, target));
    let checks = ids.each_ref().map(|id| tcp(id, Endpoint, [Address::Ip(ip(1))]));
    let share = Share::of_slots(12, 4, Box::default());
    let of_x = speakers(&["x"]);
    let mut bench = Bench::new(&plan_shared(vec![(boundary("b", Expect::Blocked), checks.into())], &of_x, Some(share)));
    bench.sweep_from(&ids[0], &[("x", 1, Reason::Blocked)]);
    bench.sweep_from(&ids[1], &[("x", 1, Reason::Blocked)]);
    let seen = bench.result(&ids[1], Endpoint, &[(1, true, Reason::VantageClosed)]);
    let Evidence::Reach(seen) = &seen.evidence else { panic!() };
    let none = AddressSeen { address: None, attempts: Box::default(), ..seen[0].0.clone() };
    let nobody = ids.each_ref().map(|id| {
        let evidence = Evidence::Reach([(none.clone(), Reason::VantageClosed)].into());
        bench.concluded(id, Mode::Judge, Reason::VantageClosed, evidence)
    });
    bench.record(&nobody);
    assert_eq!(ids.each_ref().map(|id| bench.served(id)), [Reason::VantageClosed; 2]);
    bench.sweep_from(&ids[0], &[("x", 1, Reason::Blocked)]);
    assert_eq!(ids.each_ref().map(|id| bench.served(id)), [Reason::Blocked; 2]);
}

/// A pod that went leaves what was seen from it until its address has its turn again; a pinned pair's sweep is no turn.
#[test]
fn a_turn_of_all_pods_takes_the_place_of_what_others_saw() {
    let (plan, id) = shared(&[1, 2], &speakers(&["x", "y"]));
    let mut bench = Bench::new(&plan);
    bench.sweep_from(&id, &[("x", 1, Reason::Blocked), ("y", 1, Reason::NoWitness), ("x", 2, Reason::Reached)]);
    bench.sweep_from(&id, &[("x", 2, Reason::Reached)]);
    let from = |bench: &Bench| rests_on(&bench.view(&id)).len();
    assert_eq!(from(&bench), 3);
    bench.sweep_from(&id, &[("x", 2, Reason::Reached), ("x", 1, Reason::Blocked)]);
    assert_eq!(from(&bench), 2, "y is gone");
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
                let mut pinned = bench.pinned(id);
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

/// What happens to one check from two pods: a sweep in which some spoke, or pods that come and go.
#[derive(Clone, Debug)]
enum PodStep {
    /// For each pod and address: not probed, or what was concluded.
    Sweep([[Option<Reason>; 2]; 2]),
    /// Which pods are here.
    Here([bool; 2]),
}

proptest! {
    #[test]
    fn a_pods_finding_closes_only_by_its_own_results_or_with_it(
        steps in prop::collection::vec(prop_oneof![
            15 => {
                let reason = prop_oneof![8 => select(vec![Blocked, NoWitness]), 2 => Just(Reached), 1 => select(vec![Reason::VantageGone, TargetDown])];
                prop::array::uniform2(prop::array::uniform2(prop::option::weighted(0.7, reason))).prop_map(PodStep::Sweep)
            },
            1 => prop::array::uniform2(prop::bool::weighted(0.7)).prop_map(PodStep::Here),
        ], 1..60),
    ) {
        const PODS: [&str; 2] = ["x", "y"];
        let (mut bench, id) = one_of_pods(&PODS);
        // For each pod and address: open, and blocked results in a row.
        let mut known = [[(false, 0u32); 2]; 2];
        let mut here = [true; 2];
        for step in steps {
            let mut expected: Vec<String> = Vec::new();
            let transitions = match step {
                PodStep::Here(now) => {
                    here = now;
                    for (p, a) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                        if !here[p] && std::mem::take(&mut known[p][a]).0 {
                            expected.push(format!("gone {} 127.0.1.{a}", PODS[p]));
                        }
                    }
                    let names: Vec<&str> = (0..2).filter(|p| here[*p]).map(|p| PODS[p]).collect();
                    let check = tcp(&id, Endpoint, [Address::Ip(ip(0)), Address::Ip(ip(1))]);
                    bench.follow(&plan_from(vec![(boundary("b", Expect::Blocked), vec![check])], &speakers(&names)))
                }
                PodStep::Sweep(results) => {
                    let mut of = Vec::new();
                    for (p, a) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                        let Some(reason) = results[p][a].filter(|_| here[p]) else { continue };
                        of.push((PODS[p], u8::try_from(a).unwrap(), reason));
                        let (open, blocked) = &mut known[p][a];
                        match reason.verdict() {
                            Verdict::Fail => {
                                if !std::mem::replace(open, true) {
                                    expected.push(format!("opened {} 127.0.1.{a}", PODS[p]));
                                }
                                *blocked = 0;
                            }
                            Verdict::Inconclusive => {}
                            Verdict::Unverified | Verdict::Pass if *open => {
                                *blocked += 1;
                                if *blocked == 3 {
                                    known[p][a] = (false, 0);
                                    expected.push(format!("resolved {} 127.0.1.{a}", PODS[p]));
                                }
                            }
                            Verdict::Unverified | Verdict::Pass => {}
                        }
                    }
                    if of.is_empty() { Vec::new() } else { bench.sweep_from(&id, &of) }
                }
            };
            let mut told = from_whom(&transitions);
            told.sort();
            expected.sort();
            prop_assert_eq!(told, expected);
            let mut pinned = bench.pinned_pairs(&id);
            pinned.sort();
            let open = |p: usize, a: usize| known[p][a].0.then(|| (PODS[p].to_owned(), pair(u8::try_from(a).unwrap())));
            let open: Vec<_> = [(0, 0), (0, 1), (1, 0), (1, 1)].into_iter().filter_map(|(p, a)| open(p, a)).collect();
            prop_assert_eq!(pinned, open);
        }
    }
}

// --- Addresses that discovery found ---

/// The same where a heartbeat vouches for the addresses `last`.
fn discovered(id: &Arc<CheckId>, last: &[u8]) -> Plan {
    let mut check = tcp(id, Endpoint, last.iter().map(|last| Address::Ip(ip(*last))));
    let Question::Reach { vouched_by, .. } = &mut check.question else { unreachable!() };
    *vouched_by = Some(0);
    Plan { vouching: ["targets/0.json".into()].into(), ..plan(vec![(boundary("b", Expect::Blocked), vec![check])]) }
}

impl Bench {
    fn of_discovered(last: &[u8]) -> (Self, Arc<CheckId>) {
        let id = id("b", Expect::Blocked, CheckKind::TcpConnect, "ledger:5432");
        let bench = Self { discovered: true, ..Self::new(&discovered(&id, last)) };
        (bench, id)
    }

    /// Discovery's word of so many seconds after the start arrives.
    fn vouch(&self, seconds: i64) -> Vec<Transition> {
        let at = Timestamp::from_second(seconds).unwrap();
        let other = Heartbeat { file: "targets/1.json".into(), at: Timestamp::MAX };
        self.ledger.vouch(&[other, Heartbeat { file: "targets/0.json".into(), at }], self.now)
    }

    fn count(&self) -> FindingCount {
        self.ledger.snapshot().findings[&("b".into(), CheckKind::TcpConnect)]
    }
}

#[test]
fn a_failure_at_a_discovered_address_waits_for_a_newer_word() {
    for (reason, waits) in [(Reached, true), (Reason::HostAnswered, true), (Blocked, false), (Captured, false)] {
        let (mut bench, id) = Bench::of_discovered(&[1, 2]);
        bench.vouch(0);
        let transitions = bench.sweep(&id, Endpoint, &[(1, true, reason), (2, true, Blocked)]);
        assert_eq!(opened(&transitions), []);
        assert_eq!(bench.served(&id), if waits { Reason::UnconfirmedAddress } else { reason });
        assert_eq!((bench.count().total, bench.count().last), (0, None));
        assert!(bench.pinned(&id).is_empty());
        // A word of before, or so shortly after that two clocks may differ as much.
        assert_eq!(bench.vouch(9), []);
        // Seen again meanwhile: what counts is when it was first seen, or no word would ever be new enough.
        bench.sweep(&id, Endpoint, &[(1, true, reason), (2, true, Blocked)]);
        let transitions = bench.vouch(10);
        if waits {
            assert_eq!(opened(&transitions), [Some(pair(1))]);
            let changed = Transition::Changed { id: id.clone(), from: Some(Reason::UnconfirmedAddress), to: reason };
            assert!(transitions.contains(&changed), "{transitions:?}");
            assert_eq!(bench.served(&id), reason);
            assert_eq!(bench.view(&id).findings[0].since, Timestamp::UNIX_EPOCH);
            // The finding is told when it is opened, or an alert on the last one would miss it.
            assert_eq!((bench.count().total, bench.count().last), (1, Some(Timestamp::from_second(60).unwrap())));
            assert_eq!(bench.pinned(&id), [pair(1)]);
            // A known finding waits for nothing, and closes as any other.
            bench.sweep(&id, Endpoint, &[(1, true, reason), (2, true, Blocked)]);
            assert_eq!(bench.served(&id), reason);
            for _ in 0..3 {
                bench.sweep(&id, Endpoint, &[(1, true, Blocked), (2, true, Blocked)]);
            }
            assert_eq!(bench.served(&id), Blocked);
        }
        assert_eq!(bench.vouch(100), [], "once");
    }
}

#[test]
fn a_failure_that_is_over_when_it_is_confirmed_is_a_finding_all_the_same() {
    let (mut bench, id) = Bench::of_discovered(&[1]);
    bench.sweep(&id, Endpoint, &[(1, true, Reached)]);
    assert_eq!(bench.served(&id), Reason::UnconfirmedAddress, "without any word, too");
    bench.sweep(&id, Endpoint, &[(1, true, Blocked)]);
    assert_eq!(bench.served(&id), Blocked);
    assert_eq!(opened(&bench.vouch(30)), [Some(pair(1))]);
    assert_eq!(bench.served(&id), Reason::FindingOpen);
}

#[test]
fn an_address_that_is_no_longer_listed_is_no_finding() {
    let (mut bench, id) = Bench::of_discovered(&[1, 2]);
    bench.sweep(&id, Endpoint, &[(1, true, Reached), (2, true, Reached)]);
    assert_eq!(bench.follow(&discovered(&id, &[2])), []);
    assert_eq!(opened(&bench.vouch(100)), [Some(pair(2))]);
    assert_eq!(bench.count().total, 1);

    // The whole target is gone while a sweep was under way.
    let (mut bench, id) = Bench::of_discovered(&[1]);
    let late = bench.result(&id, Endpoint, &[(1, true, Reached)]);
    bench.follow(&plan(vec![(boundary("b", Expect::Blocked), vec![])]));
    assert_eq!(bench.record(&[late]), []);

    // Written by hand from now on: the next sweep tells.
    let (mut bench, id) = Bench::of_discovered(&[1]);
    bench.sweep(&id, Endpoint, &[(1, true, Reached)]);
    bench.follow(&plan(vec![(boundary("b", Expect::Blocked), vec![tcp(&id, Endpoint, [Address::Ip(ip(1))])])]));
    assert_eq!(bench.vouch(100), []);
    assert_eq!(opened(&bench.sweep(&id, Endpoint, &[(1, true, Reached)])), [Some(pair(1))]);
    assert!(bench.ledger.snapshot().heartbeats.is_empty());
}

#[test]
fn what_a_pod_saw_that_is_gone_is_counted_and_over() {
    let id = id("b", Expect::Blocked, CheckKind::TcpConnect, "ledger:5432");
    let from = |names: &[&str]| {
        let mut plan = discovered(&id, &[1, 2]);
        Arc::get_mut(&mut plan.legs[0]).unwrap().stand.speakers = speakers(names);
        plan
    };
    let mut bench = Bench { discovered: true, ..Bench::new(&from(&["y"])) };
    // A workload that rolls, while discovery is silent: what waits does not grow with it.
    for pod in 0..20 {
        let pod = format!("x{pod:02}");
        bench.follow(&from(&[&pod, "y"]));
        bench.sweep_from(&id, &[(&pod, 1, Reached), ("y", 1, Reached), ("y", 2, Blocked)]);
    }
    bench.follow(&from(&["y"]));
    let transitions = bench.vouch(100_000);
    let told = from_whom(&transitions);
    assert_eq!(told, ["opened x00 127.0.1.1", "opened y 127.0.1.1", "gone x00 127.0.1.1"]);
    assert_eq!(bench.pinned_pairs(&id), [("y".into(), pair(1))]);
    assert_eq!(bench.count().total, 2);
}

#[test]
fn a_clock_that_was_ahead_keeps_no_finding_back() {
    let (mut bench, id) = Bench::of_discovered(&[1]);
    bench.now += Duration::from_secs(86_400);
    bench.sweep(&id, Endpoint, &[(1, true, Reached)]);
    bench.now = bench.start;
    bench.sweep(&id, Endpoint, &[(1, true, Reached)]);
    assert_eq!(opened(&bench.vouch(30)), [Some(pair(1))]);
}

#[test]
fn what_was_never_probed_is_pending_when_another_address_is_confirmed() {
    let id = id("b", Expect::Blocked, CheckKind::TcpConnect, "ledger:5432");
    let mut found = discovered(&id, &[1, 2]);
    let (mut planned, _) = shared(&[1, 2], &speakers(&["y"]));
    std::mem::swap(
        &mut Arc::get_mut(&mut planned.legs[0]).unwrap().reach,
        &mut Arc::get_mut(&mut found.legs[0]).unwrap().reach,
    );
    planned.vouching = found.vouching;
    let mut bench = Bench { discovered: true, ..Bench::new(&planned) };
    bench.sweep_from(&id, &[("x", 1, Reached), ("y", 1, Blocked)]);
    bench.sweep_from(&id, &[("y", 1, Blocked)]);
    assert_eq!(bench.served(&id), Reason::Pending);
    assert_eq!(from_whom(&bench.vouch(100)), ["opened x 127.0.1.1", "gone x 127.0.1.1"]);
    assert_eq!(bench.served(&id), Reason::Pending);
}

#[test]
fn what_waits_outlives_a_new_plan_and_words_are_told() {
    let (mut bench, id) = Bench::of_discovered(&[1]);
    bench.vouch(5);
    bench.sweep(&id, Endpoint, &[(1, true, Reached)]);
    bench.follow(&discovered(&id, &[1, 2]));
    let told = |bench: &Bench| bench.ledger.snapshot().heartbeats.clone();
    assert_eq!(told(&bench), [("targets/0.json".into(), Timestamp::from_second(5).unwrap())].into());
    assert_eq!(opened(&bench.vouch(40)), [Some(pair(1))]);
    // The same word again is none, and costs nothing.
    let before = bench.ledger.snapshot();
    assert_eq!(bench.vouch(40), []);
    assert!(Arc::ptr_eq(&before, &bench.ledger.snapshot()));
    // A clock that was set back is told as it is.
    bench.vouch(20);
    assert_eq!(told(&bench)["targets/0.json"], Timestamp::from_second(20).unwrap());
}
