//! DNS from inside a pod: its own servers, as the runtime tells them, and what they give away to it.

use std::net::IpAddr;

use libtest_mimic::Trial;
use serde_json::Value;

use crate::{
    cluster::web,
    cluster_dns::{ClusterDns, Defences, Flavour, Inventory, Protocol, Running, Service, Upstream},
    containerd::{Node, Pod, PodSpec},
    support::{Config, Start},
    trial,
};

pub fn trials() -> Vec<Trial> {
    vec![trial("dns::each-pod-asks-its-own-server", each_pod_asks_its_own_server)]
}

/// A service that no other server of the world knows.
fn inventory() -> Inventory {
    let kubernetes =
        Service::cluster_ip("default", "kubernetes", &["10.96.0.1"]).port_to("https", Protocol::Tcp, 443, 6443);
    let secret = Service::cluster_ip("payments", "known-nowhere-else", &["10.96.77.7"]).port("tls", Protocol::Tcp, 443);
    Inventory::new()
        .service(kubernetes.endpoint("10.85.0.1"))
        .service(Service::cluster_ip("web", "front", &["10.96.1.1"]).port("http", Protocol::Tcp, 80))
        .service(secret)
        .nameserver("default", "kubernetes")
}

fn serve(node: &Node, name: &str, flavour: Flavour, defences: Defences) -> (Pod, Running) {
    let pod = node.run_pod(&PodSpec::new("kube-system", name));
    let server = ClusterDns::new(flavour, inventory()).with(defences);
    let running = node.in_network_of(&pod, || server.start_at((pod.ip, 53).into()));
    (pod, running)
}

fn asking(name: &str, server: IpAddr) -> PodSpec {
    PodSpec { dns_servers: vec![server.to_string()], ..web(&format!("{name}-1"), name) }
}

fn each_pod_asks_its_own_server() {
    let node = Node::start();
    let hides = Defences {
        namespaces: Some(["default", "web"].map(String::from).into()),
        upstream: Upstream::NxDomain,
        ..Defences::default()
    };
    let tells = Defences { upstream: Upstream::NxDomain, ..Defences::default() };
    let (open, _open) = serve(&node, "open-1", Flavour::CoreDns18, tells);
    let (closed, closed_server) = serve(&node, "closed-1", Flavour::CoreDns114, hides);
    node.run_pods(&[asking("open", open.ip), asking("closed", closed.ip)]);
    let config = Config {
        boundary: "interval: 20s, dns: {srv-wildcard: judge, reverse-sweep: judge, service-lookup: judge, \
                   namespace-oracle: off, pod-oracle: off}"
            .into(),
        controls: "positive: [{tcp: resolver}]".into(),
        targets: "{zone: high, namespace: payments, service: known-nowhere-else, cluster_ip: 10.96.77.7, ports: [443]}"
            .into(),
        more: "dns: {timeout: 300ms, ask_again: 100ms, queries_per_second: 1000, servers: [system]}\n".into(),
        ..Config::new((open.ip, 53).into(), [])
    };
    let report = Start::on(&node).check(config);

    for kind in ["srv-wildcard", "reverse-sweep", "service-lookup"] {
        let told = check(&report, "app=open", kind);
        assert_eq!((&told["verdict"], &told["reason"]), (&"fail".into(), &"disclosed".into()), "{told:#}");
        assert_eq!(told["dns"]["server"], format!("{}:53", open.ip));
        assert_eq!(told["dns"]["pod"], "web/open-1");
        assert_eq!(
            told["dns"]["names"]["payments"][0].as_str().unwrap(),
            "known-nowhere-else.payments.svc.cluster.local.",
            "{told:#}"
        );
        let hidden = check(&report, "app=closed", kind);
        assert_eq!(hidden["dns"]["server"], format!("{}:53", closed.ip));
        assert_eq!(hidden["reason"], "nothing-disclosed", "{hidden:#}");
    }
    assert_eq!(closed_server.told(|_| true).names.get("payments"), None);
}

fn check<'a>(report: &'a Value, source: &str, kind: &str) -> &'a Value {
    let mut checks = report["checks"].as_array().unwrap().iter();
    checks
        .find(|c| c["source"] == source && c["check"] == kind)
        .unwrap_or_else(|| panic!("{source} {kind}: {report:#}"))
}
