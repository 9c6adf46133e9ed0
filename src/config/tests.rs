//! What a bad document is told, line by line, and what a good one becomes.

use std::{fs, path::Path};

use proptest::prelude::*;

use super::*;

/// The least that is a configuration: three lines, so that what is added begins on the fourth.
const MINIMAL: &str = "\
zones: {low: {namespaces: [web]}, high: {namespaces: [payments]}}
boundaries:
- {name: b, from: low, to: high}
";

/// Its first two lines: boundaries follow on the third.
const ZONES: &str = "zones: {low: {namespaces: [web]}, high: {namespaces: [payments]}}\nboundaries:\n";

/// The same with a target that the row completes; it stands on the fifth line.
const TARGET: &str = "\
zones: {low: {namespaces: [web]}, high: {namespaces: [payments]}}
boundaries:
- {name: b, from: low, to: high}
targets:
- {zone: high, name: x, ";

fn told(document: &str) -> String {
    match parse(Path::new("f.yaml"), document) {
        Ok(_) => "good".into(),
        Err(error) => error.to_string(),
    }
}

#[track_caller]
fn assert_told(before: &str, rows: &[(&str, &str)]) {
    for (rest, expected) in rows {
        assert_eq!(told(&format!("{before}{rest}")), *expected, "{rest}");
    }
}

#[test]
fn documents_of_another_shape() {
    let whole = "f.yaml:1:1: missing field `boundaries`";
    assert_told(
        "",
        &[
            ("", "f.yaml:1:1: unexpected end of input"),
            ("42", "f.yaml:1:1: expected a mapping, found `42`"),
            ("zones: {}\n", whole),
            ("\u{feff}zones: {}\n", whole),
        ],
    );
    assert_told(
        MINIMAL,
        &[
            (
                "zonez: {}\n",
                "f.yaml:4:1: unknown field `zonez`, expected one of zones, boundaries, targets, target_files, vantage, pods, witnesses, controls, dns, pace, share, series",
            ),
            (
                "pace: {in_fligt: 1}\n",
                "f.yaml:4:8: unknown field `in_fligt`, expected one of in_flight, per_second, spacing",
            ),
            ("pace: {in_flight: many}\n", "f.yaml:4:19: expected a whole number from 0 to 4294967295, found `many`"),
            ("pace: {in_flight: -1}\n", "f.yaml:4:19: expected a whole number from 0 to 4294967295, found `-1`"),
            ("pace: [1]\n", "f.yaml:4:7: expected a mapping, found `[1]`"),
            ("targets: {}\n", "f.yaml:4:10: expected a list, found `{}`"),
            ("pace: {in_flight: 1}\npace: {}\n", "f.yaml:5:1: the key `pace` stands here a second time"),
            ("pace: {in_flight: 1, in_flight: 2}\n", "f.yaml:4:22: the key `in_flight` stands here a second time"),
            ("---\na: 1\n", "f.yaml:5:1: a second document begins, expected one, found `a: 1`"),
            (
                "pace: &a {in_flight: *a}\n",
                "f.yaml:4:22: an alias cannot stand inside of what it stands for, found `*a`",
            ),
            ("pace: *nope\n", "f.yaml:4:7: alias references unknown anchor, found `*nope`"),
            ("target_files: [x.yaml]\n", "f.yaml:4:16: target_files need a configuration file to be relative to"),
        ],
    );
}

#[test]
fn durations_and_numbers() {
    let bad = |found: &str| {
        format!("f.yaml:4:8: invalid value: string \"{found}\", expected a duration up to 7 days such as 30s or 1m30s")
    };
    for found in ["fast", "5", "8d", "-1s", "169h"] {
        assert_eq!(told(&format!("{MINIMAL}pace: {{spacing: {found}}}\n")), bad(found));
    }
    assert_told(
        MINIMAL,
        &[
            ("pace: {in_flight: 0}\n", "f.yaml:4:19: pace.in_flight: found 0, expected 1 to 65536"),
            ("pace: {in_flight: 65537}\n", "f.yaml:4:19: pace.in_flight: found 65537, expected 1 to 65536"),
            ("pace: {per_second: 0}\n", "f.yaml:4:20: pace.per_second: found 0, expected 1 to 1000000"),
            ("dns: {timeout: 50ms}\n", "f.yaml:4:16: dns.timeout: found 50ms, expected 100ms to 30s"),
            ("dns: {attempts: 0}\n", "f.yaml:4:17: dns.attempts: found 0, expected 1 to 10"),
            (
                "dns: {queries_per_second: 1000001}\n",
                "f.yaml:4:27: dns.queries_per_second: found 1000001, expected 1 to 1000000",
            ),
            ("pace: {spacing: 0s}\ndns: {timeout: 100ms}\n", "good"),
        ],
    );
}

#[test]
fn boundaries_and_zones() {
    assert_told(
        "zones: {a: {}}\n",
        &[
            ("boundaries: []\n", "f.yaml:2:13: boundaries is empty, expected at least one"),
            ("boundaries: {}\n", "f.yaml:2:13: expected a list, found `{}`"),
        ],
    );
    assert_told(
        ZONES,
        &[
            ("- {name: b, from: low, to: hihg}\n", "f.yaml:3:28: to: no zone `hihg`, expected one of `high`, `low`"),
            ("- {name: b, from: lwo, to: high}\n", "f.yaml:3:19: from: no zone `lwo`, expected one of `high`, `low`"),
            ("- {name: b, from: low}\n", "f.yaml:3:13: missing field `to`"),
            ("- b\n", "f.yaml:3:3: expected a mapping, found `b`"),
            (
                "- {name: 'b c', from: low, to: high}\n",
                "f.yaml:3:10: boundary name: found `b c`, expected up to 63 letters, digits, `-`, `_` or `.`",
            ),
            (
                "- {name: b, from: low, to: high}\n- {name: b, from: high, to: low}\n",
                "f.yaml:4:10: boundary `b` exists already, expected another name",
            ),
            (
                "- {name: b, from: low, to: high, expect: closed}\n",
                "f.yaml:3:42: unknown variant `closed`, expected one of blocked, open",
            ),
            (
                "- {name: b, from: low, to: high, expect: open, dns: {srv-wildcard: judge}}\n",
                "f.yaml:3:53: dns: found in a boundary that expects `open`, where disclosure is no breach",
            ),
            (
                "- {name: b, from: low, to: high, dns: {srv_wildcard: judge}}\n",
                "f.yaml:3:40: unknown field `srv_wildcard`, expected one of srv-wildcard, reverse-sweep, zone-transfer, service-lookup, namespace-oracle, pod-oracle",
            ),
            (
                "- {name: b, from: low, to: high, dns: {srv-wildcard: yes}}\n",
                "f.yaml:3:54: unknown variant `yes`, expected one of judge, report, off",
            ),
        ],
    );
    assert_told(
        "",
        &[
            (
                "zones: {a: {namespaces: [x]}, b: {namespaces: [x]}}\nboundaries:\n- {name: b, from: a, to: b}\n",
                "f.yaml:1:48: namespace `x` is in zone `a` already, expected one zone at most",
            ),
            (
                "zones: {a: {namespaces: [x]}, a: {namespaces: [y]}}\nboundaries:\n- {name: b, from: a, to: a}\n",
                "f.yaml:1:31: the key `a` stands here a second time",
            ),
            (
                "zones: {a: {namespaces: [X_]}}\nboundaries:\n- {name: b, from: a, to: a}\n",
                "f.yaml:1:26: found `X_`, expected a Kubernetes namespace",
            ),
            (
                "zones: {'a b': {}}\nboundaries:\n- {name: b, from: a b, to: a b}\n",
                "f.yaml:1:16: zone `a b`: expected up to 63 letters, digits, `-`, `_` or `.`",
            ),
        ],
    );
}

#[test]
fn attempts_must_fit_the_interval() {
    assert_told(
        ZONES,
        &[
            (
                "- {name: b, from: low, to: high, tcp: {timeout: 1999ms}}\n",
                "f.yaml:3:49: tcp.timeout: found 1.999s, expected 2s or more: the kernel repeats a lost SYN after 1 s only",
            ),
            (
                "- {name: b, from: low, to: high, tcp: {attempts: 11}}\n",
                "f.yaml:3:50: tcp.attempts: found 11, expected 1 to 10",
            ),
            // The largest number that is one: nothing that is computed from it overflows.
            (
                "- {name: b, from: low, to: high, tcp: {attempts: 4294967295}}\n",
                "f.yaml:3:50: tcp.attempts: found 4294967295, expected 1 to 10",
            ),
            (
                "- {name: b, from: low, to: high, interval: 8s}\n",
                "f.yaml:3:44: interval: found 8s, but 4 connects of 2s to one silent address take 8s; expected a longer interval, or fewer attempts or a shorter time-out",
            ),
            ("- {name: b, from: low, to: high, interval: 8001ms}\n", "good"),
            (
                "- {name: b, from: low, to: high, tcp: {timeout: 10s}}\n",
                "f.yaml:3:3: interval: found 30s, but 4 connects of 10s to one silent address take 40s; expected a longer interval, or fewer attempts or a shorter time-out",
            ),
            (
                "- {name: b, from: low, to: high, interval: 12s}\nwitnesses: [{zone: high, source: 127.0.0.1}]\n",
                "f.yaml:3:44: interval: found 12s, but 6 connects of 2s to one silent address take 12s; expected a longer interval, or fewer attempts or a shorter time-out",
            ),
            ("- {name: b, from: low, to: high, interval: 12s}\nwitnesses: [{zone: low, source: 127.0.0.1}]\n", "good"),
        ],
    );
}

#[test]
fn targets() {
    assert_told(
        TARGET,
        &[
            (
                "address: 127.0.0.1, ports: [0]}\n",
                "f.yaml:5:53: invalid value: integer `0`, expected a port from 1 to 65535, or {port, protocol, target_port, node_port}",
            ),
            (
                "address: 127.0.0.1, ports: [65536]}\n",
                "f.yaml:5:53: invalid value: integer `65536`, expected a port from 1 to 65535, or {port, protocol, target_port, node_port}",
            ),
            (
                "address: 127.0.0.1, ports: [-1]}\n",
                "f.yaml:5:53: invalid value: integer `-1`, expected a port from 1 to 65535, or {port, protocol, target_port, node_port}",
            ),
            (
                "address: 127.0.0.1, ports: [http]}\n",
                "f.yaml:5:53: invalid type: string \"http\", expected a port from 1 to 65535, or {port, protocol, target_port, node_port}",
            ),
            (
                "address: 127.0.0.1, ports: [{port: 1, node_port: 0}]}\n",
                "f.yaml:5:63: invalid value: integer `0`, expected a port from 1 to 65535",
            ),
            (
                "address: 127.0.0.1, ports: [{port: 1, target: 2}]}\n",
                "f.yaml:5:63: unknown field `target`, expected one of port, protocol, target_port, node_port",
            ),
            ("address: 127.0.0.1, ports: 80}\n", "f.yaml:5:52: expected a list, found `80`"),
            ("address: 127.0.0.1}\n", "f.yaml:5:25: missing field `ports`"),
            (
                "address: 127.0.0.1, ports: []}\n",
                "f.yaml:5:3: target `x` has no ports, expected at least one in `ports`",
            ),
            ("ports: [80]}\n", "f.yaml:5:3: target `x` has no address, expected `address`, `endpoints` or `external`"),
            ("service: y, ports: [80]}\n", "f.yaml:5:3: found both, expected exactly one of `service` and `name`"),
            ("namespace: web, address: 127.0.0.1, ports: [80]}\n", "f.yaml:5:3: namespace `web` is not in zone `high`"),
            (
                "address: 10.0.0.256, ports: [80]}\n",
                "f.yaml:5:3: address: found `10.0.0.256`, expected an IP address or a DNS name",
            ),
            (
                "endpoints: [10.0.0.256], ports: [80]}\n",
                "f.yaml:5:37: invalid value: string \"10.0.0.256\", expected an IPv4 or IPv6 address",
            ),
            (
                "endpoints: 10.0.0.256, ports: [80]}\n",
                "f.yaml:5:25: invalid value: string \"10.0.0.256\", expected an IPv4 or IPv6 address",
            ),
            ("endpoints: 7, ports: [80]}\n", "f.yaml:5:25: invalid type: integer `7`, expected one value or a list"),
            (
                "external: [10.0.0.256], ports: [80]}\n",
                "f.yaml:5:3: external: found `10.0.0.256`, expected an IP address or a DNS name",
            ),
            (
                "external: [\"2001:db8::g\"], ports: [80]}\n",
                "f.yaml:5:3: external: found `2001:db8::g`, expected an IP address or a DNS name",
            ),
            (
                "endpoints: 127.0.0.1, kind: endpoint, ports: [80]}\n",
                "f.yaml:5:3: kind: belongs to `address`, which is absent",
            ),
            ("nodes: 127.0.0.1, ports: [80]}\n", "f.yaml:5:3: nodes: no port has a `node_port`"),
            (
                "address: 127.0.0.1, kind: host, ports: [80]}\n",
                "f.yaml:5:51: unknown variant `host`, expected one of endpoint, virtual",
            ),
            (
                "address: 127.0.0.1, ports: [80]}\n- {zone: high, name: x, address: 127.0.0.2, ports: [443, 80]}\n",
                "f.yaml:6:3: two checks with one identity: `x:80` stands at f.yaml:5:3 already; merge their addresses",
            ),
            (
                "address: 127.0.0.1, ports: [80, 80]}\n",
                "f.yaml:5:3: two checks with one identity: `x:80` stands at f.yaml:5:3 already; merge their addresses",
            ),
        ],
    );
    assert_told(
        &format!("{MINIMAL}targets:\n"),
        &[
            (
                "- {zone: hihg, name: x, address: 127.0.0.1, ports: [80]}\n",
                "f.yaml:5:3: zone: no zone `hihg`, expected one of `high`, `low`",
            ),
            (
                "- {zone: high, ports: [80]}\n",
                "f.yaml:5:3: found neither, expected exactly one of `service` and `name`",
            ),
            (
                "- {zone: high, service: y, ports: [80]}\n",
                "f.yaml:5:3: service `y`: expected a Kubernetes Service's name, and its `namespace`",
            ),
            (
                "- {zone: high, namespace: payments, service: Y_, ports: [80]}\n",
                "f.yaml:5:3: service `Y_`: expected a Kubernetes Service's name, and its `namespace`",
            ),
        ],
    );
}

#[test]
fn dns_controls_witnesses_and_vantage() {
    assert_told(
        MINIMAL,
        &[
            (
                "dns: {resolver: dns.example}\n",
                "f.yaml:4:17: DNS server: found `dns.example`, expected `system`, an address or `address:port`",
            ),
            (
                "dns: {servers: [127.0.0.1:99999]}\n",
                "f.yaml:4:17: DNS server: found `127.0.0.1:99999`, expected `system`, an address or `address:port`",
            ),
            ("dns: {servers: [{name: x}]}\n", "f.yaml:4:17: expected `system`, an address, or {name, address}"),
            (
                "dns: {servers: [127.0.0.1, 127.0.0.1]}\n",
                "f.yaml:4:28: DNS server `127.0.0.1` exists already, expected another `name`",
            ),
            (
                "dns: {servers: [system, system]}\n",
                "f.yaml:4:25: DNS server `system` exists already, expected another `name`",
            ),
            (
                "dns: {servers: [{name: 'x y', address: 127.0.0.1}]}\n",
                "f.yaml:4:17: name: found `x y`, expected a short plain word",
            ),
            (
                "dns: {servers: [system, {name: two, address: system}]}\n",
                "f.yaml:4:25: name: only the plain word `system` stands for the system's servers and gives their names",
            ),
            (
                "dns: {servers: [system, {name: system-2, address: 127.0.0.1}]}\n",
                "f.yaml:4:25: name: only the plain word `system` stands for the system's servers and gives their names",
            ),
            ("dns: {zone: .}\n", "f.yaml:4:13: dns.zone: found `.`, expected a DNS name such as cluster.local"),
            ("dns: {known_names: ['a..b']}\n", "f.yaml:4:21: known_names: found `a..b`, expected a DNS name"),
            (
                "controls: {positive: []}\n",
                "f.yaml:4:22: controls.positive is empty, expected at least one: without it nothing can ever pass",
            ),
            ("controls: {positive: [{}]}\n", "f.yaml:4:23: found neither, expected exactly one of `tcp` and `udp`"),
            (
                "controls: {positive: [{tcp: resolver, udp: resolver}]}\n",
                "f.yaml:4:23: found both, expected exactly one of `tcp` and `udp`",
            ),
            (
                "controls: {positive: [{udp: 127.0.0.1}]}\n",
                "f.yaml:4:23: udp: found `127.0.0.1`, expected `resolver` or `address:port`",
            ),
            (
                "controls: {positive: [{tcp: 127.0.0.1}]}\n",
                "f.yaml:4:23: tcp: found `127.0.0.1`, expected `resolver` or `address:port`",
            ),
            (
                "controls: {negative: [{tcp: 10.112.0.1, ports: [80], range: 10.96.0.0/12}]}\n",
                "f.yaml:4:23: range 10.96.0.0/12 does not contain the control's own address 10.112.0.1",
            ),
            (
                "controls: {negative: [{tcp: 127.0.0.9, ports: [80], range: 127.0.0.0/33}]}\n",
                "f.yaml:4:23: range: found `127.0.0.0/33`, expected a CIDR such as 10.96.0.0/12",
            ),
            (
                "controls: {negative: [{tcp: 127.0.0.9, ports: []}]}\n",
                "f.yaml:4:23: ports: found [], expected at least one port from 1 to 65535",
            ),
            (
                "controls: {negative: [{tcp: 127.0.0.9, ports: [80, 0]}]}\n",
                "f.yaml:4:23: ports: found [80, 0], expected at least one port from 1 to 65535",
            ),
            (
                "controls: {negative: [{tcp: 127.0.0.9, ports: [65536]}]}\n",
                "f.yaml:4:48: expected a whole number from 0 to 65535, found `65536`",
            ),
            (
                "witnesses: [{zone: hgih, source: 127.0.0.1}]\n",
                "f.yaml:4:13: zone: no zone `hgih`, expected one of `high`, `low`",
            ),
            (
                "witnesses: [{zone: high, source: []}]\n",
                "f.yaml:4:13: source: found no address, expected one of each family that it speaks for",
            ),
            (
                "witnesses: [{zone: high, source: 127.0.0.1}, {zone: high, source: 127.0.0.2}]\n",
                "f.yaml:4:46: zone `high` has source addresses as a witness already",
            ),
            (
                "vantage: {source: [127.0.0.1, \"::1\", 127.0.0.2]}\n",
                "f.yaml:4:19: source: expected one ipv4 address at most",
            ),
            (
                "vantage: {identity: 'a b'}\n",
                "f.yaml:4:21: vantage.identity: found `a b`, expected up to 63 letters, digits, `-`, `_` or `.`",
            ),
        ],
    );
}

#[test]
fn pods_vantages_and_co_residency() {
    assert_told(
        MINIMAL,
        &[
            ("pods: {poll: 199ms}\n", "f.yaml:4:14: pods.poll: found 199ms, expected 200ms to 60s"),
            ("pods: {poll: 61s}\n", "f.yaml:4:14: pods.poll: found 61s, expected 200ms to 60s"),
            ("pods: {startup_window: 61s}\n", "f.yaml:4:24: pods.startup_window: found 61s, expected 60s at most"),
            ("pods: {turn_within: 0}\n", "f.yaml:4:21: pods.turn_within: found 0, expected 1 to 1000"),
            ("pods: {turn_within: 1001}\n", "f.yaml:4:21: pods.turn_within: found 1001, expected 1 to 1000"),
            ("pods: {per_second: 0}\n", "f.yaml:4:20: pods.per_second: found 0, expected 1 to 100000"),
            ("pods: {per_second: 100001}\n", "f.yaml:4:20: pods.per_second: found 100001, expected 1 to 100000"),
            (
                "pods: {sockets: /run/x.sock}\n",
                "f.yaml:4:8: unknown field `sockets`, expected one of socket, poll, ignore_labels, turn_within, per_second, startup_window",
            ),
            ("pods: {ignore_labels: app}\n", "f.yaml:4:23: expected a list, found `app`"),
            ("vantage: {mode: node}\n", "f.yaml:4:17: unknown variant `node`, expected one of own, pods"),
            (
                "vantage: {mode: pods, namespace: web}\n",
                "f.yaml:4:34: vantage.namespace: belongs to `mode: own`; in mode `pods` the pods' own are used",
            ),
            (
                "vantage: {mode: pods, identity: x}\n",
                "f.yaml:4:33: vantage.identity: belongs to `mode: own`; in mode `pods` the pods' own are used",
            ),
            (
                "vantage: {mode: pods, source: 127.0.0.1}\n",
                "f.yaml:4:31: vantage.source: belongs to `mode: own`; in mode `pods` the pods' own are used",
            ),
            (
                "witnesses: [{zone: high, node: true}]\n",
                "f.yaml:4:13: `node` and `pods` are witnesses of `vantage.mode: pods` only; expected `source`",
            ),
            (
                "witnesses: [{zone: high, pods: {app: x}}]\n",
                "f.yaml:4:13: `node` and `pods` are witnesses of `vantage.mode: pods` only; expected `source`",
            ),
            ("pods: {poll: 200ms, startup_window: 0s, turn_within: 1, per_second: 1, ignore_labels: []}\n", "good"),
            ("pods: {poll: 1m, startup_window: 1m, turn_within: 1000, per_second: 100000}\n", "good"),
            ("vantage: {mode: pods}\n", "good"),
            ("vantage: {mode: own, namespace: web}\n", "good"),
            (
                "vantage: {mode: pods}\nwitnesses: [{zone: high, node: true}, {zone: high, pods: {app: x}}, {zone: high, source: 127.0.0.1}]\n",
                "good",
            ),
            ("vantage: {mode: pods}\nwitnesses: [{zone: high, node: true}, {zone: low, node: true}]\n", "good"),
        ],
    );
    assert_told(
        &format!("{MINIMAL}vantage: {{mode: pods}}\n"),
        &[
            (
                "witnesses: [{zone: high}]\n",
                "f.yaml:5:13: expected exactly one of `source`, `node: true` and `pods`, with the pods' labels",
            ),
            (
                "witnesses: [{zone: high, node: false}]\n",
                "f.yaml:5:13: expected exactly one of `source`, `node: true` and `pods`, with the pods' labels",
            ),
            (
                "witnesses: [{zone: high, node: true, source: 127.0.0.1}]\n",
                "f.yaml:5:13: expected exactly one of `source`, `node: true` and `pods`, with the pods' labels",
            ),
            (
                "witnesses: [{zone: high, node: true, pods: {app: x}}]\n",
                "f.yaml:5:13: expected exactly one of `source`, `node: true` and `pods`, with the pods' labels",
            ),
            (
                "witnesses: [{zone: high, node: true}, {zone: high, node: true}]\n",
                "f.yaml:5:39: zone `high` has the node as a witness already",
            ),
            (
                "witnesses: [{zone: high, pods: {app: x}}, {zone: high, pods: {app: y}}]\n",
                "f.yaml:5:43: zone `high` has pods as a witness already",
            ),
            (
                "witnesses: [{zone: hgih, pods: {app: x}}]\n",
                "f.yaml:5:13: zone: no zone `hgih`, expected one of `high`, `low`",
            ),
            ("witnesses: [{zone: high, pods: app}]\n", "f.yaml:5:32: expected a mapping, found `app`"),
            (
                "witnesses: [{zone: high, pod: {app: x}}]\n",
                "f.yaml:5:26: unknown field `pod`, expected one of zone, source, node, pods",
            ),
        ],
    );
    assert_told(
        ZONES,
        &[
            (
                "- {name: b, from: low, to: high, expect: open, co_residency: judge}\n",
                "f.yaml:3:62: co_residency: found in a boundary that expects `open`, where sharing a node is no breach",
            ),
            (
                "- {name: b, from: low, to: low, co_residency: judge}\n",
                "f.yaml:3:47: co_residency: found in a boundary from zone `low` to itself, expected two zones",
            ),
            (
                "- {name: b, from: high, to: high, co_residency: report}\n",
                "f.yaml:3:49: co_residency: found in a boundary from zone `high` to itself, expected two zones",
            ),
            (
                "- {name: b, from: low, to: high, co_residency: yes}\n",
                "f.yaml:3:48: unknown variant `yes`, expected one of judge, report, off",
            ),
            ("- {name: b, from: low, to: low, co_residency: off}\n", "good"),
            ("- {name: b, from: high, to: high, expect: open, co_residency: off}\n", "good"),
            ("- {name: b, from: low, to: high, co_residency: report}\n", "good"),
        ],
    );
    assert_told(
        "",
        &[
            (
                "zones: {low: {namespaces: [web], pod_labels: [app]}, high: {}}\nboundaries: [{name: b, from: low, to: high}]\n",
                "f.yaml:1:46: expected a mapping, found `[app]}, high: {}}`",
            ),
            (
                "zones: {low: {namespaces: [web], labels: {}}, high: {}}\nboundaries: [{name: b, from: low, to: high}]\n",
                "f.yaml:1:34: unknown field `labels`, expected one of namespaces, pod_labels",
            ),
        ],
    );
}

#[test]
fn one_problem_is_one_line_whatever_the_file_holds() {
    assert_told(
        TARGET,
        &[
            (
                "address: \"a\\nb\", ports: [80]}\n",
                r"f.yaml:5:3: address: found `a\nb`, expected an IP address or a DNS name",
            ),
            (
                "address: \"a\\e[31m\\r\", ports: [80]}\n",
                r"f.yaml:5:3: address: found `a\u{1b}[31m\r`, expected an IP address or a DNS name",
            ),
        ],
    );
}

#[test]
fn all_problems_are_told_up_to_a_bound() {
    let two = "- {zone: a, name: x, address: 127.0.0.1, ports: []}\n- {zone: high, name: y, address: '', ports: [1]}\n";
    let lines = told(&format!("{MINIMAL}targets:\n{two}"));
    assert_eq!(
        lines.lines().collect::<Vec<_>>(),
        [
            "f.yaml:5:3: zone: no zone `a`, expected one of `high`, `low`",
            "f.yaml:5:3: target `x` has no ports, expected at least one in `ports`",
            "f.yaml:6:3: address: found ``, expected an IP address or a DNS name",
        ]
    );
    let many = told(&format!("{MINIMAL}targets:\n{}", two.repeat(50)));
    assert_eq!(many.lines().count(), 20);
}

#[test]
fn nesting_and_aliases_come_to_an_end() {
    // A server is a word or a mapping: its value is read whole before anybody knows which.
    let nested = |depth| told(&format!("{MINIMAL}dns: {{servers: {}{}}}\n", "[".repeat(depth), "]".repeat(depth)));
    assert_eq!(nested(20), "f.yaml:4:17: expected `system`, an address, or {name, address}");
    for depth in [25, 100_000] {
        let told = nested(depth);
        assert!(
            told.starts_with("f.yaml:4:") && told.contains(": nested too deep, expected 24 levels at most"),
            "{told}"
        );
    }
    let mut laughs = format!("{MINIMAL}dns:\n  servers:\n  - - &a0 [x]\n");
    for i in 1..20 {
        let last = i - 1;
        laughs.push_str(&format!("    - &a{i} [*a{last}, *a{last}, *a{last}, *a{last}]\n"));
    }
    assert_eq!(told(&laughs), "f.yaml:15:22: too many values or aliases for a configuration, found `*a8`");
}

// --- Good documents ---

fn good(document: &str) -> Config {
    parse(Path::new("f.yaml"), document).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn the_least_configuration_has_the_documented_defaults() {
    let config = good(MINIMAL);
    let [boundary] = &config.boundaries[..] else { panic!("{:?}", config.boundaries) };
    assert_eq!((&*boundary.name, &*boundary.from, &*boundary.to), ("b", "low", "high"));
    assert_eq!((boundary.expect, boundary.closed), (Expect::Blocked, ClosedRule::Fail));
    assert_eq!((boundary.interval, boundary.timeout), (Duration::from_secs(30), Duration::from_secs(2)));
    assert_eq!(boundary.attempts, 2);
    use CheckKind::*;
    let judged = [SrvWildcard, ReverseSweep].map(|kind| (kind, Mode::Judge));
    let reported = [ServiceLookup, NamespaceOracle, PodOracle].map(|kind| (kind, Mode::Report));
    assert_eq!(boundary.techniques, [&judged[..], &reported].concat());
    assert_eq!(config.positive, [Transport::Tcp, Transport::Udp].map(|over| (over, PositiveControl::Resolver)));
    assert_eq!(config.negative, []);
    assert_eq!(config.dns.zone.to_ascii(), "cluster.local.");
    assert_eq!(config.dns.servers, [DnsServer::System]);
    assert_eq!(config.dns.resolver, DnsServer::System);
    assert_eq!((config.dns.timeout, config.dns.attempts), (Duration::from_secs(2), 2));
    assert_eq!(config.dns.queries_per_second, 20);
    let known: Vec<String> = config.dns.known_names.iter().map(|n| n.to_ascii()).collect();
    assert_eq!(known, ["kubernetes.default.svc.cluster.local."]);
    let pace = PaceConfig { in_flight: 256, per_second: 100, spacing: Duration::from_millis(200) };
    assert_eq!(config.pace, pace);
    assert_eq!(config.series, SeriesConfig { every_check: 250, worst_checks: 1000 });
    assert!(
        config.vantage.namespace.is_none() && config.vantage.identity.is_none() && config.vantage.source.is_empty()
    );
    assert!(config.targets.is_empty() && config.witnesses.is_empty());
}

#[test]
fn addresses_names_and_ports_of_targets() {
    let rest = "endpoints: [127.0.0.5, \"::5\"], nodes: 127.0.0.6, external: [127.0.0.7, lb.example],\n\
                address: other.example, kind: endpoint, ports: [80, {port: 443, target_port: 8443, node_port: 30443}]}\n";
    let config = good(&format!("{TARGET}{rest}"));
    let target = &config.targets[0];
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    assert_eq!((&*target.name, &*target.namespace, target.is_service), ("x", "", false));
    assert_eq!(*target.endpoints, [ip("127.0.0.5"), ip("::5")]);
    assert_eq!(*target.nodes, [ip("127.0.0.6")]);
    assert_eq!(*target.external, [Address::Ip(ip("127.0.0.7")), Address::Name("lb.example.".into())]);
    assert_eq!(target.address, Some((Address::Name("other.example.".into()), AddressKind::Endpoint)));
    assert_eq!(
        *target.ports,
        [
            Port { transport: Transport::Tcp, port: 80, target_port: 80, node_port: None },
            Port { transport: Transport::Tcp, port: 443, target_port: 8443, node_port: Some(30443) }
        ]
    );
}

#[test]
fn a_negative_control_without_a_range_speaks_for_its_family() {
    let config = good(&format!(
        "{MINIMAL}controls: {{negative: [{{tcp: 127.0.0.9, ports: [80]}}, {{tcp: \"::9\", ports: [80]}}]}}\n"
    ));
    let ranges: Vec<String> = config.negative.iter().map(|n| n.range.to_string()).collect();
    assert_eq!(ranges, ["0.0.0.0/0", "::/0"]);
}

#[test]
fn the_best_witness_stands_first() {
    let config = good(&format!(
        "{MINIMAL}vantage: {{mode: pods}}\nwitnesses: [{{zone: high, source: 127.0.0.1}}, {{zone: high, pods: {{app: x}}}}, {{zone: low, source: 127.0.0.2}}, {{zone: high, node: true}}]\n"
    ));
    let of_high: Vec<&WitnessWho> = config.witnesses.iter().filter(|w| &*w.zone == "high").map(|w| &w.who).collect();
    let labels = BTreeMap::from([("app".into(), "x".into())]);
    let source = WitnessWho::Source(["127.0.0.1".parse().unwrap()].into());
    assert_eq!(of_high, [&WitnessWho::Node, &WitnessWho::Pods(labels), &source]);
}

#[test]
fn pods_are_looked_at_only_where_they_are_needed() {
    let needs = |text: &str| good(text).pods.is_some();
    assert!(!needs(MINIMAL));
    assert!(needs(&format!("{MINIMAL}vantage: {{mode: pods}}\n")));
    assert!(needs(&format!("{MINIMAL}pods: {{}}\n")), "asked for by name");
    for (co_residency, expected) in [("judge", true), ("report", true), ("off", false)] {
        let boundary = format!("{ZONES}- {{name: b, from: low, to: high, co_residency: {co_residency}}}\n");
        assert_eq!(needs(&boundary), expected, "{co_residency}");
    }
}

#[test]
fn an_open_boundary_asks_nothing_of_dns() {
    let config = good(&format!("{ZONES}- {{name: b, from: low, to: high, expect: open}}\n"));
    assert_eq!(config.boundaries[0].techniques, []);
}

const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/segprobe.yaml");
const SAMPLE_OF_PODS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/segprobe-pods.yaml");

#[test]
fn the_sample_is_good() {
    let (config, _) = load(Path::new(SAMPLE)).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((config.zones.len(), config.boundaries.len(), config.targets.len()), (3, 3, 4));
    assert_eq!(config.boundaries[1].closed, ClosedRule::Inconclusive);
    assert_eq!(config.boundaries[1].techniques, []);
    // What the sample calls a default is one.
    let default = good(MINIMAL);
    let (sample, least) = (&config.boundaries[0], &default.boundaries[0]);
    assert_eq!((sample.interval, sample.timeout), (least.interval, least.timeout));
    assert_eq!((sample.attempts, sample.closed, sample.expect), (least.attempts, least.closed, least.expect));
    assert_eq!(sample.techniques, least.techniques);
    assert_eq!((config.pace, config.series), (default.pace, default.series));
    assert_eq!((&config.dns.zone, &config.dns.resolver), (&default.dns.zone, &default.dns.resolver));
    assert_eq!((config.dns.timeout, config.dns.attempts), (default.dns.timeout, default.dns.attempts));
    let numbers = |dns: &DnsConfig| (dns.queries_per_second, dns.in_flight, dns.sockets, dns.names_in_log);
    assert_eq!((numbers(&config.dns), config.dns.ask_again), (numbers(&default.dns), default.dns.ask_again));
    assert_eq!(config.dns.known_names, default.dns.known_names);
}

#[test]
fn the_sample_of_pods_is_good() {
    let (config, _) = load(Path::new(SAMPLE_OF_PODS)).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(config.vantage.mode, VantageMode::Pods);
    assert_eq!(config.boundaries[0].co_residency, Some(Mode::Judge));
    assert_eq!(config.zones["high"].pod_labels, BTreeMap::from([("pci-scope".into(), "in".into())]));
    assert!(matches!(
        config.witnesses.iter().map(|w| &w.who).collect::<Vec<_>>()[..],
        [WitnessWho::Node, WitnessWho::Pods(_)]
    ));
    // What the sample calls a default is one.
    let default = good(&format!("{MINIMAL}vantage: {{mode: pods}}\n"));
    assert_eq!(config.pods, default.pods);
    assert_eq!((&config.positive, &config.dns.servers), (&default.positive, &default.dns.servers));
    assert_eq!(good(MINIMAL).vantage.mode, VantageMode::Own);
    assert_eq!(good(MINIMAL).boundaries[0].co_residency, None);
    assert!(good(MINIMAL).zones["high"].pod_labels.is_empty());
}

/// Follows references and the branch of an `anyOf` that is a mapping or a list, as the value asks for.
fn resolve<'a>(root: &'a serde_json::Value, schema: &'a serde_json::Value, wanted: &str) -> &'a serde_json::Value {
    if let Some(pointer) = schema["$ref"].as_str() {
        return resolve(root, root.pointer(pointer.trim_start_matches('#')).unwrap(), wanted);
    }
    let branches = schema["anyOf"].as_array().into_iter().flatten();
    let fits = |branch: &&serde_json::Value| !resolve(root, branch, wanted)[wanted].is_null();
    if schema[wanted].is_null() {
        branches.map(|b| resolve(root, b, wanted)).find(fits).unwrap_or(schema)
    } else {
        schema
    }
}

/// The keys of the value, checked against the schema; and the schema's keys that the value does not use.
fn compare(
    root: &serde_json::Value,
    schema: &serde_json::Value,
    value: &serde_json::Value,
    path: &str,
    used: &mut Vec<String>,
) {
    match value {
        serde_json::Value::Object(map) => {
            let schema = resolve(root, schema, "properties");
            let named = resolve(root, schema, "additionalProperties");
            for (key, value) in map {
                let path = format!("{path}.{key}");
                let of_key = match &schema["properties"][key] {
                    serde_json::Value::Null if named["additionalProperties"].is_object() => {
                        &named["additionalProperties"]
                    }
                    serde_json::Value::Null => panic!("the schema has no {path}"),
                    property => property,
                };
                used.push(path.clone());
                compare(root, of_key, value, &path, used);
            }
        }
        serde_json::Value::Array(values) => {
            let schema = resolve(root, schema, "items");
            values.iter().for_each(|v| compare(root, &schema["items"], v, path, used));
        }
        _ => {}
    }
}

/// Every key that the schema has, by its path.
fn keys(root: &serde_json::Value, schema: &serde_json::Value, path: &str, all: &mut Vec<String>) {
    for wanted in ["properties", "items", "additionalProperties"] {
        match &resolve(root, schema, wanted)[wanted] {
            serde_json::Value::Object(map) if wanted == "properties" => {
                for (key, schema) in map {
                    all.push(format!("{path}.{key}"));
                    keys(root, schema, &format!("{path}.{key}"), all);
                }
            }
            inner @ serde_json::Value::Object(_) => keys(root, inner, path, all),
            _ => {}
        }
    }
}

#[test]
fn the_samples_use_every_key_of_the_schema_and_no_other() {
    let schema = json_schema();
    let (mut used, mut all) = (Vec::new(), Vec::new());
    for sample in [SAMPLE, SAMPLE_OF_PODS] {
        let sample: serde_json::Value = serde_saphyr::from_str(&fs::read_to_string(sample).unwrap()).unwrap();
        compare(&schema, &schema, &sample, "", &mut used);
    }
    // The names of zones are no keys of the schema.
    let used: Vec<String> = used
        .iter()
        .map(|k| {
            ["low", "high", "datacentre"].iter().fold(k.clone(), |k, z| k.replace(&format!(".zones.{z}"), ".zones"))
        })
        .collect();
    keys(&schema, &schema, "", &mut all);
    assert!(all.len() > 50, "{all:?}");
    let missing: Vec<&String> = all.iter().filter(|key| !used.contains(key)).collect();
    assert!(missing.is_empty(), "not in the sample: {missing:?}");
}

// --- Files ---

/// A directory that is gone when the test is over.
struct Directory(std::path::PathBuf);

impl Directory {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("segprobe-{test}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) -> std::path::PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// What loading says, with paths relative to this directory.
    fn told(&self, name: &str) -> String {
        match load(&self.0.join(name)) {
            Ok(_) => "good".into(),
            Err(error) => error.to_string().replace(&format!("{}/", self.0.display()), ""),
        }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn errors_in_json_target_files_are_at_their_place() {
    let directory = Directory::new("json");
    directory.write("f.yaml", &format!("{MINIMAL}target_files: [t.json]\n"));
    for (json, expected) in [
        ("{\"targets\": []}", "good"),
        (
            "{\"targets\": [\n {\"zone\": \"high\", \"name\": \"x\",\n  \"address\": \"127.0.0.1\", \"ports\": [80]}]}",
            "good",
        ),
        (
            "{\"targets\": [\n {\"zone\": \"high\", \"name\": \"x\",\n  \"address\": \"127.0.0.1\", \"ports\": [0]}]}",
            "t.json:3:37: invalid value: integer `0`, expected a port from 1 to 65535, or {port, protocol, target_port, node_port}",
        ),
        (
            "{\"targets\": [{\"zone\": \"high\", \"nmae\": \"x\", \"ports\": [80]}]}",
            "t.json:1:36: unknown field `nmae`, expected one of `zone`, `namespace`, `service`, `name`, `cluster_ip`, `endpoints`, `nodes`, `external`, `address`, `kind`, `ports`",
        ),
        (
            "{\"targets\": [\n  {\"zone\": \"low\", \"ports\": []}\n]}",
            "t.json:2:3: found neither, expected exactly one of `service` and `name`",
        ),
        ("{\"targets\": [\n  {\"zone\": }\n]}", "t.json:2:12: expected value"),
        (
            "{\"target\": []}",
            "t.json:1:9: unknown field `target`, expected one of `heartbeat`, `zones`, `negative`, `nodes`, `targets`",
        ),
        ("{\"targets\": [], \"nodes\": [\"worker-1\", \"worker-2.example.com\"]}", "good"),
        (
            "{\"targets\": [],\n \"nodes\": [\"worker-1\", \"a b\"]}",
            "t.json:2:28: invalid value: string \"a b\", expected a node's name: up to 253 letters, digits, `-`, `_` or `.`",
        ),
        ("", "t.json:1:1: EOF while parsing a value"),
    ] {
        directory.write("t.json", json);
        assert_eq!(directory.told("f.yaml"), expected, "{json}");
    }
}

#[test]
fn target_files_are_found_merged_and_missed() {
    let directory = Directory::new("files");
    let file = |rest: &str| format!("{MINIMAL}target_files:\n- {rest}\n");
    let target = |name: &str| format!("targets:\n- {{zone: high, name: {name}, address: 127.0.0.1, ports: [80]}}\n");
    directory.write("f.yaml", &file("t-a.yaml"));
    assert_eq!(directory.told("f.yaml"), "f.yaml:5:3: target file `t-a.yaml` does not exist");
    directory.write("f.yaml", &file("t-*.yaml"));
    assert_eq!(directory.told("f.yaml"), "good");
    directory.write("t-a.yaml", &target("a"));
    directory.write("t-b.yaml", &target("b"));
    directory.write("other.yaml", "not a target file");
    let (config, _) = load(&directory.0.join("f.yaml")).unwrap();
    assert_eq!(config.targets.iter().map(|t| &*t.name).collect::<Vec<_>>(), ["a", "b"]);
    directory.write("t-b.yaml", &format!("# a comment\n{}", target("a")));
    assert_eq!(
        directory.told("f.yaml").replace(&format!("{}/", directory.0.display()), ""),
        "t-b.yaml:3:3: two checks with one identity: `a:80` stands at t-a.yaml:2:3 already; merge their addresses"
    );
    directory.write("t-b.yaml", "targets: [\n");
    assert!(directory.told("f.yaml").starts_with("t-b.yaml:"));
    assert!(directory.told("none.yaml").starts_with("none.yaml: cannot read: "), "{}", directory.told("none.yaml"));
}

#[test]
fn nodes_come_from_the_configuration_and_all_target_files() {
    let directory = Directory::new("nodes");
    let share = "share: {nodes_per_sweep: 2, nodes: [d, b]}\n";
    directory.write("f.yaml", &format!("{MINIMAL}{share}target_files: ['t-*']\n"));
    directory.write("t-a.yaml", "nodes: [c, a]\ntargets: []\n");
    directory.write("t-b.json", "{\"nodes\": [\"b\", \"a\"], \"targets\": []}");
    directory.write("t-c.yaml", "nodes:\ntargets:\n");
    let (config, _) = load(&directory.0.join("f.yaml")).unwrap();
    let share = config.share.unwrap();
    assert_eq!(share.of, ShareOf::NodesPerSweep(2));
    assert_eq!(share.nodes.iter().map(|n| &**n).collect::<Vec<_>>(), ["a", "b", "c", "d"]);
    // Who does not ask for it shares nothing, whoever is listed.
    directory.write("f.yaml", &format!("{MINIMAL}target_files: ['t-*']\n"));
    assert_eq!(load(&directory.0.join("f.yaml")).unwrap().0.share, None);
    directory.write("t-c.yaml", "nodes: [\"a\\tb\"]\ntargets: []\n");
    let told = directory.told("f.yaml");
    assert!(
        told.starts_with("t-c.yaml:1:9: invalid value: string") && told.contains("expected a node's name"),
        "{told}"
    );
}

#[test]
fn shares() {
    let most = (0..20_001).map(|i| format!("n{i}")).collect::<Vec<_>>().join(", ");
    assert_told(
        MINIMAL,
        &[
            ("share: {nodes_per_sweep: 3}\n", "good"),
            ("share: {connects_per_second: 0.5, nodes: [a]}\n", "good"),
            ("share: {connects_per_second: 2, nodes:}\n", "good"),
            (
                "share: {}\n",
                "f.yaml:4:8: share: found neither, expected exactly one of `nodes_per_sweep` and `connects_per_second`",
            ),
            (
                "share: {nodes_per_sweep: 3, connects_per_second: 2}\n",
                "f.yaml:4:8: share: found both, expected exactly one of `nodes_per_sweep` and `connects_per_second`",
            ),
            ("share: {nodes_per_sweep: 0}\n", "f.yaml:4:26: share.nodes_per_sweep: found 0, expected 1 to 1000000"),
            (
                "share: {connects_per_second: 0}\n",
                "f.yaml:4:30: share.connects_per_second: found 0, expected 0.001 to 1000000",
            ),
            (
                "share: {connects_per_second: .nan}\n",
                "f.yaml:4:30: share.connects_per_second: found NaN, expected 0.001 to 1000000",
            ),
            (
                &format!("share: {{nodes_per_sweep: 3, nodes: [{most}]}}\n"),
                "f.yaml:4:8: 20001 nodes are listed with the targets, expected 20000 at most",
            ),
        ],
    );
}

#[test]
fn files_that_are_no_text_or_too_large() {
    let directory = Directory::new("text");
    fs::write(directory.0.join("f.yaml"), b"zones: {}\n\xff\xfe").unwrap();
    assert_eq!(directory.told("f.yaml"), "f.yaml:2:1: not UTF-8; save the file as UTF-8 without a byte order mark");
    directory.write("f.yaml", &format!("{MINIMAL}#{}\n", "x".repeat(4 << 20)));
    assert_eq!(directory.told("f.yaml"), "f.yaml: larger than 4 MiB, which is the most that is read");
}

#[test]
fn the_digest_tells_contents_and_names_apart() {
    let directory = Directory::new("digest");
    let main = directory.write("f.yaml", &format!("{MINIMAL}target_files: ['t-*.yaml']\n"));
    let target = directory.write("t-a.yaml", "targets: []\n");
    let (config, files) = load(&main).unwrap();
    assert_eq!(files.look().unwrap().digest, config.hash);
    let mut seen = vec![config.hash];
    let mut changed = |what: &str| {
        let digest = files.look().unwrap().digest;
        assert!(!seen.contains(&digest), "{what}");
        seen.push(digest);
    };
    fs::write(&target, "targets: [] \n").unwrap();
    changed("a target file's contents");
    fs::rename(&target, directory.0.join("t-b.yaml")).unwrap();
    changed("a target file's name");
    directory.write("t-c.yaml", "targets: []\n");
    changed("another target file");
    directory.write("f.yaml", &format!("{MINIMAL}target_files: ['t-*.yaml'] \n"));
    changed("the configuration's own contents");
    // The same contents again give the same digest, whatever the file's age.
    let before = files.look().unwrap().digest;
    directory.write("t-c.yaml", "targets: []\n");
    assert_eq!(files.look().unwrap().digest, before);
}

/// What discovery writes, in both formats: `(file, its text with a heartbeat in place of `{at}`)`.
const DISCOVERED: [(&str, &str); 2] = [
    (
        "t-0.json",
        "{\"heartbeat\": \"{at}\",\n\"nodes\":[\"n1\"],\n\"zones\":{\"high\":[\"vault\"]},\n\
         \"negative\":[{\"tcp\":\"10.96.1.1\",\"ports\":[443]}],\n\
         \"targets\":[\n{\"zone\":\"high\",\"namespace\":\"vault\",\"service\":\"v\",\"endpoints\":[\"10.0.0.1\"],\"ports\":[443]}]}",
    ),
    (
        "t-0.yaml",
        "heartbeat: {at}\nnodes: [n1]\nzones: {high: [vault]}\nnegative: [{tcp: 10.96.1.1, ports: [443]}]\n\
         targets: [{zone: high, namespace: vault, service: v, endpoints: [10.0.0.1], ports: [443]}]\n",
    ),
];

#[test]
fn what_discovery_writes_is_merged_and_its_heartbeat_is_no_change() {
    for (name, text) in DISCOVERED {
        let directory = Directory::new("discovered");
        let main = directory.write("f.yaml", &format!("{MINIMAL}target_files: ['t-*']\n"));
        let beat = |at: &str| directory.write(name, &text.replace("{at}", at));
        beat("2026-11-26T03:34:19Z");
        let (config, files) = load(&main).unwrap();
        let heartbeat = |at: &str| Heartbeat { file: name.into(), at: at.parse().unwrap() };
        assert_eq!(*config.heartbeats, [heartbeat("2026-11-26T03:34:19Z")]);
        assert_eq!(config.targets[0].vouched_by, Some(0), "{name}");
        assert!(config.zones["high"].namespaces.iter().any(|n| **n == *"vault"));
        assert_eq!(config.negative[0].address, "10.96.1.1".parse::<IpAddr>().unwrap());
        let look = files.look().unwrap();
        assert_eq!((look.digest, look.heartbeats), (config.hash.clone(), config.heartbeats.to_vec()));

        beat("2026-11-26T03:35:19Z");
        let look = files.look().unwrap();
        assert_eq!((look.digest, look.heartbeats), (config.hash.clone(), vec![heartbeat("2026-11-26T03:35:19Z")]));
        // Everything else is a change, a heartbeat that cannot be read too.
        for (what, by) in
            [("10.0.0.1", "10.0.0.2"), ("n1", "n2"), ("vault", "vaults"), ("1.1", "1.2"), ("{at}", "soon")]
        {
            directory.write(name, &text.replace(what, by).replace("{at}", "2026-11-26T03:36:19Z"));
            assert!(files.look().unwrap().digest != config.hash, "{name}: {what}");
        }
    }
}

#[test]
fn what_is_wrong_in_what_discovery_writes_is_told_at_its_place() {
    for (name, text) in DISCOVERED {
        let directory = Directory::new("discovered-wrong");
        directory.write("f.yaml", &format!("{MINIMAL}target_files: ['t-*']\n"));
        let json = name.ends_with("json");
        for (what, by, at, said) in [
            ("{at}", "soon", ["1:15", "1:12"], "heartbeat: found `soon`, expected a time such as 2026-11-26T03:34:19Z"),
            (
                "high\":[\"vault",
                "low\":[\"payments",
                ["3:9", ""],
                "zones: namespace `payments` is in zone `high` already, expected one zone at most",
            ),
            ("high: [vault", "high: [Vault", ["", "3:8"], "zones: found `Vault`, expected a Kubernetes namespace"),
            (
                "ports\":[443]}],",
                "ports\":[0]}],",
                ["4:12", ""],
                "ports: found [0], expected at least one port from 1 to 65535",
            ),
            (
                "ports: [443]}]\nt",
                "ports: []}]\nt",
                ["", "4:11"],
                "ports: found [], expected at least one port from 1 to 65535",
            ),
        ] {
            let at = at[usize::from(!json)];
            if !at.is_empty() {
                directory.write(name, &text.replace(what, by).replace("{at}", "2026-11-26T03:34:19Z"));
                let told = directory.told("f.yaml");
                assert_eq!(told.lines().next(), Some(&*format!("{name}:{at}: {said}")), "{name}: {what}");
            }
        }
        // One namespace may stand in several files, in one zone.
        directory.write(name, &text.replace("{at}", "2026-11-26T03:34:19Z"));
        let other = if json {
            "{\"zones\":{\"high\":[\"vault\"]},\"targets\":[]}"
        } else {
            "zones: {high: [vault]}\ntargets: []\n"
        };
        let other_name = name.replace('0', "1");
        directory.write(&other_name, other);
        assert_eq!(directory.told("f.yaml"), "good");
        // What is of a zone that only others have is theirs.
        let (mine, theirs) = if json { ("\"high\"", "\"infra\"") } else { ("high", "infra") };
        directory.write(name, &text.replace(mine, theirs).replace("{at}", "2026-11-26T03:34:19Z"));
        assert!(load(&directory.0.join("f.yaml")).unwrap().0.targets.is_empty());
        let odd = text.replace(mine, theirs).replacen(theirs, mine, 1).replace("{at}", "2026-11-26T03:34:19Z");
        directory.write(name, &odd);
        assert!(directory.told("f.yaml").contains("zone: no zone `infra`, expected one of `high`, `low`"));
        // Files without a heartbeat are as they were.
        fs::remove_file(directory.0.join(name)).unwrap();
        let (config, _) = load(&directory.0.join("f.yaml")).unwrap();
        assert!(config.heartbeats.is_empty());
    }
}

// --- Whatever the text is ---

/// Lines that look like a configuration, with mistakes.
fn yamlish() -> impl Strategy<Value = String> {
    let key = prop::sample::select(vec![
        "zones",
        "boundaries",
        "targets",
        "dns",
        "pace",
        "controls",
        "name",
        "from",
        "to",
        "interval",
        "tcp",
        "attempts",
        "timeout",
        "ports",
        "port",
        "address",
        "vantage",
        "mode",
        "pods",
        "poll",
        "turn_within",
        "node",
        "co_residency",
        "pod_labels",
        "zone",
        "servers",
        "known_names",
        "range",
        "positive",
        "negative",
        "? ",
        "&a",
    ]);
    let value = prop::sample::select(vec![
        "",
        "[]",
        "{}",
        "0",
        "-1",
        "4294967295",
        "1e9",
        "~",
        "30s",
        "low",
        "127.0.0.1",
        "\"::1\"",
        "*a",
        "[[[[",
        "}",
        "!!str x",
        "|\n  text",
        "'",
        "\"\\uD800\"",
        "\t",
        "{namespaces: [web]}",
        "10.0.0.0/33",
        ".",
        "é\u{202e}",
        "9999999h",
    ]);
    let line = (0usize..6, any::<bool>(), key, value).prop_map(|(indent, item, key, value)| {
        format!("{:indent$}{}{key}: {value}\n", "", if item { "- " } else { "" })
    });
    prop::collection::vec(line, 0..12).prop_map(|lines| lines.concat())
}

fn never_panics_and_tells_lines(text: &str) -> Result<(), TestCaseError> {
    if let Err(error) = parse(Path::new("f.yaml"), text) {
        prop_assert!(!error.0.is_empty());
        for problem in &error.0 {
            let line = problem.to_string();
            prop_assert!(line.starts_with("f.yaml:") && !line.chars().any(char::is_control), "{line:?}");
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn parsing_never_panics_on_text(text in any::<String>()) {
        never_panics_and_tells_lines(&text)?;
    }

    #[test]
    fn parsing_never_panics_on_what_looks_like_yaml(text in yamlish(), whole in any::<bool>()) {
        never_panics_and_tells_lines(&if whole { format!("{MINIMAL}{text}") } else { text })?;
    }

    #[test]
    fn parsing_never_panics_on_a_damaged_sample(
        of_pods in any::<bool>(), at in 0usize..6000, with in prop::sample::select(vec!["", "\n", ":", "-", "{", "[", "0", "99999999999", "\u{0}", "é"]), cut in 0usize..20,
    ) {
        let samples = [include_str!("../../tests/fixtures/segprobe.yaml"), include_str!("../../tests/fixtures/segprobe-pods.yaml")];
        let sample = samples[usize::from(of_pods)].replace("target_files", "# target_files");
        let chars: Vec<char> = sample.chars().collect();
        let at = at.min(chars.len());
        let rest = chars[(at + cut).min(chars.len())..].iter();
        let damaged: String = chars[..at].iter().copied().chain(with.chars()).chain(rest.copied()).collect();
        never_panics_and_tells_lines(&damaged)?;
    }
}
