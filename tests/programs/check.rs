//! `segprobe check`: exit codes, the plan that sends nothing, JSON that parses, a table that suits a pipe.

use std::{
    io::ErrorKind,
    net::{SocketAddr, TcpListener, UdpSocket},
};

use serde_json::{Value, json};

use crate::support::{Silent, closed, directory, find, listen, segprobe, write_config};

/// A boundary over one endpoint, with a control that answers.
fn config(expect: &str, closed: &str, control: SocketAddr, target: SocketAddr) -> String {
    format!(
        "zones: {{low: {{namespaces: [web]}}, high: {{namespaces: [payments]}}}}
boundaries:
  - {{name: b, from: low, to: high, interval: 1m, expect: {expect}, tcp: {{attempts: 1, closed: {closed}}}}}
vantage: {{namespace: web, identity: front}}
targets:
  - {{zone: high, namespace: payments, service: ledger, endpoints: [{}], ports: [{}]}}
controls: {{positive: [{{tcp: '{control}'}}]}}
dns: {{resolver: 127.0.0.1:1, servers: []}}
",
        target.ip(),
        target.port()
    )
}

/// Exit code and reason.
fn check(expect: &str, closed: &str, control: SocketAddr, target: SocketAddr, more: &[&str]) -> (Option<i32>, String) {
    let directory = directory();
    let path = write_config(directory.path(), &config(expect, closed, control, target));
    let ended = segprobe(&[&["check", "--config.file", &path, "--output", "json"], more].concat());
    let report: Value = serde_json::from_str(&ended.stdout).unwrap_or_else(|e| panic!("{e}: {ended:?}"));
    let check = find(&report, "tcp-connect", &format!("ledger:{}", target.port()));
    (ended.code, check["reason"].as_str().unwrap().to_owned())
}

#[test]
fn exit_codes() {
    let ((_control, control), (_open, open), closed) = (listen(), listen(), closed());
    let nobody = crate::support::closed();
    for (expect, rule, control, target, more, expected) in [
        ("open", "fail", control, open, &[][..], (0, "reachable")),
        ("open", "fail", control, closed, &[], (1, "not-reached")),
        ("blocked", "fail", control, open, &[], (1, "reached")),
        ("blocked", "fail", control, closed, &[], (1, "host-answered")),
        ("blocked", "inconclusive", control, closed, &[], (2, "closed-ambiguous")),
        ("blocked", "unverified", control, closed, &[], (0, "closed-unwitnessed")),
        ("blocked", "unverified", control, closed, &["--require-witness"], (2, "closed-unwitnessed")),
        ("open", "fail", control, open, &["--require-witness"], (0, "reachable")),
        // A vantage that reaches nothing proves nothing, but what it does reach is reached.
        ("blocked", "unverified", nobody, closed, &[], (2, "vantage-offline")),
        ("open", "fail", nobody, closed, &[], (2, "vantage-offline")),
        ("blocked", "fail", nobody, open, &[], (1, "reached")),
    ] {
        let (code, reason) = check(expect, rule, control, target, more);
        assert_eq!((code, reason.as_str()), (Some(expected.0), expected.1), "{expect} {rule} {target} {more:?}");
    }
}

#[test]
fn silence_without_a_witness_is_unverified() {
    let ((_control, control), silent) = (listen(), Silent::new());
    let found = check("blocked", "fail", control, silent.address, &[]);
    assert_eq!(found, (Some(0), "no-witness".to_owned()));
}

#[test]
fn an_address_that_nobody_has_and_yet_answers_captures() {
    let ((_control, control), (_open, open)) = (listen(), listen());
    // The negative control is an address of our own, on the target's port: it answers, as a proxy would.
    let nobody = TcpListener::bind((crate::support::loopback(), open.port())).unwrap();
    let directory = directory();
    let negative = format!("negative: [{{tcp: {}, ports: [{}]}}]", nobody.local_addr().unwrap().ip(), open.port());
    let text = config("blocked", "fail", control, open).replace("controls: {", &format!("controls: {{{negative}, "));
    let path = write_config(directory.path(), &text);
    let ended = segprobe(&["check", "--config.file", &path]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stdout.contains("captured: "), "{ended:?}");
}

#[test]
fn wrong_usage() {
    for arguments in [
        &[][..],
        &["check"],
        &["check", "--config.file"],
        &["check", "--config.file", "/nonexistent"],
        &["check", "--config.file", "x", "--output", "xml"],
        &["agent", "--config.file", "x", "--web.telemetry-path", "/"],
        &["colour"],
    ] {
        let ended = segprobe(arguments);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(64), ""), "{arguments:?}: {ended:?}");
        assert!(!ended.stderr.is_empty() && !ended.stderr.contains("panicked"), "{arguments:?}: {ended:?}");
    }
    assert_eq!(segprobe(&["--help"]).code, Some(0));
}

#[test]
fn a_plan_sends_nothing() {
    let ((control_listener, control), (target_listener, target)) = (listen(), listen());
    let dns = UdpSocket::bind((crate::support::loopback(), 0)).unwrap();
    let directory = directory();
    let server =
        format!("timeout: 100ms, attempts: 1, servers: [{{name: s, address: '{}'}}]", dns.local_addr().unwrap());
    let text = config("blocked", "fail", control, target).replace("servers: []", &server);
    let path = write_config(directory.path(), &text);

    let ended = segprobe(&["check", "--config.file", &path, "--plan"]);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{ended:?}");
    for told in
        ["6 checks of 1 addresses and ports", "packets a second", "b tcp-connect payments/ledger:", "srv-wildcard s"]
    {
        assert!(ended.stdout.contains(told), "{told:?} is not in {}", ended.stdout);
    }
    for listener in [&control_listener, &target_listener] {
        listener.set_nonblocking(true).unwrap();
        assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    }
    dns.set_nonblocking(true).unwrap();
    assert_eq!(dns.recv(&mut [0; 512]).unwrap_err().kind(), ErrorKind::WouldBlock);

    // What does not fit into a sweep is said before any is sent.
    assert!(!ended.stdout.contains("go on from sweep to sweep"), "{}", ended.stdout);
    let slow = text.replace("dns: {", "dns: {queries_per_second: 1, ");
    assert_ne!(slow, text);
    let path_of_slow = write_config(directory.path(), &slow);
    let ended = segprobe(&["check", "--config.file", &path_of_slow, "--plan"]);
    assert!(ended.stdout.contains("go on from sweep to sweep"), "{}", ended.stdout);
    let path = write_config(directory.path(), &text);

    // The same sockets do hear a check.
    let _ = segprobe(&["check", "--config.file", &path]);
    assert!(control_listener.accept().is_ok() && target_listener.accept().is_ok() && dns.recv(&mut [0; 512]).is_ok());
}

#[test]
fn the_json_says_what_was_tested_and_what_not() {
    let ((_control, control), (_open, open)) = (listen(), listen());
    let directory = directory();
    let path = write_config(directory.path(), &config("blocked", "fail", control, open));
    let ended = segprobe(&["check", "--config.file", &path, "--output", "json", "--node.name", "node-7"]);
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!((&report["format"], &report["node"]), (&json!(1), &json!("node-7")));
    assert_eq!(report["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(report["config_hash"].as_str().unwrap().len(), 64);
    let instant = |field: &str| report[field].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert!(instant("started") < instant("ended"));
    assert!(!report["kernel"].as_str().unwrap().is_empty() && report["icmp_evidence"].is_boolean());
    let gaps = report["not_tested"].as_array().unwrap();
    assert!(gaps.iter().any(|gap| gap["why"].as_str().unwrap().contains("no witness")), "{gaps:?}");
    assert!(gaps.iter().all(|gap| gap["boundary"] == "b" && gap["what"].is_string()), "{gaps:?}");
    assert_eq!(report["boundaries"][0]["expect"], "blocked");
    let check = find(&report, "tcp-connect", &format!("ledger:{}", open.port()));
    assert_eq!(
        (&check["verdict"], &check["source"], &check["via"]),
        (&json!("fail"), &json!("front"), &json!("endpoint"))
    );
    assert_eq!(check["addresses"][0]["address"], open.to_string());
}

#[test]
fn a_table_in_a_pipe_has_neither_colours_nor_breaks() {
    let ((_control, control), (_open, open)) = (listen(), listen());
    let directory = directory();
    let path = write_config(directory.path(), &config("blocked", "fail", control, open));
    let ended = segprobe(&["check", "--config.file", &path]);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(1), ""), "no progress either: {ended:?}");
    assert!(!ended.stdout.contains('\x1b') && !ended.stdout.contains('\r'), "{ended:?}");
    let row = ended.stdout.lines().find(|line| line.contains("FAIL")).unwrap();
    let told = [
        &format!("payments/ledger:{} (endpoint)", open.port()),
        "reached: the connection was accepted.",
        &format!("{open} open"),
    ];
    assert!(told.iter().all(|word| row.contains(*word)), "{row}");
    assert!(ended.stdout.contains("expected blocked: 1 fail"), "{ended:?}");
}
