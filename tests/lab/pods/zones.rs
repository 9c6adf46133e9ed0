//! Which pods are here at all: both zones on one node, and a container runtime that does not tell.

use std::time::Duration;

use libtest_mimic::Failed;
use segprobe::model::{Reason, Verdict};

use super::{
    REJECT,
    agent::{Agent, Knobs},
    node::{Node, high, low},
};
use crate::engine::{PORT, block_on};

fn knobs() -> Knobs {
    Knobs {
        boundary: "interval: 60s\n  co_residency: judge",
        targets: vec![("ledger", "endpoints: 10.244.2.20".into())],
        ..Knobs::default()
    }
}

/// The name under which the node itself answers for its low zone.
const NODE: &str = "low";

async fn together(agent: &Agent) -> (Reason, Vec<String>) {
    let swept = agent.sweep(NODE).await;
    let findings = swept.findings().iter().map(ToString::to_string).collect();
    (swept.results[0].reason, findings)
}

pub fn co_residency() -> Result<(), Failed> {
    let node = Node::new()?;
    let told = |pod| node.tell(pod);
    told(low("web-0", "web"));
    told(high("ledger-0"));
    let ledger = high("ledger-0").id;
    let none = Vec::<String>::new;
    block_on(&node.host, || async {
        let mut agent = Agent::start(&node, &knobs()).await;
        assert_eq!(together(&agent).await, (Reason::CoResident, vec!["opened: co-resident, - to -".into()]));
        assert_eq!(together(&agent).await, (Reason::CoResident, none()), "a finding is opened once");

        // Its containers crash and will come back; a list with another pod knows of it.
        node.change(&ledger, |pod| pod.running = false);
        node.tell(low("other-0", "other"));
        agent.until_pods(3).await;
        assert_eq!(together(&agent).await.0, Reason::CoResident);
        node.forget(&low("other-0", "other").id);
        agent.until_pods(2).await;
        // It has ended, and its sandbox waits for its removal.
        node.change(&ledger, |pod| pod.ready = false);
        agent.until("it has ended", |n| n.sandboxes.iter().any(|s| !s.ready)).await;
        for _ in 0..2 {
            assert_eq!(together(&agent).await, (Reason::Apart, none()));
            assert_eq!(agent.served(NODE, "high", ""), Reason::FindingOpen);
        }
        assert_eq!(together(&agent).await, (Reason::Apart, vec!["closed: resolved, - to -".into()]));
        assert_eq!(agent.served(NODE, "high", "").verdict(), Verdict::Pass);

        node.change(&ledger, |pod| pod.ready = true);
        agent.until("it is ready", |n| n.sandboxes.iter().all(|s| s.ready)).await;
        assert_eq!(together(&agent).await.0, Reason::Apart, "no container has run in it yet");
        // One that no policy binds is a neighbour as well.
        node.change(&ledger, |pod| (pod.running, pod.host_network) = (true, true));
        agent.until("it runs", |n| n.sandboxes.iter().all(|s| s.running)).await;
        assert_eq!(together(&agent).await.0, Reason::CoResident);
        node.forget(&low("web-0", "web").id);
        agent.until_pods(1).await;
        assert_eq!(together(&agent).await.0, Reason::Apart);
    });
    Ok(())
}

/// The runtime is not there when the agent starts, and goes away later: pods that nobody knows of do not look like none.
pub fn runtime_unreadable() -> Result<(), Failed> {
    let mut node = Node::new()?;
    let _controls = node.controls()?;
    let _web = node.pod(low("web-0", "web"), "10.244.1.10")?;
    let _far = node.server("10.244.2.20", PORT)?;
    node.policy(&[&format!("tcp dport 5432 {REJECT}")])?;
    node.runtime.stop();
    let yaml = knobs().yaml(&node);
    // The runtime is stopped and started while the agent runs.
    let Node { host, runtime, .. } = &mut node;
    block_on(host, || async {
        let mut agent = Agent::of(&yaml).await;
        assert_eq!(agent.identities(), ["unknown", NODE]);
        assert_eq!(agent.sweep("unknown").await.reason("ledger"), Reason::RuntimeUnreadable);
        assert_eq!(together(&agent).await.0, Reason::RuntimeUnreadable);

        runtime.resume();
        agent.until("it answers", |n| n.listed.is_some()).await;
        assert_eq!(agent.identities(), ["app=web", NODE]);
        assert_eq!(agent.sweep("app=web").await.reason("ledger"), Reason::NoWitness);
        assert_eq!(together(&agent).await.0, Reason::Apart);
        let sources = |agent: &Agent| {
            let snapshot = agent.ledger.snapshot();
            snapshot.checks.iter().map(|check| check.id.source.name.to_string()).collect::<Vec<_>>()
        };
        assert!(!sources(&agent).contains(&"unknown".into()), "{:?}", sources(&agent));

        runtime.stop();
        agent.until("it does not answer", |n| n.problem.is_some()).await;
        assert_eq!(agent.identities(), ["app=web", NODE], "for a moment what was told has to do");
        assert_eq!(together(&agent).await.0, Reason::Apart);
        agent.until("the list is old", |n| n.is_stale).await;
        assert_eq!(agent.identities(), ["app=web", "unknown", NODE]);
        // Who is known is still probed from; nobody is taken for gone.
        let swept = tokio::time::timeout(Duration::from_secs(10), agent.sweep("app=web")).await?;
        assert_eq!(swept.reason("ledger"), Reason::NoWitness);
        assert_eq!(agent.sweep("unknown").await.reason("ledger"), Reason::RuntimeUnreadable);
        assert_eq!(together(&agent).await.0, Reason::RuntimeUnreadable);

        runtime.resume();
        agent.until("it answers again", |n| n.problem.is_none()).await;
        assert_eq!(agent.identities(), ["app=web", NODE]);
        assert!(!sources(&agent).contains(&"unknown".into()), "{:?}", sources(&agent));
        Ok(())
    })
}
