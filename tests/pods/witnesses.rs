//! Who vouches for an endpoint when nobody is seen listening at its port.

use libtest_mimic::Trial;
use serde_json::Value;

use crate::{
    cluster::{ledger, web},
    cluster_dns::{ClusterDns, Flavour, Inventory, Running},
    containerd::{Listener, Node, Pod, PodSpec},
    support::{Config, Start},
    trial,
};

pub fn trials() -> Vec<Trial> {
    vec![trial("witnesses::for-udp-and-redirected-ports", for_udp_and_redirected_ports)]
}

/// A high pod that answers DNS over UDP, and whose port 8080 is redirected to 5432.
struct High {
    pod: Pod,
    _redirected: Listener,
    _dns: Running,
}

impl High {
    fn start(node: &Node) -> Self {
        let pod = node.run_pod(&ledger("ledger-1"));
        let redirected = node.listen(&pod, 5432);
        let dns = dns(node, &pod);
        node.nft_in(
            &pod,
            "table ip segmentation {
                chain in { type nat hook prerouting priority -100; tcp dport 8080 redirect to :5432; }
            }",
        );
        Self { pod, _redirected: redirected, _dns: dns }
    }
}

fn dns(node: &Node, pod: &Pod) -> Running {
    let server = ClusterDns::new(Flavour::CoreDns114, Inventory::recorded());
    node.in_network_of(pod, || server.start_at((pod.ip, 53).into()))
}

fn for_udp_and_redirected_ports() {
    let node = Node::start();
    let high = High::start(&node);
    let [front, _prober, agent, resolver] = [
        web("front-1", "front"),
        PodSpec::new("payments", "prober-1").label("app", "prober"),
        PodSpec::new("segprobe", "agent-1"),
        PodSpec::new("kube-system", "dns-1"),
    ]
    .map(|spec| node.run_pod(&spec));
    let _resolver = dns(&node, &resolver);
    node.deny(&[&front], &[&high.pod]);
    let address = resolver.ip;
    let config = |witness: &str| Config {
        boundary: "interval: 11s, tcp: {attempts: 1}, dns: off".into(),
        controls: format!("positive: [{{tcp: '{address}:53'}}, {{udp: '{address}:53'}}]"),
        targets: format!(
            "{{zone: high, namespace: payments, service: ledger, endpoints: [{}], ports: [8080, {{port: 53, protocol: UDP}}]}}",
            high.pod.ip
        ),
        more: format!("witnesses: [{witness}]\n"),
        ..Config::new((address, 53).into(), [])
    };
    let on_node = Start::on(&node);
    let in_pod = Start { network: Some(&agent), ..on_node };
    let (by_node, by_pod) = ("{zone: high, node: true}", "{zone: high, pods: {app: prober}}");
    let unproven = ["target-down", "no-witness"].map(str::to_owned);
    let proven = ["blocked", "blocked"].map(str::to_owned);
    assert_eq!(reasons(&on_node.check(config(""))), (unproven.clone(), ["listening", ""].map(str::to_owned)));
    assert_eq!(reasons(&on_node.check(config(by_node))), (proven.clone(), ["node", "node"].map(str::to_owned)));
    // A pod's network may itself be blocked: it is no node's.
    assert_eq!(reasons(&in_pod.check(config(by_node))), (unproven, ["listening", ""].map(str::to_owned)));
    assert_eq!(reasons(&in_pod.check(config(by_pod))), (proven, ["pod", "pod"].map(str::to_owned)));
}

/// Of the redirected port and of UDP: the reason, and who vouched.
fn reasons(report: &Value) -> ([String; 2], [String; 2]) {
    let of = |target: &str| {
        let mut checks = report["checks"].as_array().unwrap().iter();
        let check = checks.find(|check| check["target"].as_str().unwrap().starts_with(target)).unwrap();
        let address = &check["addresses"][0];
        [&address["reason"], &address["witness"]["by"]].map(|text| text.as_str().unwrap_or_default().to_owned())
    };
    let ([tcp, tcp_by], [udp, udp_by]) = (of("ledger:8080"), of("ledger:53"));
    ([tcp, udp], [tcp_by, udp_by])
}
