//! How fast and how small: segprobe beside nmap in one run, in namespaces of the benchmark's own.
//!
//! `cargo bench --bench against_nmap`. Needs `ip`, `nft` and `nmap`, no root. Figures are ratios of one run on one machine.

#![allow(clippy::expect_used, clippy::panic, reason = "a benchmark that cannot measure has nothing to say")]

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sched::{CloneFlags, setns, unshare},
    sys::signal::{Signal, kill},
    unistd::{Pid, getgid, getuid},
};
use socket2::{Domain, Socket, Type};

const TARGETS: u32 = 16_384;
const RUNS: usize = 5;
const SEGPROBE: &str = env!("CARGO_BIN_EXE_segprobe");

fn main() {
    for program in ["ip", "nft", "nmap"] {
        if Command::new(program).arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
            eprintln!("NOT RUN: the benchmark needs `{program}`; install it (Debian: iproute2, nftables, nmap)");
            std::process::exit(1);
        }
    }
    let directory = std::env::temp_dir().join(format!("segprobe-bench-{}", std::process::id()));
    fs::create_dir_all(&directory).expect("make a directory for the configurations");
    network();
    serve();
    let measured = [open(&directory), silent(&directory), at_rest(&directory), scrape(&directory)];
    println!("\n| measure | figure |\n|---|---|");
    for (measure, figure) in measured.into_iter().flatten() {
        println!("| {measure} | {figure} |");
    }
    fs::remove_dir_all(&directory).expect("remove the directory");
}

type Figures = Vec<(String, String)>;

/// 16,384 targets that answer: connects a second, from process start to printed verdicts.
fn open(directory: &Path) -> Figures {
    let config = config(directory, "10.1", "{in_flight: 512, per_second: 1000000, spacing: 0s}");
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for run in 0..RUNS {
        let segprobe = measure(Command::new(SEGPROBE).args(["check", "--config.file"]).arg(&config));
        assert!(segprobe.output.contains("16384 fail"), "every target is open:\n{}", tail(&segprobe.output));
        let nmap = measure(nmap().arg("10.1.0.0/18"));
        assert!(nmap.output.contains("(16384 hosts up)"), "nmap sees every target:\n{}", tail(&nmap.output));
        println!("open, run {}: segprobe {}, nmap {}", run + 1, segprobe, nmap);
        ours.push(segprobe);
        theirs.push(nmap);
    }
    let (ours, theirs) = (Measured::median(ours), Measured::median(theirs));
    vec![
        ("16,384 open targets: segprobe".into(), ours.to_string()),
        ("the same: nmap".into(), theirs.to_string()),
        ("rate against nmap".into(), format!("{:.2}×", theirs.seconds() / ours.seconds())),
    ]
}

/// 16,384 targets that say nothing, 2 s each, one attempt.
fn silent(directory: &Path) -> Figures {
    let config = config(directory, "10.2", "{in_flight: 20000, per_second: 1000000, spacing: 0s}");
    let ours: Vec<Measured> = (0..RUNS)
        .map(|run| {
            let segprobe = measure(Command::new(SEGPROBE).args(["check", "--config.file"]).arg(&config));
            assert!(
                segprobe.output.contains("16384 unverified"),
                "every target is silent:\n{}",
                tail(&segprobe.output)
            );
            println!("silent, run {}: segprobe {segprobe}", run + 1);
            segprobe
        })
        .collect();
    let nmap = measure(nmap().arg("10.2.0.0/18"));
    println!("silent: nmap {nmap}");
    let ours = Measured::median(ours);
    vec![
        ("16,384 silent targets, 2 s time-out: segprobe".into(), ours.to_string()),
        ("its time-outs' worth".into(), format!("{:.2}×", ours.seconds() / 2.0)),
        ("the same: nmap".into(), nmap.to_string()),
    ]
}

/// An agent with 200 targets every 30 s, over two intervals.
fn at_rest(directory: &Path) -> Figures {
    let path = write_config(directory, "10.1", 200, "30s", "{}");
    let agent = Agent::start(&path);
    thread::sleep(Duration::from_secs(35));
    let before = cpu_seconds(agent.0.id());
    let began = Instant::now();
    thread::sleep(Duration::from_secs(60));
    let share = (cpu_seconds(agent.0.id()) - before) / began.elapsed().as_secs_f64() * 100.0;
    let resident = status(agent.0.id(), "VmRSS:");
    vec![("agent, 200 targets every 30 s".into(), format!("{resident:.1} MB resident, {share:.2} % of a core"))]
}

/// One scrape of 2,000 checks with a series for each.
fn scrape(directory: &Path) -> Figures {
    let path = write_config(directory, "10.1", 2000, "600s", "{per_second: 10000}");
    let agent = Agent::start(&path);
    thread::sleep(Duration::from_secs(20));
    let mut times: Vec<Duration> = Vec::new();
    let mut bytes = 0;
    for _ in 0..50 {
        let began = Instant::now();
        let mut stream = TcpStream::connect("127.0.0.1:11450").expect("connect to the agent");
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("ask");
        let mut page = Vec::new();
        stream.read_to_end(&mut page).expect("read the page");
        times.push(began.elapsed());
        bytes = page.len();
        assert!(page.windows(10).filter(|w| w == b"\nsegprobe_").count() > 8_000, "every check has its series");
    }
    times.sort();
    drop(agent);
    let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
    vec![(
        format!("scrape with 2,000 checks ({} KB)", bytes / 1000),
        format!("{:.1} ms, worst of 50 {:.1} ms", median.as_secs_f64() * 1e3, worst.as_secs_f64() * 1e3),
    )]
}

/// A client and a server namespace; the process itself goes on as the client.
fn network() {
    let (user, group) = (getuid(), getgid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("enter namespaces");
    fs::write("/proc/self/setgroups", "deny").expect("map groups");
    fs::write("/proc/self/uid_map", format!("0 {user} 1")).expect("map the user");
    fs::write("/proc/self/gid_map", format!("0 {group} 1")).expect("map the group");
    run("mount -t tmpfs none /run && ip netns add server && ip link set lo up \
         && ip link add c type veth peer name s && ip link set s netns server \
         && ip addr add 10.0.0.1/30 dev c && ip link set c up && ip route add 10.0.0.0/8 via 10.0.0.2 \
         && ip -n server addr add 10.0.0.2/30 dev s && ip -n server link set s up && ip -n server link set lo up \
         && ip -n server route add local 10.1.0.0/18 dev lo && ip -n server route add local 10.2.0.0/18 dev lo \
         && sysctl -qw net.ipv4.ip_local_port_range='1024 65000' \
         && ip netns exec server sysctl -qw net.core.somaxconn=65535 net.ipv4.tcp_max_syn_backlog=65535 \
         && ip netns exec server nft add table ip f \
         && ip netns exec server nft add chain ip f i '{ type filter hook input priority 0; }' \
         && ip netns exec server nft add rule ip f i ip daddr 10.2.0.0/18 drop");
}

fn run(script: &str) {
    let status = Command::new("sh").args(["-ec", script]).status().expect("run sh");
    assert!(status.success(), "{script}: {status}");
}

/// Accepts and closes, on every address of the server's namespace.
fn serve() {
    let namespace = fs::File::open("/run/netns/server").expect("open the server's namespace");
    for port in [80, 53] {
        let namespace = namespace.try_clone().expect("duplicate a descriptor");
        let (ready, is_ready) = std::sync::mpsc::channel();
        thread::spawn(move || {
            setns(namespace, CloneFlags::CLONE_NEWNET).expect("enter the server's namespace");
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("make a socket");
            socket.bind(&std::net::SocketAddr::from(([0, 0, 0, 0], port)).into()).expect("bind");
            socket.listen(65_535).expect("listen");
            ready.send(()).expect("say so");
            let listener: TcpListener = socket.into();
            for stream in listener.incoming() {
                drop(stream);
            }
        });
        is_ready.recv().expect("the server is ready");
    }
}

/// A configuration with one target file of 16,384 targets of one address each.
fn config(directory: &Path, prefix: &str, pace: &str) -> PathBuf {
    write_config(directory, prefix, TARGETS, "600s", pace)
}

fn write_config(directory: &Path, prefix: &str, targets: u32, interval: &str, pace: &str) -> PathBuf {
    let targets: Vec<String> = (0..targets)
        .map(|i| {
            let address = format!("{prefix}.{}.{}", i / 256, i % 256);
            format!(
                r#"{{"zone":"high","namespace":"payments","service":"s{i}","endpoints":["{address}"],"ports":[80]}}"#
            )
        })
        .collect();
    let json = directory.join("targets.json");
    fs::write(&json, format!("{{\"targets\":[\n{}\n]}}", targets.join(",\n"))).expect("write the targets");
    let path = directory.join("segprobe.yaml");
    let text = format!(
        "zones: {{low: {{namespaces: [web]}}, high: {{namespaces: [payments]}}}}\n\
         boundaries: [{{name: b, from: low, to: high, interval: {interval}, tcp: {{timeout: 2s, attempts: 1}}, dns: off}}]\n\
         target_files: [targets.json]\n\
         controls: {{positive: [{{tcp: '10.0.0.2:53'}}]}}\n\
         dns: {{servers: ['10.0.0.2'], resolver: 10.0.0.2}}\n\
         series: {{every_check: 2000}}\n\
         pace: {pace}\n"
    );
    fs::write(&path, text).expect("write the configuration");
    path
}

fn nmap() -> Command {
    let mut nmap = Command::new("nmap");
    nmap.args(["-sT", "-Pn", "-n", "-T5", "--max-retries", "1", "--min-parallelism", "500", "-p", "80"]);
    nmap
}

struct Measured {
    took: Duration,
    peak_mb: f64,
    output: String,
}

impl Measured {
    fn seconds(&self) -> f64 {
        self.took.as_secs_f64()
    }

    fn median(mut runs: Vec<Self>) -> Self {
        runs.sort_by_key(|m| m.took);
        let middle = runs.len() / 2;
        runs.swap_remove(middle)
    }
}

impl std::fmt::Display for Measured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let rate = f64::from(TARGETS) / self.seconds();
        write!(f, "{:.2} s, {:.0} targets/s, {:.1} MB peak", self.seconds(), rate, self.peak_mb)
    }
}

/// From process start to the end of its output, with its peak memory.
fn measure(command: &mut Command) -> Measured {
    let began = Instant::now();
    let mut child = command.stdout(Stdio::piped()).stdin(Stdio::null()).spawn().expect("start");
    let mut stdout = child.stdout.take().expect("its output");
    let reader = thread::spawn(move || {
        let mut output = String::new();
        stdout.read_to_string(&mut output).map(|_| output)
    });
    let mut peak_mb: f64 = 0.0;
    let took = loop {
        peak_mb = peak_mb.max(status(child.id(), "VmHWM:"));
        if child.try_wait().expect("wait").is_some() {
            break began.elapsed();
        }
        thread::sleep(Duration::from_millis(5));
    };
    let output = reader.join().expect("its reader").expect("its output is text");
    Measured { took, peak_mb, output }
}

/// A line of `/proc/PID/status` in MB; 0 where the process has ended.
fn status(pid: u32, key: &str) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix(key));
    let kib = line.and_then(|l| l.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or(0.0) / 1000.0 * 1.024
}

fn cpu_seconds(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).expect("read its times");
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().expect("user time") + fields[12].parse::<f64>().expect("system time");
    ticks / 100.0
}

fn tail(text: &str) -> &str {
    &text[text.len().saturating_sub(500)..]
}

struct Agent(Child);

impl Agent {
    fn start(config: &Path) -> Self {
        let mut command = Command::new(SEGPROBE);
        command.args(["agent", "--web.listen-address", "127.0.0.1:11450", "--log.level", "error", "--config.file"]);
        Self(command.arg(config).stdout(Stdio::null()).spawn().expect("start the agent"))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let pid = Pid::from_raw(i32::try_from(self.0.id()).expect("a process id"));
        kill(pid, Signal::SIGTERM).expect("end the agent");
        self.0.wait().expect("wait for the agent");
    }
}
