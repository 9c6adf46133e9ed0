//! Pods that are no vantages, as people and Prometheus are told; and pods of both zones on one node.

use libtest_mimic::Trial;

use crate::{
    cluster::{Cluster, web},
    containerd::{Pod, PodSpec},
    support::{Config, SOON, Start, name, network_of, wait_for},
    trial,
};

pub fn trials() -> Vec<Trial> {
    vec![trial("places::told-by-vantages", told_by_vantages), trial("places::counted-and-judged", counted_and_judged)]
}

fn told_by_vantages() {
    let cluster = Cluster::start();
    let _listeners = cluster.listen();
    let node = &cluster.node;
    node.run_pod(&PodSpec { host_network: true, ..web("proxy-1", "proxy") });
    node.run_pod(&PodSpec { containers: 0, ..web("starting-1", "front") });
    node.stop_pod(&node.run_pod(&web("done-1", "front")));
    let prober = node.run_pod(&PodSpec::new("payments", "prober-1").label("app", "prober"));
    let config = |prober: &str| Config {
        boundary: "interval: 1m, tcp: {attempts: 1}, dns: off".into(),
        more: format!("witnesses: [{{zone: high, node: true}}, {{zone: high, pods: {{app: {prober}}}}}]\n"),
        ..cluster.config()
    };
    let told = Start::on(node).run(&["vantages"], config("prober"));
    assert_eq!((told.code, &*told.stderr), (Some(0), ""), "{told:?}");
    let [front_1, front_2] = &cluster.front;
    let vantages =
        [("app=back", vec![&cluster.back]), ("app=front", vec![front_1, front_2])].map(|(identity, pods)| {
            let pod = |pod: &&Pod| {
                let (name, (_, network)) = (name(pod), network_of(node, pod));
                let search = "web.svc.cluster.local svc.cluster.local cluster.local";
                format!("    {name}  {}, net:[{network}], up\n      DNS 10.86.255.253, search {search}\n", pod.ip)
            };
            format!("  web/{identity}\n{}", pods.iter().map(pod).collect::<String>())
        });
    let targets = cluster.ledgers.each_ref().map(|pod| format!("  {}  {}, listens on 5432\n", name(pod), pod.ip));
    let prober = format!("  {}  {}, listens on no TCP port\n", name(&prober), prober.ip);
    let expected = format!(
        "Probed from, zone low: 3 pods of 2 identities\n{}
Witnesses, zone high\n{}{prober}  the node itself: connects to the pods of the zone that run here
  pods with app=prober: payments/prober-1 connects

Not used: 4 sandboxes
  kube-system/dns-1: its namespace is in no zone
  web/done-1: its sandbox is not ready
  web/proxy-1: it has the host's network: policies do not bind it
  web/starting-1: no container has run in it yet
",
        vantages.concat(),
        targets.concat()
    );
    let (head, told) = told.stdout.split_once("\n\n").unwrap();
    assert!(
        head.starts_with("containerd ") && head.ends_with(" at /run/containerd/containerd.sock: 10 sandboxes"),
        "{head}"
    );
    let ageless = |line: &str| line.split_once(", up ").map_or(line.to_owned(), |(known, _)| format!("{known}, up"));
    assert_eq!(told.lines().map(|line| ageless(line) + "\n").collect::<String>(), expected);

    let in_pod = Start { network: Some(&cluster.ledgers[0]), ..Start::on(node) }.run(&["vantages"], config("absent"));
    for line in [
        "  the node itself: not used, the agent lives in a pod's network: set hostNetwork: true\n",
        "  pods with app=absent: none runs on this node\n",
    ] {
        assert!(in_pod.stdout.contains(line), "{in_pod:?}");
    }
}

fn counted_and_judged() {
    let cluster = Cluster::start();
    let listeners = cluster.listen();
    let node = &cluster.node;
    node.run_pod(&PodSpec { host_network: true, ..web("proxy-1", "proxy") });
    node.run_pod(&PodSpec { containers: 0, ..web("starting-1", "starting") });
    let config = Config {
        boundary: "interval: 7s, tcp: {attempts: 1}, dns: off, co_residency: judge".into(),
        ..cluster.config()
    };
    let agent = Start::on(node).agent(&config);
    agent.wait_for_verdict("app=front", "ledger:5432", SOON, ("pass", "blocked"));
    agent.wait_for_verdict("low", "high", SOON, ("fail", "co-resident"));
    let pods = |zone| agent.page().value("segprobe_node_pods", &[("zone", zone)]);
    // The one in the host's network is a pod of the zone as well.
    assert_eq!((pods("low"), pods("high")), (Some(4.0), Some(2.0)));
    let page = agent.page();
    for source in ["app=proxy", "app=starting"] {
        assert_eq!(page.all("segprobe_check_verdict", &[("source", source)]), Vec::<&_>::new());
    }
    let opened = agent.wait_for_event("finding-opened", SOON, |e| e["check"] == "node-co-residency");
    let evidence = "4 pods of zone low: web/back-1, web/front-1, web/front-2, …; 2 pods of zone high: payments/ledger-1, \
                    payments/ledger-2";
    assert_eq!(opened["evidence"], evidence, "{opened}");

    drop(listeners);
    cluster.ledgers.iter().for_each(|pod| node.remove_pod(pod));
    wait_for("no pod of the high zone", SOON, || (pods("high") == Some(0.0)).then_some(()));
    agent.wait_for_verdict("low", "high", SOON, ("pass", "apart"));
    let closed = agent.wait_for_event("finding-closed", SOON, |e| e["check"] == "node-co-residency");
    assert_eq!(closed["how"], "resolved", "{closed}");
    // Others may still be on other nodes: what cannot be reached here is not proven.
    agent.wait_for_verdict("app=front", "ledger:5432", SOON, ("unverified", "no-witness"));
}
