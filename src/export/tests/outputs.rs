//! The forms of `check`: whatever a name is made of, each stays what it is, and says what the exit code says.

use super::*;
use crate::export::{junit, markdown, sarif, tap};

fn junit_of(report: &Report<'_>) -> String {
    let mut out = Vec::new();
    junit::write(&mut out, report).unwrap();
    String::from_utf8(out).unwrap()
}

fn tap_of(report: &Report<'_>) -> String {
    let mut out = Vec::new();
    tap::write(&mut out, report).unwrap();
    String::from_utf8(out).unwrap()
}

fn sarif_of(report: &Report<'_>) -> serde_json::Value {
    let mut out = Vec::new();
    sarif::write(&mut out, report, std::path::Path::new("segprobe.yaml")).unwrap();
    serde_json::from_slice(&out).unwrap()
}

/// A snapshot in which a name stands wherever a name can stand.
fn named_so(name: &str) -> Snapshot {
    let reach =
        |mode, reason| view(id("b", CheckKind::TcpConnect, name, name, Some(Via::Service)), mode, reason, tcp(vec![]));
    let tell = |reason| view(id("b", CheckKind::SrvWildcard, "", name, None), Mode::Judge, reason, dns(&[name, "a"]));
    let mut snapshot = snapshot(vec![
        tell(Reason::Disclosed),
        reach(Mode::Judge, Reason::Unresolved),
        reach(Mode::Judge, Reason::NoWitness),
        reach(Mode::Judge, Reason::Blocked),
        tell(Reason::NothingDisclosed),
        reach(Mode::Report, Reason::Reached),
    ]);
    snapshot.boundaries[0].vantage = VantageMode::Pods;
    snapshot.not_tested = vec![NotTested { boundary: "b".into(), what: name.into(), why: name.into() }];
    snapshot.config_hash = name.into();
    snapshot
}

/// Names that mean something to one of the forms.
const MEANING: [&str; 12] = [
    "]]>",
    "--><!--",
    "\u{0}\u{8}\u{b}\u{1f}\u{7f}\u{fffe}",
    "a # SKIP b",
    "ok 1 - b # TODO",
    "...\n  ---\nBail out!",
    "\\# \\\\",
    "key: \"value\", 'x': [*a, &b] {c}",
    "`` ` | \\| ![a](http://b.example) @you #1 www.c.example",
    "</details><details>",
    "&amp;&#0;&#x1b;",
    "",
];

fn hostile_names() -> impl Iterator<Item = String> {
    let octets = ["é".repeat(127), "\u{202e}".repeat(85), "`|#\\".repeat(63)];
    HOSTILE.into_iter().chain(MEANING).map(str::to_owned).chain(octets)
}

/// Elements are closed in their order, attributes quoted, and references known: what a parser asks for, and nothing else is there.
fn assert_xml(text: &str) {
    let is_char =
        |c: char| matches!(c, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..);
    assert!(text.chars().all(is_char), "{text:?}");
    let (mut open, mut rest) = (Vec::new(), text.strip_prefix("<?xml version=\"1.0\" encoding=\"UTF-8\"?>").unwrap());
    while let Some((before, after)) = rest.split_once('<') {
        assert_references(before);
        let (tag, more) = after.split_once('>').unwrap();
        rest = more;
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "{tag}");
            continue;
        }
        let (name, attributes) = tag.trim_end_matches('/').split_once(' ').unwrap_or((tag.trim_end_matches('/'), ""));
        assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '-'), "{tag}");
        assert!(!attributes.contains('<') && attributes.matches('"').count() % 2 == 0, "{tag}");
        assert_references(attributes);
        if !tag.ends_with('/') {
            open.push(name);
        }
    }
    assert!(open.is_empty() && rest == "\n", "{open:?} {rest:?}");
}

fn assert_references(text: &str) {
    for rest in text.split('&').skip(1) {
        assert!(["amp;", "lt;", "gt;", "quot;"].iter().any(|known| rest.starts_with(known)), "{text}");
    }
}

/// The same lines of the same kinds, whatever the names.
fn tap_shape(text: &str) -> Vec<String> {
    let shape = |line: &str| {
        let words: Vec<&str> = line.trim_start().split(' ').collect();
        let directive = line.replace("\\\\", "").replace("\\#", "").matches(" # ").count();
        let indent = line.len() - line.trim_start().len();
        match words[0] {
            "ok" | "not" | "#" | "---" | "..." => format!("{indent} {} {directive}", words[0]),
            key => format!("{indent} {}", key.split(':').next().unwrap()),
        }
    };
    text.lines().map(shape).collect()
}

fn cells(text: &str) -> Vec<usize> {
    text.lines().map(|line| line.matches('|').count() + 100 * (line.matches('`').count() % 2)).collect()
}

fn assert_forms_hold(name: &str) {
    let (run, good, bad) = (run(), named_so("good"), named_so(name));
    let run_of = Run { node: name.into(), ..run.clone() };
    let (good, bad) = (Report::new(&run, &good, Instant::now()), Report::new(&run_of, &bad, Instant::now()));
    let xml = junit_of(&bad);
    assert_xml(&xml);
    assert_eq!(xml.matches('<').count(), junit_of(&good).matches('<').count(), "{name:?}");
    let (found, expected) = (tap_of(&bad), tap_of(&good));
    assert_eq!(tap_shape(&found), tap_shape(&expected), "{name:?}: {found}");
    for line in found.lines().filter(|line| line.starts_with("      ") && line.contains(": ")) {
        let value = line.split_once(": ").unwrap().1;
        assert!(serde_json::from_str::<String>(value).is_ok(), "{name:?}: {line}");
    }
    let text = markdown::text(&bad);
    assert_eq!(cells(&text), cells(&markdown::text(&good)), "{name:?}: {text}");
    // Outside of code spans there are our own words alone.
    let outside: String = text.split('`').step_by(2).collect();
    for meaning in ["<script", "<img", "![", "@you", "http", "www", "#1", "</details><", "-->"] {
        assert!(!outside.contains(meaning), "{name:?}: {outside}");
    }
    for text in [&xml, &found, &text] {
        assert!(text.lines().all(|line| line.chars().all(is_harmless)), "{name:?}: {text:?}");
    }
}

#[test]
fn forms_hold_whatever_the_names() {
    hostile_names().for_each(|name| assert_forms_hold(&name));
}

#[test]
fn markdown_fits_into_a_comment_and_tells_what_it_leaves_out() {
    let long = "é".repeat(127);
    let checks = |reason, many: usize| {
        let one = |i| {
            let target = format!("{long}{i}");
            view(id("b", CheckKind::TcpConnect, "n", &target, Some(Via::Service)), Mode::Judge, reason, tcp(vec![]))
        };
        (0..many).map(one).collect::<Vec<_>>()
    };
    let mut snapshot = snapshot(checks(Reason::Reached, 300));
    snapshot.checks.extend(checks(Reason::Blocked, 9_000));
    snapshot.not_tested =
        (0..500).map(|i| NotTested { boundary: "b".into(), what: format!("{i}"), why: "so".into() }).collect();
    let (run, now) = (run(), Instant::now());
    let text = markdown::text(&Report::new(&run, &snapshot, now));
    assert!(text.len() <= markdown::MOST_BYTES && text.len() > markdown::MOST_BYTES / 2, "{}", text.len());
    let told = text.matches("| **fail** |").count();
    assert!(
        told > 50 && text.contains(&format!("\n{} more checks that did not pass are left out", 300 - told)),
        "{told}"
    );
    assert!(text.starts_with("## segprobe: 300 fail, 9000 pass\n") && text.contains("<summary>9000 pass</summary>"));
    assert_eq!(text.matches("<details>").count(), text.matches("</details>").count());
    // The worst has the room.
    assert!(!text.contains("| pass |") && text.contains("9000 more checks are left out"));
}

#[test]
fn markdown_counts_the_untested_boundaries_that_it_leaves_out() {
    let mut snapshot = snapshot(vec![]);
    let untested = |i| BoundaryView {
        name: format!("b{i}").into(),
        untested: Some("no target ".repeat(30).into()),
        ..snapshot.boundaries[0].clone()
    };
    snapshot.boundaries = (0..400).map(untested).collect();
    let text = markdown::text(&Report::new(&run(), &snapshot, Instant::now()));
    let told = text.matches("**Nothing of boundary").count();
    assert!(text.len() <= markdown::MOST_BYTES && told > 50, "{told}");
    assert!(
        text.contains(&format!("\n{} more boundaries of which nothing was tested are left out", 400 - told)),
        "{text}"
    );
}

/// Code scanning knows an alert again by its rule, its place and its fingerprint; its category ends before the last slash.
#[test]
fn an_alert_is_known_again_whatever_its_reason() {
    let alerts = |reason| {
        let check = |target| {
            view(id("b", CheckKind::TcpConnect, "n", target, Some(Via::Service)), Mode::Judge, reason, tcp(vec![]))
        };
        let (run, snapshot) = (run(), snapshot(vec![check("t:1"), check("t:2")]));
        let document = sarif_of(&Report::new(&run, &snapshot, Instant::now()));
        let id = document["runs"][0]["automationDetails"]["id"].as_str().unwrap().to_owned();
        assert_eq!(id, format!("segprobe/{}/", run.node));
        let alert = |result: &serde_json::Value| {
            let prints = &result["partialFingerprints"];
            assert_eq!(prints["primaryLocationLineHash"], prints["segprobeCheck/v1"]);
            assert_eq!(result["properties"]["reason"], reason.as_str());
            assert!(result["message"]["text"].as_str().unwrap().contains(reason.as_str()), "{result}");
            (result["ruleId"].as_str().unwrap().to_owned(), prints["primaryLocationLineHash"].to_string())
        };
        document["runs"][0]["results"].as_array().unwrap().iter().map(alert).collect::<Vec<_>>()
    };
    let reached = alerts(Reason::Reached);
    assert!(reached.len() == 2 && reached[0].1 != reached[1].1 && reached[0].0 == "tcp-connect", "{reached:?}");
    assert_eq!(reached, alerts(Reason::Lossy));
}

/// What a harness would say of the TAP: a point that is `not ok`, and no `TODO`.
fn fails(tap: &str) -> bool {
    tap.lines().any(|line| line.starts_with("not ok"))
}

proptest! {
    #[test]
    fn forms_hold_whatever_the_names_are_made_of(name in any::<String>()) {
        assert_forms_hold(&name);
    }

    /// CI that reads the result and CI that reads the exit code agree.
    #[test]
    fn forms_say_what_the_exit_code_says(checks in prop::collection::vec(any_check(), 0..6), require_witness in any::<bool>()) {
        let (run, snapshot) = (run(), snapshot(checks));
        let report = Report { require_witness, ..Report::new(&run, &snapshot, Instant::now()) };
        let (xml, tap) = (junit_of(&report), tap_of(&report));
        prop_assert_eq!(xml.contains("<failure"), report.exit_code() == 1);
        prop_assert_eq!(xml.contains("<failure") || xml.contains("<error"), report.exit_code() != 0);
        prop_assert_eq!(fails(&tap), report.exit_code() != 0);
        let text = markdown::text(&report);
        prop_assert_eq!(text.contains("Nothing failed, and nothing is inconclusive."), report.exit_code() == 0);
        let count = |element: &str| xml.matches(&format!("<{element} type")).count();
        let told = |attribute: &str| -> usize {
            let (_, rest) = xml.split_once(&format!("{attribute}=\"")).unwrap();
            rest.split_once('"').unwrap().0.parse().unwrap()
        };
        for (attribute, element) in [("failures", "failure"), ("errors", "error"), ("skipped", "skipped")] {
            prop_assert_eq!(count(element), told(attribute));
        }
        prop_assert_eq!(xml.matches("<testcase ").count(), told("tests"));
    }
}

#[test]
fn exit_codes() {
    use Reason::{Blocked, Lossy, NoWitness, Reached};
    let untested = Some("no target");
    for (reasons, untested, require_witness, expected) in [
        (&[Blocked][..], None, false, 0),
        (&[Blocked, NoWitness], None, false, 0),
        (&[Blocked, NoWitness], None, true, 2),
        (&[Blocked, Lossy], None, false, 2),
        (&[Blocked, NoWitness, Lossy, Reached], None, true, 1),
        // Reported checks only.
        (&[], None, true, 0),
        (&[], untested, false, 2),
        (&[Blocked], untested, false, 2),
        (&[Blocked, Reached], untested, false, 1),
    ] {
        let check = |reason: &Reason| {
            view(id("b", CheckKind::TcpConnect, "n", "t:1", Some(Via::Service)), Mode::Judge, *reason, tcp(vec![]))
        };
        let mut checks: Vec<CheckView> = reasons.iter().map(check).collect();
        checks.push(CheckView { mode: Mode::Report, ..check(&Reached) });
        let (run, snapshot) = (run(), snapshot(checks));
        let mut report = Report { require_witness, ..Report::new(&run, &snapshot, Instant::now()) };
        report.sections[0].untested = untested;
        assert_eq!(report.exit_code(), expected, "{reasons:?} {untested:?} {require_witness}");
        // What was not tested is no pass in any form.
        let told = untested.is_some();
        let (xml, tap, text) = (junit_of(&report), tap_of(&report), markdown::text(&report));
        assert_eq!(xml.contains("<error type=\"not-tested\" message=\"no target\">"), told, "{xml}");
        assert_eq!(tap.contains("    not ok 1 - nothing was tested\n"), told, "{tap}");
        assert_eq!(text.contains("**Nothing of boundary `b` was tested**: `no target`"), told, "{text}");
        assert_eq!(text.contains("Nothing failed, and nothing is inconclusive."), expected == 0, "{text}");
        let mut table = Vec::new();
        table::write(&mut table, &report, Some(80)).unwrap();
        let table = shown(&String::from_utf8(table).unwrap());
        assert_eq!(table.contains("  INCONCLUSIVE  nothing was tested: no target\n"), told, "{table}");
    }
}
