//! The agent: findings that open and close with a policy.

use std::time::{Duration, Instant};

use libtest_mimic::Trial;

use crate::{
    cluster::Cluster,
    support::{Agent, SOON, Start, name},
    trial,
};

pub fn trials() -> Vec<Trial> {
    vec![trial("findings::open-within-an-interval-and-close", open_within_an_interval_and_close)]
}

/// What a sweep of few pairs takes, one silent connect and its controls, on a busy machine: less than an interval.
const SWEEP: Duration = Duration::from_secs(9);

fn open_within_an_interval_and_close() {
    const INTERVAL: Duration = Duration::from_secs(10);
    let cluster = Cluster::start();
    let _listeners = cluster.listen();
    let agent = Start::on(&cluster.node).agent(cluster.config());
    for source in ["app=front", "app=back"] {
        agent.wait_for_verdict(source, "ledger:5432", SOON, ("pass", "blocked"));
    }

    let ledgers = cluster.ledgers.each_ref();
    cluster.node.allow(&[&cluster.back], &ledgers);
    let allowed = Instant::now();
    for ledger in ledgers {
        let address = format!("{}:5432", ledger.ip);
        let opened = agent.wait_for_event("finding-opened", INTERVAL * 21 / 20 + SWEEP, |e| e["address"] == *address);
        assert_eq!((&opened["pod"], &opened["source"]), (&name(&cluster.back).into(), &"app=back".into()), "{opened}");
        assert_eq!((&opened["reason"], &opened["target"]), (&"reached".into(), &"ledger:5432".into()), "{opened}");
    }
    println!("findings: opened after {:?}", allowed.elapsed());
    agent.wait_for_verdict("app=back", "ledger:5432", SOON, ("fail", "reached"));
    assert_eq!(agent.verdict("app=front", "ledger:5432"), Some(("pass".into(), "blocked".into())));
    let total = |agent: &Agent<'_>| agent.page().value("segprobe_findings_total", &[("check", "tcp-connect")]);
    assert_eq!(total(&agent), Some(2.0));

    cluster.node.deny(&[&cluster.back], &ledgers);
    let denied = Instant::now();
    agent.wait_for_verdict("app=back", "ledger:5432", INTERVAL + 2 * SWEEP, ("fail", "finding-open"));
    assert_eq!(agent.events("finding-closed").len(), 0, "one blocked result closes nothing");
    for ledger in ledgers {
        let address = format!("{}:5432", ledger.ip);
        let closed = agent.wait_for_event("finding-closed", 3 * INTERVAL + 2 * SWEEP, |e| e["address"] == *address);
        assert_eq!((&closed["pod"], &closed["how"]), (&name(&cluster.back).into(), &"resolved".into()), "{closed}");
    }
    assert!(denied.elapsed() > 2 * INTERVAL, "three results are two intervals apart: {:?}", denied.elapsed());
    agent.wait_for_verdict("app=back", "ledger:5432", SOON, ("pass", "blocked"));
    assert_eq!(agent.events("finding-opened").len(), 2, "{}", agent.process.stderr());
    assert_eq!(total(&agent), Some(2.0));
}
