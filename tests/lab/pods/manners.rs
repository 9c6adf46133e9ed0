//! A probe is a guest: whatever leaves a pod for us leaves it at the configured pace.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use libtest_mimic::Failed;

use segprobe::model::Reason;

use super::{
    REJECT,
    agent::{Agent, Knobs},
    node::{CONTROL, Node, Pod, at, low},
};
use crate::{
    cluster_dns::{ClusterDns, Defences, Flavour, Inventory, Running, Service},
    engine::block_on,
    fake_cri::FakePod,
};

const PER_SECOND: f64 = 5.0;
/// Timers are late now and then, and what was late comes close to what follows.
const BURST: f64 = 3.0;
const FOR: Duration = Duration::from_secs(6);

pub fn pace() -> Result<(), Failed> {
    of_everything()?;
    of_names()
}

/// Two boundaries from one pod, with controls, connects and DNS over both transports: more than it may send.
fn of_everything() -> Result<(), Failed> {
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
        let mut samples = Samples::default();
        tokio::select! {
            _ = sweeps => panic!("it cannot be over so soon"),
            () = samples.take(&web, &server, FOR) => {}
        }
        samples
    });
    samples.check();
    let all = samples.all();
    assert!(all >= PER_SECOND * FOR.as_secs_f64() * 0.7, "its share is used: {all} in {FOR:?}");
    Ok(())
}

/// Two questions for each name, which wait for their turns longer than a server has time to answer.
fn of_names() -> Result<(), Failed> {
    const NAMES: usize = 8;
    let node = Node::new()?;
    let (controls, _) = node.attach(&[CONTROL])?;
    let mut inventory = Inventory::new().namespace("payments");
    for name in 0..NAMES {
        inventory = inventory.service(Service::cluster_ip("payments", &format!("n{name}"), &["10.244.2.1"]));
    }
    let server = controls.run(|| ClusterDns::new(Flavour::CoreDns114, inventory).start_at(at(CONTROL, 53)));
    let web = FakePod { dns_servers: vec![CONTROL.into()], ..low("web-0", "web") };
    let web = node.pod(web, "10.244.1.10")?;
    node.policy(&[&format!("tcp dport 5432 {REJECT}")])?;
    let of_name =
        |name| format!("- {{zone: high, name: n{name}, address: n{name}.payments.svc.cluster.local, ports: [5432]}}\n");
    let yaml = Knobs { pods: "per_second: 5", more: "dns: {timeout: 500ms, attempts: 1}\n", ..Knobs::default() }
        .yaml(&node)
        .replace("targets:\n", &format!("targets:\n{}", (0..NAMES).map(of_name).collect::<String>()));
    let (samples, swept) = block_on(&node.host, || async {
        let agent = Agent::of(&yaml).await;
        let mut samples = Samples::default();
        let sweep = agent.sweep("app=web");
        let swept = tokio::select! {
            swept = sweep => swept,
            () = samples.take(&web, &server, Duration::MAX) => unreachable!(),
        };
        (samples, swept)
    });
    samples.check();
    let reasons: Vec<Reason> = swept.results.iter().map(|result| result.reason).collect();
    assert!(reasons.len() == NAMES && !reasons.contains(&Reason::Unresolved), "each name has its address: {reasons:?}");
    assert_eq!(server.received().total(), 2 * NAMES);
    Ok(())
}

/// What a pod had sent, with the moments between which that was read.
#[derive(Debug, Default)]
struct Samples(Vec<(Instant, f64, Instant)>);

impl Samples {
    async fn take(&mut self, pod: &Pod, server: &Running, so_long: Duration) {
        let began = Instant::now();
        while began.elapsed() < so_long {
            self.read(pod, server);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        self.read(pod, server);
    }

    fn read(&mut self, pod: &Pod, server: &Running) {
        self.0.push((Instant::now(), sent(pod, server), Instant::now()));
    }

    /// Whatever time is looked at, no more was sent in it than the pace allows.
    fn check(&self) {
        for (index, (from, before, _)) in self.0.iter().enumerate() {
            for (_, after, until) in &self.0[index..] {
                let seconds = (*until - *from).as_secs_f64();
                let sent = after - before;
                assert!(sent <= PER_SECOND * seconds + BURST, "{sent} in {seconds} s: {self:?}");
            }
        }
    }

    fn all(&self) -> f64 {
        self.0[self.0.len() - 1].1 - self.0[0].1
    }
}

/// Connects of a pod so far, and what it asked the server over UDP and TCP.
fn sent(pod: &Pod, server: &Running) -> f64 {
    let asked = u32::try_from(server.received().total()).expect("some hundreds");
    f64::from(pod.namespace.tcp_counter("ActiveOpens") + asked)
}
