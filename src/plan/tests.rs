//! What is planned of a configuration, and what is said not to be.

use std::{collections::HashSet, path::Path};

use proptest::prelude::*;

use super::*;
use crate::config::{Port, parse};

const SYSTEM: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 53)), 53),
    SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 54)), 53),
];

/// What pods ask: no address of their own.
const SERVERS: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(10, 96, 0, 10)), 53),
    SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(10, 96, 0, 11)), 53),
];

const HEAD: &str = "
zones: {low: {namespaces: [web]}, high: {namespaces: [payments, vault]}, outside: {}}
controls: {positive: [{tcp: '127.0.0.53:53'}], negative: [{tcp: 127.9.9.9, ports: [80]}]}
witnesses: [{zone: high, source: 127.0.0.2}]
";

fn config(rest: &str) -> Config {
    parse(Path::new("f.yaml"), &format!("{HEAD}{rest}")).unwrap_or_else(|e| panic!("{e}"))
}

fn planned(rest: &str) -> Plan {
    let config = config(rest);
    plan(&config, &[Stand::own(&config, &SYSTEM[..1], "agents")])
}

const BOUNDARY: &str = "boundaries: [{name: b, from: low, to: high}]\n";
const NO_DNS: &str = "boundaries: [{name: b, from: low, to: high, dns: off}]\n";

/// A check in one line: what it is called, and what it asks of whom.
fn told(check: &Check) -> String {
    let asks = match &check.question {
        Question::Reach { transport, kind, addresses, port, .. } => {
            let name = |a: &Address| match a {
                Address::Ip(ip) => ip.to_string(),
                Address::Name(name) => name.to_string(),
            };
            let addresses: Vec<String> = addresses.iter().map(name).collect();
            let over = if *transport == Transport::Udp { "/udp" } else { "" };
            format!("{kind} {} port {port}{over}", addresses.join(" "))
        }
        Question::Dns { server, .. } => format!("{} {server}", check.mode),
        Question::CoResidency => check.mode.to_string(),
    };
    format!("{}: {asks}", check.id)
}

fn lines(plan: &Plan) -> Vec<String> {
    plan.legs.iter().flat_map(|leg| leg.checks()).map(told).collect()
}

#[test]
fn a_service_is_probed_by_every_way_that_leads_to_it() {
    let plan = planned(&format!(
        "{NO_DNS}targets:\n- {{zone: high, namespace: payments, service: ledger, cluster_ip: 127.1.0.1,
            endpoints: [127.2.0.1, \"::2\"], nodes: [127.3.0.1], external: [127.4.0.1, lb.example], address: unused.example,
            ports: [80, {{port: 443, target_port: 8443, node_port: 30443}}]}}\n"
    ));
    assert_eq!(
        lines(&plan),
        [
            "b tcp-connect payments/ledger:80 via service: virtual 127.1.0.1 port 80",
            "b tcp-connect payments/ledger:80 via endpoint: endpoint 127.2.0.1 ::2 port 80",
            "b tcp-connect payments/ledger:80 via external: virtual 127.4.0.1 lb.example. port 80",
            "b tcp-connect payments/ledger:443 via service: virtual 127.1.0.1 port 443",
            "b tcp-connect payments/ledger:443 via endpoint: endpoint 127.2.0.1 ::2 port 8443",
            "b tcp-connect payments/ledger:443 via nodeport: virtual 127.3.0.1 port 30443",
            "b tcp-connect payments/ledger:443 via external: virtual 127.4.0.1 lb.example. port 443",
        ]
    );
}

#[test]
fn a_dns_server_that_must_be_unreachable_is_asked_over_both_transports() {
    let plan = planned(&format!(
        "{NO_DNS}targets:\n- {{zone: high, namespace: vault, service: dns, cluster_ip: 127.1.0.1, endpoints: 127.2.0.1,
            ports: [53, {{port: 53, protocol: UDP, target_port: 1053}}]}}\n"
    ));
    assert_eq!(
        lines(&plan),
        [
            "b tcp-connect vault/dns:53 via service: virtual 127.1.0.1 port 53",
            "b tcp-connect vault/dns:53 via endpoint: endpoint 127.2.0.1 port 53",
            "b dns-query vault/dns:53 via service: virtual 127.1.0.1 port 53/udp",
            "b dns-query vault/dns:53 via endpoint: endpoint 127.2.0.1 port 1053/udp",
        ]
    );
    // The controls of this configuration are over TCP only.
    let why = "no positive control of that family over UDP: they stay inconclusive";
    assert!(plan.not_tested.iter().any(|n| n.what == "ipv4 targets over UDP" && n.why == why), "{:?}", plan.not_tested);
    assert!(plan.not_tested.iter().all(|n| n.what != "ipv4 targets"));
}

#[test]
fn a_target_without_listed_addresses_is_asked_by_its_address_or_name() {
    let plan = planned(&format!(
        "{NO_DNS}targets:
- {{zone: high, namespace: vault, service: vault, ports: [8200]}}
- {{zone: high, namespace: vault, service: other, address: other.example, ports: [1]}}
- {{zone: high, name: host, address: 127.5.0.1, ports: [22]}}
- {{zone: high, name: one, address: 127.5.0.2, kind: endpoint, ports: [22]}}
- {{zone: low, namespace: web, service: shop, ports: [80]}}
dns: {{zone: k8s.example}}\n"
    ));
    assert_eq!(
        lines(&plan),
        [
            "b tcp-connect vault/vault:8200 via service: virtual vault.vault.svc.k8s.example. port 8200",
            "b tcp-connect vault/other:1 via service: virtual other.example. port 1",
            "b tcp-connect host:22 via external: virtual 127.5.0.1 port 22",
            "b tcp-connect one:22 via external: endpoint 127.5.0.2 port 22",
        ]
    );
}

const SERVICE: &str =
    "targets: [{zone: high, namespace: vault, service: vault, endpoints: 127.0.0.7, ports: [8200]}]\n";

#[test]
fn dns_is_asked_by_technique_and_server() {
    let config = config(&format!(
        "{BOUNDARY}{SERVICE}dns: {{servers: [system, '127.0.0.9:5353', {{name: local, address: '::1'}}]}}\n"
    ));
    let plan = plan(&config, &[Stand::own(&config, &SYSTEM, "agents")]);
    assert_eq!(
        lines(&plan)[1..],
        [
            "b srv-wildcard system: judge 127.0.0.53:53",
            "b srv-wildcard system-2: judge 127.0.0.54:53",
            "b srv-wildcard 127.0.0.9:5353: judge 127.0.0.9:5353",
            "b srv-wildcard local: judge [::1]:53",
            "b reverse-sweep system: judge 127.0.0.53:53",
            "b reverse-sweep system-2: judge 127.0.0.54:53",
            "b reverse-sweep 127.0.0.9:5353: judge 127.0.0.9:5353",
            "b reverse-sweep local: judge [::1]:53",
            "b service-lookup system: report 127.0.0.53:53",
            "b service-lookup system-2: report 127.0.0.54:53",
            "b service-lookup 127.0.0.9:5353: report 127.0.0.9:5353",
            "b service-lookup local: report [::1]:53",
            "b namespace-oracle system: report 127.0.0.53:53",
            "b namespace-oracle system-2: report 127.0.0.54:53",
            "b namespace-oracle 127.0.0.9:5353: report 127.0.0.9:5353",
            "b namespace-oracle local: report [::1]:53",
            "b pod-oracle system: report 127.0.0.53:53",
            "b pod-oracle system-2: report 127.0.0.54:53",
            "b pod-oracle 127.0.0.9:5353: report 127.0.0.9:5353",
            "b pod-oracle local: report [::1]:53",
        ]
    );
    assert_eq!(plan.legs[0].controls.resolver, SYSTEM);
}

#[test]
fn modes_are_kept_and_off_is_not_asked() {
    for (modes, expected) in [
        (
            "srv-wildcard: report, service-lookup: judge",
            vec![
                "srv-wildcard report",
                "reverse-sweep judge",
                "service-lookup judge",
                "namespace-oracle report",
                "pod-oracle report",
            ],
        ),
        (
            "srv-wildcard: off, pod-oracle: off",
            vec!["reverse-sweep judge", "service-lookup report", "namespace-oracle report"],
        ),
        (
            "srv-wildcard: off, reverse-sweep: report, zone-transfer: judge, service-lookup: off, namespace-oracle: judge, pod-oracle: judge",
            vec!["reverse-sweep report", "zone-transfer judge", "namespace-oracle judge", "pod-oracle judge"],
        ),
        ("srv-wildcard: off, reverse-sweep: off, service-lookup: off, namespace-oracle: off, pod-oracle: off", vec![]),
    ] {
        let plan = planned(&format!("boundaries: [{{name: b, from: low, to: high, dns: {{{modes}}}}}]\n{SERVICE}"));
        let checks = plan.legs[0].checks().skip(1).map(|c| format!("{} {}", c.id.kind, c.mode));
        assert_eq!(checks.collect::<Vec<_>>(), expected, "{modes}");
    }
    let off = planned(&format!("{NO_DNS}{SERVICE}"));
    assert_eq!(lines(&off).len(), 1);
    let open = planned(&format!("boundaries: [{{name: b, from: low, to: high, expect: open}}]\n{SERVICE}"));
    assert_eq!(lines(&open), ["b tcp-connect vault/vault:8200 via endpoint: endpoint 127.0.0.7 port 8200"]);
}

#[test]
fn a_technique_with_nothing_to_look_for_is_a_gap_and_no_check() {
    let gaps = |rest: &str| -> Vec<String> {
        let plan = planned(rest);
        assert!(lines(&plan).iter().all(|l| l.contains("tcp-connect")), "{:?}", lines(&plan));
        plan.not_tested
            .iter()
            .filter(|n| ["-wildcard", "-lookup", "-sweep", "-oracle"].iter().any(|kind| n.what.contains(kind)))
            .map(|n| format!("{}: {}", n.what, n.why))
            .collect()
    };
    assert_eq!(
        gaps(
            "boundaries: [{name: b, from: low, to: outside}]\ntargets: [{zone: outside, name: x, address: 127.0.0.7, ports: [1]}]\n"
        ),
        [
            "srv-wildcard of zone `outside`: the zone has no namespaces",
            "reverse-sweep of zone `outside`: the zone has no namespaces",
            "service-lookup of zone `outside`: the zone has no namespaces",
            "namespace-oracle of zone `outside`: the zone has no namespaces",
            "pod-oracle of zone `outside`: the zone has no namespaces",
        ]
    );
    assert_eq!(
        gaps(&format!("{BOUNDARY}{SERVICE}dns: {{servers: []}}\n")),
        [
            "srv-wildcard of zone `high`: no DNS server is configured or known",
            "reverse-sweep of zone `high`: no DNS server is configured or known",
            "service-lookup of zone `high`: no DNS server is configured or known",
            "namespace-oracle of zone `high`: no DNS server is configured or known",
            "pod-oracle of zone `high`: no DNS server is configured or known",
        ]
    );
    let no_service = planned(&format!(
        "{BOUNDARY}targets: [{{zone: high, namespace: vault, name: host, address: 127.0.0.7, ports: [1]}}]\n"
    ));
    let left = ["b srv-wildcard system: judge 127.0.0.53:53", "b namespace-oracle system: report 127.0.0.53:53"];
    assert_eq!(lines(&no_service)[1..], left);
    for (kind, why) in [
        ("service-lookup", "no target of the zone is a Service"),
        ("reverse-sweep", "no target of the zone has an address, and no range is configured"),
        ("pod-oracle", "no target of the zone has endpoints"),
        ("zone-transfer", "it is off: one AXFR can crash CoreDNS up to 1.14.4 on dual stack"),
    ] {
        let what = format!("{kind} of zone `high`");
        assert!(no_service.not_tested.iter().any(|n| n.what == what && n.why == why), "{:?}", no_service.not_tested);
    }
    let ranges = planned(&format!(
        "{BOUNDARY}dns: {{servers: [127.0.0.9], resolver: 127.0.0.9, reverse_sweep: {{ranges: [127.0.0.0/24], queries_per_sweep: 9}}}}\n"
    ));
    assert!(
        lines(&ranges).contains(&"b reverse-sweep 127.0.0.9: judge 127.0.0.9:53".to_owned()),
        "{:?}",
        lines(&ranges)
    );
}

#[test]
fn what_is_not_tested_or_not_provable_is_said() {
    let gaps = |text: &str| -> Vec<String> {
        let config = parse(Path::new("f.yaml"), text).unwrap_or_else(|e| panic!("{e}"));
        plan(&config, &[Stand::own(&config, &[], "agents")])
            .not_tested
            .iter()
            .map(|n| format!("{}: {}: {}", n.boundary, n.what, n.why))
            .collect()
    };
    let bare = "zones: {low: {}, high: {namespaces: [vault]}}\nboundaries:\n\
                - {name: b, from: low, to: high, dns: off}\n";
    assert_eq!(gaps(bare), ["b: TCP to zone `high`: no target is in the zone"]);
    let blind = [
        "b: that the targets of zone `high` are alive: no witness: blocked is `unverified`",
        "b: that nobody answers for everybody: no negative control is configured",
        "b: UDP to the targets: only TCP and DNS are tested; of UDP services only DNS servers",
        "b: ipv4 targets: no positive control of that family: they stay inconclusive",
        "b: ipv6 targets: no positive control of that family: they stay inconclusive",
    ];
    // Wherever the addresses are listed.
    for addresses in [
        "endpoints: [127.0.0.1, '::1']",
        "external: [127.0.0.1, '::1', x.example]",
        "cluster_ip: ['::1'], endpoints: 127.0.0.1",
    ] {
        assert_eq!(gaps(&format!("{bare}targets: [{{zone: high, name: x, {addresses}, ports: [80]}}]\n")), blind);
    }
    assert_eq!(
        gaps(&format!(
            "{bare}targets: [{{zone: high, name: x, address: 127.0.0.1, ports: [80]}}]\ncontrols: {{positive: [{{tcp: '[::1]:1'}}], negative: [{{tcp: 127.0.0.9, ports: [80]}}]}}\nwitnesses: [{{zone: high, source: 127.0.0.2}}]\n"
        )),
        [blind[2], blind[3]]
    );
    let ports = "ports: [80, {port: 443, node_port: 30443}]";
    let only_nodes = gaps(&format!("{bare}targets: [{{zone: high, name: x, nodes: 127.0.0.1, {ports}}}]\n"));
    assert_eq!(only_nodes[0], "b: x:80: only nodes are listed for it, and the port has no `node_port`");
    assert!(!only_nodes[1].contains("x:443"), "{only_nodes:?}");
    let both =
        gaps(&format!("{bare}targets: [{{zone: high, name: x, nodes: 127.0.0.1, endpoints: 127.0.0.2, {ports}}}]\n"));
    assert_eq!(both, blind[..4]);
    // An outage needs no witness.
    let open = "zones: {high: {}}\nboundaries: [{name: b, from: high, to: high, expect: open}]\n\
                targets: [{zone: high, name: x, address: 127.0.0.1, ports: [80]}]\ncontrols: {positive: [{tcp: '127.0.0.1:1'}]}\n";
    assert_eq!(gaps(open), Vec::<String>::new());
}

#[test]
fn labels_and_controls_of_the_own_vantage() {
    let plan = planned(BOUNDARY);
    let identity = |plan: &Plan| plan.legs[0].stand.source.identity.clone();
    assert_eq!((&*identity(&plan).namespace, &*identity(&plan).name), ("agents", "own"));
    assert_eq!(plan.legs[0].controls.positive, [SYSTEM[0]]);
    let text = BOUNDARY.to_owned() + "vantage: {namespace: web, identity: shop}\ndns: {resolver: '127.0.0.7:5353'}\n";
    let plan = planned(&text);
    assert_eq!((&*identity(&plan).namespace, &*identity(&plan).name), ("web", "shop"));
    assert_eq!(plan.legs[0].controls.resolver, ["127.0.0.7:5353".parse::<SocketAddr>().unwrap()]);
    let mut config = config(&text);
    config.positive.insert(0, (Transport::Tcp, PositiveControl::Resolver));
    let plan = super::plan(&config, &[Stand::own(&config, &SYSTEM, "")]);
    assert_eq!(plan.legs[0].controls.positive, ["127.0.0.7:5353".parse().unwrap(), SYSTEM[0]]);
}

#[test]
fn a_boundary_knows_its_zone() {
    let plan = planned(&format!(
        "{BOUNDARY}targets:
- {{zone: high, namespace: vault, service: vault, cluster_ip: 127.1.0.1, endpoints: 127.2.0.1, external: 127.4.0.1, ports: [1]}}
- {{zone: high, namespace: vault, name: pod, endpoints: 127.2.0.2, ports: [1]}}
- {{zone: high, name: outside, endpoints: 127.2.0.3, ports: [1]}}
- {{zone: low, namespace: web, service: shop, cluster_ip: 127.1.0.9, ports: [1]}}\n"
    ));
    let boundary = &plan.boundaries[0];
    assert_eq!(boundary.namespaces, ["payments".into(), "vault".into()]);
    assert_eq!(boundary.services, BTreeSet::from([("vault".into(), "vault".into())]));
    let known = ["127.1.0.1", "127.2.0.1", "127.2.0.2", "127.4.0.1"].map(|ip| (ip.parse().unwrap(), "vault".into()));
    assert_eq!(*boundary.known_addresses, BTreeMap::from(known));
    assert!(boundary.witnessed);
    assert!(!planned("boundaries: [{name: b, from: high, to: low}]\n").boundaries[0].witnessed);
}

#[test]
fn what_a_sweep_costs() {
    let rest = format!(
        "{BOUNDARY}targets: [{{zone: high, namespace: vault, service: vault, endpoints: [127.0.0.7, 127.0.0.8], cluster_ip: 127.0.0.9, ports: [8200]}}]\n"
    );
    let config = config(&rest);
    let plan = plan(&config, &[Stand::own(&config, &SYSTEM[..1], "")]);
    assert_eq!(
        plan.legs[0].cost(&config),
        Cost {
            checks: 7,
            addresses: 3,
            addresses_per_sweep: 3,
            // Two attempts and two of the witness, and three rounds in 12 s of six positive controls and, from both
            // vantages, the negative one on its own port and the positive control's.
            connects: 3 * (2 + 2) + 3 * (6 + 2 * 2),
            // Controls and a name of nobody: 8. The rest over both transports, with a self-check of one name: wildcards, 18
            // for all and 9 for each of two namespaces; PTR of three addresses; three types of one service and of
            // nobody's in each namespace; namespaces, 4
            // for each and nobody's; pods, two, the own one, and nobody's address of both families in each namespace and
            // nobody's.
            dns_queries: 8 + 2
                * ((18 + 2 * 9 + 1) + (3 + 2) + 3 * (1 + 2 + 1) + 4 * (2 + 1 + 1) + (2 + 1 + 2 * (2 + 1))),
            packets_per_second: 2 * 42 + 20,
            dns_seconds: 166_u64.div_ceil(20),
            least_seconds: 166_u64.div_ceil(20),
            most_seconds: 2 * (4 + 2),
        }
    );
}

// --- Asked from pods ---

const PODS: &str = "
zones: {low: {namespaces: [web]}, mid: {namespaces: [batch]}, high: {namespaces: [vault]}}
vantage: {mode: pods}
controls: {positive: [{tcp: resolver}, {udp: resolver}], negative: [{tcp: 127.9.9.9, ports: [80]}]}
dns: {resolver: 10.96.0.10}
targets: [{zone: high, namespace: vault, service: vault, endpoints: [127.0.0.7, 127.0.0.8], ports: [8200]}]
";

fn from_pods(rest: &str) -> Config {
    parse(Path::new("f.yaml"), &format!("{PODS}{rest}")).unwrap_or_else(|e| panic!("{e}"))
}

/// An identity of a zone, whose pods ask these servers.
fn stand(zone: &str, name: &str, system_dns: &[SocketAddr]) -> Stand {
    let identity = Arc::new(Identity { namespace: "web".into(), name: name.into() });
    let source = Source { identity, zone: Some(zone.into()), system_dns: system_dns.into() };
    Stand { source: Arc::new(source), speakers: Speakers::Pods(Arc::default()) }
}

fn unknown(zone: &str) -> Stand {
    let identity = Arc::new(Identity { namespace: "".into(), name: "unknown".into() });
    let source = Source { identity, zone: Some(zone.into()), system_dns: Box::default() };
    Stand { source: Arc::new(source), speakers: Speakers::Nobody(crate::model::Reason::RuntimeUnreadable) }
}

/// Who asks over which boundary.
fn legs(plan: &Plan) -> Vec<String> {
    plan.legs
        .iter()
        .map(|leg| format!("{} from {}", leg.boundary.boundary.name, leg.stand.source.identity.name))
        .collect()
}

fn gaps(plan: &Plan) -> Vec<String> {
    plan.not_tested.iter().map(|n| format!("{}: {}: {}", n.boundary, n.what, n.why)).collect()
}

const TWO: &str = "boundaries: [{name: a, from: low, to: high, dns: off}, {name: b, from: mid, to: high, dns: off}, {name: c, from: low, to: mid, dns: off}]\n";

#[test]
fn each_boundary_is_asked_from_every_identity_of_its_zone() {
    let config = from_pods(TWO);
    let stands = [stand("low", "x", &[]), stand("mid", "y", &[]), stand("low", "z", &[])];
    let plan = plan(&config, &stands);
    assert_eq!(legs(&plan), ["a from x", "a from z", "b from y", "c from x", "c from z"]);
    for leg in &plan.legs {
        assert!(leg.checks().all(|check| check.id.source == leg.stand.source.identity));
        assert_eq!(leg.checks().count(), usize::from(&*leg.boundary.boundary.name != "c"));
        assert_eq!(leg.boundary.mode, VantageMode::Pods);
    }
    // The agent's own network speaks for all of them.
    assert_eq!(
        legs(&super::plan(&config, &[Stand::own(&config, &[], "")])),
        ["a from own", "b from own", "c from own"]
    );
}

#[test]
fn what_is_asked_from_a_source_that_stays_is_the_same_in_memory() {
    let config = from_pods("boundaries: [{name: a, from: low, to: high, co_residency: judge}]\n");
    let none = plan(&config, &[]);
    let first = none.with_stands(&config, &[stand("low", "x", &SYSTEM), stand("low", "y", &SYSTEM)]);
    let speakers = Speakers::Pods(Arc::new([]));
    let stays = Stand { speakers, ..stand("low", "y", &SYSTEM) };
    let second = first.with_stands(&config, &[stand("low", "w", &SYSTEM), stays.clone()]);
    let of = |plan: &Plan, name: &str| {
        plan.legs.iter().find(|leg| &*leg.stand.source.identity.name == name).unwrap().clone()
    };
    let (before, after) = (of(&first, "y"), of(&second, "y"));
    assert!(Arc::ptr_eq(&before.reach, &after.reach) && Arc::ptr_eq(&before.controls, &after.controls));
    assert!(before.dns.iter().zip(&after.dns).all(|(a, b)| Arc::ptr_eq(&a.id, &b.id)));
    assert!(Arc::ptr_eq(&before.boundary, &of(&second, "w").boundary), "the boundary is the same for all");
    let (Speakers::Pods(had), Speakers::Pods(has)) = (&stays.speakers, &after.stand.speakers) else { panic!() };
    assert!(Arc::ptr_eq(had, has), "who speaks now is not who spoke before");
    // The addresses are no copies, whoever asks.
    let addresses = |leg: &Leg| match &leg.reach[0].question {
        Question::Reach { addresses, .. } => addresses.clone(),
        other => panic!("{other:?}"),
    };
    assert!(Arc::ptr_eq(&addresses(&before), &addresses(&of(&second, "w"))));
    // Pods that ask other servers have other checks.
    let moved = second.with_stands(&config, &[stand("low", "y", &SYSTEM[..1])]);
    let told = |plan: &Plan| of(plan, "y").checks().map(|c| c.id.to_string()).collect::<Vec<_>>();
    assert!(told(&second).contains(&"a srv-wildcard system-2".to_owned()));
    assert!(!told(&moved).contains(&"a srv-wildcard system-2".to_owned()));
}

#[test]
fn the_only_source_needs_no_copy_of_the_checks() {
    let config = from_pods(TWO);
    let stands = [stand("low", "x", &[]), stand("low", "y", &[])];
    let plan = plan(&config, &stands);
    assert!(Arc::ptr_eq(&plan.legs[0].reach, &plan.boundaries[0].reach));
    assert!(!Arc::ptr_eq(&plan.legs[1].reach, &plan.boundaries[0].reach));
}

#[test]
fn dns_is_asked_of_the_pods_own_servers() {
    let config = from_pods(
        "boundaries: [{name: a, from: low, to: high, dns: {reverse-sweep: off, service-lookup: off, namespace-oracle: off, pod-oracle: off}}]\n",
    );
    let plan = plan(&config, &[stand("low", "x", &SERVERS), stand("low", "y", &SERVERS[1..]), stand("low", "z", &[])]);
    let asked = |at: usize| plan.legs[at].checks().skip(1).map(told).collect::<Vec<_>>();
    assert_eq!(
        asked(0),
        ["a srv-wildcard system: judge 10.96.0.10:53", "a srv-wildcard system-2: judge 10.96.0.11:53"]
    );
    assert_eq!(asked(1), ["a srv-wildcard system: judge 10.96.0.11:53"]);
    assert_eq!(asked(2), [""; 0]);
    let gap = "a: srv-wildcard of zone `high`: no DNS server is configured or known";
    assert!(gaps(&plan).contains(&gap.to_owned()), "{:?}", gaps(&plan));
    // The named resolver is everybody's, the system's each one's own.
    let mut config = from_pods(TWO);
    config.dns.resolver = DnsServer::Named("r".into(), SERVERS[0], AddressKind::Endpoint);
    let plan = super::plan(&config, &[stand("low", "x", &SERVERS[1..]), stand("low", "z", &[])]);
    assert!(plan.legs.iter().all(|leg| leg.controls.positive == [SERVERS[0]]));
    config.dns.resolver = DnsServer::System;
    // What is on the pod's own loopback proves nothing of the way out of it.
    let local = [SYSTEM[0], SERVERS[1], "[::1]:53".parse().unwrap()];
    let plan = super::plan(&config, &[stand("low", "x", &local), stand("low", "z", &[]), stand("low", "l", &SYSTEM)]);
    assert_eq!(plan.legs[0].controls.positive, [SERVERS[1]]);
    assert_eq!(plan.legs[0].controls.positive_udp, [SERVERS[1]]);
    for leg in &plan.legs[1..3] {
        assert!(leg.controls.positive.is_empty());
        assert!(leg.not_tested.iter().any(|n| n.what == "ipv4 targets"), "{:?}", leg.not_tested);
    }
}

#[test]
fn what_is_not_tested_from_several_identities_is_told_once() {
    let mut config = from_pods("boundaries: [{name: a, from: low, to: high, dns: off}]\n");
    config.dns.resolver = DnsServer::System;
    let stands: Vec<Stand> = ["x", "y", "z"].map(|name| stand("low", name, &[])).into();
    let plan = plan(&config, &stands);
    assert_eq!(
        gaps(&plan),
        [
            "a: that the targets of zone `high` are alive: no witness but the listeners of pods on this node: blocked elsewhere is `unverified`",
            "a: UDP to the targets: only TCP and DNS are tested; of UDP services only DNS servers",
            "a: ipv4 targets: no positive control of that family: they stay inconclusive",
        ]
    );
}

#[test]
fn a_zone_without_pods_here_is_said_not_to_be_tested() {
    let config = from_pods(TWO);
    let says = |plan: &Plan, boundary: &str, zone: &str| {
        let gap = format!(
            "{boundary}: boundary `{boundary}` from this node: no pod of zone `{zone}` that can be probed from runs here: `segprobe vantages` tells why"
        );
        gaps(plan).contains(&gap)
    };
    let none = plan(&config, &[]);
    assert!(none.legs.is_empty() && says(&none, "a", "low") && says(&none, "b", "mid") && says(&none, "c", "low"));
    let some = none.with_stands(&config, &[stand("low", "x", &[])]);
    assert!(!says(&some, "a", "low") && says(&some, "b", "mid") && !says(&some, "c", "low"));
    // Who may be there and is not known of is no gap but a check that says so.
    let unknown = none.with_stands(&config, &[unknown("low")]);
    assert!(!says(&unknown, "a", "low") && legs(&unknown) == ["a from unknown", "c from unknown"]);
    assert!(says(&some.with_stands(&config, &[]), "a", "low"), "when the last is gone");
}

#[test]
fn co_residency_is_asked_of_the_node_once() {
    let config = from_pods(
        "boundaries: [{name: a, from: low, to: high, dns: off, co_residency: report}, {name: b, from: mid, to: high, dns: off}]\n",
    );
    for stands in [vec![], vec![stand("low", "x", &[]), stand("low", "y", &[])]] {
        let plan = plan(&config, &stands);
        let node: Vec<&Arc<Leg>> =
            plan.legs.iter().filter(|leg| matches!(leg.stand.speakers, Speakers::Node)).collect();
        let [leg] = node[..] else { panic!("{:?}", legs(&plan)) };
        assert_eq!(leg.checks().map(told).collect::<Vec<_>>(), ["a node-co-residency high: report"]);
        assert_eq!((&*leg.stand.source.identity.namespace, &*leg.stand.source.identity.name), ("", "low"));
        assert_eq!(leg.cost(&config), Cost { checks: 1, most_seconds: 4, ..Cost::default() });
    }
    // In mode `own`, too: it needs no vantage.
    let own = parse(
        Path::new("f.yaml"),
        "zones: {low: {}, high: {}}\nboundaries: [{name: a, from: low, to: high, dns: off, co_residency: judge}]\n",
    )
    .unwrap();
    assert_eq!(lines(&plan(&own, &[Stand::own(&own, &SYSTEM, "")])), ["a node-co-residency high: judge"]);
}

#[test]
fn a_boundary_without_a_check_that_counts_is_untested() {
    let untested = |text: &str, stands: &dyn Fn(&Config) -> Vec<Stand>| {
        let config = parse(Path::new("f.yaml"), text).unwrap_or_else(|e| panic!("{e}\n{text}"));
        let plan = plan(&config, &stands(&config));
        plan.untested().map(|(name, gap)| format!("{name}: {}", gap.map_or("", |gap| &gap.why))).collect::<Vec<_>>()
    };
    let boundary = |more: &str| format!("{PODS}boundaries: [{{name: a, from: low, to: high{more}}}]\n");
    let nobody = |_: &Config| Vec::new();
    let somebody = |_: &Config| vec![stand("low", "x", &SYSTEM)];
    let none = ["a: no pod of zone `low` that can be probed from runs here: `segprobe vantages` tells why"];
    for more in ["", ", dns: off", ", dns: off, co_residency: judge", ", co_residency: report"] {
        assert_eq!(untested(&boundary(more), &nobody), none, "{more}");
        assert_eq!(untested(&boundary(more), &somebody), [""; 0], "{more}");
        // That nobody knows who is there is a verdict.
        assert_eq!(untested(&boundary(more), &|_| vec![unknown("low")]), [""; 0], "{more}");
    }
    // One of several boundaries is enough.
    let two = boundary("").replace("boundaries: [", "boundaries: [{name: b, from: mid, to: high}, ");
    assert_eq!(untested(&two, &somebody).len(), 1);
    // What is only reported or counted is all that is wanted here.
    let elsewhere = |more: &str| boundary(more).replace("zone: high, namespace: vault", "zone: mid, namespace: batch");
    assert_eq!(untested(&elsewhere(", dns: {srv-wildcard: report, reverse-sweep: off}"), &somebody), [""; 0]);
    assert_eq!(untested(&elsewhere(", dns: {srv-wildcard: report, reverse-sweep: off}"), &nobody), none);
    assert_eq!(untested(&elsewhere(", dns: off, co_residency: judge"), &nobody), [""; 0]);
    // It is not all where what is to be judged cannot be asked.
    let judged = ", dns: {srv-wildcard: report, reverse-sweep: off, service-lookup: judge}";
    assert_eq!(untested(&elsewhere(judged), &somebody), ["a: no target is in the zone"]);
    // In mode `own`, too, there may be nothing to ask.
    let own = |config: &Config| vec![Stand::own(config, &SYSTEM, "")];
    let of_own = |more: &str| elsewhere(more).replace("mode: pods", "mode: own");
    assert_eq!(untested(&of_own(", dns: off"), &own), ["a: no target is in the zone"]);
    assert_eq!(untested(&of_own(""), &own), [""; 0]);
}

#[test]
fn from_a_pod_everything_goes_at_the_pods_pace() {
    let config = from_pods("boundaries: [{name: a, from: low, to: high, interval: 300s}]\npods: {per_second: 2}\n");
    let legs = plan(&config, &[stand("low", "x", &SERVERS[..1])]).legs;
    let cost = legs[0].cost(&config);
    // Two addresses, two attempts, no witness that connects.
    assert_eq!((cost.addresses, cost.packets_per_second), (2, 2 * 2 + 2));
    assert_eq!((cost.dns_queries, cost.dns_seconds), (128, 64));
    // Attempts, questions and two rounds of the resolver and the negative control's ports take 74 s: seven more rounds.
    assert_eq!((4 + 128 + 2 * 8) / 2, 74);
    assert_eq!(cost.least_seconds, (4 + 128 + (2 + 7) * 8) / 2);
    assert_eq!(cost.most_seconds, cost.least_seconds);

    let seconds = |boundary: &str, per_second: u32, servers: usize, changed: &[(&str, &str)]| {
        let rest =
            format!("boundaries: [{{name: a, from: low, to: high{boundary}}}]\npods: {{per_second: {per_second}}}\n");
        let text = changed.iter().fold(format!("{PODS}{rest}"), |text, (from, to)| text.replace(from, to));
        let config = parse(Path::new("f.yaml"), &text).unwrap_or_else(|e| panic!("{e}"));
        plan(&config, &[stand("low", "x", &SERVERS[..servers])]).legs[0].cost(&config).least_seconds
    };
    // Questions of two servers share the pace.
    let fast = ("dns: {", "dns: {queries_per_second: 100, ");
    assert_eq!(seconds("", 100, 1, &[fast]), (4 + 128 + 2 * 8_u64).div_ceil(100));
    assert_eq!(seconds("", 100, 2, &[fast]), (4 + 2 * 128 + 2 * 8_u64).div_ceil(100));
    // Where DNS has the slower pace it tells.
    assert_eq!(seconds("", 100, 1, &[]), 128_u64.div_ceil(20));
    // What does not fit into a sweep goes on in the next.
    assert_eq!(seconds(", interval: 10s", 2, 1, &[]), (4 + 2 * 10 + (2 + 2) * 8) / 2);
    // A name is asked for A and AAAA; over UDP there are other controls; without a target there are none.
    let off = ", dns: off";
    assert_eq!(seconds(off, 1, 1, &[]), 4 + (2 + 2) * 8);
    let address = |address| ("endpoints: [127.0.0.7, 127.0.0.8]", address);
    assert_eq!(seconds(off, 1, 1, &[address("external: ledger.example")]), 2 + 2 + (2 + 2) * 8);
    let udp = ("ports: [8200]", "ports: [{port: 53, protocol: UDP}]");
    assert_eq!(
        seconds(off, 1, 1, &[udp, ("{udp: resolver}", "{udp: 10.0.0.1:53}, {udp: '[2001:db8::1]:53'}")]),
        4 + (2 + 2) * 2 * 6
    );
    assert_eq!(seconds(off, 1, 1, &[("zone: high, namespace: vault", "zone: mid, namespace: batch")]), 0);
    // In mode `own` nobody's pace but the agent's counts.
    let own = parse(
        Path::new("f.yaml"),
        &format!("{PODS}boundaries: [{{name: a, from: low, to: high}}]\n").replace("mode: pods", "mode: own"),
    )
    .unwrap();
    let cost = super::plan(&own, &[Stand::own(&own, &SYSTEM[..1], "")]).legs[0].cost(&own);
    assert_eq!(cost.dns_seconds, (cost.dns_queries as u64).div_ceil(20));
    assert_eq!(cost.least_seconds, cost.dns_seconds);
}

proptest! {
    #[test]
    fn whoever_asks_no_two_checks_share_an_identity(
        targets in any_targets(), from_low in prop::collection::btree_set("[a-d]", 0..4), from_high in prop::collection::btree_set("[a-d]", 0..3),
        is_stale in any::<bool>(), then in prop::collection::btree_set("[a-d]", 0..4), co_residency in any::<bool>(),
    ) {
        let mut config = config(&MANY.replace("to: high}", if co_residency { "to: high, co_residency: judge}" } else { "to: high}" }));
        config.vantage.mode = VantageMode::Pods;
        config.targets = targets;
        let of = |zone: &'static str| move |name: &String| stand(zone, &format!("{zone}-{name}"), &SYSTEM);
        let mut stands: Vec<Stand> = from_low.iter().map(of("low")).chain(from_high.iter().map(of("high"))).collect();
        if is_stale {
            stands.extend([unknown("low"), unknown("high")]);
        }
        let mut made = plan(&config, &stands);
        for turn in 0..2 {
            let ids: HashSet<_> = made.legs.iter().flat_map(|leg| leg.checks()).map(|c| c.id.clone()).collect();
            prop_assert_eq!(ids.len(), lines(&made).len());
            let sources: HashSet<_> = made.legs.iter().map(|leg| (leg.boundary.boundary.name.clone(), leg.stand.source.identity.clone())).collect();
            prop_assert_eq!(sources.len(), made.legs.len(), "sweeps and sources are told apart by these");
            // Whatever was before, the plan is the one that would be made at once.
            let at_once = plan(&config, &stands);
            prop_assert_eq!(legs(&made), legs(&at_once));
            prop_assert_eq!(lines(&made), lines(&at_once));
            prop_assert_eq!(&made.not_tested, &at_once.not_tested);
            if turn == 0 {
                stands = then.iter().map(of("low")).collect();
                made = made.with_stands(&config, &stands);
            }
        }
    }
}

// --- Whatever the configuration ---

fn any_ip() -> impl Strategy<Value = IpAddr> {
    // Few, so that they meet.
    prop_oneof![
        (0u8..9).prop_map(|i| IpAddr::from([127, 0, 9, i])),
        (0u16..9).prop_map(|i| IpAddr::from([0, 0, 0, 0, 0, 0, 9, i]))
    ]
}

fn any_ips() -> impl Strategy<Value = Box<[IpAddr]>> {
    prop::collection::vec(any_ip(), 0..4).prop_map(Vec::into_boxed_slice)
}

fn any_target() -> impl Strategy<Value = Target> {
    let address = || {
        prop_oneof![
            any_ip().prop_map(Address::Ip),
            "[a-z]{1,3}\\.example\\.".prop_map(|name| Address::Name(name.into()))
        ]
    };
    let port = (1u16..5, 1u16.., prop::option::of(1u16..)).prop_map(|(port, target_port, node_port)| Port {
        transport: Transport::Tcp,
        port,
        target_port,
        node_port,
    });
    let who = (prop::sample::select(vec!["low", "high"]), "[a-c]", any::<bool>());
    let lists = (any_ips(), any_ips(), any_ips(), prop::collection::vec(address(), 0..3));
    let rest = (address(), prop::sample::select(AddressKind::ALL), prop::collection::vec(port, 1..4));
    (who, lists, rest).prop_map(
        |((zone, name, is_service), (cluster_ips, endpoints, nodes, external), (address, kind, ports))| {
            let mut ports = ports;
            ports.sort_by_key(|p| p.port);
            ports.dedup_by_key(|p| p.port);
            Target {
                zone: zone.into(),
                namespace: if zone == "low" { "web".into() } else { "vault".into() },
                name: name.into(),
                is_service,
                cluster_ips,
                endpoints,
                nodes,
                external: external.into(),
                // What is no Service has an address of some kind: the configuration sees to it.
                address: (!is_service).then_some((address, kind)),
                ports: ports.into(),
                vouched_by: None,
            }
        },
    )
}

/// Targets as a checked configuration has them: no two with one name.
fn any_targets() -> impl Strategy<Value = Vec<Target>> {
    prop::collection::vec(any_target(), 0..5).prop_map(|mut targets| {
        let mut names = HashSet::new();
        targets.retain(|t| names.insert((t.zone.clone(), t.name.clone())));
        targets
    })
}

/// Every address of a target, how it is reached and at which port: the design's words, once more.
fn ways(target: &Target, port: &Port) -> Vec<(Via, AddressKind, u16, Address)> {
    let ip = |ip: &IpAddr| Address::Ip(*ip);
    let mut ways = Vec::new();
    ways.extend(target.cluster_ips.iter().map(|a| (Via::Service, AddressKind::Virtual, port.port, ip(a))));
    ways.extend(target.endpoints.iter().map(|a| (Via::Endpoint, AddressKind::Endpoint, port.target_port, ip(a))));
    ways.extend(target.external.iter().map(|a| (Via::External, AddressKind::Virtual, port.port, a.clone())));
    if let Some(node_port) = port.node_port {
        ways.extend(target.nodes.iter().map(|a| (Via::Nodeport, AddressKind::Virtual, node_port, ip(a))));
    }
    if ways.is_empty() && target.nodes.is_empty() {
        let name = format!("{}.{}.svc.cluster.local.", target.name, target.namespace);
        ways.push(match &target.address {
            Some((address, kind)) => (Via::External, *kind, port.port, address.clone()),
            None => (Via::Service, AddressKind::Virtual, port.port, Address::Name(name.into())),
        });
    }
    ways
}

const MANY: &str = "boundaries: [{name: a, from: low, to: high}, {name: b, from: high, to: low}, {name: c, from: low, to: high, expect: open}]\n";

proptest! {
    #[test]
    fn every_address_of_the_zone_is_in_exactly_one_check(targets in any_targets()) {
        let mut config = config(MANY);
        config.targets = targets;
        let plan = plan(&config, &[Stand::own(&config, &SYSTEM, "")]);
        for leg in &plan.legs {
            let mut expected = 0;
            for target in config.targets.iter().filter(|t| t.zone == leg.boundary.boundary.to) {
                for (port, way) in target.ports.iter().flat_map(|p| ways(target, p).into_iter().map(move |w| (p, w))) {
                    expected += 1;
                    let (via, kind, at, address) = way;
                    let label = format!("{}:{}", target.name, port.port);
                    let is_of = |check: &&Check| {
                        (&*check.id.target_namespace, &*check.id.target, check.id.via)
                            == (&*target.namespace, &label, Some(via))
                    };
                    let holds = |check: &&Check| matches!(
                        &check.question,
                        Question::Reach { kind: k, addresses, port: p, .. } if (*k, *p) == (kind, at) && addresses.contains(&address)
                    );
                    let of: Vec<&Check> = leg.checks().filter(is_of).collect();
                    prop_assert!(of.len() == 1 && holds(&of[0]), "{label} via {via} {address:?}: {of:?}");
                }
            }
            let planned: usize = leg.checks().map(|c| match &c.question {
                Question::Reach { addresses, .. } => addresses.len(),
                Question::Dns { .. } | Question::CoResidency => 0,
            }).sum();
            prop_assert_eq!(planned, expected);
        }
    }

    #[test]
    fn identities_are_unique_and_plans_repeat(targets in any_targets()) {
        let mut config = config(MANY);
        config.targets = targets;
        let made = plan(&config, &[Stand::own(&config, &SYSTEM, "")]);
        let ids: HashSet<_> = made.legs.iter().flat_map(|leg| leg.checks()).map(|c| c.id.clone()).collect();
        prop_assert_eq!(ids.len(), lines(&made).len());
        let again = plan(&config, &[Stand::own(&config, &SYSTEM, "")]);
        prop_assert_eq!(lines(&made), lines(&again));
        prop_assert_eq!(made.not_tested, again.not_tested);
    }

    #[test]
    fn costs_are_sane_at_the_extremes(
        targets in any_targets(), attempts in 1u32..=10, in_flight in 1u32..=65_536, per_second in 1u32..=1_000_000,
        seconds in 2u64..=7 * 24 * 3600, queries in 1u32..=1_000_000, many in 0usize..100,
    ) {
        let mut config = config(MANY);
        config.targets = targets;
        if let Some(target) = config.targets.first_mut() {
            target.endpoints = vec![IpAddr::from([127, 0, 9, 1]); many].into();
        }
        config.pace = crate::config::PaceConfig { in_flight, per_second, spacing: Duration::MAX };
        config.dns.queries_per_second = queries;
        for boundary in &mut config.boundaries {
            (boundary.attempts, boundary.timeout) = (attempts, Duration::from_secs(seconds));
        }
        for leg in plan(&config, &[Stand::own(&config, &SYSTEM, "")]).legs {
            let cost = leg.cost(&config);
            prop_assert_eq!(cost.checks, leg.checks().count());
            prop_assert!(cost.connects >= cost.addresses * attempts as usize);
            prop_assert!(cost.least_seconds <= cost.most_seconds);
            prop_assert!(cost.packets_per_second <= 2 * per_second as usize + queries as usize);
            // Nobody can wait less than for one address that is silent at every attempt.
            prop_assert!(cost.addresses == 0 || cost.most_seconds >= seconds * u64::from(attempts));
        }
    }
}

#[test]
fn the_largest_configuration_costs_a_finite_time() {
    let mut config = config(&format!("{NO_DNS}{SERVICE}"));
    config.targets[0].endpoints = vec![IpAddr::from([127, 0, 9, 1]); 500_000].into();
    config.pace = crate::config::PaceConfig { in_flight: 1, per_second: 1, spacing: Duration::MAX };
    (config.boundaries[0].attempts, config.boundaries[0].timeout) = (10, Duration::from_secs(7 * 24 * 3600));
    let cost = plan(&config, &[Stand::own(&config, &SYSTEM, "")]).legs[0].cost(&config);
    assert_eq!((cost.addresses, cost.least_seconds), (500_000, 12 * 500_000));
    assert_eq!(cost.most_seconds, (12 * 500_000 + 2) * 7 * 24 * 3600);
}
