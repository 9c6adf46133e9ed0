//! DNS servers that nothing may reach: targets over UDP, with every rule that TCP targets have.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    thread,
};

use serde_json::{Value, json};

use crate::support::{closed, directory, find, listen, loopback, segprobe, write_config};

/// A server that answers these only, with whatever: any reply is one.
fn server(answers: &'static [IpAddr]) -> SocketAddr {
    server_at((loopback(), 0).into(), answers)
}

fn server_at(address: SocketAddr, answers: &'static [IpAddr]) -> SocketAddr {
    let socket = UdpSocket::bind(address).unwrap();
    let address = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
            if answers.contains(&peer.ip()) {
                // One who went away is no loss.
                let _ = socket.send_to(b"no", peer);
            }
        }
    });
    address
}

const PROBER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 7));
const WITNESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 8));

/// Verdict and reason of the server as an endpoint, from 127.0.0.7.
fn verdict(target: SocketAddr, control: SocketAddr, rest: &str) -> (String, String, Value) {
    let (_tcp, tcp) = listen();
    let directory = directory();
    let (ip, port) = (target.ip(), target.port());
    let path = write_config(
        directory.path(),
        &format!(
            "zones: {{low: {{namespaces: [web]}}, high: {{namespaces: [vault]}}}}
boundaries: [{{name: b, from: low, to: high, interval: 20s, tcp: {{attempts: 1}}, dns: off}}]
vantage: {{source: {PROBER}}}
targets:
  - {{zone: high, namespace: vault, service: dns, endpoints: {ip}, ports: [{{port: {port}, protocol: UDP}}]}}
controls:
  positive: [{{tcp: '{tcp}'}}, {{udp: '{control}'}}]
  {rest}
"
        ),
    );
    let ended = segprobe(&["check", "--config.file", &path, "--output", "json"]);
    let report: Value = serde_json::from_str(&ended.stdout).unwrap_or_else(|e| panic!("{e}: {ended:?}"));
    let check = find(&report, "dns-query", &format!("dns:{port}"));
    let word = |what: &str| check[what].as_str().unwrap().to_owned();
    (word("verdict"), word("reason"), check.clone())
}

#[test]
fn each_rule_of_a_target_holds_over_udp() {
    let (open, silent) = (server(&[PROBER, WITNESS]), server(&[]));
    let for_witness = server(&[WITNESS]);
    let nobody = server(&[PROBER]);
    let no_control = closed();
    let negative = format!("negative: [{{tcp: {}, ports: [{}]}}]", nobody.ip(), open.port());
    // Nobody's address answers on the target's port as well.
    server_at((nobody.ip(), open.port()).into(), &[PROBER]);
    let witness = format!("negative: []\nwitnesses: [{{zone: high, source: {WITNESS}}}]");
    for (what, target, control, rest, expected, outcome) in [
        ("open", open, open, "", ("fail", "reached"), "open"),
        ("silent", silent, open, "", ("unverified", "no-witness"), "filtered"),
        ("no listener", closed(), open, "", ("inconclusive", "refused-ambiguous"), "refused"),
        ("no control", silent, no_control, "", ("inconclusive", "vantage-offline"), "filtered"),
        ("a silent control", silent, silent, "", ("inconclusive", "vantage-offline"), "filtered"),
        ("blocked, and a witness", for_witness, open, &witness, ("pass", "blocked"), "filtered"),
        ("dead, and a witness", silent, open, &witness, ("inconclusive", "target-down"), "filtered"),
        ("captured", open, open, &negative, ("inconclusive", "captured"), "open"),
    ] {
        let (verdict, reason, check) = verdict(target, control, rest);
        assert_eq!((verdict.as_str(), reason.as_str()), expected, "{what}: {check:#}");
        assert_eq!(check["addresses"][0]["attempts"][0]["outcome"], json!(outcome), "{what}: {check:#}");
    }
}
