//! Agents that share targets: each target by one of them in a sweep, by all of them in turn, and what fails by who found it.

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tempfile::TempDir;

use crate::support::{
    Agent, SOON, directory,
    dns::{honest, leaky, serve},
    find, http, listen, loopback, segprobe, wait_for, write_config,
};

/// The shortest that one attempt of 2 s allows.
const INTERVAL: Duration = Duration::from_millis(6_100);

/// Connections that were accepted: when, at which target, from whom.
type Accepted = Arc<Mutex<Vec<(SystemTime, usize, IpAddr)>>>;

/// Listens at so many addresses and notes who comes.
fn targets(count: usize, accepted: &Accepted) -> Vec<SocketAddr> {
    let start = |target| {
        let ((listener, address), accepted) = (listen(), accepted.clone());
        thread::spawn(move || {
            while let Ok((_, from)) = listener.accept() {
                accepted.lock().unwrap().push((SystemTime::now(), target, from.ip()));
            }
        });
        address
    };
    (0..count).map(start).collect()
}

/// What may always be reached. It accepts: a full queue would be silent.
fn control() -> SocketAddr {
    targets(1, &Accepted::default())[0]
}

fn since_1970(at: SystemTime) -> Duration {
    at.duration_since(UNIX_EPOCH).unwrap()
}

/// The interval of the wall clock that a moment is in.
fn epoch(at: SystemTime) -> u128 {
    since_1970(at).as_millis() / INTERVAL.as_millis()
}

/// Sleeps until the wall clock's next interval has begun.
fn next_epoch() -> u128 {
    let into = since_1970(SystemTime::now()).as_millis() % INTERVAL.as_millis();
    thread::sleep(INTERVAL - Duration::from_millis(into as u64) + Duration::from_millis(50));
    epoch(SystemTime::now())
}

/// All targets but the last must be open, and are; the last must be blocked, and is not.
fn config(control: SocketAddr, source: Ipv4Addr) -> String {
    format!(
        "zones: {{low: {{namespaces: [web]}}, high: {{namespaces: [payments]}}, vault: {{namespaces: [vault]}}}}
boundaries:
  - {{name: allowed, from: low, to: high, expect: open, interval: {0}ms, tcp: {{attempts: 1}}}}
  - {{name: breached, from: low, to: vault, interval: {0}ms, tcp: {{attempts: 1}}, dns: off}}
vantage: {{namespace: web, source: {source}}}
controls: {{positive: [{{tcp: '{control}'}}]}}
dns: {{resolver: 127.0.0.1:1, servers: []}}
share: {{nodes_per_sweep: 1}}
target_files: [targets.json]
",
        INTERVAL.as_millis()
    )
}

fn write_targets(directory: &Path, nodes: &[&str], targets: &[SocketAddr]) {
    let last = targets.len() - 1;
    let target = |(i, address): (usize, &SocketAddr)| {
        let (zone, namespace) = if i == last { ("vault", "vault") } else { ("high", "payments") };
        let (ip, port) = (address.ip(), address.port());
        serde_json::json!({"zone": zone, "namespace": namespace, "service": format!("s{i}"), "endpoints": [ip.to_string()], "ports": [port]})
    };
    let targets: Vec<_> = targets.iter().enumerate().map(target).collect();
    let text = serde_json::json!({"nodes": nodes, "targets": targets}).to_string();
    // As a ConfigMap is swapped: never half a file.
    fs::write(directory.join("next"), text).unwrap();
    fs::rename(directory.join("next"), directory.join("targets.json")).unwrap();
}

struct Node {
    agent: Agent,
    directory: TempDir,
    source: IpAddr,
}

fn start(name: &str, control: SocketAddr, nodes: &[&str], targets: &[SocketAddr]) -> Node {
    let (directory, source) = (directory(), loopback());
    write_targets(directory.path(), nodes, targets);
    let path = write_config(directory.path(), &config(control, source));
    let agent = Agent::start(directory.path(), &path, &["--node.name", name]);
    Node { agent, directory, source: source.into() }
}

impl Node {
    fn verdicts(&self, boundary: &str) -> Vec<String> {
        let page = self.agent.page();
        let verdicts = page.all("segprobe_check_verdict", &[("boundary", boundary)]);
        let is_on = verdicts.into_iter().filter(|sample| sample.value == 1.0);
        is_on.map(|sample| sample.label("verdict").to_owned()).collect()
    }

    fn of_share(&self, boundary: &str) -> [f64; 2] {
        let page = self.agent.page();
        let value = |what: &str| page.value(&format!("segprobe_boundary_share_{what}"), &[("boundary", boundary)]);
        [value("nodes").unwrap(), value("sweeps").unwrap()]
    }
}

/// Who came to each target since a moment, in order.
fn visits(accepted: &Accepted, target: usize, since: SystemTime) -> Vec<(SystemTime, IpAddr)> {
    let all = accepted.lock().unwrap();
    all.iter().filter(|(at, of, _)| *of == target && *at >= since).map(|(at, _, from)| (*at, *from)).collect()
}

/// Each target is visited once in an interval, by nobody twice in a round, and by everybody within a round and an interval.
fn assert_in_turns(accepted: &Accepted, targets: usize, nodes: &BTreeSet<IpAddr>, since: SystemTime, intervals: usize) {
    for target in 0..targets {
        let visits = visits(accepted, target, since);
        let told = || visits.iter().map(|(at, from)| (epoch(*at), *from)).collect::<Vec<_>>();
        // A sweep that begins a little later each time leaves out an interval now and then, and makes up for it in the next.
        assert!(
            visits.len().abs_diff(intervals) <= 1,
            "{} visits in {intervals} intervals: {:?}",
            visits.len(),
            told()
        );
        for next in visits.windows(nodes.len()) {
            let who: BTreeSet<IpAddr> = next.iter().map(|(_, from)| *from).collect();
            assert_eq!(who, *nodes, "target {target}: {:?}", told());
        }
    }
}

#[test]
fn three_agents_take_turns_and_two_go_on_without_the_third() {
    let (control, accepted) = (control(), Accepted::default());
    let targets = targets(5, &accepted);
    let (allowed, breached) = (targets.len() - 1, targets.len() - 1);
    next_epoch();
    let mut nodes = ["node-a", "node-b", "node-c"]
        .map(|name| start(name, control, &["node-a", "node-b", "node-c"], &targets))
        .into_iter()
        .collect::<Vec<_>>();
    assert!(nodes.iter().all(|node| node.of_share("allowed") == [3.0, 3.0]));
    let sources = |nodes: &[Node]| nodes.iter().map(|node| node.source).collect::<BTreeSet<_>>();

    // Before all of its addresses were probed no check is well: of four targets each node has one or two at first.
    let early =
        wait_for("a sweep", SOON, || (!accepted.lock().unwrap().is_empty()).then(|| nodes[0].verdicts("allowed")));
    assert!(early.contains(&"inconclusive".to_owned()), "{early:?}");

    // From the next interval on everybody is there.
    next_epoch();
    let began = SystemTime::now();
    thread::sleep(4 * INTERVAL - Duration::from_millis(100));
    assert_in_turns(&accepted, allowed, &sources(&nodes), began, 4);
    for node in &nodes {
        assert_eq!(node.verdicts("allowed"), ["pass"; 4]);
        assert_eq!(node.verdicts("breached"), ["fail"]);
    }
    // Whoever found it open comes again in every sweep: seldom for the first time, and then for ever.
    for source in sources(&nodes) {
        let at: Vec<SystemTime> = visits(&accepted, breached, UNIX_EPOCH)
            .into_iter()
            .filter(|(_, from)| *from == source)
            .map(|(at, _)| at)
            .collect();
        assert!(at.len() >= 2, "{source}: {at:?}");
        for next in at.windows(2) {
            let between = next[1].duration_since(next[0]).unwrap();
            assert!(between < INTERVAL + INTERVAL / 2, "{source} came again after {between:?}");
        }
    }

    // What had its turn has had it: a reload does not begin anew. Where this is too slow for one interval, in the next.
    let count = || (0..allowed).map(|target| visits(&accepted, target, UNIX_EPOCH).len()).sum::<usize>();
    let after = (0..9).find_map(|turn| {
        let now = next_epoch();
        let is_done = |target| visits(&accepted, target, UNIX_EPOCH).iter().any(|(at, _)| epoch(*at) == now);
        while !(0..allowed).all(is_done) {
            if epoch(SystemTime::now()) != now {
                return None;
            }
            thread::sleep(Duration::from_millis(20));
        }
        let before = count();
        let names = [["node-c", "node-a", "node-b"], ["node-b", "node-c", "node-a"]][turn % 2];
        for node in &nodes {
            write_targets(node.directory.path(), &names, &targets);
            assert_eq!(http::post(node.agent.address, "/-/reload").status, 200);
        }
        // The first sweep after it comes within a tenth of the interval.
        thread::sleep(INTERVAL / 5);
        let after = count() - before;
        (epoch(SystemTime::now()) == now).then_some(after)
    });
    assert_eq!(after, Some(0), "visits after a reload");

    // One ends, and the list says so: the others have its turns, and lose nothing of what they know.
    nodes.pop();
    for node in &nodes {
        write_targets(node.directory.path(), &["node-a", "node-b"], &targets);
        assert_eq!(http::post(node.agent.address, "/-/reload").status, 200);
        assert_eq!(node.of_share("allowed"), [2.0, 2.0]);
        assert_eq!(
            (node.verdicts("allowed"), node.verdicts("breached")),
            (vec!["pass".to_owned(); 4], vec!["fail".to_owned()])
        );
    }
    next_epoch();
    // What changed its turn is made up for meanwhile.
    next_epoch();
    let began = SystemTime::now();
    thread::sleep(3 * INTERVAL - Duration::from_millis(100));
    for target in 0..allowed {
        let visits = visits(&accepted, target, began);
        let who: BTreeSet<IpAddr> = visits.iter().map(|(_, from)| *from).collect();
        assert_eq!(who, sources(&nodes), "target {target}");
        assert!((2..=5).contains(&visits.len()), "target {target}: {} visits in three intervals", visits.len());
    }
}

#[test]
fn where_nobody_is_listed_nothing_is_probed_and_it_is_said() {
    let (control, accepted) = (control(), Accepted::default());
    let targets = targets(2, &accepted);
    let node = start("node-a", control, &[], &targets);
    node.agent.wait_for_sweeps();
    assert_eq!((node.of_share("allowed"), node.of_share("breached")), ([0.0, 0.0], [0.0, 0.0]));
    assert_eq!(
        (node.verdicts("allowed"), node.verdicts("breached")),
        (vec!["inconclusive".to_owned()], vec!["inconclusive".to_owned()])
    );
    let report = node.agent.checks();
    let gaps = report["not_tested"].as_array().unwrap();
    let why = "no node is listed, neither in a target file nor in share.nodes";
    assert_eq!(gaps.iter().filter(|gap| gap["why"].as_str().unwrap().contains(why)).count(), 2, "{gaps:?}");
    assert!(accepted.lock().unwrap().is_empty());

    // The list comes, without this node's name: it takes part nevertheless.
    write_targets(node.directory.path(), &["node-b"], &targets);
    assert_eq!(http::post(node.agent.address, "/-/reload").status, 200);
    assert_eq!(node.of_share("allowed"), [2.0, 2.0]);
    let told = node.agent.process.stderr();
    assert!(told.contains("its name is in no list of nodes"), "{told}");
    wait_for("it has its turn", SOON, || (!accepted.lock().unwrap().is_empty()).then_some(()));

    // One node of one probes everything in every sweep.
    write_targets(node.directory.path(), &["node-a"], &targets);
    assert_eq!(http::post(node.agent.address, "/-/reload").status, 200);
    assert_eq!(node.of_share("allowed"), [1.0, 1.0]);
    let well = || (node.verdicts("allowed") == ["pass"] && node.verdicts("breached") == ["fail"]).then_some(());
    wait_for("everything is probed", SOON, well);
}

#[test]
fn the_plan_shows_what_a_share_costs_and_a_check_probes_all() {
    let (control, accepted) = (control(), Accepted::default());
    let targets = targets(5, &accepted);
    let (directory, source) = (directory(), loopback());
    let names: Vec<String> = (0..500).map(|i| format!("node-{i}")).collect();
    write_targets(directory.path(), &names.iter().map(String::as_str).collect::<Vec<_>>(), &targets);
    let path =
        write_config(directory.path(), &config(control, source).replace("nodes_per_sweep: 1", "nodes_per_sweep: 3"));
    let place = ["--config.file", &path, "--node.name", "node-7"];
    let ended = segprobe(&[&["check", "--plan"], &place[..]].concat());
    let expected = "shared by 500 nodes: of their pairs with 4 addresses this node has about 1 in a sweep, and each within 160 sweeps \
                    (16 min); each address is probed by 3 or 4 of them in a sweep, 0.512 connects a second";
    assert!(ended.code == Some(0) && ended.stdout.contains(expected), "{ended:?}");
    assert!(accepted.lock().unwrap().is_empty());

    let ended = segprobe(&[&["check"], &place[..]].concat());
    assert_eq!((ended.code, accepted.lock().unwrap().len()), (Some(1), 5), "{ended:?}");
    assert!(!ended.stdout.contains("share"), "{ended:?}");
}

/// Queries that an agent has sent.
fn queries(agent: &Agent) -> f64 {
    agent.page().all("segprobe_dns_queries_total", &[]).iter().map(|sample| sample.value).sum()
}

/// A server that many nodes ask is asked by each of them in turn; one that tells, by who heard it in every sweep.
#[test]
fn dns_servers_are_asked_in_turns() {
    let control = control();
    let honest_server = serve(|query, to| to.send(&honest(query)), None);
    let leaky_server = serve(|query, to| to.send(&leaky(query)), None);
    let start = |name: &str, server: SocketAddr| {
        let text = format!(
            "zones: {{low: {{namespaces: [web]}}, high: {{namespaces: [payments]}}}}
boundaries: [{{name: b, from: low, to: high, interval: {}ms, tcp: {{attempts: 1}}}}]
vantage: {{namespace: web}}
controls: {{positive: [{{tcp: '{control}'}}]}}
dns: {{resolver: 127.0.0.1:1, timeout: 500ms, ask_again: 500ms, queries_per_second: 1000, servers: [{{name: s, address: '{server}'}}]}}
share: {{nodes_per_sweep: 1, nodes: [node-a, node-b]}}
",
            INTERVAL.as_millis()
        );
        let directory = directory();
        let path = write_config(directory.path(), &text);
        (Agent::start(directory.path(), &path, &["--node.name", name]), directory)
    };
    next_epoch();
    let agents =
        [("node-a", honest_server), ("node-b", honest_server), ("node-a", leaky_server), ("node-b", leaky_server)]
            .map(|(name, server)| start(name, server));
    // Each had its turn.
    (0..3).for_each(|_| {
        next_epoch();
    });
    let verdict = |agent: &Agent| find(&agent.checks(), "srv-wildcard", "s")["verdict"].as_str().unwrap().to_owned();
    let verdicts = agents.each_ref().map(|(agent, _)| verdict(agent));
    assert!(verdicts[2..] == ["fail", "fail"] && !verdicts[..2].contains(&"fail".to_owned()), "{verdicts:?}");
    let mut asked = [0; 4];
    let mut before = agents.each_ref().map(|(agent, _)| queries(agent));
    for _ in 0..4 {
        next_epoch();
        let now = agents.each_ref().map(|(agent, _)| queries(agent));
        for (asked, (before, now)) in asked.iter_mut().zip(before.iter().zip(now)) {
            *asked += u32::from(now > *before);
        }
        before = now;
    }
    // One that begins later each time may leave out an interval.
    assert!(
        asked[..2].iter().all(|sweeps| (1..=3).contains(sweeps)) && (3..=5).contains(&(asked[0] + asked[1])),
        "{asked:?}"
    );
    assert!(asked[2..].iter().all(|sweeps| *sweeps >= 3), "{asked:?}");
}
