//! The status page in a real browser: Chromium, driven by `tests/node/page.mjs`, with an accessibility check.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::{
    demo,
    hostile_dns::hostile_names,
    support::{Agent, closed, directory, dns::serve, have, listen, path_of, process, skip, wait_for, write_config},
};

/// Some hundred pages are looked at.
const LONG: Duration = Duration::from_secs(900);
/// Of the many checks one in so many is reached.
const OPEN: usize = 23;

/// `count` targets of `namespaces`, most of them closed.
fn config(control: SocketAddr, open: SocketAddr, count: usize, namespaces: usize) -> String {
    let closed = closed().ip();
    let target = |i: usize| {
        let (ip, port) = if i.is_multiple_of(OPEN) { (open.ip(), open.port()) } else { (closed, 1_000) };
        let namespace = i % namespaces;
        format!("  - {{zone: high, namespace: n{namespace}, service: t{i}, endpoints: [{ip}], ports: [{port}]}}\n")
    };
    format!(
        "zones: {{low: {{namespaces: [web]}}, high: {{namespaces: [{}]}}}}
boundaries:
  - {{name: low-to-high, from: low, to: high, interval: 5m, tcp: {{attempts: 1, closed: unverified}}, dns: off}}
vantage: {{namespace: web, identity: shop}}
controls: {{positive: [{{tcp: '{control}'}}]}}
dns: {{resolver: 127.0.0.1:1, servers: []}}
pace: {{per_second: 20000, in_flight: 400, spacing: 0s}}
targets:
{}",
        (0..namespaces).map(|i| format!("n{i}, ")).collect::<String>(),
        (1..=count).map(target).collect::<String>()
    )
}

#[test]
fn the_page_in_a_browser() {
    let node = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/node");
    let (true, Some(chromium)) = (have("node"), path_of("chromium")) else { return };
    if !node.join("node_modules/axe-core").is_dir() {
        skip("`npm ci --prefix tests/node` was not run");
        return;
    }
    let directory = directory();
    let ((_control, control), (taking, open)) = (listen(), listen());
    // More are let in than the kernel's queue holds.
    std::thread::spawn(move || taking.incoming().for_each(drop));
    let names = serve(|query, to| to.send(&hostile_names(query)), None);
    let hostile = format!(
        "zones: {{low: {{namespaces: [web]}}, high: {{namespaces: [payments]}}}}
boundaries: [{{name: b, from: low, to: high, interval: 5m}}]
controls: {{positive: [{{tcp: '{control}'}}]}}
dns: {{resolver: 127.0.0.1:1, attempts: 1, timeout: 300ms, queries_per_second: 10000, servers: [{{name: dns, address: '{names}'}}]}}
targets: [{{zone: high, namespace: payments, service: ledger, endpoints: [{}], ports: [{}]}}]
",
        open.ip(),
        open.port()
    );
    let nothing = config(control, open, 0, 1).replace("targets:\n", "targets: []\n");
    let agents: Vec<(&str, Agent)> = [
        ("none", nothing),
        ("one", config(control, open, 1, 1)),
        ("hostile", hostile),
        ("many", config(control, open, 200, 12)),
        ("thousands", config(control, open, 10_000, 300)),
    ]
    .into_iter()
    .map(|(name, config)| {
        let directory = directory.path().join(name);
        fs::create_dir(&directory).unwrap();
        let path = write_config(&directory, &config);
        (name, Agent::start(&directory, &path, &[]))
    })
    .collect();
    for (name, agent) in agents.iter().filter(|(name, _)| *name != "none") {
        wait_for(&format!("`{name}` is swept"), LONG, || {
            agent.checks()["boundaries"][0]["last_completed"].is_string().then_some(())
        });
    }
    // Kept where they can be looked at.
    let shots = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("screenshots");
    fs::create_dir_all(&shots).unwrap();
    let mut shown = demo::start(directory.path(), &["demo", "--web.listen-address", "127.0.0.1:0"]);
    let demo = ("demo", demo::serves_at(&mut shown));
    let served = agents.iter().map(|(name, agent)| (*name, agent.address)).chain([demo]);
    let pages: BTreeMap<&str, String> = served.map(|(name, address)| (name, format!("http://{address}/"))).collect();
    let mut command = Command::new("node");
    command.arg(node.join("page.mjs")).arg(chromium).arg(&shots);
    command.arg(serde_json::to_string(&pages).unwrap());
    let ended = process::run(command, LONG);
    assert_eq!(ended.code, Some(0), "{}\n{}", ended.stdout, ended.stderr);
}
