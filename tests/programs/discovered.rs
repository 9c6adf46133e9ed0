//! An agent that reads what discovery wrote: a failure counts when the address is confirmed, and a heartbeat begins nothing anew.

use std::{fs, net::SocketAddr, path::Path, thread, time::Duration};

use jiff::Timestamp;
use serde_json::json;

use crate::support::{Agent, SOON, directory, find, listen, wait_for, write_config};

const FILE: [(&str, &str); 1] = [("file", "targets/0.json")];

/// Longer than the agent's look at its files.
const LOOKED: Duration = Duration::from_secs(8);

fn config(directory: &Path, control: SocketAddr) -> String {
    fs::create_dir(directory.join("targets")).unwrap();
    let text = format!(
        "zones: {{low: {{namespaces: [web]}}, high: {{}}}}
boundaries:
  - {{name: b, from: low, to: high, interval: 7s, tcp: {{attempts: 1, closed: unverified}}, dns: off}}
controls: {{positive: [{{tcp: '{control}'}}]}}
dns: {{resolver: 127.0.0.1:1, servers: []}}
target_files: [targets/*.json]
"
    );
    write_config(directory, &text)
}

/// Writes what discovery would: a Service with these endpoints.
fn write(directory: &Path, heartbeat: Timestamp, open: SocketAddr, endpoints: &[SocketAddr]) {
    let ips: Vec<_> = endpoints.iter().map(SocketAddr::ip).collect();
    let target =
        json!({"zone": "high", "namespace": "payments", "service": "ledger", "endpoints": ips, "ports": [open.port()]});
    let text = format!(
        "{{\"heartbeat\":\"{heartbeat}\",\n\"zones\":{{\"high\":[\"payments\"]}},\n\"targets\":[\n{target}\n]}}\n"
    );
    // As a ConfigMap changes: at once.
    let path = directory.join("targets/0.json");
    fs::write(path.with_extension("new"), text).unwrap();
    fs::rename(path.with_extension("new"), path).unwrap();
}

fn seconds(ahead: i64) -> Timestamp {
    Timestamp::from_second(Timestamp::now().as_second() + ahead).unwrap()
}

#[test]
fn a_reached_address_is_a_finding_when_discovery_still_lists_it() {
    let ((_control, control), (_open, open)) = (listen(), listen());
    let directory = directory();
    let path = config(directory.path(), control);
    // A word of before whatever is seen.
    let first = seconds(-30);
    write(directory.path(), first, open, &[open]);
    let agent = Agent::start(directory.path(), &path, &[]);
    agent.wait_for_sweeps();
    let (target, count) = (format!("ledger:{}", open.port()), [("boundary", "b"), ("check", "tcp-connect")]);
    let reason = || find(&agent.checks(), "tcp-connect", &target)["reason"].as_str().unwrap().to_owned();
    assert_eq!(reason(), "unconfirmed-address");
    let page = agent.page();
    assert_eq!(page.value("segprobe_findings_total", &count), Some(0.0));
    assert_eq!(page.value("segprobe_targets_heartbeat_timestamp_seconds", &FILE), Some(first.as_second() as f64));
    let reloads = |agent: &Agent| agent.page().value("segprobe_config_last_reload_success_timestamp_seconds", &[]);
    let loaded = reloads(&agent);

    // Still that old after another sweep, however often it is seen.
    thread::sleep(LOOKED);
    assert_eq!(
        (reason(), agent.page().value("segprobe_findings_total", &count)),
        ("unconfirmed-address".into(), Some(0.0))
    );

    // A newer word: a finding, and nothing was loaded again.
    let newer = seconds(60);
    write(directory.path(), newer, open, &[open]);
    wait_for("the finding is opened", SOON, || {
        (agent.page().value("segprobe_findings_total", &count) == Some(1.0)).then_some(())
    });
    assert_eq!(reason(), "reached");
    let page = agent.page();
    assert_eq!(page.value("segprobe_targets_heartbeat_timestamp_seconds", &FILE), Some(newer.as_second() as f64));
    assert!(page.value("segprobe_last_finding_timestamp_seconds", &count).is_some());
    assert_eq!(reloads(&agent), loaded, "a heartbeat is no reload");
    let log = agent.process.stderr();
    assert!(log.contains("event=finding-opened") && !log.contains("reloaded"), "{log}");
}

#[test]
fn a_reached_address_that_is_no_longer_listed_is_no_finding() {
    let ((_control, control), (_open, open), (_other, other)) = (listen(), listen(), listen());
    let directory = directory();
    let path = config(directory.path(), control);
    write(directory.path(), seconds(-30), open, &[open]);
    let agent = Agent::start(directory.path(), &path, &[]);
    agent.wait_for_sweeps();
    let count = [("boundary", "b"), ("check", "tcp-connect")];
    assert_eq!(
        find(&agent.checks(), "tcp-connect", &format!("ledger:{}", open.port()))["reason"],
        "unconfirmed-address"
    );

    // The pod is gone, and another is there: whoever answered at the address was not the target.
    write(directory.path(), seconds(60), open, &[other]);
    wait_for("the new list is read", SOON, || {
        let log = agent.process.stderr();
        log.contains("reloaded").then_some(())
    });
    thread::sleep(LOOKED);
    assert_eq!(agent.page().value("segprobe_findings_total", &count), Some(0.0));
    assert!(!agent.process.stderr().contains("finding-opened"));
}
