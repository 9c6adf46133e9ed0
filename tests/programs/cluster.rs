//! `tests/cluster/run` against a stand-in for kubectl with two nodes, so that the script itself is known to see what it must:
//! a node that does not report a breach fails its case, and the other cases go on. CI runs the script on a real cluster.

use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use crate::support::{directory, have, process};

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster/run")
}

/// What agents on two nodes serve: every address is reached while there is no policy, but the agent `blind` never sees it.
fn serve_agents(state: PathBuf, blind: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 1024];
            let read = stream.read(&mut request).unwrap();
            let agent = fs::read_to_string(state.join("forwarded")).unwrap();
            let agent = agent.trim();
            // Any policy on the targets' ingress isolates them, as on a real cluster.
            let isolates =
                |object: &str| object.contains("kind: NetworkPolicy\n") && object.contains("\n  namespace: payments\n");
            let applied = fs::read_to_string(state.join("applied")).unwrap();
            let is_open = !state.join("policy").exists() && !applied.split("---\n").any(isolates) && agent != blind;
            let answer = if request[..read].starts_with(b"GET /metrics ") {
                let total = if is_open { 2 } else { 0 };
                format!("segprobe_findings_total{{boundary=\"low-to-high\",check=\"tcp-connect\"}} {total}\n")
            } else {
                report(agent.starts_with("segprobe-witness/"), is_open).to_string()
            };
            let _ = write!(stream, "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{answer}", answer.len());
        }
    });
    port
}

/// The checks of the example's Service with two pods, as far as the script reads them.
fn report(is_witness: bool, is_open: bool) -> Value {
    let (verdict, reason) = match (is_witness, is_open) {
        (true, _) => ("pass", "reachable"),
        (false, true) => ("fail", "reached"),
        (false, false) => ("unverified", "no-witness"),
    };
    let check = |via: &str, addresses: &[&str]| {
        let addresses: Vec<Value> =
            addresses.iter().map(|address| json!({"address": address, "verdict": verdict, "reason": reason})).collect();
        let findings = if verdict == "fail" { addresses.clone() } else { Vec::new() };
        json!({"check": "tcp-connect", "target_namespace": "payments", "target": "ledger:5432", "source": "own",
               "via": via, "verdict": verdict, "reason": reason, "addresses": addresses, "findings": findings})
    };
    json!({"checks": [
        check("endpoint", &["10.244.1.5:5432", "10.244.2.5:5432", "[fd00::1:5]:5432", "[fd00::2:5]:5432"]),
        check("service", &["10.96.0.40:5432", "[fd00::40]:5432"]),
    ]})
}

/// What the script asks of kubectl, answered for two nodes. What it applies is rendered by the real one, which is next in the path.
fn stand_in(bin: &Path, state: &Path, port: u16) {
    let state = state.display();
    let text = format!(
        r#"#!/usr/bin/env bash
echo "$*" >> "{state}/calls"
case "$*" in
  "kustomize "*) PATH=${{PATH#*:}} kubectl "$@" ;;
  "apply -f -") cat > "{state}/applied" ;;
  "apply -f manifests/example/policy.yaml") touch "{state}/policy" ;;
  "delete"*"-f manifests/example/policy.yaml") rm -f "{state}/policy" ;;
  "get pods -A "*)
    for namespace in segprobe segprobe-system segprobe-witness; do
      printf '%s node-1 a containerd://none\n%s node-2 b containerd://none\n' $namespace $namespace
    done ;;
  "-n "*" get pod "*restartCount*) printf 0 ;;
  "-n "*" port-forward pod/"*)
    pod=${{4#pod/}}
    echo "$2/$pod" > "{state}/forwarded"
    echo "Forwarding from 127.0.0.1:{port} -> 11450"
    exec sleep 60 ;;
  "delete "*" --timeout=120s"|"-n "*" rollout status "*) ;;
  *) echo "the stand-in for kubectl does not know: $*" >&2; exit 1 ;;
esac
"#
    );
    let path = bin.join("kubectl");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn run_beside_stand_in(cases: &[&str], blind: &'static str) -> (process::Ended, String) {
    let directory = directory();
    let (bin, state) = (directory.path().join("bin"), directory.path().join("state"));
    fs::create_dir(&bin).unwrap();
    fs::create_dir(&state).unwrap();
    stand_in(&bin, &state, serve_agents(state.clone(), blind));
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let mut command = Command::new(script());
    command
        .args(cases)
        .env("PATH", path)
        .env("KUBECONFIG", "/nowhere")
        .env("IMAGE", "registry.example.com:5000/segprobe:0.1.0")
        .env("PATIENCE", "3");
    let ended = process::run(command, Duration::from_secs(120));
    (ended, fs::read_to_string(state.join("calls")).unwrap())
}

/// The result of the row of a case and state.
fn result<'a>(stdout: &'a str, case: &str, state: &str) -> Option<&'a str> {
    stdout.lines().find(|line| line.contains(case) && line.contains(state))?.split_whitespace().next()
}

#[test]
fn the_script_sees_every_node_close_open_and_close() {
    if !have("curl") || !have("jq") || !have("kubectl") {
        return;
    }
    let (ended, calls) = run_beside_stand_in(&["example", "policy-deleted", "dns"], "nobody");
    assert_eq!(ended.code, Some(0), "{}\n{}", ended.stdout, ended.stderr);
    for (case, state) in [
        ("example", "policy: low zone, node-2"),
        ("example", "policy: witness, node-2"),
        ("policy-deleted", "deleted: low zone, node-2"),
        ("policy-deleted", "deleted: findings opened, node-2"),
        ("policy-deleted", "restored: segprobe, node-2"),
    ] {
        assert_eq!(result(&ended.stdout, case, state), Some("ok"), "{case}, {state}:\n{}", ended.stdout);
    }
    assert_eq!(
        result(&ended.stdout, "dns", "the whole case"),
        Some("skipped"),
        "it needs the local cluster:\n{}",
        ended.stdout
    );
    let last = calls.lines().last().unwrap();
    assert!(last.starts_with("delete -k tests/cluster/install "), "nothing stays: {calls}");
}

#[test]
fn the_script_names_the_node_that_saw_nothing() {
    if !have("curl") || !have("jq") || !have("kubectl") {
        return;
    }
    let (ended, calls) = run_beside_stand_in(&["policy-deleted", "dns"], "segprobe/b");
    assert_eq!(ended.code, Some(1), "{}\n{}", ended.stdout, ended.stderr);
    let result = |state: &str| result(&ended.stdout, "policy-deleted", state);
    assert_eq!(result("deleted: low zone, node-1"), Some("ok"), "{}", ended.stdout);
    assert_eq!(result("deleted: low zone, node-2"), Some("FAILED"), "{}", ended.stdout);
    assert!(ended.stdout.contains("dns "), "the cases after it go on: {}", ended.stdout);
    assert!(calls.lines().last().unwrap().starts_with("delete -k tests/cluster/install "), "{calls}");
}
