//! The page: hostile names bring no markup, the worst comes first, and what was asked for is what is shown.

use std::time::Duration;

use super::{
    super::tests::{HOSTILE, address, connect, dns, id, of_pods, run, snapshot, tcp, view},
    headline::Headline,
    matrix::matrix,
    *,
};
use crate::{
    ledger::{BoundaryView, CheckResult, CheckView, ControlState},
    model::{CheckKind, Expect, Mode, Reason, Verdict, Via},
    observation::TcpOutcome,
    plan::NotTested,
};

fn page_of(snapshot: &Snapshot, query: &str) -> String {
    let shown = Shown {
        run: &run(),
        telemetry_path: "/metrics",
        snapshot,
        now: Instant::now(),
        clock: Timestamp::UNIX_EPOCH + Duration::from_secs(90),
    };
    detail(&shown, &Query::parse(query))
}

fn row_of(view: &CheckView) -> Row<'_> {
    Row { view, reason: view.reason_at(Instant::now()), has_source: false }
}

fn check(target: &str, mode: Mode, reason: Reason) -> CheckView {
    view(id("b", CheckKind::TcpConnect, "n", target, Some(Via::Service)), mode, reason, tcp(vec![]))
}

fn judged(reasons: &[Reason]) -> Vec<CheckView> {
    reasons.iter().enumerate().map(|(i, reason)| check(&format!("t{i}"), Mode::Judge, *reason)).collect()
}

/// The targets in the list of checks, in its order.
fn listed(page: &str) -> Vec<&str> {
    page.split("data-label=\"To\"><a href=\"").skip(1).filter_map(|rest| rest.split(['>', '<']).nth(1)).collect()
}

#[test]
fn hostile_names_bring_no_markup_and_hide_nothing() {
    let with = |name: &str| {
        let mut snapshot = snapshot(vec![
            view(id("b", CheckKind::SrvWildcard, "", name, None), Mode::Judge, Reason::Disclosed, dns(&[name])),
            view(
                id("b", CheckKind::TcpConnect, name, name, Some(Via::Service)),
                Mode::Judge,
                Reason::Lossy,
                tcp(vec![]),
            ),
        ]);
        snapshot.boundaries[0].from = name.into();
        snapshot.config_hash = name.into();
        snapshot.heartbeats.insert(name.into(), Timestamp::UNIX_EPOCH);
        let source = snapshot.checks[0].id.source.clone();
        snapshot.controls.push(ControlState { source, kind: "positive", control: name.into(), ok: false });
        let (what, why) = (name.to_owned(), name.to_owned());
        snapshot.not_tested.push(NotTested { boundary: name.into(), what, why });
        snapshot
    };
    let tags = |page: &str| page.matches('<').count();
    let long = "a".repeat(255);
    for hostile in HOSTILE.into_iter().chain([&*long]) {
        let (good, bad) = (with("good"), with(hostile));
        for query in ["", "check=srv-wildcard", "check=tcp-connect", "q=b"] {
            let page = page_of(&bad, query);
            assert_eq!(tags(&page), tags(&page_of(&good, query)), "{hostile:?} {query}: {page}");
            let turns =
                |c: char| c != '\n' && c.is_control() || ('\u{2028}'..='\u{202e}').contains(&c) || c == '\u{200b}';
            assert!(!page.contains(turns), "{hostile:?} {query}: {page}");
        }
        // What is asked for is hostile as well.
        let asked = page_of(&good, &Query::default().with("source", hostile).href()[1..]);
        assert_eq!(tags(&asked), tags(&page_of(&good, "source=nobody")), "{hostile:?}: {asked}");
        assert_eq!(tags(&bare(hostile)), tags(&bare("/metrics")), "{hostile:?}");
    }
}

#[test]
fn the_bare_page_tells_nothing() {
    let page = bare("/m?a=1&b=2\"");
    assert!(page.contains("href=\"./m?a=1&amp;b=2&quot;\""), "{page}");
    assert!(!page.contains("config") && !page.contains("api/v1"), "{page}");
}

#[test]
fn the_policy_knows_the_style() {
    // The hash is of what stands between the tags, to the byte.
    let page = bare("/metrics");
    let style = page.split("<style>").nth(1).unwrap().split("</style>").next().unwrap();
    assert_eq!(style, include_str!("style.css"));
    assert!(
        policy().contains("default-src 'none'; style-src 'sha256-") && !policy().contains("unsafe"),
        "{}",
        policy()
    );
    assert!(!page.contains("style=\"") && !page.contains("<script"), "{page}");
}

#[test]
fn the_worst_speaks_first() {
    use Reason::*;
    let says = |checks: &[CheckView]| {
        let rows: Vec<Row<'_>> = checks.iter().map(|view| row_of(view)).collect();
        headline(&rows, 0)
    };
    for (reasons, state, answer) in [
        (&[Blocked, Reached, Lossy, NoWitness, Disclosed][..], "fail", "Not segmented: 2 checks fail"),
        (&[Blocked, HostAnswered], "fail", "Not segmented: 1 check fails"),
        (&[Blocked, Lossy, NoWitness, Pending], "inconclusive", "Not proven: 2 checks are inconclusive"),
        (&[Pending, Pending], "inconclusive", "Not measured yet"),
        (&[Blocked, NoWitness], "unverified", "No breach seen, and 1 check is unverified"),
        (&[Blocked, Blocked], "pass", "Segmented: 2 checks pass"),
        (&[], "none", "Nothing is tested"),
    ] {
        let Headline { state: found, answer: said, .. } = says(&judged(reasons));
        assert_eq!((found, &*said), (state, answer), "{reasons:?}");
    }
    // What is not asked is not proven, whatever the rest says; and a breach is a breach.
    let untested = |reasons: &[Reason]| {
        let checks = judged(reasons);
        let rows: Vec<Row<'_>> = checks.iter().map(row_of).collect();
        headline(&rows, 2)
    };
    for reasons in [&[Blocked][..], &[NoWitness]] {
        let Headline { state, answer, .. } = untested(reasons);
        assert_eq!((state, &*answer), ("inconclusive", "Not proven: nothing of 2 boundaries is tested here"));
    }
    let breach = untested(&[Reached]);
    assert!(breach.state == "fail" && breach.meaning.contains("Nothing of 2 boundaries is tested"), "{breach:?}");
    assert_eq!(untested(&[Lossy]).answer, "Not proven: 1 check is inconclusive");

    // What is reported counts for nothing, and is told.
    let reported = says(&[check("t", Mode::Report, Disclosed)]);
    assert_eq!((reported.state, &*reported.answer), ("none", "Nothing is judged"));
    let beside = says(&[check("t", Mode::Report, Disclosed), check("u", Mode::Judge, Blocked)]);
    assert!(
        beside.state == "pass" && beside.meaning.contains("Names were disclosed to 1 check that is reported only.")
    );

    // Where something was reached, nothing says that nothing was.
    let unconfirmed = says(&judged(&[Blocked, UnconfirmedAddress, Pending])).meaning;
    for told in ["1 check reached an address of which discovery", "1 check is not probed yet"] {
        assert!(unconfirmed.contains(told) && !unconfirmed.contains("Nothing was reached"), "{unconfirmed}");
    }
    // An agent that stalls.
    let open = of_pods().checks.into_iter().find(|check| !check.findings.is_empty()).unwrap();
    let result = open.result.as_ref().unwrap();
    let long_ago = Instant::now().checked_sub(Duration::from_secs(600)).unwrap();
    let result = CheckResult { id: open.id.clone(), evidence: tcp(vec![]), judged: long_ago, ..*result.as_ref() };
    let stale = CheckView { result: Some(std::sync::Arc::new(result)), ..open };
    let stale = says(&[stale]);
    assert!(stale.state == "inconclusive" && stale.meaning.contains("1 check has an open finding"), "{stale:?}");
    // A pass of DNS, or of co-residency, is none of what can be reached.
    let of_dns = |reason| view(id("b", CheckKind::SrvWildcard, "", "dns", None), Mode::Judge, reason, dns(&[]));
    let apart = view(id("b", CheckKind::NodeCoResidency, "", "high", None), Mode::Judge, Apart, tcp(vec![]));
    let unprobed = says(&[of_dns(NothingDisclosed), apart]);
    assert_eq!((unprobed.state, &*unprobed.answer), ("unverified", "No breach seen, and no target is probed"));
    let both = says(&[of_dns(NothingDisclosed), check("t", Mode::Judge, Blocked)]);
    assert!(both.state == "pass" && both.meaning.ends_with("DNS told nothing of the zone."), "{both:?}");
    assert!(!says(&judged(&[Blocked])).meaning.contains("DNS"));

    // What must be open is no breach where it is not.
    let open = |reason| {
        let mut check = check("open", Mode::Judge, reason);
        let id = crate::model::CheckId { expect: Expect::Open, ..(*check.id).clone() };
        check.id = std::sync::Arc::new(id);
        check
    };
    let both = says(&[check("t", Mode::Judge, Blocked), open(NotReached)]);
    assert_eq!(both.state, "pass");
    assert!(both.meaning.contains("Of what must be open, 1 check is not"), "{}", both.meaning);
    let witness = says(&[open(Reachable), open(NotReached)]);
    assert_eq!((witness.state, &*witness.answer), ("fail", "1 of 2 targets' ways are open, as they must be"));
    assert_eq!(says(&[open(Reachable)]).state, "pass");
    // Who has both, and no pod to ask from, is no witness alone.
    let check = open(Reachable);
    assert_eq!(headline(&[row_of(&check)], 1).answer, "Not proven: nothing of 1 boundary is tested here");
}

#[test]
fn a_cell_is_as_bad_as_the_worst_of_its_checks() {
    use Reason::*;
    let mut checks = judged(&[Blocked, Lossy]);
    let twin = crate::model::CheckId { via: Some(Via::Endpoint), ..(*checks[0].id).clone() };
    let mut worse = check("t0", Mode::Judge, Reached);
    worse.id = std::sync::Arc::new(twin);
    checks.push(worse);
    checks.push(check("reported", Mode::Report, Disclosed));
    let snapshot = snapshot(checks);
    let rows: Vec<Row<'_>> = snapshot.checks.iter().map(|view| row_of(view)).collect();
    let matrix = matrix(&rows);
    let labels: Vec<&str> = matrix.rows.iter().map(|end| &*end.label).collect();
    assert_eq!(labels, ["n/t0", "n/t1"], "the worst first, and no reports");
    assert_eq!(matrix.columns.len(), 1);
    assert_eq!(matrix.cells[&(0, 0)], [1, 0, 0, 1]);
    assert_eq!(matrix.cells[&(1, 0)], [0, 1, 0, 0]);

    let page = page_of(&snapshot, "");
    assert!(
        page.contains(
            "<span class=\"badge fail\"><span aria-hidden=\"true\">✗</span> fail</span><small class=\"count\"> 1 of 2"
        ),
        "{page}"
    );
}

#[test]
fn many_targets_are_told_by_their_namespaces_and_the_rest_is_counted() {
    let many = |namespaces: usize| {
        let checks = (0..500).map(|i| {
            let namespace = format!("n{:03}", i % namespaces);
            let reason = if i == 499 { Reason::Reached } else { Reason::Blocked };
            let id = id("b", CheckKind::TcpConnect, &namespace, &format!("t{i}:1"), Some(Via::Endpoint));
            view(id, Mode::Judge, reason, tcp(vec![]))
        });
        snapshot(checks.collect())
    };
    let of = |snapshot: &Snapshot| {
        let rows: Vec<Row<'_>> = snapshot.checks.iter().map(|view| row_of(view)).collect();
        matrix(&rows)
    };
    let few = of(&many(10));
    let labels: Vec<&str> = few.rows.iter().map(|end| &*end.label).collect();
    assert_eq!(labels[..3], ["n009/…", "n000/…", "n001/…"]);
    assert_eq!((few.left_out, few.cells.values().flatten().sum::<usize>()), ((0, 0), 500));

    let too_many = of(&many(250));
    assert_eq!((too_many.rows.len(), too_many.left_out), (40, (210, 0)));
    assert_eq!(too_many.rows[0].label, "n249/…", "what failed has a place");
    assert!(page_of(&many(250), "").contains("Left out here: 210 more targets"));
}

#[test]
fn a_long_list_comes_in_parts_worst_first() {
    let mut checks: Vec<CheckView> =
        (0..249).map(|i| check(&format!("t{i:03}"), Mode::Judge, Reason::Blocked)).collect();
    checks.push(check("bad", Mode::Judge, Reason::Reached));
    let snapshot = snapshot(checks);
    let first = page_of(&snapshot, "boundary=b");
    let (targets, of) = (listed(&first), "1 to 100 of 250");
    assert!(targets.len() == 100 && targets[0] == "n/bad" && first.contains(of), "{targets:?}");
    assert!(
        first.contains("href=\"?boundary=b&amp;part=2\" rel=\"next\"") && !first.contains("rel=\"prev\""),
        "{first}"
    );
    let last = page_of(&snapshot, "boundary=b&part=3");
    assert_eq!(listed(&last).len(), 50);
    assert!(last.contains("201 to 250 of 250") && last.contains("rel=\"prev\"") && !last.contains("rel=\"next\""));
    // Past the end is the end.
    assert_eq!(listed(&page_of(&snapshot, "boundary=b&part=99")), listed(&last));
}

#[test]
fn what_is_asked_for_is_shown_and_nothing_else() {
    let mut checks = judged(&[Reason::Blocked, Reason::Lossy, Reason::Reached]);
    checks.push(check("report", Mode::Report, Reason::Disclosed));
    checks.push(view(id("other", CheckKind::ZoneTransfer, "", "dns-a", None), Mode::Judge, Reason::Blocked, dns(&[])));
    let mut snapshot = snapshot(checks);
    let other = BoundaryView { name: "other".into(), ..snapshot.boundaries[0].clone() };
    snapshot.boundaries.push(other);
    for (query, targets) in [
        ("boundary=b&check=tcp-connect", &["n/t2", "n/t1", "n/t0", "n/report"][..]),
        ("verdict=pass", &["n/t0", "dns-a"]),
        ("q=T", &["n/t2", "n/t1", "n/t0", "dns-a", "n/report"]),
        ("q=n+connect&via=service&verdict=fail&verdict=", &["n/t2", "n/t1", "n/t0", "n/report"]),
        ("q=nothing+like+it", &[]),
        ("target=t", &[]),
        ("expect=open", &[]),
        ("expect=blocked&boundary=b&verdict=pass&via=", &[]),
    ] {
        assert_eq!(listed(&page_of(&snapshot, query)), targets, "{query}");
    }
    // One alone is shown with its evidence.
    for query in
        ["verdict=fail", "reason=reached", "target=t2", "verdict=reported", "check=zone-transfer", "boundary=other"]
    {
        let page = page_of(&snapshot, query);
        assert!(page.contains("<dt>Measured</dt>") && listed(&page).is_empty(), "{query}: {page}");
    }
}

#[test]
fn what_is_asked_for_and_is_not_there_is_shown_in_the_form() {
    let page = page_of(&snapshot(judged(&[Reason::Blocked])), "boundary=renamed&verdict=FAIL&source_namespace=");
    assert!(
        page.contains("0 checks") && page.contains("<option value=\"renamed\" selected>renamed</option>"),
        "{page}"
    );
    assert!(
        page.contains("<option value=\"FAIL\" selected>") && page.contains("source_namespace: <strong>none</strong>"),
        "{page}"
    );
}

#[test]
fn a_share_of_nobody_probes_nothing() {
    let mut snapshot = snapshot(judged(&[Reason::Pending]));
    snapshot.boundaries[0].completed = Some(Timestamp::UNIX_EPOCH);
    (snapshot.boundaries[0].share_nodes, snapshot.boundaries[0].share_sweeps) = (20, 4);
    let page = page_of(&snapshot, "");
    assert!(
        page.contains("all targets in 4 sweeps, shared by 20 nodes") && page.contains("This node's share was swept by")
    );
    (snapshot.boundaries[0].share_nodes, snapshot.boundaries[0].share_sweeps) = (0, 0);
    assert!(page_of(&snapshot, "").contains("none is listed: nothing is probed"));
    snapshot.boundaries[0].untested = Some("no pod of zone low runs here".into());
    let page = page_of(&snapshot, "");
    assert!(page.contains("Nothing is swept here."), "{page}");
}

#[test]
fn a_row_leads_to_its_check_alone() {
    let of_pods = of_pods();
    for view in &of_pods.checks {
        let row = row_of(view);
        let query = Query::default().of(&row);
        let rows: Vec<Row<'_>> = of_pods.checks.iter().map(row_of).collect();
        let found = query.select(&rows).count();
        assert_eq!(found, 1, "{}", query.href());
        let page = page_of(&of_pods, &query.href()[1..]);
        assert!(page.contains("<dt>Measured</dt>"), "{page}");
    }
}

#[test]
fn a_check_is_shown_with_its_addresses() {
    let seen = address("127.0.0.7:5432", &[connect(TcpOutcome::Open)]);
    let id = id("b", CheckKind::TcpConnect, "payments", "ledger:5432", Some(Via::Endpoint));
    let snapshot = snapshot(vec![view(id, Mode::Judge, Reason::Reached, tcp(vec![(seen, Reason::Reached)]))]);
    let page = page_of(&snapshot, "target=ledger:5432");
    for told in [
        "badge fail",
        "web/own → payments/ledger:5432",
        "reached",
        "127.0.0.7:5432 open",
        "1970-01-01 00:00:00Z",
        "(90 s ago)",
    ] {
        assert!(page.contains(told), "{told}: {page}");
    }
    assert!(page.contains("<title>Not segmented: 1 check fails · segprobe"), "{page}");
}

#[test]
fn ages_are_coarse() {
    let now = Timestamp::UNIX_EPOCH + Duration::from_secs(1_000_000);
    let before = |seconds: u64| ago(now - Duration::from_secs(seconds), now);
    for (seconds, said) in
        [(0, "0 s ago"), (119, "119 s ago"), (120, "2 min ago"), (7_200, "2 h ago"), (172_800, "2 days ago")]
    {
        assert_eq!(before(seconds), said);
    }
    assert_eq!(ago(now + Duration::from_secs(5), now), "0 s ago", "clocks differ");
    assert_eq!(Verdict::ALL.len(), 4);
}

#[test]
fn what_dns_tells_is_told_by_technique_and_server() {
    let ask = |kind, server: &str, mode, reason, names: &[&str]| {
        view(id("b", kind, "", server, None), mode, reason, dns(names))
    };
    let snapshot = snapshot(vec![
        ask(CheckKind::SrvWildcard, "open", Mode::Judge, Reason::Disclosed, &["a.payments", "b.payments"]),
        ask(CheckKind::SrvWildcard, "split", Mode::Judge, Reason::NothingDisclosed, &[]),
        ask(CheckKind::ServiceLookup, "open", Mode::Report, Reason::Disclosed, &["a.payments"]),
        ask(CheckKind::ServiceLookup, "split", Mode::Report, Reason::ControlFailed, &[]),
    ]);
    let page = page_of(&snapshot, "");
    let section =
        page.split("What DNS tells of the protected zone</h2>").nth(1).unwrap().split("</section>").next().unwrap();
    let cells: Vec<&str> = section.split("<td>").skip(1).map(|cell| cell.split("</td>").next().unwrap()).collect();
    let says = |cell: &str, words: [&str; 2]| words.iter().all(|word| cell.contains(word));
    assert!(
        cells.len() == 4 && says(cells[0], ["badge fail", "2 names"]) && says(cells[1], ["badge pass", "nothing"]),
        "{section}"
    );
    assert!(says(cells[2], ["badge reported", "1 name"]) && cells[3].contains("not measured"), "{section}");
    assert!(cells[0].contains("href=\"?check=srv-wildcard&amp;target=open\""), "{section}");
    assert!(!page_of(&self::snapshot(vec![]), "").contains("What DNS tells"));
}

#[test]
fn a_vantage_with_a_bad_control_comes_first_and_says_which() {
    let control = |source: &str, control: &str, ok| {
        let source = crate::model::Identity { namespace: "web".into(), name: source.into() };
        ControlState { source: source.into(), kind: "positive", control: control.into(), ok }
    };
    let mut snapshot = snapshot(vec![]);
    snapshot.controls = vec![control("a", "good:1", true), control("b", "good:1", true), control("b", "bad:2", false)];
    let page = page_of(&snapshot, "");
    let at = |what: &str| page.find(what).unwrap_or_else(|| panic!("{what}: {page}"));
    assert!(at("web/b") < at("1 of 2 controls") && at("1 of 2 controls") < at("positive bad:2"));
    assert!(at("positive bad:2") < at("web/a") && at("web/a") < at("1 of 1 controls"));
}

#[test]
fn what_is_old_or_silent_says_so() {
    let mut snapshot = snapshot(judged(&[Reason::Blocked]));
    assert!(page_of(&snapshot, "").contains("Not every boundary has been swept yet."));
    snapshot.boundaries[0].completed = Some(Timestamp::UNIX_EPOCH + Duration::from_secs(60));
    assert!(page_of(&snapshot, "").contains("(30 s ago)"));
    let mut other = snapshot.boundaries[0].clone();
    other.completed = None;
    snapshot.boundaries.push(other);
    assert!(
        page_of(&snapshot, "").contains("Not every boundary has been swept yet."),
        "the latest speaks for nobody else"
    );
    let zones = [("low".into(), 3), ("high".into(), 0)].into();
    snapshot.node = Some(crate::ledger::NodeView { zones, runtime_answers: false });
    let page = page_of(&snapshot, "");
    assert!(
        page.contains("<strong>does not answer.</strong>") && page.contains("3 running pods of zone low"),
        "{page}"
    );
}
