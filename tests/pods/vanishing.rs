//! Pods that are deleted while they are probed from.

use std::path::PathBuf;

use libtest_mimic::Trial;

use crate::{
    cluster::Cluster,
    containerd::Pod,
    support::{
        Config, SOON, Start, ended, holds_network, name, network_of, process::Process, reached, report, tcp_counter,
        wait_for,
    },
    trial,
};

pub fn trials() -> Vec<Trial> {
    vec![
        trial("vanishing::in-mid-sweep-of-the-agent", in_mid_sweep_of_the_agent),
        trial("vanishing::in-mid-sweep-of-a-check", in_mid_sweep_of_a_check),
    ]
}

/// Connects of a sweep from a pod before its two endpoints' turn; there are as many after it.
const CONTROLS: u32 = 6;

/// So slow that a sweep takes seven seconds and a time-out.
fn slow(cluster: &Cluster) -> Config {
    Config {
        boundary: "interval: 20s, tcp: {attempts: 1}, dns: off".into(),
        pods: "poll: 200ms, per_second: 2, turn_within: 1".into(),
        ..cluster.config()
    }
}

/// Deletes one pod of `front` and the only one of `back` when they are probed from; gives what was theirs.
fn delete_in_mid_sweep(cluster: &Cluster, process: &Process) -> [((u64, u64), PathBuf); 2] {
    let doomed = [&cluster.front[0], &cluster.back];
    let networks = doomed.map(|pod| network_of(&cluster.node, pod));
    let connects = |pod: &&Pod| cluster.node.in_network_of(pod, || tcp_counter("ActiveOpens"));
    let tries = || doomed.iter().all(|pod| connects(pod) > CONTROLS).then_some(());
    wait_for("the sweep tries the endpoints", SOON, tries);
    assert!(networks.iter().all(|network| holds_network(process, *network)), "it has entered the pods");
    doomed.iter().for_each(|pod| cluster.node.remove_pod(pod));
    let file = |pod: &Pod| cluster.node.path(pod.netns.as_deref().unwrap());
    [(networks[0], file(doomed[0])), (networks[1], file(doomed[1]))]
}

fn in_mid_sweep_of_the_agent() {
    let cluster = Cluster::start();
    let _listeners = cluster.listen();
    let agent = Start::on(&cluster.node).agent(slow(&cluster));
    let gone = delete_in_mid_sweep(&cluster, &agent.process);

    let changed = agent.wait_for_event("changed", SOON, |e| e["source"] == "app=front" && e["to"] == "vantage-gone");
    assert_eq!(changed["verdict"], "inconclusive", "{changed}");
    for (network, file) in gone {
        wait_for("its network is let go", SOON, || (!holds_network(&agent.process, network)).then_some(()));
        assert!(!file.exists(), "{}", file.display());
    }
    // The other pod speaks on, and the other identity is nobody's any more.
    agent.wait_for_verdict("app=front", "ledger:5432", SOON, ("pass", "blocked"));
    assert_eq!(agent.verdict("app=back", "ledger:5432"), None);
    let page = agent.page();
    assert_eq!(page.all("segprobe_check_verdict", &[("source", "app=back")]), Vec::<&_>::new());
    assert_eq!(page.value("segprobe_findings_total", &[("check", "tcp-connect")]), Some(0.0));
    let told = agent.events("changed");
    assert!(told.iter().all(|e| e["source"] != "app=back"), "{told:?}");
    assert_eq!(reached(&agent.checks()).iter().filter(|(pod, _, _)| *pod == name(&cluster.front[0])).count(), 0);
}

fn in_mid_sweep_of_a_check() {
    let cluster = Cluster::start();
    let _listeners = cluster.listen();
    let check = Start::on(&cluster.node).start(&["check", "--output", "json"], slow(&cluster));
    let gone = delete_in_mid_sweep(&cluster, &check);
    assert!(gone.iter().all(|(_, file)| !file.exists()));
    let ended = ended(check);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    let pairs = reached(&report(&ended));
    assert_eq!(pairs.len(), 3 * 2, "each pod and each endpoint: {pairs:?}");
    for (pod, address, reason) in pairs {
        let expected = if pod == name(&cluster.front[1]) { "blocked" } else { "vantage-gone" };
        assert_eq!(reason, expected, "{pod} {address}");
    }
}
