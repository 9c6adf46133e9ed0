//! Prometheus and promtool: what is exported is what a real scraper reads, and verdicts join in PromQL.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::Path,
    process::Command,
};

use serde_json::Value;

use crate::support::{
    Agent, SOON, closed, directory,
    dns::{honest, serve},
    listen, loopback, process,
    prometheus::{Prometheus, releases, value},
    wait_for, write_config,
};

/// The targets of both agents, as one inventory lists them: `(name, address)`.
fn inventory(targets: &[(&str, SocketAddr)]) -> String {
    let line = |(name, address): &(&str, SocketAddr)| {
        let (ip, port) = (address.ip(), address.port());
        format!("  - {{zone: high, namespace: payments, service: {name}, endpoints: [{ip}], ports: [{port}]}}\n")
    };
    targets.iter().map(line).collect()
}

/// The low agent (`blocked`) or the high one (`open`). Only the first sweep is of interest.
fn config(expect: &str, namespace: &str, control: SocketAddr, dns: &str, targets: &str) -> String {
    let nobody = loopback();
    format!(
        "zones: {{low: {{namespaces: [web]}}, high: {{namespaces: [payments]}}}}
boundaries:
  - {{name: b-{expect}, from: low, to: high, expect: {expect}, interval: 10m, tcp: {{attempts: 1, closed: unverified}}}}
vantage: {{namespace: {namespace}, identity: agent, source: {}}}
controls:
  positive: [{{tcp: '{control}'}}]
  negative: [{{tcp: {nobody}, ports: [1, {}]}}]
dns: {{resolver: 127.0.0.1:1, servers: {dns}}}
targets:
{targets}",
        loopback(),
        control.port(),
    )
}

/// Starts Prometheus with these agents alone, and with the rules.
fn scrape(program: &Path, directory: &Path, agents: &[&Agent]) -> Prometheus {
    let targets: Vec<String> = agents.iter().map(|agent| format!("'{}'", agent.address)).collect();
    let config = format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: ['{}/manifests/alerts/segprobe.rules.yaml']
scrape_configs: [{{job_name: segprobe, static_configs: [{{targets: [{}]}}]}}]
",
        env!("CARGO_MANIFEST_DIR"),
        targets.join(", ")
    );
    Prometheus::start(program, directory, &config)
}

#[test]
fn verdicts_are_scraped_and_those_of_two_zones_join() {
    let programs = releases("prometheus");
    if programs.is_empty() {
        return;
    }
    let ((_control, control), (_open, open), closed, later) = (listen(), listen(), closed(), closed());
    let targets = inventory(&[("open", open), ("closed", closed), ("later", later)]);
    let directory = directory();
    let server = serve(|query, to| to.send(&honest(query)), None);
    let servers = format!("[{{name: split, address: '{server}'}}]");
    let low_directory = directory.path().join("low");
    let high_directory = directory.path().join("high");
    fs::create_dir(&low_directory).unwrap();
    fs::create_dir(&high_directory).unwrap();

    let path = write_config(&low_directory, &config("blocked", "web", control, &servers, &targets));
    let low = Agent::start(&low_directory, &path, &[]);
    low.wait_for_sweeps();
    // What was closed to the low agent is open to the high one: on loopback only time can tell them apart.
    let _later = TcpListener::bind(later).unwrap();
    let path = write_config(&high_directory, &config("open", "payments", control, "[]", &targets));
    let high = Agent::start(&high_directory, &path, &[]);
    high.wait_for_sweeps();

    for (i, program) in programs.iter().enumerate() {
        println!("with {}", program.display());
        let directory = directory.path().join(format!("prometheus-{i}"));
        fs::create_dir(&directory).unwrap();
        let prometheus = scrape(program, &directory, &[&low, &high]);
        assert_scraped(&prometheus, &low);
        assert_verdicts(&prometheus, [open, closed, later]);
        assert_rules(&prometheus);
    }
}

fn assert_scraped(prometheus: &Prometheus, low: &Agent) {
    wait_for("both are scraped", SOON, || (prometheus.query("up == 1").len() == 2).then_some(()));
    for target in prometheus.api("targets")["data"]["activeTargets"].as_array().unwrap() {
        assert_eq!((&target["health"], &target["lastError"]), (&"up".into(), &"".into()), "{target:#}");
    }
    // Nothing was dropped on the way.
    let scraped = prometheus.query(&format!("scrape_samples_scraped{{instance=\"{}\"}}", low.address));
    assert_eq!(value(&scraped[0]), low.page().0.len() as f64);
}

fn assert_verdicts(prometheus: &Prometheus, [open, closed, later]: [SocketAddr; 3]) {
    // Three TCP checks each, and srv-wildcard and reverse-sweep of the low one; the other techniques are reported only.
    let checks = prometheus.query("sum without(verdict) (segprobe_check_verdict)");
    assert_eq!(checks.len(), 3 + 2 + 3, "{checks:#?}");
    assert!(checks.iter().all(|check| value(check) == 1.0), "{checks:#?}");
    let sets = prometheus.query("count without(verdict) (segprobe_check_verdict)");
    assert!(sets.iter().all(|set| value(set) == 4.0), "{sets:#?}");

    let of = |expect: &str| {
        let samples = prometheus.query(&format!("segprobe_check_verdict{{expect=\"{expect}\"}} == 1"));
        let word = |sample: &Value, label: &str| sample["metric"][label].as_str().unwrap_or_default().to_owned();
        let mut found: Vec<_> = samples.iter().map(|s| (word(s, "target"), word(s, "verdict"))).collect();
        found.sort();
        found
    };
    let expected = |words: [&str; 3]| {
        let mut all = vec![
            (format!("open:{}", open.port()), words[0].to_owned()),
            (format!("closed:{}", closed.port()), words[1].to_owned()),
            (format!("later:{}", later.port()), words[2].to_owned()),
        ];
        all.sort();
        all
    };
    let mut low_expected = expected(["fail", "unverified", "unverified"]);
    low_expected.extend([("split".into(), "pass".into()), ("split".into(), "pass".into())]);
    assert_eq!(of("blocked"), low_expected);
    assert_eq!(of("open"), expected(["pass", "fail", "pass"]));

    // Unverified alone, but the high zone's agent is the witness: only together they are a proof.
    let join = "segprobe_check_verdict{expect=\"blocked\",verdict=\"unverified\"}
        * on(check, target_namespace, target, via) group_left()
        segprobe_check_verdict{expect=\"open\",verdict=\"pass\"} == 1";
    let proven = prometheus.query(join);
    assert_eq!(proven.len(), 1, "{proven:#?}");
    let metric = &proven[0]["metric"];
    assert_eq!(metric["target"], format!("later:{}", later.port()));
    assert_eq!(
        (&metric["boundary"], &metric["source_namespace"], &metric["via"]),
        (&"b-blocked".into(), &"web".into(), &"endpoint".into())
    );
    // And a target that is down for its own zone proves nothing.
    let dead = prometheus.query(&join.replace("verdict=\"pass\"", "verdict=\"fail\""));
    assert_eq!(dead.len(), 1, "{dead:#?}");
    assert_eq!(dead[0]["metric"]["target"], format!("closed:{}", closed.port()));

    let findings = prometheus.query("segprobe_findings_total > 0");
    assert_eq!(findings.len(), 1, "an outage is no finding: {findings:#?}");
}

/// Every rule is evaluated without an error, and the reached target raises the alert.
fn assert_rules(prometheus: &Prometheus) {
    let breach = "ALERTS{alertname=\"SegprobeBreach\",boundary=\"b-blocked\",alertstate=\"firing\"}";
    wait_for("the breach is an alert", SOON, || (prometheus.query(breach).len() == 1).then_some(()));
    let rules = || {
        let groups = prometheus.api("rules")["data"]["groups"].as_array().unwrap().clone();
        // This group is evaluated every minute.
        let often = groups.into_iter().filter(|group| group["name"] != "segprobe.witnessed");
        often.flat_map(|group| group["rules"].as_array().unwrap().clone()).collect::<Vec<_>>()
    };
    wait_for("every rule is evaluated", SOON, || rules().iter().all(|rule| rule["health"] != "unknown").then_some(()));
    for rule in rules() {
        assert_eq!((&rule["health"], rule["lastError"].as_str()), (&"ok".into(), None), "{rule:#}");
    }
}

#[test]
fn promtool_has_nothing_to_say() {
    let programs = releases("promtool");
    if programs.is_empty() {
        return;
    }
    let ((_control, control), (_open, open)) = (listen(), listen());
    let directory = directory();
    let server = serve(|query, to| to.send(&honest(query)), None);
    let servers = format!("[{{name: split, address: '{server}'}}]");
    let targets = inventory(&[("open", open), ("closed", closed())]);
    let path = write_config(directory.path(), &config("blocked", "web", control, &servers, &targets));
    let agent = Agent::start(directory.path(), &path, &[]);
    agent.wait_for_sweeps();
    let page = agent.get("/metrics").text();
    let families = [
        "segprobe_check_verdict",
        "segprobe_findings_total",
        "segprobe_dns_disclosed_names",
        "segprobe_dns_queries_total",
        "segprobe_dns_sweep_progress_ratio",
        "segprobe_dns_last_full_coverage_timestamp_seconds",
        "segprobe_probes_total",
    ];
    assert!(families.iter().all(|family| page.contains(*family)), "{page}");

    let file = directory.path().join("page");
    fs::write(&file, page).unwrap();
    for program in programs {
        let mut command = Command::new("sh");
        command.args(["-c", "exec \"$0\" check metrics < \"$1\""]).args([&program, &file]);
        let ended = process::run(command, SOON);
        assert_eq!((ended.code, ended.stdout.as_str(), ended.stderr.as_str()), (Some(0), "", ""), "{program:?}");
    }
}
