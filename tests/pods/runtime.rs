//! The container runtime goes and comes: what the agent says meanwhile.

use std::{
    fs,
    os::unix::net::UnixListener,
    thread,
    time::{Duration, Instant},
};

use libtest_mimic::Trial;
use nix::sys::signal::Signal;

use crate::{
    cluster::Cluster,
    containerd::SOCKET,
    support::{Agent, Config, SOON, Start, wait_for},
    trial,
};

pub fn trials() -> Vec<Trial> {
    vec![trial("runtime::stops-and-starts", stops_and_starts), trial("runtime::is-not-there", is_not_there)]
}

const PASS: (&str, &str) = ("pass", "blocked");
/// A list of pods is relied on for so long.
const STALE_AFTER: Duration = Duration::from_secs(10);

fn quick(cluster: &Cluster) -> Config {
    Config { boundary: "interval: 7s, tcp: {attempts: 1}, dns: off".into(), ..cluster.config() }
}

fn is_up(agent: &Agent<'_>) -> bool {
    agent.page().value("segprobe_runtime_up", &[]) == Some(1.0)
}

/// When a source's check was last judged.
fn judged(agent: &Agent<'_>, source: &str) -> String {
    let checks = agent.checks();
    let check = checks["checks"].as_array().unwrap().iter().find(|c| c["source"] == source).unwrap();
    check["at"].as_str().unwrap().to_owned()
}

fn stops_and_starts() {
    let cluster = Cluster::start();
    let _listeners = cluster.listen();
    let mut agent = Start::on(&cluster.node).agent(quick(&cluster));
    agent.wait_for_verdict("app=back", "ledger:5432", SOON, PASS);
    assert!(is_up(&agent));

    // A restart, as with an update. On a busy machine it may take longer than a list is relied on, and is tried again.
    let restart = |_: &usize| {
        let before = judged(&agent, "app=back");
        wait_for("a sweep has ended", SOON, || (judged(&agent, "app=back") != before).then_some(()));
        // The next one ends seven seconds later.
        thread::sleep(Duration::from_secs(3));
        cluster.node.stop_containerd();
        let stopped = Instant::now();
        wait_for("the runtime is down", SOON, || (!is_up(&agent)).then_some(()));
        let before = judged(&agent, "app=back");
        wait_for("sweeps go on", SOON, || (judged(&agent, "app=back") != before).then_some(()));
        let unknown = agent.verdict("unknown", "ledger:5432");
        let was_short = stopped.elapsed() < STALE_AFTER - Duration::from_secs(1);
        cluster.node.start_containerd();
        wait_for("the runtime is up", SOON, || is_up(&agent).then_some(()));
        assert!(!was_short || unknown.is_none(), "the list is fresh enough: {unknown:?}");
        was_short
    };
    let restarts = (1..=9).find(restart).expect("a restart that is short enough");
    wait_for("all pods are known", SOON, || agent.verdict("unknown", "ledger:5432").is_none().then_some(()));

    // A long stop: there may be pods that nobody knows of.
    cluster.node.stop_containerd();
    let stopped = Instant::now();
    agent.wait_for_verdict("unknown", "ledger:5432", SOON, ("inconclusive", "runtime-unreadable"));
    println!("runtime: unreadable after {:?}", stopped.elapsed());
    assert!(stopped.elapsed() > STALE_AFTER / 2);
    let before = judged(&agent, "app=back");
    wait_for("sweeps of known pods go on", SOON, || (judged(&agent, "app=back") != before).then_some(()));
    agent.wait_for_verdict("app=back", "ledger:5432", SOON, PASS);
    let labels = [("reason", "runtime-unreadable")];
    assert_eq!(agent.page().value("segprobe_boundary_checks", &labels), Some(1.0));
    cluster.node.start_containerd();
    wait_for("it is known who is there", SOON, || agent.verdict("unknown", "ledger:5432").is_none().then_some(()));
    assert!(is_up(&agent));
    assert_eq!(agent.page().value("segprobe_boundary_checks", &labels), Some(0.0));
    agent.wait_for_verdict("app=front", "ledger:5432", SOON, PASS);

    // For good: the agent ends in good order nevertheless.
    cluster.node.stop_containerd();
    wait_for("the runtime is down", SOON, || (!is_up(&agent)).then_some(()));
    let log = agent.process.stderr();
    assert!(log.matches("does not tell its pods").count() <= 2 * (restarts + 2), "told once for each stop: {log}");
    assert_eq!(log.matches("answers again").count(), restarts + 1, "{log}");
    agent.process.signal(Signal::SIGTERM);
    assert_eq!(agent.process.exit_code(SOON), Some(0));
}

fn is_not_there() {
    let cluster = Cluster::start();
    let _listeners = cluster.listen();
    cluster.node.stop_containerd();
    let socket = cluster.node.path(SOCKET);
    let _ = fs::remove_file(&socket);
    for command in [&["agent", "--web.listen-address", "127.0.0.1:0"][..], &["vantages"], &["check"]] {
        let ended = Start::on(&cluster.node).run(command, quick(&cluster));
        assert_eq!(ended.code, Some(64), "{command:?}: {ended:?}");
        let line = format!("no container runtime's socket at {SOCKET}: mount it (hostPath) and set pods.socket");
        assert!(ended.stderr.contains(&line), "{command:?}: {ended:?}");
    }

    drop(UnixListener::bind(&socket).unwrap());
    let agent = Start::on(&cluster.node).agent(quick(&cluster));
    agent.wait_for_verdict("unknown", "ledger:5432", SOON, ("inconclusive", "runtime-unreadable"));
    assert!(!is_up(&agent));
    assert!(agent.process.stderr().contains("nobody listens"), "{}", agent.process.stderr());
    let ended = Start::on(&cluster.node).run(&["check"], quick(&cluster));
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(
        ended.stdout.contains("  unknown → payments/ledger:5432 (endpoint)  runtime-unreadable")
            && ended.stderr.contains("nobody listens"),
        "{ended:?}"
    );

    cluster.node.start_containerd();
    agent.wait_for_verdict("app=front", "ledger:5432", SOON, PASS);
    agent.wait_for_verdict("app=back", "ledger:5432", SOON, PASS);
    assert_eq!(agent.verdict("unknown", "ledger:5432"), None);
    assert!(is_up(&agent));
    thread::sleep(Duration::from_millis(500));
    assert!(is_up(&agent));
}
