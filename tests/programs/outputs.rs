//! The forms of `check`, read by those who will read them: xmllint by a published schema, parsers of TAP, validators of JSON. Real
//! results, and results in which every name is hostile.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use segprobe::{
    config::Config,
    export::{Run, json, junit, markdown, report::Report, sarif, table, tap},
    inventory::stands::Stand,
    ledger::{BoundaryView, CheckResult, CheckView, Evidence, Ledger, Snapshot, SweepReport},
    model::{AddressKind, CheckId, CheckKind, Expect, Identity, Mode, Reason, VantageMode, Via, WitnessKind},
    observation::{AddressSeen, TcpOutcome, TcpSeen, WitnessSaw, WitnessSeen},
    plan::{Check, NotTested, Part, plan},
};
use serde_json::Value;

use crate::support::{SOON, Silent, closed, directory, document, have, listen, process, segprobe, skip, write_config};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file that `.ci/run` fetches; where it is not there, the test says so.
fn fetched(path: &str) -> Option<PathBuf> {
    let path = root().join(path);
    (path.is_file() || skip(&format!("{} is not there: .ci/run fetches it", path.display()))).then_some(path)
}

/// A configuration with a boundary that fails, or one that passes, and with all that can be said besides.
fn config(text: &str) -> String {
    format!(
        "zones: {{low: {{namespaces: [web]}}, high: {{namespaces: [payments]}}, empty: {{namespaces: [vault]}}}}
vantage: {{namespace: web, identity: front}}
{text}"
    )
}

/// What fails, is unverified, inconclusive, reported and not tested at all.
struct Mixed {
    text: String,
    _held: (std::net::TcpListener, Silent),
}

fn mixed() -> Mixed {
    let ((open, at), silent, dead, nobody) = (listen(), Silent::new(), closed(), closed());
    let targets: Vec<String> = [("open", at), ("silent", silent.address), ("dead", dead)]
        .iter()
        .map(|(name, at)| {
            let (ip, port) = (at.ip(), at.port());
            format!("  - {{zone: high, namespace: payments, service: {name}, endpoints: [{ip}], ports: [{port}]}}\n")
        })
        .collect();
    let text = config(&format!(
        "boundaries:
  - {{name: low-to-high, from: low, to: high, interval: 1m, tcp: {{attempts: 1, closed: inconclusive}}}}
  - {{name: low-to-empty, from: low, to: empty, interval: 1m, dns: off}}
targets:
{}controls: {{positive: [{{tcp: '{at}'}}]}}
dns: {{resolver: 127.0.0.1:1, timeout: 100ms, attempts: 1, servers: [{{name: s, address: '{nobody}'}}]}}
",
        targets.concat()
    ));
    Mixed { text, _held: (open, silent) }
}

/// All is as it must be.
fn passing(at: std::net::SocketAddr) -> String {
    config(&format!(
        "boundaries: [{{name: open, from: low, to: high, expect: open, interval: 1m, tcp: {{attempts: 1}}}}]
targets: [{{zone: high, namespace: payments, service: ledger, endpoints: [{}], ports: [{}]}}]
controls: {{positive: [{{tcp: '{at}'}}]}}
dns: {{resolver: 127.0.0.1:1, servers: []}}
",
        at.ip(),
        at.port()
    ))
}

/// The result of a check in a form, with its exit code.
fn check(text: &str, form: &str, more: &[&str]) -> (Option<i32>, String) {
    let directory = directory();
    let path = write_config(directory.path(), text);
    let ended = segprobe(&[&["check", "--config.file", &path, "--output", form], more].concat());
    (ended.code, ended.stdout)
}

/// A result in which each of these names stands wherever a name can stand.
fn hostile() -> Snapshot {
    let names = [
        "<script>alert(1)</script>]]>&amp;\"'",
        "turned\u{202e}around\u{0}\u{1b}[31m\u{fffe}",
        "a # SKIP b",
        "a\n    1..9\nok 1 - b # TODO\nBail out!",
        "\\# \\\\#",
        "key: \"value\", '*a', &b {c} | >- ~ !!null",
        "`|`@you![a](http://b.example)",
        &"é".repeat(127),
    ];
    let checks = names.iter().zip(0..).flat_map(|(name, at)| {
        [Reason::Reached, Reason::Lossy, Reason::NoWitness, Reason::Blocked].map(|reason| {
            let mode = if at % 4 == 3 { Mode::Report } else { Mode::Judge };
            view(&format!("{name}{}", reason.as_str()), mode, reason)
        })
    });
    let boundary = BoundaryView {
        name: "b".into(),
        from: "low".into(),
        to: "high".into(),
        expect: Expect::Blocked,
        vantage: VantageMode::Pods,
        interval: Duration::from_secs(30),
        share_nodes: 1,
        share_sweeps: 1,
        untested: None,
        completed: None,
        took: None,
        span: None,
    };
    let gap = |name: &&str| NotTested { boundary: "b".into(), what: (*name).into(), why: (*name).into() };
    Snapshot {
        checks: checks.collect(),
        boundaries: vec![boundary],
        not_tested: names.iter().map(gap).collect(),
        ..Snapshot::default()
    }
}

fn seen_at(now: Instant) -> AddressSeen {
    AddressSeen {
        address: None,
        kind: AddressKind::Endpoint,
        from: None,
        listed: true,
        attempts: [].into(),
        startup: None,
        sidecar: None,
        witness: None,
        started: now,
        ended: now,
    }
}

fn view(name: &str, mode: Mode, reason: Reason) -> CheckView {
    let id = Arc::new(CheckId {
        boundary: "b".into(),
        expect: Expect::Blocked,
        kind: CheckKind::TcpConnect,
        source: Arc::new(Identity { namespace: name.into(), name: name.into() }),
        target_namespace: name.into(),
        target: name.into(),
        via: Some(Via::Service),
    });
    let (now, at) = (Instant::now(), Timestamp::UNIX_EPOCH);
    let attempt = TcpSeen { outcome: TcpOutcome::Open, icmp: None, errno: None, elapsed_us: 1 };
    let seen =
        AddressSeen { address: Some("127.0.0.7:1".parse().unwrap()), attempts: [attempt].into(), ..seen_at(now) };
    let evidence = Evidence::Reach([(seen, reason)].into());
    let result = CheckResult { id: id.clone(), mode, reason, evidence, discovered: false, judged: now, at };
    CheckView { id, mode, result: Some(Arc::new(result)), round: Duration::from_secs(30), findings: [].into() }
}

fn hostile_in(write: impl Fn(&mut Vec<u8>, &Report<'_>) -> std::io::Result<()>) -> String {
    let run = Run { node: "<node>\u{202e}&\"# SKIP".into(), kernel: "".into(), icmp_evidence: true };
    let (snapshot, mut out) = (hostile(), Vec::new());
    write(&mut out, &Report::new(&run, &snapshot, Instant::now())).unwrap();
    String::from_utf8(out).unwrap()
}

// --- The examples of the documentation ---

const EXAMPLE: &str = "zones: {low: {namespaces: [web]}, high: {namespaces: [payments]}}
boundaries: [{name: low-to-high, from: low, to: high, dns: off}]
vantage: {namespace: web, identity: own}
targets:
  - {zone: high, namespace: payments, service: ledger, endpoints: [10.244.1.5], ports: [5432]}
  - {zone: high, namespace: payments, service: vault, endpoints: [10.244.1.6], ports: [8200]}
  - {zone: high, namespace: payments, service: batch, endpoints: [10.244.1.7], ports: [8080]}
dns: {resolver: 10.96.0.10, servers: []}
";

/// A sweep of the example in which one target was reached, one was proven blocked, and one was silent without a witness.
fn example() -> (Arc<Snapshot>, Config) {
    let config = segprobe::config::parse(Path::new("segprobe.yaml"), EXAMPLE).unwrap();
    let plan = plan(&config, &[Stand::own(&config, &[], "web")]);
    let (ledger, leg) = (Ledger::default(), &plan.legs[0]);
    ledger.follow(&plan, &config.hash, Instant::now());
    let started: Timestamp = "2026-03-01T08:15:00Z".parse().unwrap();
    let (now, connect) = (Instant::now(), |outcome| TcpSeen { outcome, icmp: None, errno: None, elapsed_us: 412 });
    let result = |check: &Check| {
        let (outcome, reason, address) = match &*check.id.target {
            "ledger:5432" => (TcpOutcome::Open, Reason::Reached, "10.244.1.5:5432"),
            "vault:8200" => (TcpOutcome::Filtered, Reason::Blocked, "10.244.1.6:8200"),
            _ => (TcpOutcome::Filtered, Reason::NoWitness, "10.244.1.7:8080"),
        };
        let saw = WitnessSaw::Connect(connect(TcpOutcome::Open));
        let witness = WitnessSeen { by: WitnessKind::Node, name: "this node".into(), before: saw, after: Some(saw) };
        let seen = AddressSeen {
            address: Some(address.parse().unwrap()),
            attempts: vec![connect(outcome); if outcome == TcpOutcome::Open { 1 } else { 2 }].into(),
            witness: (reason == Reason::Blocked).then(|| Box::new(witness)),
            ..seen_at(now)
        };
        let (id, at) = (check.id.clone(), started + Duration::from_millis(4_200));
        let evidence = Evidence::Reach([(seen, reason)].into());
        Arc::new(CheckResult { id, mode: check.mode, reason, evidence, discovered: false, judged: now, at })
    };
    ledger.record(&SweepReport {
        boundary: leg.boundary.boundary.name.clone(),
        source: leg.stand.source.identity.clone(),
        part: Part::Reach,
        started,
        ended: now,
        took: Duration::from_millis(4_300),
        results: leg.reach.iter().map(result).collect(),
        controls: Vec::new(),
    });
    (ledger.snapshot(), config)
}

#[test]
fn the_document_shows_every_form() {
    let ((snapshot, _), now) = (example(), Instant::now());
    let run = Run { node: "worker-1".into(), kernel: "6.12.0".into(), icmp_evidence: true };
    let report = Report::new(&run, &snapshot, now);
    let written = |write: &dyn Fn(&mut Vec<u8>) -> std::io::Result<()>| {
        let mut out = Vec::new();
        write(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    };
    let plain = |text: String| {
        ["\u{1b}[1m", "\u{1b}[0m", "\u{1b}[31m", "\u{1b}[32m", "\u{1b}[36m"]
            .iter()
            .fold(text, |text, colour| text.replace(colour, ""))
    };
    let table = plain(written(&|out| table::write(out, &report, Some(100))));
    let mut text = String::new();
    for (form, language, document) in [
        ("table", "text", format!("{table}{} in 4.3 s\n", report.totals)),
        ("json", "json", written(&|out| json::write(out, &json::Report::new(&run, &snapshot, now)))),
        ("junit", "xml", written(&|out| junit::write(out, &report))),
        ("tap", "text", written(&|out| tap::write(out, &report))),
        ("markdown", "markdown", markdown::text(&report)),
        ("sarif", "json", written(&|out| sarif::write(out, &report, Path::new("segprobe.yaml")))),
    ] {
        let document = document.trim_end();
        text += &format!(
            "\n<details><summary><code>--output {form}</code></summary>\n\n````{language}\n{document}\n````\n\n</details>\n"
        );
    }
    document::holds("docs/outputs.md", "outputs", &text);
}

/// The fenced blocks of a language.
fn blocks<'a>(document: &'a str, language: &str) -> Vec<&'a str> {
    let begins = format!("\n```{language}\n");
    document.split(begins.as_str()).skip(1).map(|rest| rest.split("\n```").next().unwrap()).collect()
}

/// What people copy: YAML that parses, and a pod that Kubernetes knows all of.
#[test]
fn what_the_document_tells_to_copy_is_well_formed() {
    let document = fs::read_to_string(root().join("docs/outputs.md")).unwrap();
    let yaml = blocks(&document, "yaml");
    assert_eq!(yaml.len(), 2);
    for block in yaml {
        assert!(serde_saphyr::from_str::<Value>(block).unwrap().is_object(), "{block}");
    }
    let commands = blocks(&document, "sh").remove(0);
    let run = commands.split_once("kubectl run").unwrap().1.split_once(" > ").unwrap().0;
    let overrides = run.split_once("--overrides='").unwrap().1.strip_suffix('\'').unwrap();
    let pod: Value = serde_json::from_str(overrides).unwrap();
    let arguments: Vec<&str> =
        pod["spec"]["containers"][0]["args"].as_array().unwrap().iter().map(|a| a.as_str().unwrap()).collect();
    assert_eq!(segprobe(&[&arguments[..], &["--plan"]].concat()).code, Some(64), "the file is not here, the flags are");
    // What Kubernetes does not know would be lost on the way.
    let typed: k8s_openapi::api::core::v1::Pod = serde_json::from_value(pod.clone()).unwrap();
    let known = serde_json::to_value(typed).unwrap();
    assert_eq!(known["spec"], pod["spec"]);
}

// --- JUnit ---

#[test]
fn junit_is_valid_by_jenkins_schema() {
    let Some(schema) = fetched("target/junit-schema/junit-10.xsd") else { return };
    if !have("xmllint") {
        return;
    }
    let (mixed, (_listener, at)) = (mixed(), listen());
    for (what, document) in [
        ("mixed", check(&mixed.text, "junit", &[]).1),
        ("passing", check(&passing(at), "junit", &[]).1),
        ("hostile", hostile_in(junit::write)),
    ] {
        let directory = directory();
        let file = directory.path().join("junit.xml");
        fs::write(&file, &document).unwrap();
        let mut command = Command::new("xmllint");
        command.args(["--noout", "--nonet", "--schema"]).args([&schema, &file]);
        let ended = process::run(command, SOON);
        assert_eq!(ended.code, Some(0), "{what}: {}\n{document}", ended.stderr);
    }
}

#[test]
fn junit_says_what_the_exit_code_says() {
    let mixed = mixed();
    let (code, text) = check(&mixed.text, "junit", &[]);
    assert_eq!(code, Some(1));
    for told in [
        "<failure type=\"reached\" message=\"reached: the connection was accepted\">",
        "<skipped type=\"no-witness\" message=\"unverified: ",
        "<error type=\"closed-ambiguous\" message=",
        "<error type=\"control-failed\" message=",
        "<skipped type=\"reported\" message=\"reported, not judged\">",
        "name=\"nothing was tested\"",
    ] {
        assert!(text.contains(told), "{told}: {text}");
    }
    let (code, text) = check(&mixed.text, "junit", &["--require-witness"]);
    assert!(code == Some(1) && text.contains("<error type=\"no-witness\" message="), "{text}");
    let (_listener, at) = listen();
    let (code, text) = check(&passing(at), "junit", &[]);
    assert_eq!(code, Some(0));
    assert!(!["<failure", "<error"].iter().any(|bad| text.contains(bad)), "{text}");
    assert!(
        text.contains(&format!("payments/ledger:{} (endpoint): reachable: reached, as expected", at.port())),
        "{text}"
    );
}

// --- TAP ---

/// What the parser of node-tap makes of it, strictly: whether it is well-formed and passes, and every test point.
fn parsed(document: &str) -> Option<(bool, Vec<Value>)> {
    let parser = fetched("tests/node/node_modules/.bin/tap-parser")?;
    if !have("node") {
        return None;
    }
    let directory = directory();
    let file = directory.path().join("tap");
    fs::write(&file, document).unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "exec node \"$0\" --json --flat --strict < \"$1\""]).args([&parser, &file]);
    let ended = process::run(command, SOON);
    let events: Vec<Value> = serde_json::from_str(&ended.stdout).unwrap_or_else(|e| panic!("{e}: {ended:?}"));
    let points = events.iter().filter(|event| event[0] == "assert").map(|event| event[1].clone()).collect();
    let complete = &events.iter().rev().find(|event| event[0] == "complete").unwrap()[1];
    let failures = complete["failures"].as_array().cloned().unwrap_or_default();
    assert!(failures.iter().all(|failure| failure["tapError"].is_null()), "{failures:#?}\n{document}");
    Some((complete["ok"] == true, points))
}

#[test]
fn tap_is_what_a_parser_of_tap_14_reads() {
    let mixed = mixed();
    let (code, text) = check(&mixed.text, "tap", &[]);
    let Some((ok, points)) = parsed(&text) else { return };
    assert!(code == Some(1) && !ok, "{text}");
    let point = |name: &str| {
        let mut found = points.iter().filter(|point| point["fullname"].as_str().unwrap().contains(name));
        found.next().unwrap_or_else(|| panic!("{name}: {points:#?}"))
    };
    let open = point("payments/open:");
    assert!(open["ok"] == false && open["todo"] == false, "{open:#}");
    assert_eq!((&open["diag"]["verdict"], &open["diag"]["reason"]), (&"fail".into(), &"reached".into()));
    let silent = point("payments/silent:");
    assert!(
        silent["ok"] == false && silent["todo"].as_str().unwrap().starts_with("unverified: no-witness: "),
        "{silent:#}"
    );
    assert!(point("payments/dead:")["diag"]["evidence"].as_str().unwrap().ends_with(" closed"));
    assert_eq!(point("pod-oracle at s")["skip"], "reported, not judged");
    assert_eq!(point("low-to-empty > nothing was tested")["ok"], false);

    let (_listener, at) = listen();
    let (code, text) = check(&passing(at), "tap", &[]);
    assert_eq!((code, parsed(&text).unwrap().0), (Some(0), true), "{text}");
}

#[test]
fn tap_of_hostile_names_is_read_as_it_was_meant() {
    let Some((ok, points)) = parsed(&hostile_in(tap::write)) else { return };
    let count = |of: fn(&Value) -> bool| points.iter().filter(|point| of(point)).count();
    // Eight names, two of them reported only, each in four checks and one gap; and the boundary.
    assert!(!ok);
    assert_eq!(points.iter().filter(|p| p["closingTestPoint"] != true).count(), 8 * 5, "{points:#?}");
    assert_eq!(count(|p| p["todo"] != false), 6);
    assert_eq!(count(|p| p["skip"] != false), 2 * 4 + 8);
    assert!(points.iter().all(|p| p["diag"].is_null() || p["diag"]["evidence"].is_string()), "{points:#?}");
}

/// Harnesses of TAP 13 read it as well, where the version says so: subtests are comments to them.
#[test]
fn perls_harness_reads_it() {
    if !have("prove") {
        return;
    }
    let (mixed, (_listener, at)) = (mixed(), listen());
    for (text, ends) in [
        (check(&mixed.text, "tap", &[]).1, "Result: FAIL\n"),
        (check(&passing(at), "tap", &[]).1, "Result: PASS\n"),
        (hostile_in(tap::write), "Result: FAIL\n"),
    ] {
        let directory = directory();
        let file = directory.path().join("tap");
        fs::write(&file, text.replacen("TAP version 14", "TAP version 13", 1)).unwrap();
        let mut command = Command::new("prove");
        command.args(["-e", "cat"]).arg(&file);
        let ended = process::run(command, SOON);
        assert!(ended.stdout.ends_with(ends) && !ended.stdout.contains("Parse errors"), "{ended:?}\n{text}");
    }
}

// --- JSON ---

/// The published schema, with nothing allowed that it does not name.
fn strict_schema() -> Value {
    fn close(value: &mut Value) {
        match value {
            Value::Object(object) => {
                if object.contains_key("properties") {
                    object.insert("additionalProperties".into(), false.into());
                }
                object.values_mut().for_each(close);
            }
            Value::Array(list) => list.iter_mut().for_each(close),
            _ => {}
        }
    }
    let mut schema: Value = serde_json::from_str(&segprobe(&["schema", "report"]).stdout).unwrap();
    close(&mut schema);
    schema
}

fn assert_valid(schema: &Value, document: &str) {
    let validator = jsonschema::validator_for(schema).unwrap();
    let document: Value = serde_json::from_str(document).unwrap();
    let errors: Vec<String> = validator.iter_errors(&document).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert!(errors.is_empty(), "{errors:#?}\n{document:#}");
}

#[test]
fn the_published_schema_is_that_of_the_program() {
    let path = root().join("docs/report.schema.json");
    let text = segprobe(&["schema", "report"]).stdout;
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &text).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap();
    assert!(committed == text, "{}: UPDATE_DOCS=1 cargo test --test programs outputs", path.display());
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), json::schema());
}

#[test]
fn reports_are_valid_by_the_published_schema() {
    let (schema, mixed, (_listener, at)) = (strict_schema(), mixed(), listen());
    assert_valid(&schema, &check(&mixed.text, "json", &[]).1);
    assert_valid(&schema, &check(&passing(at), "json", &[]).1);
    let run = Run { node: "n".into(), kernel: "6".into(), icmp_evidence: false };
    let (snapshot, mut out) = (hostile(), Vec::new());
    json::write(&mut out, &json::Report::new(&run, &snapshot, Instant::now())).unwrap();
    assert_valid(&schema, &String::from_utf8(out).unwrap());
}

// --- SARIF ---

#[test]
fn sarif_is_valid_by_its_schema() {
    let Some(schema) = fetched("tests/node/node_modules/@microsoft/jest-sarif/lib/schemas/sarif-2.1.0-rtm.5.json")
    else {
        return;
    };
    // One pattern of it, of a field that is not used, is no regular expression.
    let schema = fs::read_to_string(schema).unwrap().replace("-[a-zA-Z]{2}]?$", "-[a-zA-Z]{2}?$");
    let schema: Value = serde_json::from_str(&schema).unwrap();
    let (mixed, (_listener, at)) = (mixed(), listen());
    let real = check(&mixed.text, "sarif", &[]).1;
    assert_valid(&schema, &real);
    assert_valid(&schema, &check(&passing(at), "sarif", &[]).1);
    assert_valid(&schema, &hostile_in(|out, report| sarif::write(out, report, Path::new("a b.yaml"))));

    let document: Value = serde_json::from_str(&real).unwrap();
    let results = document["runs"][0]["results"].as_array().unwrap();
    let of = |rule: &str| -> Vec<&Value> {
        results.iter().filter(|result| result["ruleId"] == rule || result["properties"]["reason"] == rule).collect()
    };
    assert_eq!(document["runs"][0]["invocations"][0]["exitCode"], 1);
    assert_eq!((&of("reached")[0]["kind"], &of("reached")[0]["level"]), (&"fail".into(), &"error".into()));
    assert_eq!(
        (&of("closed-ambiguous")[0]["kind"], &of("closed-ambiguous")[0]["level"]),
        (&"open".into(), &"none".into())
    );
    assert!(of("not-tested").len() == 1 && of("no-witness").is_empty(), "{results:#?}");
    let strict = check(&mixed.text, "sarif", &["--require-witness"]).1;
    assert!(strict.contains("\"reason\": \"no-witness\""), "{strict}");
    let rules: Vec<&Value> =
        document["runs"][0]["tool"]["driver"]["rules"].as_array().unwrap().iter().map(|rule| &rule["id"]).collect();
    assert!(results.iter().all(|result| rules.contains(&&result["ruleId"])), "{rules:?}");
    // The same check has the same fingerprint in another run, and no other has it.
    let print = |result: &Value| result["partialFingerprints"]["primaryLocationLineHash"].as_str().unwrap().to_owned();
    let again: Value = serde_json::from_str(&check(&mixed.text, "sarif", &[]).1).unwrap();
    let prints: std::collections::BTreeSet<String> = results.iter().map(print).collect();
    assert_eq!(prints.len(), results.len());
    assert_eq!(
        again["runs"][0]["results"].as_array().unwrap().iter().map(print).collect::<std::collections::BTreeSet<_>>(),
        prints
    );
}

// --- A reader that leaves ---

#[test]
fn a_reader_that_leaves_is_not_told() {
    let directory = directory();
    let path = write_config(directory.path(), &mixed().text);
    for arguments in
        ["schema", "schema report", "validate --config.file", "check --plan --config.file", "--help", "demo --once"]
    {
        let file = if arguments.ends_with("file") { path.as_str() } else { "" };
        let script = format!("\"$0\" {arguments} {file} | true; echo \"${{PIPESTATUS[0]}}\"");
        let mut command = Command::new("bash");
        command.args(["-c", &script, crate::support::SEGPROBE]);
        let ended = process::run(command, SOON);
        // As one that SIGPIPE ended, or it was through before the reader left.
        assert!(["141\n", "0\n"].contains(&ended.stdout.as_str()) && ended.stderr.is_empty(), "{arguments}: {ended:?}");
    }
}
