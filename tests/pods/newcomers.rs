//! New pods of a running identity: swept at once, and open for a moment where their policy is late.

use std::{
    thread,
    time::{Duration, Instant},
};

use libtest_mimic::Trial;

use crate::{
    cluster::{Cluster, web},
    support::{Config, SOON, Start, name, wait_for},
    trial,
};

pub fn trials() -> Vec<Trial> {
    vec![trial("newcomers::a-late-policy-is-startup", a_late_policy_is_startup)]
}

fn a_late_policy_is_startup() {
    /// The look at the pods, one more for a container that starts after its sandbox, and a busy machine.
    const AT_ONCE: Duration = Duration::from_secs(12);
    const WINDOW: Duration = Duration::from_secs(20);
    let cluster = Cluster::start();
    let listeners = cluster.listen();
    let config = Config {
        // Whoever is swept sooner is swept because he is new.
        boundary: "interval: 1h, tcp: {attempts: 1}, dns: off".into(),
        pods: "poll: 500ms, per_second: 1000, startup_window: 20s".into(),
        ..cluster.config()
    };
    let agent = Start::on(&cluster.node).agent(config);
    agent.wait_for_verdict("app=front", "ledger:5432", SOON, ("pass", "blocked"));

    let born = Instant::now();
    let late = cluster.node.run_pod(&web("front-3", "front"));
    let started = Instant::now();
    wait_for("the new pod gets through", AT_ONCE, || (listeners[0].accepted() > 0).then_some(()));
    println!("startup: probed {:?} after it was started", started.elapsed());
    thread::sleep(Duration::from_millis(500));
    cluster.node.deny(&[&late], &cluster.ledgers.each_ref());
    for ledger in &cluster.ledgers {
        let address = format!("{}:5432", ledger.ip);
        let startup = agent.wait_for_event("startup", SOON, |e| e["address"] == *address);
        assert_eq!((&startup["pod"], &startup["source"]), (&name(&late).into(), &"app=front".into()), "{startup}");
        let length = startup["open_seconds"].as_f64().unwrap();
        println!("startup: open for {length} s");
        // From its start to the policy; neither of the two waits in silence after it counts.
        assert!(length > 0.5 && length < born.elapsed().as_secs_f64() - 3.0, "{startup}");
    }
    let page = agent.page();
    assert_eq!(page.value("segprobe_startup_open_seconds_count", &[("boundary", "b")]), Some(2.0));
    assert_eq!(page.value("segprobe_findings_total", &[("check", "tcp-connect")]), Some(0.0));
    assert_eq!(agent.verdict("app=front", "ledger:5432"), Some(("pass".into(), "blocked".into())));

    // Nobody is new for ever.
    let open = cluster.node.run_pod(&web("front-4", "front"));
    let started = Instant::now();
    for ledger in &cluster.ledgers {
        let address = format!("{}:5432", ledger.ip);
        let opened = agent.wait_for_event("finding-opened", SOON, |e| e["address"] == *address);
        assert_eq!(opened["pod"], name(&open), "{opened}");
    }
    assert!(started.elapsed() > WINDOW / 2, "{:?}", started.elapsed());
    assert_eq!(agent.events("startup").len(), 2);
}
