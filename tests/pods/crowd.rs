//! A node full of pods: few series, everybody's turn, and a small agent.

use std::{
    collections::{BTreeMap, BTreeSet},
    thread,
    time::{Duration, Instant},
};

use libtest_mimic::Trial;

use crate::{
    cluster::{ledger, web},
    containerd::{Node, PodSpec},
    support::{Config, SOON, Start, name, wait_for},
    trial,
};

pub fn trials() -> Vec<Trial> {
    vec![trial("crowd::a-hundred-pods-of-five-identities", a_hundred_pods_of_five_identities)]
}

const IDENTITIES: usize = 5;
const PODS_OF_EACH: usize = 20;
const TURN_WITHIN: usize = 4;
/// KiB of the agent that is built for tests, which is larger than a release; two workers, the first thread and those that
/// wait for the system.
const MOST_MEMORY: u64 = 60 * 1024;
const MOST_THREADS: u64 = 16;

fn a_hundred_pods_of_five_identities() {
    let node = Node::start();
    let began = Instant::now();
    let [ledger, dns] = [ledger("ledger-1"), PodSpec::new("kube-system", "dns-1")].map(|spec| node.run_pod(&spec));
    let (_listener, control) = (node.listen(&ledger, 5432), node.listen(&dns, 53));
    let specs: Vec<PodSpec> = (0..IDENTITIES * PODS_OF_EACH)
        // What a ReplicaSet adds makes no identity.
        .map(|i| {
            web(&format!("web-{i}"), &format!("app-{}", i % IDENTITIES)).label("pod-template-hash", &i.to_string())
        })
        .collect();
    let pods = node.run_pods(&specs);
    let low: Vec<_> = pods.iter().collect();
    node.deny(&low, &[&ledger]);
    println!("crowd: {} pods in {:?}", pods.len(), began.elapsed());

    let config = Config {
        boundary: "interval: 7s, tcp: {attempts: 1}, dns: off".into(),
        pods: format!("poll: 1s, per_second: 1000, turn_within: {TURN_WITHIN}"),
        ..Config::new(control.address, [&ledger])
    };
    let agent = Start::on(&node).agent(format!("{config}pace: {{per_second: 1000}}\n"));
    // Of each source its sweeps, each with the pods that spoke in it.
    let mut sweeps: BTreeMap<String, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    let (mut memory, mut threads) = (0, 0);
    let number = |field: &str| agent.process.status(field).parse::<u64>().unwrap();
    wait_for("as many sweeps from everybody", 2 * SOON, || {
        for check in agent.checks()["checks"].as_array().unwrap() {
            let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
            let spoke = check["addresses"].as_array().into_iter().flatten().map(|pair| text(&pair["pod"])).collect();
            if check["at"].is_string() {
                sweeps.entry(text(&check["source"])).or_default().insert(text(&check["at"]), spoke);
            }
        }
        (memory, threads) = (memory.max(number("VmRSS")), threads.max(number("Threads")));
        thread::sleep(Duration::from_millis(75));
        (sweeps.len() == IDENTITIES && sweeps.values().all(|of| of.len() >= TURN_WITHIN)).then_some(())
    });
    println!("crowd: VmRSS {memory} KiB, {threads} threads");
    assert!(memory < MOST_MEMORY && threads < MOST_THREADS, "{memory} KiB, {threads} threads");
    for (source, sweeps) in &sweeps {
        let turns: Vec<&BTreeSet<String>> = sweeps.values().collect();
        for round in turns.windows(TURN_WITHIN) {
            assert!(round.iter().all(|spoke| spoke.len() == PODS_OF_EACH / TURN_WITHIN), "{source}: {sweeps:?}");
            let spoke: BTreeSet<_> = round.iter().copied().flatten().collect();
            assert_eq!(spoke.len(), PODS_OF_EACH, "{source}: {sweeps:?}");
        }
    }

    let page = agent.page();
    let sources: BTreeSet<_> = page.0.iter().map(|s| (s.label("source_namespace"), s.label("source"))).collect();
    let names: Vec<_> = (0..IDENTITIES).map(|i| format!("app=app-{i}")).collect();
    let expected = names.iter().map(|name| ("web", &**name)).chain([("", "")]).collect();
    assert_eq!(sources, expected);
    assert_eq!(page.all("segprobe_check_verdict", &[("verdict", "pass")]).iter().filter(|s| s.value == 1.0).count(), 5);
    let labels: BTreeSet<&str> = page.0.iter().flat_map(|s| s.labels.values()).map(String::as_str).collect();
    for pod in pods.iter().chain([&ledger]) {
        let tells =
            |label: &&&str| **label == pod.name || label.contains(&*name(pod)) || label.contains(&pod.ip.to_string());
        let told: Vec<_> =
            labels.iter().filter(tells).filter(|l| !l.starts_with(&control.address.to_string())).collect();
        assert!(told.is_empty(), "{}: {told:?}", name(pod));
    }
    assert_eq!(page.value("segprobe_node_pods", &[("zone", "low")]), Some(100.0));
}
