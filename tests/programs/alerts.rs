//! The rule file: promtool takes it and its tests pass, every alert has tests, a runbook and a place in the documentation,
//! and no expression names what nobody exports. `UPDATE_MANIFESTS=1 cargo test --test programs alerts` writes the
//! PrometheusRule anew.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use segprobe::model::{CheckKind, Expect, Reason, Verdict, Via};
use serde::Deserialize;
use serde_json::Value;

use crate::support::{SOON, have, process, prometheus::promtool, reference};

const RULE_FILE: &str = "manifests/alerts/segprobe.rules.yaml";

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct RuleFile {
    groups: Vec<Group>,
}

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct Group {
    #[serde(rename = "name")]
    _name: String,
    #[serde(default, rename = "interval")]
    _interval: String,
    rules: Vec<Rule>,
}

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct Rule {
    alert: Option<String>,
    record: Option<String>,
    expr: String,
    #[serde(default, rename = "for")]
    lasts: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The files of a folder with this extension, in order; fails where there is none.
fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(folder)).unwrap_or_else(|e| panic!("{folder}: {e}"));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|found| found == extension));
    paths.sort();
    assert!(!paths.is_empty(), "no .{extension} in {folder}");
    paths
}

fn rule_file() -> RuleFile {
    serde_saphyr::from_str(&read(RULE_FILE)).unwrap_or_else(|e| panic!("{RULE_FILE}: {e}"))
}

fn rules() -> Vec<Rule> {
    rule_file().groups.into_iter().flat_map(|group| group.rules).collect()
}

/// Name and rule of each alert.
fn alerts() -> Vec<(String, Rule)> {
    rules().into_iter().filter_map(|rule| Some((rule.alert.clone()?, rule))).collect()
}

#[test]
fn promtool_takes_the_rules_and_their_tests_pass() {
    promtool(&["check", "rules"], &[RULE_FILE.into()]);
    promtool(&["test", "rules"], &files("tests/alerts", "yaml"));
}

#[test]
fn every_rule_has_a_test_that_sees_it_and_every_alert_one_that_hears_nothing() {
    let list = |value: &Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
    let mut fires = BTreeSet::new();
    let mut silent = BTreeSet::new();
    let mut recorded = Vec::new();
    for path in files("tests/alerts", "yaml") {
        let file: Value = serde_saphyr::from_str(&read(&path)).unwrap_or_else(|e| panic!("{path:?}: {e}"));
        for group in list(&file, "tests") {
            for test in list(&group, "alert_rule_test") {
                let name = test["alertname"].as_str().unwrap().to_owned();
                // All that is looked at must be said: promtool compares labels and annotations whole.
                if list(&test, "exp_alerts").is_empty() {
                    silent.insert(name)
                } else {
                    fires.insert(name)
                };
            }
            let seen =
                list(&group, "promql_expr_test").into_iter().filter(|test| !list(test, "exp_samples").is_empty());
            recorded.extend(seen.map(|test| test["expr"].as_str().unwrap().to_owned()));
        }
    }
    let names: BTreeSet<String> = alerts().into_iter().map(|(name, _)| name).collect();
    assert_eq!(fires, names, "alerts with a test in which they fire");
    assert_eq!(silent, names, "alerts with a test in which they are silent");
    for record in rules().into_iter().filter_map(|rule| rule.record) {
        assert!(recorded.iter().any(|expr| expr.contains(&record)), "no test looks at {record}");
    }
}

const REPOSITORY: &str = "https://github.com/segprobe/segprobe/blob/main/";
const DASHBOARDS: [&str; 4] = ["segprobe-overview", "segprobe-boundary", "segprobe-dns", "segprobe-agents"];
const SECTIONS: [&str; 6] =
    ["## What it says", "## How sure", "## First", "## Causes", "## Close it", "## False alarm"];

#[test]
fn every_alert_says_what_it_is_and_leads_to_its_runbook_and_dashboard() {
    let alerts = alerts();
    for (name, rule) in &alerts {
        assert!(name.starts_with("Segprobe"), "{name}");
        let severity = rule.labels.get("severity").map_or("", String::as_str);
        assert!(["critical", "warning", "info"].contains(&severity), "{name}: severity {severity:?}");
        let keys: Vec<&str> = rule.annotations.keys().map(String::as_str).collect();
        assert_eq!(keys, ["dashboard_url", "description", "runbook_url", "summary"], "{name}");
        let runbook = format!("docs/runbooks/{name}.md");
        assert_eq!(rule.annotations["runbook_url"], format!("{REPOSITORY}{runbook}"), "{name}");
        let text = read(&runbook);
        assert!(text.starts_with(&format!("# {name}\n")), "{runbook}: the title");
        let sections: Vec<&str> = text.lines().filter(|line| line.starts_with("## ")).collect();
        assert_eq!(sections, SECTIONS, "{runbook}");
        let dashboard =
            rule.annotations["dashboard_url"].strip_prefix("/d/").unwrap_or_else(|| panic!("{name}: a path"));
        assert!(
            DASHBOARDS.iter().any(|uid| dashboard.starts_with(&format!("{uid}?var-cluster="))),
            "{name}: {dashboard}"
        );
    }
    let named: BTreeSet<String> = alerts.iter().map(|(name, _)| format!("{name}.md")).collect();
    let found =
        files("docs/runbooks", "md").into_iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned());
    assert_eq!(found.collect::<BTreeSet<_>>(), named, "runbooks");
}

/// What the scrape adds to every series.
const TARGET_LABELS: [&str; 6] = ["cluster", "namespace", "node", "pod", "instance", "job"];

/// Metrics of others: Prometheus' own, kube-state-metrics', and what every exporter tells of its process.
const OTHERS: [(&str, &[&str]); 7] = [
    ("up", &[]),
    ("scrape_duration_seconds", &[]),
    ("process_start_time_seconds", &[]),
    ("process_cpu_seconds_total", &[]),
    ("kube_pod_info", &["created_by_name"]),
    ("kube_pod_status_phase", &["phase"]),
    ("kube_daemonset_status_desired_number_scheduled", &["daemonset"]),
];

/// The labels of each metric, as the reference has them.
fn exported() -> BTreeMap<String, BTreeSet<String>> {
    let told = reference::metrics("Agents").into_iter().chain(reference::metrics("Discovery"));
    let mut metrics: BTreeMap<_, _> = told.map(|(name, metric)| (name, metric.labels)).collect();
    for (name, labels) in OTHERS {
        metrics.insert(name.to_owned(), labels.iter().map(|&label| label.to_owned()).collect());
    }
    metrics
}

fn reasons() -> Vec<&'static str> {
    Reason::ALL.iter().map(|reason| reason.as_str()).collect()
}

/// The words that a label's value can be; none where it is free.
fn words(label: &str) -> Option<Vec<&'static str>> {
    Some(match label {
        "verdict" => Verdict::ALL.iter().map(|word| word.as_str()).collect(),
        "expect" => Expect::ALL.iter().map(|word| word.as_str()).collect(),
        "check" => CheckKind::ALL.iter().map(|word| word.as_str()).collect(),
        "via" => Via::ALL.iter().map(|word| word.as_str()).collect(),
        "reason" => reasons(),
        _ => return None,
    })
}

#[test]
fn expressions_name_only_what_is_exported() {
    let known = Known::new();
    for rule in &rules() {
        let name = rule.alert.as_ref().or(rule.record.as_ref()).unwrap();
        // The queries within descriptions are between backticks, with `%q` for values.
        let description = rule.annotations.get("description").map_or("", String::as_str);
        let queries = description.split('`').skip(1).step_by(2).filter(|text| text.contains("%q"));
        let queries: Vec<String> = queries.map(|query| query.replace("%q", "\"\"")).collect();
        assert_eq!(description.matches("| query").count(), queries.len(), "{name}: {description}");
        for expr in [&rule.expr].into_iter().chain(&queries) {
            known.check(name, expr);
        }
    }
}

/// The queries of the runbooks, which nobody has time to mend at night.
#[test]
fn queries_of_the_runbooks_parse_and_name_only_what_is_exported() {
    let known = Known::new();
    let mut rule_file = "groups: [{name: runbooks, rules: [\n".to_owned();
    for path in files("docs/runbooks", "md") {
        let text = read(&path);
        let blocks = text.split("```promql\n").skip(1).map(|rest| rest.split_once("```").unwrap().0);
        // An expression begins at the margin and goes on where lines are indented.
        for expr in blocks.flat_map(|block| block.replace("\n ", " ").lines().map(str::to_owned).collect::<Vec<_>>()) {
            known.check(&path.display().to_string(), &expr);
            rule_file += &format!("{{record: 'runbook', expr: {}}},\n", Value::from(expr));
        }
    }
    let directory = crate::support::directory();
    let file = directory.path().join("runbooks.yaml");
    fs::write(&file, rule_file + "]}]").unwrap();
    promtool(&["check", "rules", "--lint=none"], &[file]);
}

/// All names that an expression may use.
struct Known {
    exported: BTreeMap<String, BTreeSet<String>>,
    recorded: BTreeSet<String>,
}

impl Known {
    fn new() -> Self {
        Self { exported: exported(), recorded: rules().into_iter().filter_map(|rule| rule.record).collect() }
    }

    fn check(&self, place: &str, expr: &str) {
        let named = scan(expr);
        assert!(!named.selectors.is_empty(), "{place}: {expr}");
        for (metric, matchers) in &named.selectors {
            let labels = self.exported.get(metric.trim_end_matches("_bucket"));
            assert!(labels.is_some() || self.recorded.contains(metric), "{place}: nobody exports `{metric}`");
            for (label, value) in matchers {
                let known = labels.is_none_or(|labels| labels.contains(label));
                assert!(known || TARGET_LABELS.contains(&label.as_str()), "{place}: `{metric}` has no `{label}`");
                let Some(words) = words(label) else { continue };
                for word in value.split('|').filter(|word| !word.is_empty()) {
                    assert!(words.contains(&word), "{place}: `{label}` is never `{word}`");
                }
            }
        }
        for label in &named.grouping {
            let known = TARGET_LABELS.contains(&label.as_str()) || self.exported.values().any(|of| of.contains(label));
            assert!(known, "{place}: nobody has the label `{label}`");
        }
    }
}

#[derive(Default)]
struct Named {
    /// Metrics with the labels and values that they are selected by.
    selectors: Vec<(String, Vec<(String, String)>)>,
    /// Labels in `by (…)`, `on (…)` and the like.
    grouping: Vec<String>,
}

/// As much of PromQL's grammar as tells names from functions. promtool has parsed it all.
fn scan(expr: &str) -> Named {
    const AGGREGATIONS: [&str; 7] = ["sum", "count", "max", "min", "avg", "group", "topk"];
    const GROUPINGS: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];
    const OPERATORS: [&str; 5] = ["and", "or", "unless", "bool", "offset"];
    let mut named = Named::default();
    let mut rest = expr;
    while let Some(first) = rest.chars().next() {
        let in_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        if first == '[' {
            rest = rest.split_once(']').unwrap().1;
        } else if first.is_ascii_digit() {
            rest = rest.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '.');
        } else if in_name(first) {
            let (name, after) = rest.split_at(rest.find(|c| !in_name(c)).unwrap_or(rest.len()));
            rest = after.trim_start();
            if GROUPINGS.contains(&name) {
                let (labels, after) = rest.strip_prefix('(').unwrap().split_once(')').unwrap();
                named.grouping.extend(labels.split(',').map(|l| l.trim().to_owned()).filter(|l| !l.is_empty()));
                rest = after;
            } else if !AGGREGATIONS.contains(&name) && !OPERATORS.contains(&name) && !rest.starts_with('(') {
                let mut matchers = Vec::new();
                if let Some(inner) = rest.strip_prefix('{') {
                    rest = inner;
                    while !rest.starts_with('}') {
                        let (label, after) = rest.split_once('"').unwrap();
                        let (value, after) = after.split_once('"').unwrap();
                        let label = label.trim_end_matches(['=', '!', '~']).trim();
                        matchers.push((label.to_owned(), value.to_owned()));
                        rest = after.trim_start_matches([',', ' ']);
                    }
                    rest = &rest[1..];
                }
                named.selectors.push((name.to_owned(), matchers));
            }
        } else {
            rest = &rest[first.len_utf8()..];
        }
    }
    named
}

/// One Prometheus may hold many clusters, and a boundary has the same name in all of them.
#[test]
fn every_aggregation_keeps_the_cluster() {
    for rule in rules() {
        let name = rule.alert.as_ref().or(rule.record.as_ref()).unwrap();
        for lists in ["by (", "on ("].map(|word| rule.expr.split(word).skip(1)) {
            for list in lists.map(|rest| rest.split_once(')').unwrap().0).filter(|list| !list.is_empty()) {
                assert!(list.split(", ").any(|label| label == "cluster"), "{name}: ({list}) in {}", rule.expr);
            }
        }
    }
}

#[test]
fn the_scanner_tells_names_from_functions() {
    let named = scan(r#"sum by (a, b) (rate(x_total{c="d", e=~"f|g"}[5m])) > bool 0.5 * on () y unless z offset 1h"#);
    let of = |name: &str, matchers: &[(&str, &str)]| {
        (name.to_owned(), matchers.iter().map(|(l, v)| ((*l).to_owned(), (*v).to_owned())).collect())
    };
    assert_eq!(named.selectors, [of("x_total", &[("c", "d"), ("e", "f|g")]), of("y", &[]), of("z", &[])]);
    assert_eq!(named.grouping, ["a", "b"]);
}

/// `docs/alerts.md` has a row for each rule. What it says of an expression is for people.
#[test]
fn the_reference_lists_every_rule() {
    let text = read("docs/alerts.md");
    let rows = |prefix: &str| -> Vec<Vec<String>> {
        let cell = |cell: &str| cell.trim().trim_matches('`').to_owned();
        let rows = text.lines().filter(|line| line.starts_with(prefix));
        rows.map(|line| line.trim_matches('|').split(" | ").map(cell).collect()).collect()
    };
    let written: Vec<Vec<String>> = rows("| [`Segprobe").into_iter().map(|row| row[..3].to_vec()).collect();
    let expected = alerts().into_iter().map(|(name, rule)| {
        let lasts = if rule.lasts.is_empty() { "0" } else { &rule.lasts };
        vec![format!("[`{name}`](runbooks/{name}.md)"), rule.labels["severity"].clone(), lasts.to_owned()]
    });
    assert_eq!(written, expected.collect::<Vec<_>>(), "alerts in docs/alerts.md: name, severity, for");
    let written: Vec<String> = rows("| `segprobe:").into_iter().map(|row| row[0].clone()).collect();
    let expected: Vec<String> = rules().into_iter().filter_map(|rule| rule.record).collect();
    assert_eq!(written, expected, "recording rules in docs/alerts.md");
}

/// The documentation's patches name a rule by its place.
#[test]
fn patches_of_the_reference_find_their_rules() {
    let groups = rule_file().groups;
    let text = read("docs/alerts.md");
    let tests = text.split("op: test, path: /spec/groups/").skip(1);
    let found = tests.map(|rest| {
        let (path, value) = rest.split_once("/alert, value: ").unwrap();
        let (group, rule) = path.split_once("/rules/").unwrap();
        let rule = &groups[group.parse::<usize>().unwrap()].rules[rule.parse::<usize>().unwrap()];
        let value = value.split('}').next();
        assert_eq!(rule.alert.as_deref(), value, "docs/alerts.md: /spec/groups/{path}");
    });
    assert!(found.count() > 0, "docs/alerts.md: no patch");
}

#[test]
fn alertmanager_takes_the_configuration_of_the_reference() {
    if !have("amtool") {
        return;
    }
    let text = read("docs/alerts.md");
    let block = text.split_once("## Alertmanager\n\n```yaml\n").unwrap().1.split_once("```").unwrap().0;
    let directory = crate::support::directory();
    let file = directory.path().join("alertmanager.yml");
    fs::write(&file, block).unwrap();
    let mut command = Command::new("amtool");
    command.arg("check-config").arg(&file);
    let checked = process::run(command, SOON);
    assert_eq!(checked.code, Some(0), "{}{}", checked.stdout, checked.stderr);
}

const PROMETHEUS_RULE: &str = "manifests/overlays/prometheus-operator/prometheus-rule.yaml";
const HEAD: &str = "\
# Made of manifests/alerts/segprobe.rules.yaml by `UPDATE_MANIFESTS=1 cargo test --test programs alerts`; a test compares it.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: segprobe
  namespace: monitoring
  labels:
    app.kubernetes.io/name: segprobe
spec:
";

#[test]
fn the_prometheus_rule_is_the_rule_file() {
    let rule_file = read(RULE_FILE);
    let indented = rule_file.lines().map(|line| if line.is_empty() { "\n".to_owned() } else { format!("  {line}\n") });
    let made = format!("{HEAD}{}", indented.collect::<String>());
    if env::var_os("UPDATE_MANIFESTS").is_some() {
        fs::write(root().join(PROMETHEUS_RULE), &made).unwrap();
    }
    assert_eq!(read(PROMETHEUS_RULE), made, "{PROMETHEUS_RULE}: run the test once with UPDATE_MANIFESTS=1");
    // Indented text means the same.
    let parse = |text: &str| serde_saphyr::from_str::<Value>(text).unwrap();
    assert_eq!(parse(&made)["spec"], parse(&rule_file));
}
