//! What each defence of a cluster's DNS really hides: `segprobe check` against a server for each, and the table of
//! `docs/dns.md` made from it. `UPDATE_DOCS=1 cargo test --test programs defences` writes the table anew.

use std::time::Instant;

use hickory_resolver::proto::rr::{Name, RecordType};
use serde_json::Value;

use crate::{
    cluster_dns::{
        Acl, AclAction, Cilium, ClusterDns, Defences, Firewall, FirewallAction,
        Flavour::{self, CoreDns18, CoreDns114, KubeDns},
        Inventory, Pods, Policy, Protocol, Running, Service, Template, Upstream, View,
    },
    support::{directory, document, find, loopback, segprobe, write_config},
};

const TECHNIQUES: [&str; 6] =
    ["srv-wildcard", "reverse-sweep", "zone-transfer", "service-lookup", "namespace-oracle", "pod-oracle"];

/// The protected namespace is `payments`; the prober stands in `storefront`, at 127.0.0.1.
fn inventory() -> Inventory {
    let tcp = Protocol::Tcp;
    Inventory::new()
        .service(Service::cluster_ip("default", "kubernetes", &["127.96.0.1"]).port("https", tcp, 443))
        .service(Service::cluster_ip("storefront", "web", &["127.96.0.2"]).port("http", tcp, 80).endpoint("127.0.0.1"))
        .service(
            Service::cluster_ip("payments", "ledger", &["127.96.1.1"]).port("pg", tcp, 5432).endpoint("127.97.1.1"),
        )
        .service(Service::headless("payments", "vault").port("api", tcp, 8200).named_endpoint("vault-0", "127.97.1.2"))
        .pod("storefront", "127.0.0.1")
        .pod("payments", "127.97.1.1")
        .pod("payments", "127.97.1.2")
}

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn acl(zones: &[&str], action: AclAction) -> Option<Acl> {
    Some(Acl { zones: zones.iter().map(|zone| name(zone)).collect(), action })
}

const PAYMENTS: [&str; 2] = ["payments.svc.cluster.local.", "payments.pod.cluster.local."];
const PAYMENTS_AND_REVERSE: [&str; 4] =
    ["payments.svc.cluster.local.", "payments.pod.cluster.local.", "in-addr.arpa.", "ip6.arpa."];

fn cilium(allowed: &[&str], name_error: bool, udp_only: bool) -> Option<Cilium> {
    Some(Cilium { allowed: allowed.iter().map(|pattern| (*pattern).to_owned()).collect(), name_error, udp_only })
}

/// What the low zone may ask for behind Cilium; a probe's own controls are among it.
const ALLOWED: [&str; 8] = [
    "cluster.local",
    "*.default.svc.cluster.local",
    "default.svc.cluster.local",
    "default.pod.cluster.local",
    "*.storefront.svc.cluster.local",
    "*.storefront.pod.cluster.local",
    "segprobe-*.svc.cluster.local",
    "1.0.96.127.in-addr.arpa",
];

fn with(change: impl FnOnce(&mut Defences)) -> Defences {
    let mut defences = Defences { upstream: Upstream::NxDomain, ..Defences::default() };
    change(&mut defences);
    defences
}

fn rows() -> Vec<(&'static str, Flavour, Defences)> {
    let low = || vec!["127.0.0.0/8".parse().unwrap()];
    let known = || ["default", "storefront"].map(String::from).to_vec();
    vec![
        ("nothing, CoreDNS ≤ 1.8", CoreDns18, with(|_| ())),
        ("nothing, CoreDNS ≥ 1.9", CoreDns114, with(|_| ())),
        ("nothing, kube-dns", KubeDns, with(|_| ())),
        ("nothing, and `transfer { to * }`", CoreDns114, with(|d| d.transfer = true)),
        ("`acl` block on the namespace's zones", CoreDns114, with(|d| d.acl = acl(&PAYMENTS, AclAction::Block))),
        ("`acl` filter on the namespace's zones", CoreDns114, with(|d| d.acl = acl(&PAYMENTS, AclAction::Filter))),
        ("`acl` drop on the namespace's zones", CoreDns114, with(|d| d.acl = acl(&PAYMENTS, AclAction::Drop))),
        (
            "`acl` block on the namespace's zones, CoreDNS ≤ 1.8",
            CoreDns18,
            with(|d| d.acl = acl(&PAYMENTS, AclAction::Block)),
        ),
        (
            "`acl` block on the namespace's and the reverse zones",
            CoreDns114,
            with(|d| d.acl = acl(&PAYMENTS_AND_REVERSE, AclAction::Block)),
        ),
        (
            "`acl` block on all of cluster.local",
            CoreDns114,
            with(|d| d.acl = acl(&["cluster.local."], AclAction::Block)),
        ),
        (
            "`acl` block on all of cluster.local, and `transfer { to * }`",
            CoreDns114,
            with(|d| (d.acl, d.transfer) = (acl(&["cluster.local."], AclAction::Block), true)),
        ),
        (
            "`acl` block on the namespace's zones behind a filled cache (CoreDNS 1.14.3 to 1.14.6)",
            CoreDns114,
            with(|d| (d.acl, d.cache_before_acl, d.ttl) = (acl(&PAYMENTS, AclAction::Block), true, 3600)),
        ),
        (
            "`template` NXDOMAIN for the namespace's services",
            CoreDns114,
            with(|d| d.template = Some(Template { suffix: name(PAYMENTS[0]), kind: None })),
        ),
        (
            "`template` NXDOMAIN for all PTR",
            CoreDns114,
            with(|d| d.template = Some(Template { suffix: name("in-addr.arpa."), kind: Some(RecordType::PTR) })),
        ),
        (
            "`firewall` block on the namespace's zones",
            CoreDns114,
            with(|d| {
                let zones = PAYMENTS.map(name).to_vec();
                d.firewall = Some(Firewall { zones, action: FirewallAction::Block });
            }),
        ),
        ("`namespaces` without it", CoreDns114, with(|d| d.namespaces = Some(known()))),
        ("`namespaces` without it, CoreDNS ≤ 1.8", CoreDns18, with(|d| d.namespaces = Some(known()))),
        ("`namespace_labels` without it", CoreDns114, with(|d| d.unlabelled = vec!["payments".into()])),
        (
            "`namespace_labels` without it, and `transfer { to * }`",
            CoreDns114,
            with(|d| (d.unlabelled, d.transfer) = (vec!["payments".into()], true)),
        ),
        ("`pods verified`", CoreDns114, with(|d| d.pods = Pods::Verified)),
        ("`pods disabled`", CoreDns114, with(|d| d.pods = Pods::Disabled)),
        (
            "a `view` of its own for the low zone",
            CoreDns114,
            with(|d| d.view = Some(View { low: low(), namespaces: known(), high: vec![] })),
        ),
        (
            "a `view` for the high zone only",
            CoreDns114,
            with(|d| d.view = Some(View { low: vec![], namespaces: known(), high: vec![] })),
        ),
        ("Cilium DNS rule, REFUSED", CoreDns114, with(|d| d.cilium = cilium(&ALLOWED, false, false))),
        ("Cilium DNS rule, nameError", CoreDns114, with(|d| d.cilium = cilium(&ALLOWED, true, false))),
        ("Cilium DNS rule for UDP only", CoreDns114, with(|d| d.cilium = cilium(&ALLOWED, false, true))),
        ("Cilium DNS rule `matchPattern: \"*\"`", CoreDns114, with(|d| d.cilium = cilium(&["*"], false, false))),
        ("UDP 53 blocked, TCP 53 open", CoreDns114, with(|d| d.udp = Policy::Silent)),
        (
            "TCP 53 refused, and a `view` of its own",
            CoreDns114,
            with(|d| {
                (d.tcp, d.view) = (Policy::Closed, Some(View { low: low(), namespaces: known(), high: vec![] }));
            }),
        ),
        (
            "no upstream for reverse misses, and `namespaces`",
            CoreDns114,
            with(|d| {
                (d.upstream, d.namespaces) = (Upstream::Absent, Some(known()));
            }),
        ),
        (
            "a cloud's own names for reverse misses, and `namespaces`",
            CoreDns114,
            with(|d| (d.upstream, d.namespaces) = (Upstream::Synthesised, Some(known()))),
        ),
    ]
}

const AT_ONCE: usize = 8;

/// One sweep of them at once.
fn check(servers: &[Running]) -> Value {
    let listed = |(i, server): (usize, &Running)| format!("    - {{name: row-{i}, address: '{}'}}\n", server.address);
    let judged: Vec<String> = TECHNIQUES.iter().map(|technique| format!("{technique}: judge")).collect();
    let text = format!(
        "zones: {{low: {{namespaces: [storefront]}}, high: {{namespaces: [payments]}}}}
boundaries:
  - {{name: b, from: low, to: high, interval: 50s, tcp: {{attempts: 1}}, dns: {{{}}}}}
vantage: {{namespace: storefront}}
targets:
  - {{zone: high, namespace: payments, service: ledger, cluster_ip: 127.96.1.1, endpoints: 127.97.1.1, ports: [5432]}}
  - {{zone: high, namespace: payments, service: vault, endpoints: 127.97.1.2, ports: [8200]}}
controls: {{positive: [{{tcp: '127.0.0.1:1'}}]}}
dns:
  resolver: 127.0.0.1:1
  timeout: 1s
  ask_again: 500ms
  queries_per_second: 10000
  servers:
{}",
        judged.join(", "),
        servers.iter().enumerate().map(listed).collect::<String>()
    );
    let directory = directory();
    let path = write_config(directory.path(), &text);
    let ended = segprobe(&["check", "--config.file", &path, "--output", "json"]);
    serde_json::from_str(&ended.stdout).unwrap_or_else(|e| panic!("{e}: {ended:?}"))
}

fn cell(report: &Value, technique: &str, row: usize) -> String {
    let check = find(report, technique, &format!("row-{row}"));
    let of = |what: &str| check["dns"][what]["payments"].as_array().map_or(0, Vec::len);
    match (check["verdict"].as_str().unwrap(), check["reason"].as_str().unwrap()) {
        ("fail", "disclosed") if of("names") > 0 => format!("**leaks** {}", of("names")),
        ("fail", "disclosed") => format!("**leaks** {} addresses", of("addresses")),
        ("pass", "nothing-disclosed") => "pass".into(),
        (verdict @ ("unverified" | "inconclusive"), reason) => format!("{verdict}: {reason}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_your_dns_defence_really_hides() {
    let rows = rows();
    let servers: Vec<Running> = rows
        .iter()
        .map(|(_, flavour, defences)| {
            let server = ClusterDns::new(*flavour, inventory()).with(defences.clone()).start(loopback());
            if defences.cache_before_acl {
                server.another_client_asked("ledger.payments.svc.cluster.local.", RecordType::A, Instant::now());
            }
            server
        })
        .collect();
    // A few at a time: a busy machine must not look like a lossy server.
    let reports: Vec<Value> = servers.chunks(AT_ONCE).map(check).collect();
    let mut table =
        format!("| defence | {} |\n|---|{}\n", TECHNIQUES.map(|t| format!("`{t}`")).join(" | "), "---|".repeat(6));
    for (i, (defence, ..)) in rows.iter().enumerate() {
        let cells = TECHNIQUES.map(|technique| cell(&reports[i / AT_ONCE], technique, i % AT_ONCE));
        table += &format!("| {defence} | {} |\n", cells.join(" | "));
    }
    document::holds("docs/dns.md", "defences", &table);
}
