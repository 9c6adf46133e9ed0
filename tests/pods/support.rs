//! What the scenarios share: deadlines, configurations, and segprobe on a node.

#[path = "../programs/support/http.rs"]
#[allow(dead_code, reason = "shared with the tests of programs")]
pub mod http;
#[path = "../programs/support/metrics.rs"]
#[allow(dead_code, reason = "shared with the tests of programs")]
pub mod metrics;
#[path = "../programs/support/process.rs"]
#[allow(dead_code, reason = "shared with the tests of programs")]
pub mod process;

use std::{
    fmt, fs,
    net::SocketAddr,
    os::unix::fs::MetadataExt,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::containerd::{Node, Pod};
use metrics::Page;
use process::{Ended, Process};

/// Nothing here takes longer unless it hangs: generous, because other tests run at the same time.
pub const SOON: Duration = Duration::from_secs(300);

/// Where the agent's port is: on the loopback interface of the network that it runs in.
const LISTEN: &str = "127.0.0.1:11450";

/// Asks again and again until there is an answer; fails the test when the time is up.
pub fn wait_for<T>(what: &str, within: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(began.elapsed() < within, "waited {within:?} in vain: {what}");
        thread::sleep(Duration::from_millis(25));
    }
}

/// A directory that vanishes with the test.
pub fn directory() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("segprobe-test-").tempdir().unwrap()
}

/// A configuration of the pods' own vantage, low against high, whose parts can be changed. Everything is quick, and no DNS
/// technique is asked.
#[derive(Clone)]
pub struct Config {
    pub mode: &'static str,
    /// What the boundary has beside its zones.
    pub boundary: String,
    pub pods: String,
    pub controls: String,
    pub targets: String,
    /// Any other keys, a line each.
    pub more: String,
}

impl Config {
    /// The ledger at port 5432 of these pods.
    pub fn new<'a>(control: SocketAddr, ledgers: impl IntoIterator<Item = &'a Pod>) -> Self {
        let endpoints: Vec<String> = ledgers.into_iter().map(|pod| pod.ip.to_string()).collect();
        Self {
            mode: "pods",
            boundary: "interval: 10s, tcp: {attempts: 1}, dns: off".into(),
            pods: "poll: 200ms, per_second: 1000".into(),
            controls: format!("positive: [{{tcp: '{control}'}}]"),
            targets: format!(
                "{{zone: high, namespace: payments, service: ledger, endpoints: [{}], ports: [5432]}}",
                endpoints.join(", ")
            ),
            more: String::new(),
        }
    }
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mode, boundary, pods, controls, targets, more } = self;
        writeln!(f, "zones: {{low: {{namespaces: [web]}}, high: {{namespaces: [payments]}}}}")?;
        writeln!(f, "boundaries: [{{name: b, from: low, to: high, {boundary}}}]\nvantage: {{mode: {mode}}}")?;
        if !pods.is_empty() {
            writeln!(f, "pods: {{{pods}}}")?;
        }
        write!(f, "controls: {{{controls}}}\ntargets: [{targets}]\n{more}")
    }
}

/// How segprobe is started on a node.
#[derive(Clone, Copy)]
pub struct Start<'a> {
    pub node: &'a Node,
    /// Whose network it runs in; none is the node's.
    pub network: Option<&'a Pod>,
    /// A program, with its arguments, that becomes segprobe.
    pub by: &'a [&'a str],
}

impl<'a> Start<'a> {
    /// As a privileged process of the node.
    pub fn on(node: &'a Node) -> Self {
        Self { node, network: None, by: &[] }
    }

    /// Starts it. Its files are the node's and vanish with it.
    pub fn start(self, arguments: &[&str], config: impl fmt::Display) -> Process {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let inside = format!("/run/node/segprobe-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let directory = self.node.path(&inside);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("segprobe.yaml"), config.to_string()).unwrap();
        let mut words = self.by.iter().copied().chain([env!("CARGO_BIN_EXE_segprobe")]);
        let mut command = Command::new(words.next().unwrap());
        command.args(words).args(arguments).arg("--config.file").arg(format!("{inside}/segprobe.yaml"));
        Process::start_by(command, &directory, "segprobe", |command| match self.network {
            Some(pod) => self.node.inside_with_network_of(pod, || command.spawn()),
            None => self.node.inside(|| command.spawn()),
        })
    }

    /// Runs it to its end.
    pub fn run(self, arguments: &[&str], config: impl fmt::Display) -> Ended {
        ended(self.start(arguments, config))
    }

    /// Runs `segprobe check`, and gives its report.
    pub fn check(self, config: impl fmt::Display) -> Value {
        report(&self.run(&["check", "--output", "json"], config))
    }

    /// Starts the agent and waits until it answers.
    pub fn agent(self, config: impl fmt::Display) -> Agent<'a> {
        let arguments = ["agent", "--log.format", "json", "--web.listen-address", LISTEN];
        let mut agent = Agent { process: self.start(&arguments, config), node: self.node, network: self.network };
        wait_for("the agent answers", SOON, || {
            if let Some(status) = agent.process.ended() {
                panic!("the agent ended with {status}: {}", agent.process.stderr());
            }
            agent.try_get("/-/healthy").ok()
        });
        agent
    }
}

/// Waits for a process's end.
pub fn ended(mut process: Process) -> Ended {
    let code = process.exit_code(SOON);
    Ended { code, stdout: process.stdout(), stderr: process.stderr() }
}

/// What `segprobe check --output json` wrote.
pub fn report(ended: &Ended) -> Value {
    serde_json::from_str(&ended.stdout).unwrap_or_else(|e| panic!("{e}: {ended:?}"))
}

/// Every address of the report's checks that connect: `(pod, address, reason)`, sorted.
pub fn reached(report: &Value) -> Vec<(String, String, String)> {
    let text = |pair: &Value, key: &str| pair[key].as_str().unwrap_or_default().to_owned();
    let checks = report["checks"].as_array().unwrap().iter();
    let pairs = checks.filter_map(|check| check["addresses"].as_array()).flatten();
    let mut pairs: Vec<_> =
        pairs.map(|pair| (text(pair, "pod"), text(pair, "address"), text(pair, "reason"))).collect();
    pairs.sort();
    pairs
}

/// The pod's name as evidence has it.
pub fn name(pod: &Pod) -> String {
    format!("{}/{}", pod.namespace, pod.name)
}

/// segprobe's agent on a node.
pub struct Agent<'a> {
    pub process: Process,
    node: &'a Node,
    network: Option<&'a Pod>,
}

impl Agent<'_> {
    fn try_get(&self, path: &str) -> std::io::Result<http::Answer> {
        let address: SocketAddr = LISTEN.parse().unwrap();
        let get = || http::try_request(address, &format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n"));
        match self.network {
            Some(pod) => self.node.in_network_of(pod, get),
            None => self.node.inside(get),
        }
    }

    pub fn get(&self, path: &str) -> http::Answer {
        self.try_get(path).unwrap_or_else(|e| panic!("{path}: {e}\n{}", self.process.stderr()))
    }

    pub fn checks(&self) -> Value {
        serde_json::from_slice(&self.get("/api/v1/checks").body).unwrap()
    }

    /// Waits until every target's check of TCP connects has the verdict that is expected of it.
    pub fn wait_for_verdicts(&self, expected: &[(&str, &str)]) {
        wait_for(&format!("{expected:?}"), SOON, || {
            let checks = self.checks();
            let holds = |(target, verdict): &(&str, &str)| {
                let mut of_target = checks["checks"].as_array().unwrap().iter().filter(|c| c["target"] == *target);
                of_target.any(|check| check["verdict"] == *verdict)
            };
            expected.iter().all(holds).then_some(())
        });
    }

    pub fn page(&self) -> Page {
        Page::parse(&self.get("/metrics").text())
    }

    /// The log's lines that tell of such an event.
    pub fn events(&self, event: &str) -> Vec<Value> {
        let lines = self.process.stderr();
        let events = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        events.filter(|line| line["event"] == event).collect()
    }

    /// Waits for an event that fits.
    pub fn wait_for_event(&self, event: &str, within: Duration, fits: impl Fn(&Value) -> bool) -> Value {
        let find = || self.events(event).into_iter().find(|line| fits(line));
        let deadline = Instant::now() + within;
        loop {
            match find() {
                Some(found) => return found,
                None if Instant::now() < deadline => thread::sleep(Duration::from_millis(25)),
                None => panic!("no such {event} within {within:?}:\n{}", self.process.stderr()),
            }
        }
    }

    /// Verdict and reason of the check of a target's connects from a source.
    pub fn verdict(&self, source: &str, target: &str) -> Option<(String, String)> {
        let checks = self.checks();
        let mut checks = checks["checks"].as_array().unwrap().iter();
        let check = checks.find(|check| check["source"] == source && check["target"] == target)?;
        Some(["verdict", "reason"].map(|key| check[key].as_str().unwrap().to_owned()).into())
    }

    /// Waits for a verdict with its reason.
    pub fn wait_for_verdict(&self, source: &str, target: &str, within: Duration, expected: (&str, &str)) {
        let is = || self.verdict(source, target).is_some_and(|(v, r)| (&*v, &*r) == expected).then_some(());
        let began = Instant::now();
        while is().is_none() {
            assert!(
                began.elapsed() < within,
                "{source} {target}: not {expected:?} but {:?}",
                self.verdict(source, target)
            );
            thread::sleep(Duration::from_millis(25));
        }
    }
}

/// One of the kernel's counters of TCP in the network of this thread, as `ActiveOpens`.
pub fn tcp_counter(name: &str) -> u32 {
    let snmp = fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
    let mut lines = snmp.lines().filter_map(|line| line.strip_prefix("Tcp:"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let index = names.split_whitespace().position(|of| of == name).unwrap();
    values.split_whitespace().nth(index).unwrap().parse().unwrap()
}

/// Whether a process holds the network namespace of a number open.
pub fn holds_network(process: &Process, network: (u64, u64)) -> bool {
    let Ok(descriptors) = fs::read_dir(process.proc().join("fd")) else { return false };
    descriptors.flatten().any(|descriptor| fs::metadata(descriptor.path()).is_ok_and(|file| number(&file) == network))
}

/// The number of a pod's network namespace.
pub fn network_of(node: &Node, pod: &Pod) -> (u64, u64) {
    number(&fs::metadata(node.path(pod.netns.as_deref().unwrap())).unwrap())
}

fn number(file: &fs::Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}
