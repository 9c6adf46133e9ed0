//! A probe is a guest: whatever leaves a pod for us leaves it at the configured pace.

use std::{
    fs,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use libtest_mimic::Failed;

use super::{
    REJECT,
    agent::{Agent, Knobs},
    node::{CONTROL, Node, Pod, at, low},
};
use crate::{
    cluster_dns::{ClusterDns, Defences, Flavour, Inventory, Running},
    engine::block_on,
};

const PER_SECOND: f64 = 5.0;
/// Timers are late now and then, and what was late comes close to what follows.
const BURST: f64 = 3.0;
const FOR: Duration = Duration::from_secs(6);

/// Two boundaries from one pod, with controls, connects and DNS over both transports: more than it may send.
pub fn pace() -> Result<(), Failed> {
    let node = Node::new()?;
    let (controls, _) = node.attach(&[CONTROL])?;
    let server = controls.run(|| {
        ClusterDns::new(Flavour::CoreDns114, Inventory::recorded()).with(Defences::default()).start_at(at(CONTROL, 53))
    });
    let web = node.pod(low("web-0", "web"), "10.244.1.10")?;
    node.policy(&[&format!("tcp dport 5432 {REJECT}")])?;
    let endpoints: Vec<String> = (1..=20).map(|last| format!("10.244.2.{last}")).collect();
    let yaml = Knobs {
        dns: "{srv-wildcard: judge, service-lookup: judge}",
        targets: vec![("ledger", format!("endpoints: [{}]", endpoints.join(", ")))],
        pods: "per_second: 5",
        more: "dns: {queries_per_second: 2000}\n",
        ..Knobs::default()
    }
    .yaml(&node);
    let (before, after) = yaml.split_once("- name: lab").expect("a boundary");
    let (boundary, after) = after.split_once("targets:").expect("targets");
    let yaml = format!("{before}- name: lab{boundary}- name: second{boundary}targets:{after}");
    let samples = block_on(&node.host, || async {
        let agent = Agent::of(&yaml).await;
        assert_eq!(agent.identities(), ["app=web", "app=web"]);
        let sweeps = join_all(agent.plan.legs.iter().map(|leg| agent.sweep_leg(leg)));
        let mut samples = vec![(Instant::now(), sent(&web, &server))];
        let sampling = async {
            while samples[0].0.elapsed() < FOR {
                tokio::time::sleep(Duration::from_millis(100)).await;
                samples.push((Instant::now(), sent(&web, &server)));
            }
        };
        tokio::select! {
            _ = sweeps => panic!("it cannot be over so soon"),
            () = sampling => {}
        }
        samples
    });
    for (index, (from, before)) in samples.iter().enumerate() {
        for (until, after) in &samples[index..] {
            let seconds = (*until - *from).as_secs_f64();
            assert!(after - before <= PER_SECOND * seconds + BURST, "{} in {seconds} s: {samples:?}", after - before);
        }
    }
    let all = samples[samples.len() - 1].1 - samples[0].1;
    assert!(all >= PER_SECOND * FOR.as_secs_f64() * 0.7, "its share is used: {all} in {FOR:?}");
    Ok(())
}

/// Connects of a pod so far, and what it asked the server over UDP and TCP.
fn sent(pod: &Pod, server: &Running) -> f64 {
    let snmp = pod.namespace.run(|| fs::read_to_string("/proc/thread-self/net/snmp")).expect("its counters");
    let mut lines = snmp.lines().filter_map(|line| line.strip_prefix("Tcp:"));
    let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
    let index = names.split_whitespace().position(|name| name == "ActiveOpens").expect("the counter");
    let connects: u32 = values.split_whitespace().nth(index).expect("its value").parse().expect("a number");
    let asked = u32::try_from(server.received().total()).expect("some hundreds");
    f64::from(connects + asked)
}
