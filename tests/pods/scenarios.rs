//! The pods' own vantage on a real node: who is probed from, and whose missing policy is seen.

use libtest_mimic::Trial;

use crate::{
    cluster::Cluster,
    containerd::Pod,
    support::{Start, name, reached},
    trial,
};

pub fn trials() -> Vec<Trial> {
    vec![
        trial("scenarios::policy-holds", policy_holds),
        trial("scenarios::policy-missing-for-one-identity", policy_missing_for_one_identity),
        trial("scenarios::policy-missing-for-one-pod-of-an-identity", policy_missing_for_one_pod_of_an_identity),
        trial("scenarios::policy-missing-for-one-endpoint", policy_missing_for_one_endpoint),
        trial("scenarios::a-target-that-does-not-listen", a_target_that_does_not_listen),
    ]
}

/// What a check found that was not just blocked: `(pod, address, reason)`.
fn exceptions(cluster: &Cluster) -> Vec<(String, String, String)> {
    let mut pairs = reached(&Start::on(&cluster.node).check(cluster.config()));
    assert_eq!(pairs.len(), 6, "every pod asks every endpoint: {pairs:?}");
    pairs.retain(|(_, _, reason)| reason != "blocked");
    pairs
}

fn through(pod: &Pod, ledger: &Pod) -> (String, String, String) {
    (name(pod), format!("{}:5432", ledger.ip), "reached".into())
}

fn policy_holds() {
    let cluster = Cluster::start();
    let listeners = cluster.listen();
    assert_eq!(exceptions(&cluster), []);
    assert_eq!(listeners.map(|listener| listener.accepted()), [0, 0], "no witness disturbs the service");
}

fn policy_missing_for_one_identity() {
    let cluster = Cluster::start();
    let _listeners = cluster.listen();
    let [first, second] = &cluster.ledgers;
    cluster.node.allow(&[&cluster.back], &[first, second]);
    let mut expected = vec![through(&cluster.back, first), through(&cluster.back, second)];
    expected.sort();
    assert_eq!(exceptions(&cluster), expected);
}

fn policy_missing_for_one_pod_of_an_identity() {
    let cluster = Cluster::start();
    let _listeners = cluster.listen();
    let [first, second] = &cluster.ledgers;
    cluster.node.allow(&[&cluster.front[1]], &[first, second]);
    let mut expected = vec![through(&cluster.front[1], first), through(&cluster.front[1], second)];
    expected.sort();
    assert_eq!(exceptions(&cluster), expected);
}

fn policy_missing_for_one_endpoint() {
    let cluster = Cluster::start();
    let _listeners = cluster.listen();
    let [front_1, front_2] = &cluster.front;
    cluster.node.allow(&[front_1, front_2], &[&cluster.ledgers[1]]);
    let expected = [front_1, front_2].map(|pod| through(pod, &cluster.ledgers[1]));
    assert_eq!(exceptions(&cluster), expected);
}

fn a_target_that_does_not_listen() {
    let cluster = Cluster::start();
    let exceptions = exceptions(&cluster);
    assert_eq!(exceptions.len(), 6);
    assert!(exceptions.iter().all(|(_, _, reason)| reason == "target-down"), "{exceptions:?}");
}
