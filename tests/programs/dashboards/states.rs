//! The numbers that answer "are we segmented?", from series that were made up: each state once, by promtool.

use std::{fmt::Write as _, fs};

use super::{Dashboard, expression_of, interpolate};
use crate::support::{directory, prometheus::promtool};

/// The verdicts, each with one of its reasons.
const VERDICTS: [(&str, &str); 4] =
    [("fail", "reached"), ("inconclusive", "lossy"), ("unverified", "no-witness"), ("pass", "blocked")];

/// A boundary, how many of its checks have which of the verdicts, and the state that must come of them.
const STATES: [(&str, [u32; 4], u32); 5] = [
    ("breached", [1, 9, 9, 9], 5),
    ("unknown", [0, 1, 9, 9], 4),
    ("untested", [0, 0, 0, 0], 3),
    ("unproven", [0, 0, 1, 9], 2),
    ("proven", [0, 0, 0, 9], 1),
];

/// Asked at 20 minutes, for the ten minutes before.
fn unit(series: &[(String, String)], expression: &str, expected: &[(String, String)]) -> String {
    let mut text = String::from("- interval: 1m\n  input_series:\n");
    for (name, values) in series {
        writeln!(text, "  - {{series: '{name}', values: '{values}'}}").unwrap();
    }
    let expression = expression.replace('\n', " ");
    writeln!(text, "  promql_expr_test:\n  - eval_time: 20m\n    expr: '{expression}'\n    exp_samples:").unwrap();
    for (labels, value) in expected {
        writeln!(text, "    - {{labels: '{labels}', value: {value}}}").unwrap();
    }
    text
}

fn pair(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

#[test]
fn dashboards_tell_every_state_and_what_was_short() {
    let dashboards = Dashboard::all();
    let asked = |title: &str, cluster: &str| {
        let variables = [("cluster", cluster.to_owned()), ("job", "segprobe".to_owned())];
        interpolate(expression_of(&dashboards, "segprobe-overview", title, 0), &variables)
    };

    let mut checks = Vec::new();
    for (boundary, counts, _) in STATES {
        for ((verdict, reason), count) in VERDICTS.iter().zip(counts) {
            let labels = format!(
                "cluster=\"{boundary}\",boundary=\"{boundary}\",expect=\"blocked\",verdict=\"{verdict}\",reason=\"{reason}\""
            );
            // On another node all is well, and an outage is no breach.
            for (node, value) in [(1, count), (2, u32::from(*verdict == "pass" && count > 0))] {
                checks.push(pair(
                    &format!("segprobe_boundary_checks{{node=\"{node}\",{labels}}}"),
                    &format!("{value}x30"),
                ));
            }
        }
        let outage =
            format!("cluster=\"{boundary}\",boundary=\"open\",expect=\"open\",verdict=\"fail\",reason=\"not-reached\"");
        checks.push(pair(&format!("segprobe_boundary_checks{{node=\"1\",{outage}}}"), "1x30"));
    }
    // Agents of another kind test what these do not.
    let elsewhere =
        r#"cluster="untested",boundary="untested",expect="blocked",verdict="pass",reason="blocked",namespace="other""#;
    checks.push(pair(&format!("segprobe_boundary_checks{{node=\"1\",{elsewhere}}}"), "9x30"));
    let states: Vec<_> = STATES
        .iter()
        .map(|(boundary, _, state)| {
            pair(&format!("{{cluster=\"{boundary}\",boundary=\"{boundary}\"}}"), &state.to_string())
        })
        .collect();
    let mut units = unit(&checks, &asked("Must be blocked", ".*"), &states);
    units += &unit(&checks, &asked("Are we segmented?", ".*"), &[pair("{}", "5")]);
    units += &unit(&checks, &asked("Are we segmented?", "unknown|proven|untested"), &[pair("{}", "4")]);
    units += &unit(&checks, &asked("Are we segmented?", "proven|untested|unproven"), &[pair("{}", "3")]);
    units += &unit(&checks, &asked("Are we segmented?", "proven"), &[pair("{}", "1")]);
    units += &unit(&checks, &asked("Are we segmented?", "nowhere"), &[]);

    // The time is the value. One finding is long ago; one was opened, closed and its agent replaced within the range.
    let agent = |node: u32| pair(&format!("segprobe_boundary_info{{cluster=\"c\",node=\"{node}\"}}"), "1x30");
    let last = |node: u32, values: &str| {
        pair(
            &format!(
                "segprobe_last_finding_timestamp_seconds{{cluster=\"c\",node=\"{node}\",boundary=\"b\",check=\"tcp-connect\"}}"
            ),
            values,
        )
    };
    let long_ago = [agent(1), last(1, "100x30")];
    let short = [agent(1), agent(2), last(1, "100x30"), last(2, "_x12 750 750 stale")];
    units += &unit(&long_ago, &asked("Nodes with a finding", ".*"), &[pair("{}", "0")]);
    units += &unit(&short, &asked("Nodes with a finding", ".*"), &[pair("{}", "1")]);
    units += &unit(&short, &asked("Last finding", ".*"), &[pair("{}", "750000")]);
    units += &unit(&short, &asked("Nodes with a finding", "nowhere"), &[]);
    // Discovery alone finds nothing, and that is no good news.
    let discovery = [pair("segprobe_build_info{cluster=\"c\",node=\"1\"}", "1x30")];
    units += &unit(&discovery, &asked("Nodes with a finding", ".*"), &[]);

    let directory = directory();
    let file = directory.path().join("states.yaml");
    fs::write(&file, format!("rule_files: []\nevaluation_interval: 1m\ntests:\n{units}")).unwrap();
    promtool(&["test", "rules"], &[file]);
}
