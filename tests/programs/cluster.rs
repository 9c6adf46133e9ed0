//! `tests/cluster/run`, the test for a real cluster. Where `SEGPROBE_TEST_KUBECONFIG` names one it runs there; everywhere it runs against a
//! stand-in for kubectl with two nodes, so that the script itself is known to see what it must.

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

use crate::support::{SOON, directory, have, process, skip_in_ci_too};

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster/run")
}

#[test]
fn on_a_real_cluster() {
    let Some(config) = std::env::var_os("SEGPROBE_TEST_KUBECONFIG") else {
        // There is none in CI: that is why the stand-in below is required there.
        skip_in_ci_too("SEGPROBE_TEST_KUBECONFIG names no cluster");
        return;
    };
    let mut command = Command::new(script());
    command.env("KUBECONFIG", config);
    let ended = process::run(command, Duration::from_secs(1800));
    assert_eq!(ended.code, Some(0), "{}\n{}", ended.stdout, ended.stderr);
}

/// Two agents' metrics at `/node-1` and `/node-2`: `fail` while there is no policy; `blind` sees none of it.
fn serve_metrics(state: PathBuf, blind: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).unwrap();
            let pod = fs::read_to_string(state.join("forwarded")).unwrap();
            // Any policy on the targets' ingress isolates them, as on a real cluster.
            let isolates =
                |object: &str| object.contains("kind: NetworkPolicy\n") && object.contains("\n  namespace: payments\n");
            let applied = fs::read_to_string(state.join("applied")).unwrap();
            let is_open = !state.join("policy").exists() && !applied.split("---\n").any(isolates);
            let (expect, verdict) = match pod.trim() {
                "segprobe-witness/a" | "segprobe-witness/b" => ("open", "pass"),
                pod if is_open && pod != blind => ("blocked", "fail"),
                _ => ("blocked", "unverified"),
            };
            let series = |verdict: &str, value: u8| {
                format!(
                    "segprobe_check_verdict{{boundary=\"b\",expect=\"{expect}\",check=\"tcp-connect\",source_namespace=\"segprobe\",source=\"own\",\
                     target_namespace=\"payments\",target=\"ledger:5432\",via=\"endpoint\",verdict=\"{verdict}\"}} {value}\n"
                )
            };
            let all: String = ["fail", "inconclusive", "unverified", "pass"]
                .iter()
                .map(|v| series(v, u8::from(*v == verdict)))
                .collect();
            let _ = write!(stream, "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{all}", all.len());
        }
    });
    port
}

/// What the script asks of kubectl, answered for two nodes. What it applies is rendered by the real one, which is next in the path.
fn stand_in(bin: &Path, state: &Path, port: u16) {
    let state = state.display();
    let text = format!(
        r#"#!/usr/bin/env bash
echo "$*" >> "{state}/calls"
case "$*" in
  "apply -f manifests/example/policy.yaml") touch "{state}/policy" ;;
  "delete"*"-f manifests/example/policy.yaml") rm -f "{state}/policy" ;;
  "-n "*" get pods "*) printf 'a node-1\nb node-2\n' ;;
  "-n "*" port-forward pod/"*)
    pod=${{4#pod/}}
    echo "$2/$pod" > "{state}/forwarded"
    echo "Forwarding from 127.0.0.1:{port} -> 11450"
    exec sleep 60 ;;
  "apply -k "*) PATH=${{PATH#*:}} kubectl kustomize "$3" > "{state}/applied" ;;
  "delete "*" -k "*|"-n "*" rollout status "*) ;;
  *) echo "the stand-in for kubectl does not know: $*" >&2; exit 1 ;;
esac
"#
    );
    let path = bin.join("kubectl");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn run_beside_stand_in(blind: &'static str) -> (process::Ended, String) {
    let directory = directory();
    let (bin, state) = (directory.path().join("bin"), directory.path().join("state"));
    fs::create_dir(&bin).unwrap();
    fs::create_dir(&state).unwrap();
    stand_in(&bin, &state, serve_metrics(state.clone(), blind));
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let mut command = Command::new(script());
    command
        .env("PATH", path)
        .env("KUBECONFIG", "/nowhere")
        .env("IMAGE", "registry.example.com:5000/segprobe:0.1.0")
        .env("PATIENCE", "3");
    let ended = process::run(command, SOON);
    (ended, fs::read_to_string(state.join("calls")).unwrap())
}

#[test]
fn the_script_sees_every_node_close_open_and_close() {
    if !have("curl") || !have("kubectl") {
        return;
    }
    let (ended, calls) = run_beside_stand_in("nobody");
    assert_eq!(ended.code, Some(0), "{}\n{}", ended.stdout, ended.stderr);
    let reported = |what: &str| ended.stdout.lines().filter(|l| *l == format!("node node-2: {what}")).count();
    assert_eq!((reported("unverified"), reported("pass"), reported("fail")), (2, 2, 1), "{}", ended.stdout);
    let last: Vec<_> = calls.lines().rev().take(2).collect();
    assert!(last[0].starts_with("delete --ignore-not-found --wait=false -k "), "nothing stays: {calls}");
    assert!(last[1].starts_with("delete --ignore-not-found --wait=false -f "), "nothing stays: {calls}");
}

#[test]
fn the_script_names_the_node_that_saw_nothing() {
    if !have("curl") || !have("kubectl") {
        return;
    }
    let (ended, calls) = run_beside_stand_in("segprobe/b");
    assert_eq!(ended.code, Some(1), "{}\n{}", ended.stdout, ended.stderr);
    assert!(ended.stdout.ends_with("node node-2 (segprobe/b): unverified, expected: fail\n"), "{}", ended.stdout);
    assert!(calls.lines().last().unwrap().starts_with("delete --ignore-not-found --wait=false -k "), "{calls}");
}
