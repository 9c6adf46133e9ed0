//! Whatever a cluster has and however its DNS is defended: what a technique reports is what the server gave away, and a
//! pass means that it gives away nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use hickory_resolver::proto::rr::{Name, RecordType};
use proptest::{collection::vec, option, prelude::*, sample::select};
use segprobe::{
    model::{CheckKind, Verdict},
    observation::DnsSeen,
    pace::{Pace, Paces},
    probe::dns::{
        NamespaceOracle, PodOracle, ReverseSweep, Server, ServiceLookup, Settings, SrvWildcard, Technique,
        ZoneTransfer, enumerate,
    },
    vantage::Own,
    verdict::judge_dns,
};
use tokio::time::Instant;

use crate::{
    cluster_dns::{
        Acl, AclAction, Cilium, ClusterDns, Defences, Firewall, FirewallAction, Flavour, Inventory, Pods, Policy,
        Protocol, Running, Service, Template, Upstream, View,
    },
    support::loopback,
};

const PROTECTED: [&str; 2] = ["payments", "vault"];
const OTHERS: [&str; 2] = ["storefront", "default"];

fn zone() -> Name {
    Name::from_ascii("cluster.local.").unwrap()
}

fn any_service() -> impl Strategy<Value = Service> {
    let namespace = select([PROTECTED, OTHERS].concat());
    let name = select(vec!["ledger", "api", "db"]);
    let endpoints = vec((1..200u8, option::of(select(vec!["pod-0", "pod-1"]))), 0..3);
    let ports = vec(option::of(select(vec!["http", "pg"])), 0..3);
    (namespace, name, 0..4u8, 1..200u8, endpoints, ports).prop_map(|(namespace, name, kind, host, endpoints, ports)| {
        let (v4, v6) = (format!("127.96.0.{host}"), format!("fd00::{host:x}"));
        let mut service = match kind {
            0 => Service::headless(namespace, name),
            1 => Service::cluster_ip(namespace, name, &[&v4]),
            2 => Service::cluster_ip(namespace, name, &[&v6]),
            _ => Service::cluster_ip(namespace, name, &[&v4, &v6]),
        };
        for (i, port) in (80..).zip(ports) {
            service = match port {
                Some(port) => service.port(port, Protocol::Tcp, i),
                None => service.unnamed_port(Protocol::Tcp, i),
            };
        }
        for (host, hostname) in endpoints {
            let address = format!("127.97.0.{host}");
            service = match hostname {
                Some(hostname) => service.named_endpoint(hostname, &address),
                None => service.endpoint(&address),
            };
        }
        service
    })
}

/// Names and addresses are nobody's twice.
fn any_inventory() -> impl Strategy<Value = Inventory> {
    (vec(any_service(), 0..6), vec((select([PROTECTED, OTHERS].concat()), 1..200u8), 0..3)).prop_map(
        |(services, pods)| {
            let kubernetes = Service::cluster_ip("default", "kubernetes", &["127.96.0.254"]);
            let mut inventory = Inventory::new()
                .namespace("storefront")
                .pod("storefront", "127.0.0.1")
                .service(kubernetes.port("https", Protocol::Tcp, 443));
            let (mut names, mut taken) = (BTreeSet::new(), BTreeSet::new());
            for service in services {
                let addresses = addresses(&service);
                let is_new = names.insert((service.namespace.clone(), service.name.clone()));
                if is_new && addresses.iter().all(|a| !taken.contains(a)) {
                    taken.extend(addresses);
                    inventory = inventory.service(service);
                }
            }
            for (namespace, host) in pods {
                let address = format!("127.98.0.{host}");
                if taken.insert(address.parse().unwrap()) {
                    inventory = inventory.pod(namespace, &address);
                }
            }
            inventory
        },
    )
}

fn addresses(service: &Service) -> Vec<IpAddr> {
    use crate::cluster_dns::Kind;
    let own = match &service.kind {
        Kind::ClusterIp(addresses) => addresses.clone(),
        Kind::Headless => Vec::new(),
    };
    own.into_iter().chain(service.endpoints.iter().map(|e| e.address)).collect()
}

fn any_zones() -> impl Strategy<Value = Vec<Name>> {
    let zones = vec![
        "payments.svc.cluster.local.",
        "vault.svc.cluster.local.",
        "payments.pod.cluster.local.",
        "svc.cluster.local.",
        "in-addr.arpa.",
        "ip6.arpa.",
    ];
    vec(select(zones).prop_map(|zone| Name::from_ascii(zone).unwrap()), 1..4)
}

fn any_defences() -> impl Strategy<Value = Defences> {
    let some_namespaces = || vec(select([PROTECTED, OTHERS].concat()), 0..4);
    let strings = |all: Vec<&str>| all.into_iter().map(String::from).collect::<Vec<_>>();
    // Drops are left out: each costs its time-outs, and the table of defences has them.
    let by_name = (
        option::weighted(0.3, (any_zones(), select(vec![AclAction::Block, AclAction::Filter]))),
        option::weighted(0.2, (any_zones(), option::of(select(vec![RecordType::A, RecordType::SRV, RecordType::PTR])))),
        option::weighted(0.2, (any_zones(), select(vec![FirewallAction::Block, FirewallAction::Refuse]))),
        option::weighted(0.2, (any::<bool>(), any::<bool>())),
    );
    let by_namespace = (
        option::weighted(0.3, some_namespaces()),
        some_namespaces(),
        select(vec![Pods::Disabled, Pods::Insecure, Pods::Verified]),
        any::<bool>(),
        option::weighted(0.2, some_namespaces()),
    );
    let wire = (
        select(vec![Upstream::Absent, Upstream::NxDomain, Upstream::Synthesised]),
        option::weighted(0.2, 2..5usize),
        option::weighted(0.1, Just(Policy::Closed)),
    );
    (by_name, by_namespace, wire).prop_map(
        move |((acl, template, firewall, cilium), (namespaces, unlabelled, pods, transfer, view), wire)| {
            let (upstream, overload, closed) = wire;
            Defences {
                acl: acl.map(|(zones, action)| Acl { zones, action }),
                template: template.map(|(zones, kind)| Template { suffix: zones[0].clone(), kind }),
                firewall: firewall.map(|(zones, action)| Firewall { zones, action }),
                cilium: cilium.map(|(name_error, udp_only)| {
                    let allowed = strings(vec!["*.default.svc.cluster.local", "cluster.local", "*.in-addr.arpa"]);
                    Cilium { allowed, name_error, udp_only }
                }),
                namespaces: namespaces.map(strings),
                unlabelled: strings(unlabelled),
                pods,
                transfer,
                view: view.map(|namespaces| View {
                    low: vec!["127.0.0.0/8".parse().unwrap()],
                    namespaces: strings(namespaces),
                    high: vec![],
                }),
                upstream,
                overload,
                tcp: closed.unwrap_or(Policy::Open),
                ..Defences::default()
            }
        },
    )
}

const KINDS: [CheckKind; 6] = [
    CheckKind::SrvWildcard,
    CheckKind::ReverseSweep,
    CheckKind::ZoneTransfer,
    CheckKind::ServiceLookup,
    CheckKind::NamespaceOracle,
    CheckKind::PodOracle,
];

/// The technique over everything that is in the protected namespaces.
fn technique(kind: CheckKind, inventory: &Inventory) -> Box<dyn Technique> {
    let zone = zone();
    let own = || inventory.services.iter().filter(|s| PROTECTED.contains(&s.namespace.as_str()));
    let services = || own().map(|s| (Arc::from(s.namespace.as_str()), Arc::from(s.name.as_str())));
    let known: BTreeMap<IpAddr, Arc<str>> =
        own().flat_map(|s| addresses(s).into_iter().map(|a| (a, Arc::from(s.namespace.as_str())))).collect();
    let pods = inventory.pods.iter().filter(|pod| PROTECTED.contains(&pod.namespace.as_str()));
    match kind {
        CheckKind::SrvWildcard => Box::new(SrvWildcard::new(&zone, PROTECTED, Arc::new(known))),
        CheckKind::ReverseSweep => Box::new(ReverseSweep::new(&zone, known.keys().copied(), &[], 0)),
        CheckKind::ZoneTransfer => Box::new(ZoneTransfer::new(&zone, known.keys().copied())),
        CheckKind::ServiceLookup => Box::new(ServiceLookup::new(&zone, services())),
        CheckKind::NamespaceOracle => Box::new(NamespaceOracle::new(&zone, PROTECTED)),
        _ => Box::new(PodOracle::new(&zone, pods.map(|p| (Arc::from(p.namespace.as_str()), p.address)))),
    }
}

async fn run(server: &Running, technique: &dyn Technique) -> DnsSeen {
    let now = Instant::now();
    let settings = Settings {
        timeout: Duration::from_secs(2),
        attempts: 2,
        sockets: 4,
        in_flight: 16,
        ask_again: Duration::ZERO,
        until: now + Duration::from_secs(40),
        deadline: now + Duration::from_secs(50),
    };
    let (own, pace) = (Own::new(), Paces::new([Arc::new(Pace::per_second(1_000_000))]));
    let known = Name::from_ascii("kubernetes.default.svc.cluster.local.").unwrap();
    let server = Server {
        vantage: &own,
        address: server.address,
        zone: &zone(),
        settings,
        pace: &pace,
        known_names: &[known],
        own_namespace: "storefront",
    };
    enumerate(&server, &[(technique, Vec::new())]).await.pop().unwrap()
}

/// Names of the protected namespaces that the server told since it was last asked to forget. That a namespace exists is
/// what the oracles report; to the other techniques it is no news.
fn told(server: &Running, kind: CheckKind) -> BTreeSet<String> {
    let told = server.told(|_| true);
    let oracle = matches!(kind, CheckKind::NamespaceOracle | CheckKind::PodOracle);
    let is_namespace = |name: &String| name.split_terminator('.').count() == 4;
    let names = PROTECTED.iter().flat_map(|namespace| told.of(namespace));
    names.filter(|name| oracle || !is_namespace(name)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 30, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_reported_is_what_was_given_away(
        inventory in any_inventory(), defences in any_defences(), flavour in select(vec![Flavour::CoreDns18, Flavour::CoreDns114, Flavour::KubeDns]),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let server = ClusterDns::new(flavour, inventory).with(defences.clone()).start(loopback());
        for kind in KINDS {
            let technique = technique(kind, server.inventory());
            server.set(defences.clone());
            server.forget();
            let seen = runtime.block_on(run(&server, &*technique));
            let names = seen.names();
            let reported: BTreeSet<String> =
                PROTECTED.iter().filter_map(|ns| names.get(ns)).flatten().map(|name| (*name).to_owned()).collect();
            prop_assert_eq!(&reported, &told(&server, kind), "{:?} {}", flavour, kind);

            // What it tells when it has no other troubles.
            let calm = Defences { overload: None, ..defences.clone() };
            server.set(calm);
            server.forget();
            runtime.block_on(run(&server, &*technique));
            let truth = told(&server, kind);
            let verdict = judge_dns(&seen, PROTECTED, false).verdict();
            prop_assert!(verdict != Verdict::Pass || truth.is_empty(), "{:?} {}: {:?}", flavour, kind, truth);
        }
    }
}
