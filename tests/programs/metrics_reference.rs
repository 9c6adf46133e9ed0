//! `docs/metrics.md` has every metric that the code exports, and no other, with its type and its labels.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use crate::support::{Agent, SOON, closed, directory, http, listen, loopback, reference, wait_for, write_config};

/// The metrics that the code names.
fn named() -> BTreeSet<String> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/export");
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(directory)
        .unwrap()
        .map(Result::unwrap)
        .filter(|e| e.path().is_file() && e.file_name() != "tests.rs")
    {
        let code = fs::read_to_string(entry.path()).unwrap();
        let quoted = code.split('"').skip(1).step_by(2);
        let is_name = |text: &&str| {
            text.starts_with("segprobe_")
                && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        };
        names.extend(quoted.filter(is_name).map(str::to_owned));
    }
    names
}

#[test]
fn the_reference_and_the_code_name_the_same_metrics() {
    let mut told: BTreeSet<String> = reference::metrics("Agents").into_keys().collect();
    told.extend(reference::metrics("Discovery").into_keys());
    assert_eq!(told, named());
}

/// Types and labels of what an agent really exports: its page is read as Prometheus reads it.
#[test]
fn types_and_labels_are_those_of_the_reference() {
    let directory = directory();
    let ((_open, open), shut, nobody) = (listen(), closed(), loopback());
    let targets = directory.path().join("targets.json");
    let text = format!(
        r#"{{"heartbeat": "2026-11-26T03:34:19Z", "nodes": ["a"], "targets": [
        {{"zone": "high", "namespace": "payments", "service": "open", "cluster_ip": ["{}"], "ports": [{}]}},
        {{"zone": "high", "namespace": "payments", "service": "shut", "endpoints": ["{}"], "ports": [{}]}}]}}"#,
        open.ip(),
        open.port(),
        shut.ip(),
        shut.port(),
    );
    fs::write(&targets, text).unwrap();
    let config = format!(
        "zones: {{low: {{namespaces: [web]}}, high: {{namespaces: [payments]}}}}
boundaries: [{{name: b, from: low, to: high, interval: 10m, tcp: {{attempts: 1}}}}]
target_files: [targets.json]
vantage: {{namespace: web, identity: agent, source: {}}}
controls: {{positive: [{{tcp: '{open}'}}], negative: [{{tcp: {nobody}, ports: [1]}}]}}
dns: {{resolver: 127.0.0.1:1, servers: [127.0.0.1:1], timeout: 100ms, attempts: 1}}
",
        loopback(),
    );
    let agent = Agent::start(directory.path(), &write_config(directory.path(), &config), &[]);
    let page = wait_for("a finding, and what DNS told", SOON, || {
        let page = String::from_utf8(http::get(agent.address, "/metrics").body).unwrap();
        let has = |name: &str| page.contains(&format!("\n{name}{{"));
        (has("segprobe_last_finding_timestamp_seconds") && has("segprobe_sweep_last_completed_timestamp_seconds"))
            .then_some(page)
    });
    let known = reference::metrics("Agents");
    let (mut types, mut seen) = (BTreeMap::new(), BTreeSet::new());
    for line in page.lines().filter(|line| line.contains("segprobe_")) {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            types.insert(name.to_owned(), kind.to_owned());
            continue;
        }
        let Some((sample, _)) = line.rsplit_once(' ').filter(|_| !line.starts_with('#')) else { continue };
        let (name, labels) = sample.split_once('{').unwrap_or((sample, ""));
        let family = types.keys().find(|family| {
            name.strip_prefix(family.as_str()).is_some_and(|rest| ["", "_bucket", "_sum", "_count"].contains(&rest))
        });
        let family = family.unwrap_or_else(|| panic!("{line}: no type was told before it"));
        let metric = known.get(family).unwrap_or_else(|| panic!("{family} is not in the reference"));
        assert_eq!(types[family], metric.kind, "{family}");
        // Values here have neither commas nor quotes.
        let labels =
            labels.trim_end_matches('}').split("\",").filter_map(|label| Some(label.split_once('=')?.0.to_owned()));
        let labels: BTreeSet<String> = labels.filter(|label| label != "le").collect();
        assert_eq!(labels, metric.labels, "{line}");
        seen.insert(family.clone());
    }
    // The rest needs pods, DNS servers that answer, or an agent that overruns.
    assert!(seen.len() > 20, "{seen:?}");
}
