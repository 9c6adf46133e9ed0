//! What segprobe finds out, technique by technique, at a server that has the records of [`super::cluster_dns`].

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
    thread,
};

use serde_json::Value;

use super::{
    cluster_dns::{SERVICES, dashed},
    directory, find, segprobe, write_config,
};

/// What segprobe finds out at a server from this source address, and its exit code.
fn enumerate(server: SocketAddr, source: Ipv4Addr) -> (Value, Option<i32>) {
    let directory = directory();
    let techniques = TECHNIQUES.map(|technique| format!("{technique}: judge")).join(", ");
    let path = write_config(
        directory.path(),
        &format!(
            "zones: {{low: {{namespaces: [storefront]}}, high: {{namespaces: [payments]}}}}
boundaries: [{{name: b, from: low, to: high, interval: 1m, dns: {{{techniques}}}}}]
vantage: {{namespace: storefront, source: {source}}}
targets:
  - {{zone: high, namespace: payments, service: ledger-07, cluster_ip: 127.96.1.7, endpoints: 127.97.0.5, ports: [5432]}}
controls: {{positive: [{{tcp: '{server}'}}]}}
dns:
  resolver: '{server}'
  servers: [{{name: tested, address: '{server}'}}]
  timeout: 5s
  queries_per_second: 1000
  ask_again: 1s
"
        ),
    );
    let ended = segprobe(&["check", "--config.file", &path, "--output", "json"]);
    (serde_json::from_str(&ended.stdout).unwrap_or_else(|e| panic!("{e}: {ended:?}")), ended.code)
}

const TECHNIQUES: [&str; 6] =
    ["srv-wildcard", "reverse-sweep", "zone-transfer", "service-lookup", "namespace-oracle", "pod-oracle"];

/// What a technique says: its reason, and the names that it was told, without the zone. `*` is each number of a
/// service, `OWN` is the agent's own address.
pub type Told<'a> = (&'a str, &'a [&'a str]);

pub const NOTHING: Told<'_> = ("nothing-disclosed", &[]);
pub const UNKNOWN: Told<'_> = ("no-self-check", &[]);
pub const FAILED: Told<'_> = ("control-failed", &[]);
pub const WILDCARD: Told<'_> =
    ("disclosed", &["kubernetes.default.svc", "web-*.storefront.svc", "ledger-*.payments.svc"]);
pub const REVERSE: Told<'_> = ("disclosed", &["ledger-07.payments.svc", "127-97-0-5.ledger-07.payments.svc"]);
pub const LOOKUP: Told<'_> = ("disclosed", &["ledger-07.payments.svc"]);
pub const NAMESPACE: Told<'_> = ("disclosed", &["payments.svc", "payments.pod"]);
pub const POD: Told<'_> = ("disclosed", &["127-97-0-5.payments.pod"]);
/// The zone and the reverse zone, as a transfer gives them.
pub const ZONES: Told<'_> = (
    "disclosed",
    &[
        "kubernetes.default.svc",
        "web-*.storefront.svc",
        "OWN.storefront.pod",
        "any.any.svc",
        "ledger-*.payments.svc",
        "127-97-0-5.ledger-07.payments.svc",
        "127-97-0-5.payments.pod",
    ],
);
/// A client's wildcard and transfer list what it may know.
pub const MAY_KNOW: Told<'_> = ("nothing-disclosed", &["kubernetes.default.svc", "web-*.storefront.svc"]);
pub const MAY_TRANSFER: Told<'_> =
    ("nothing-disclosed", &["kubernetes.default.svc", "web-*.storefront.svc", "OWN.storefront.pod", "any.any.svc"]);
/// What nobody is told who must not know: the whole of a proof.
pub const SPLIT: [Told<'_>; 6] = [MAY_KNOW, NOTHING, MAY_TRANSFER, NOTHING, NOTHING, NOTHING];

/// What is asked where and from where, and what is expected of each technique, in the order of [`TECHNIQUES`].
pub type Case<'a> = (&'a str, SocketAddr, Ipv4Addr, [Told<'a>; 6]);

/// Runs all cases side by side, compares what they tell, and gives the reports.
pub fn enumerate_all(cases: &[Case<'_>]) -> Vec<Value> {
    let checks: Vec<(Value, Option<i32>)> = thread::scope(|scope| {
        let start = |(_, server, client, _): &Case<'_>| {
            let (server, client) = (*server, *client);
            scope.spawn(move || enumerate(server, client))
        };
        let running: Vec<_> = cases.iter().map(start).collect();
        running.into_iter().map(|check| check.join().unwrap()).collect()
    });
    for ((report, code), (name, _, client, expected)) in checks.iter().zip(cases) {
        assert_told(name, report, *client, *expected);
        if expected.iter().any(|(reason, _)| *reason == "disclosed") {
            assert_eq!(*code, Some(1), "{name}");
        }
    }
    checks.into_iter().map(|(report, _)| report).collect()
}

fn assert_told(case: &str, report: &Value, source: Ipv4Addr, expected: [Told<'_>; 6]) {
    for (technique, (reason, names)) in TECHNIQUES.into_iter().zip(expected) {
        let check = find(report, technique, "tested");
        let verdict = match reason {
            "disclosed" => "fail",
            "nothing-disclosed" => "pass",
            "no-self-check" => "unverified",
            _ => "inconclusive",
        };
        assert_eq!((&check["verdict"], &check["reason"]), (&verdict.into(), &reason.into()), "{case}: {check:#}");
        let names: BTreeSet<String> = names.iter().flat_map(|name| spell_out(name, source)).collect();
        assert_eq!(names_in(check), names, "{case}: {technique}");
    }
}

fn spell_out(name: &str, source: Ipv4Addr) -> Vec<String> {
    match name.split_once('*') {
        Some((before, after)) => (1..=SERVICES).map(|i| format!("{before}{i:02}{after}")).collect(),
        None => vec![name.replace("OWN", &dashed(source))],
    }
}

/// The names that a check was told, of whatever namespace.
fn names_in(check: &Value) -> BTreeSet<String> {
    let by_namespace = check["dns"]["names"].as_object().unwrap().values();
    let names = by_namespace.flat_map(|names| names.as_array().unwrap()).map(|name| name.as_str().unwrap());
    names.map(|name| name.strip_suffix(".cluster.local.").unwrap().to_owned()).collect()
}
