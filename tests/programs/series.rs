//! Bounds on the number of series, with thousands of checks and whatever verdicts: a ledger that follows a plan, and its page.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use proptest::prelude::*;
use segprobe::{
    config::{self, SeriesConfig},
    export::{Run, metrics::Metrics},
    inventory::stands::Stand,
    ledger::{CheckResult, Evidence, Ledger, SweepReport},
    model::{Mode, Reason, Verdict},
    plan::{Plan, plan},
};

use crate::support::metrics::Page;

/// Two boundaries over so many targets each; the second has one namespace of its own.
fn make_plan(targets: [usize; 2]) -> Plan {
    let line = |zone: &str, i| {
        format!("  - {{zone: {zone}, namespace: ns-{zone}, service: s{i}, endpoints: [127.0.0.1], ports: [80]}}\n")
    };
    let listed = |zone, count| (0..count).map(|i| line(zone, i)).collect::<String>();
    let text = format!(
        "zones: {{low: {{}}, high: {{namespaces: [ns-high]}}, vault: {{namespaces: [ns-vault]}}}}
boundaries:
  - {{name: to-high, from: low, to: high, dns: {{reverse-sweep: off}}}}
  - {{name: to-vault, from: low, to: vault, dns: {{reverse-sweep: off}}}}
controls: {{positive: [{{tcp: '127.0.0.1:1'}}]}}
dns: {{resolver: 127.0.0.1:1, servers: [{{name: s, address: 127.0.0.1}}]}}
targets:
{}{}",
        listed("high", targets[0]),
        listed("vault", targets[1])
    );
    let config = config::parse(Path::new("test"), &text).unwrap();
    plan(&config, &[Stand::own(&config, &[], "web")])
}

/// A sweep of each boundary in which every check gives the next of these reasons, over and over.
fn sweep(ledger: &Ledger, plan: &Plan, reasons: &[Reason]) {
    let mut next = reasons.iter().cycle();
    for leg in &plan.legs {
        let result = |check: &segprobe::plan::Check| {
            Arc::new(CheckResult {
                id: check.id.clone(),
                mode: check.mode,
                reason: *next.next().unwrap(),
                evidence: Evidence::Reach([].into()),
                discovered: false,
                judged: Instant::now(),
                at: Timestamp::now(),
            })
        };
        ledger.record(&SweepReport {
            boundary: leg.boundary.boundary.name.clone(),
            source: leg.stand.source.identity.clone(),
            part: segprobe::plan::Part::Reach,
            started: Timestamp::now(),
            ended: Instant::now(),
            took: Duration::from_secs(1),
            results: leg.checks().map(result).collect(),
            controls: Vec::new(),
        });
    }
}

fn page(ledger: &Ledger, every_check: u32, worst_checks: u32) -> Page {
    let run = Run { node: "node".into(), kernel: "6".into(), icmp_evidence: true };
    let metrics = Metrics::new(run, segprobe::web::Web::open()).unwrap();
    let text = metrics.page(&ledger.snapshot(), SeriesConfig { every_check, worst_checks }, Instant::now());
    Page::parse(&text)
}

/// Checks with series by verdict, and suppressed ones by boundary.
fn shown(page: &Page) -> (BTreeMap<String, usize>, [usize; 2]) {
    page.assert_unique();
    let mut verdicts = BTreeMap::new();
    for verdict in page.verdicts().into_values() {
        *verdicts.entry(verdict).or_default() += 1;
    }
    let of = |boundary| page.value("segprobe_series_suppressed", &[("boundary", boundary)]).unwrap() as usize;
    (verdicts, [of("to-high"), of("to-vault")])
}

fn counts(expected: &[(&str, usize)]) -> BTreeMap<String, usize> {
    expected.iter().map(|(verdict, count)| ((*verdict).to_owned(), *count)).collect()
}

const EACH: [Reason; 4] = [Reason::Reached, Reason::Blocked, Reason::TargetDown, Reason::NoWitness];

#[test]
fn three_hundred_checks() {
    // 150 targets and one judged DNS check each.
    let plan = make_plan([149, 149]);
    let ledger = Ledger::default();
    ledger.follow(&plan, "hash", Instant::now());
    assert_eq!(shown(&page(&ledger, 300, 1000)), (counts(&[("inconclusive", 300)]), [0, 0]), "pending");
    // Reported checks take a turn as well; only TCP is counted here.
    sweep(&ledger, &plan, &EACH);
    let (all, suppressed) = shown(&page(&ledger, 300, 1000));
    assert_eq!((all.values().sum::<usize>(), suppressed), (300, [0, 0]));

    let (some, suppressed) = shown(&page(&ledger, 299, 1000));
    assert_eq!(
        some,
        counts(&[("fail", all["fail"]), ("inconclusive", all["inconclusive"])]),
        "the good ones are left out"
    );
    assert_eq!(suppressed.iter().sum::<usize>(), all["pass"] + all["unverified"]);

    let (some, suppressed) = shown(&page(&ledger, 299, 100));
    assert_eq!(some, counts(&[("fail", all["fail"]), ("inconclusive", 100 - all["fail"])]), "the worst first");
    assert_eq!(suppressed.iter().sum::<usize>(), 200);

    let (none, suppressed) = shown(&page(&ledger, 0, 0));
    assert_eq!((none.len(), suppressed), (0, [150, 150]));
}

#[test]
fn three_thousand_checks() {
    let plan = make_plan([2_899, 99]);
    let ledger = Ledger::default();
    ledger.follow(&plan, "hash", Instant::now());
    sweep(&ledger, &plan, &[Reason::Blocked]);
    let defaults = SeriesConfig { every_check: 250, worst_checks: 1_000 };
    let page_of = || page(&ledger, defaults.every_check, defaults.worst_checks);
    assert_eq!(shown(&page_of()), (BTreeMap::new(), [2_900, 100]));

    sweep(&ledger, &plan, &[Reason::Reached]);
    let (worst, suppressed) = shown(&page_of());
    assert_eq!((worst, suppressed.iter().sum::<usize>()), (counts(&[("fail", 1_000)]), 2_000));
    // The same ones from scrape to scrape, and the totals tell of all.
    let kept = |page: Page| page.verdicts().into_keys().collect::<Vec<_>>();
    assert_eq!(kept(page_of()), kept(page_of()));
    let total = page_of().value("segprobe_boundary_checks", &[("boundary", "to-high"), ("reason", "reached")]);
    assert_eq!(total, Some(2_900.0));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the verdicts and the bounds are: bounded, accounted for, the worst first, never twice the same series.
    #[test]
    fn bounds_hold(
        targets in [0..60usize, 0..60usize],
        reasons in prop::collection::vec(prop::sample::select(Reason::ALL), 1..20),
        every_check in 0..150u32,
        worst_checks in 0..150u32,
    ) {
        let plan = make_plan([targets[0].max(1), targets[1].max(1)]);
        let ledger = Ledger::default();
        ledger.follow(&plan, "hash", Instant::now());
        sweep(&ledger, &plan, &reasons);
        let snapshot = ledger.snapshot();
        let judged: Vec<Verdict> = snapshot
            .checks
            .iter()
            .filter(|check| check.mode == Mode::Judge)
            .map(|check| check.reason_at(Instant::now()).verdict())
            .collect();
        let of = |verdict: Verdict| judged.iter().filter(|v| **v == verdict).count();
        let page = page(&ledger, every_check, worst_checks);
        let (verdicts, suppressed) = shown(&page);
        let shown = |verdict: Verdict| verdicts.get(verdict.as_str()).copied().unwrap_or(0);
        let expected = |verdict: Verdict| match verdict {
            _ if judged.len() <= every_check as usize => of(verdict),
            Verdict::Fail => of(verdict).min(worst_checks as usize),
            Verdict::Inconclusive => of(verdict).min(worst_checks as usize - shown(Verdict::Fail)),
            Verdict::Unverified | Verdict::Pass => 0,
        };
        for verdict in Verdict::ALL {
            prop_assert_eq!(shown(*verdict), expected(*verdict), "{}", verdict);
        }
        let kept: usize = verdicts.values().sum();
        prop_assert_eq!(kept + suppressed.iter().sum::<usize>(), judged.len());
        let totals: f64 = page.all("segprobe_boundary_checks", &[]).iter().map(|sample| sample.value).sum();
        prop_assert_eq!(totals, judged.len() as f64);
    }
}
