//! What an agent costs that probes 100 targets from each of 100 identities every 30 s: memory, and its share of a core.
//!
//! `cargo bench --bench hundred_identities [-- SECONDS]`. Needs `ip` and `nft`, no root. Everything is in namespaces of its own: a
//! router, 100 pods of which each is an identity, and a server with the targets. The pods are told by a fake container runtime.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a benchmark that cannot measure has nothing to say"
)]

use std::{
    env, fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{self, Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sched::{CloneFlags, setns, unshare},
    sys::signal::{Signal, kill},
    unistd::{Pid, getgid, getuid},
};
use socket2::{Domain, Socket, Type};

#[path = "../tests/support/fake_cri.rs"]
mod fake_cri;
use fake_cri::{FakeCri, FakePod};

const SEGPROBE: &str = env!("CARGO_BIN_EXE_segprobe");
const PODS: u8 = 100;
const TARGETS: u8 = 100;
const INTERVAL: Duration = Duration::from_secs(30);
/// Sweeps begin with a delay of up to 3 s.
const SLACK: Duration = Duration::from_secs(10);
/// The agent's own page, in the router's namespace.
const PAGE: &str = "127.0.0.1:11450";

fn main() {
    let arguments: Vec<String> = env::args().skip(1).filter(|a| a != "--bench").collect();
    match arguments.first().map(String::as_str) {
        Some("serve") => return serve(),
        Some("bare") => return bare(arguments[1].parse().expect("a number of seconds")),
        _ => {}
    }
    for program in ["ip", "nft"] {
        if Command::new(program).arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
            eprintln!("NOT RUN: the benchmark needs `{program}`; install it (Debian: iproute2, nftables)");
            process::exit(1);
        }
    }
    let given = arguments.first().map(|seconds| Duration::from_secs(seconds.parse().expect("a number of seconds")));
    let lasts = given.unwrap_or(3 * INTERVAL + SLACK);
    namespaces();
    network();
    let directory = tempfile::tempdir().expect("make a directory for the configuration");
    let mut server = Command::new("ip");
    server.args(["netns", "exec", "server"]).arg(env::current_exe().expect("its own path")).arg("serve");
    let mut server = server.stdout(Stdio::piped()).spawn().expect("start the server");
    let mut ready = [0];
    server.stdout.as_mut().expect("its output").read_exact(&mut ready).expect("it listens");
    let runtime = FakeCri::start((0..PODS).map(pod).collect());
    let config = configuration(directory.path(), &runtime.socket());

    println!(
        "| {TARGETS} targets from {PODS} identities every 30 s | resident | peak | CPU | of it user | sweeps | findings |"
    );
    println!("|---|---|---|---|---|---|---|");
    for (name, odd_ones) in [("silent", "drop"), ("half open", "accept")] {
        run(&format!("ip netns exec server nft 'flush chain ip f odd; add rule ip f odd {odd_ones}'"));
        println!("| {name} | {} |", measured(&config, lasts));
    }
    run("ip netns exec server nft 'flush chain ip f odd; add rule ip f odd drop'");
    let bare = thread::spawn(move || bare_share(lasts));
    println!("| silent, beside the loop | {} |", measured(&config, lasts));
    let bare = bare.join().expect("the loop ends");
    println!("\nThe loop, which makes the same connects at the same time and does nothing else: {bare} of a core");
    server.kill().and_then(|()| server.wait()).expect("end the server");
}

/// What the network and the sockets of the silent half cost whoever sends: measured beside the agent, in a process of its own.
fn bare_share(lasts: Duration) -> String {
    let seconds = (INTERVAL + lasts).as_secs();
    let mut bare = Command::new(env::current_exe().expect("its own path"));
    let mut bare = bare.args(["bare", &seconds.to_string()]).spawn().expect("start the loop");
    thread::sleep(INTERVAL);
    let before = cpu_seconds(bare.id());
    thread::sleep(lasts);
    let after = cpu_seconds(bare.id());
    bare.wait().expect("wait for the loop");
    let used = after.0 - before.0 + after.1 - before.1;
    format!("{:.2} %", used / lasts.as_secs_f64() * 100.0)
}

/// Two attempts at each target from each pod every interval, each closed after two seconds: no runtime, no controls, no verdict.
fn bare(seconds: u64) {
    const TICK: Duration = Duration::from_millis(20);
    let pods: Vec<fs::File> =
        (0..PODS).map(|i| fs::File::open(format!("/run/netns/pod{i}")).expect("a namespace")).collect();
    let a_tick = 2.0 * f64::from(PODS) * f64::from(TARGETS) * TICK.as_secs_f64() / INTERVAL.as_secs_f64();
    let (began, mut begun, mut open) = (Instant::now(), 0.0, std::collections::VecDeque::new());
    let mut pairs = (0..TARGETS).flat_map(|target| (0..pods.len()).map(move |pod| (pod, target))).cycle();
    // It stays until its times were read.
    for tick in 1..=(seconds + 2) * 1000 / u64::try_from(TICK.as_millis()).expect("few") {
        begun += a_tick;
        while begun >= 1.0 {
            begun -= 1.0;
            let (pod, target) = pairs.next().expect("it goes round");
            setns(&pods[pod], CloneFlags::CLONE_NEWNET).expect("enter a pod");
            let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None).expect("make a socket");
            let target = SocketAddr::from(([10, 1, 0, target], 80));
            let _ = socket.connect(&target.into());
            open.push_back((Instant::now(), socket));
        }
        while open.front().is_some_and(|(since, _)| since.elapsed() > Duration::from_secs(2)) {
            open.pop_front();
        }
        thread::sleep((TICK * u32::try_from(tick).expect("few")).saturating_sub(began.elapsed()));
    }
}

/// One agent from its start, after a first interval in which it starts.
fn measured(config: &Path, lasts: Duration) -> String {
    let agent = Agent::start(config);
    let pid = agent.0.id();
    thread::sleep(INTERVAL);
    let before = cpu_seconds(pid);
    let (mut resident, mut samples) = (0.0_f64, 0.0);
    let began = Instant::now();
    while began.elapsed() < lasts {
        thread::sleep(Duration::from_secs(1));
        resident += status(pid, "VmRSS:");
        samples += 1.0;
    }
    let after = cpu_seconds(pid);
    let (user, system) = (after.0 - before.0, after.1 - before.1);
    let share = (user + system) / began.elapsed().as_secs_f64() * 100.0;
    let page = page();
    let sweeps = value(&page, "segprobe_sweep_duration_seconds_count{");
    let expected = (INTERVAL + began.elapsed() - SLACK).div_duration_f64(INTERVAL) * f64::from(PODS);
    if sweeps < expected * 0.9 {
        eprintln!("only {sweeps} sweeps of {expected:.0}: the machine is too busy for the figures to be believed");
    }
    if env::var_os("SHOW_PAGE").is_some() {
        eprintln!("{page}");
    }
    format!(
        "{:.1} MB | {:.1} MB | {share:.2} % of a core | {:.0} % | {sweeps:.0} | {:.0}",
        resident / samples,
        status(pid, "VmHWM:"),
        user / (user + system) * 100.0,
        value(&page, "segprobe_findings_total{boundary=\"b\",check=\"tcp-connect\"}"),
    )
}

fn pod(i: u8) -> FakePod {
    FakePod {
        netns: Some(format!("/run/netns/pod{i}").into()),
        ips: vec![format!("10.10.{i}.2")],
        ..FakePod::new("web", &format!("web-{i}"))
    }
}

fn configuration(directory: &Path, socket: &Path) -> PathBuf {
    let target =
        |i| format!("- {{zone: high, namespace: payments, service: s{i}, endpoints: [10.1.0.{i}], ports: [80]}}\n");
    let targets: String = (0..TARGETS).map(target).collect();
    let text = format!(
        "zones: {{low: {{namespaces: [web]}}, high: {{namespaces: [payments]}}}}\n\
         boundaries: [{{name: b, from: low, to: high, interval: {}s, dns: off}}]\n\
         vantage: {{mode: pods}}\n\
         pods: {{socket: {}, per_second: 12}}\n\
         controls: {{positive: [{{tcp: '10.0.0.2:53'}}], negative: [{{tcp: 10.1.0.254, ports: [80], range: 10.1.0.0/24}}]}}\n\
         dns: {{servers: ['10.0.0.2'], resolver: 10.0.0.2}}\n\
         pace: {{in_flight: 8192, per_second: 2000}}\n\
         targets:\n{targets}",
        INTERVAL.as_secs(),
        socket.display()
    );
    let path = directory.join("segprobe.yaml");
    fs::write(&path, text).expect("write the configuration");
    path
}

/// The process goes on as the router; `ip netns` has a place for its own.
fn namespaces() {
    let (user, group) = (getuid(), getgid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("enter namespaces");
    fs::write("/proc/self/setgroups", "deny").expect("map groups");
    fs::write("/proc/self/uid_map", format!("0 {user} 1")).expect("map the user");
    fs::write("/proc/self/gid_map", format!("0 {group} 1")).expect("map the group");
    run("mount -t tmpfs none /run");
}

/// Even targets are silent, odd ones as the chain `odd` says; nobody has 10.1.0.254.
fn network() {
    let mut batch = String::from(
        "link set lo up\nnetns add server\nlink add s type veth peer name eth0 netns server\naddr add 10.0.0.1/30 dev s\n\
         link set s up\nroute add 10.1.0.0/24 via 10.0.0.2\n",
    );
    let mut inside = String::new();
    for i in 0..PODS {
        batch += &format!(
            "netns add pod{i}\nlink add p{i} type veth peer name eth0 netns pod{i}\naddr add 10.10.{i}.1/30 dev p{i}\nlink set p{i} up\n"
        );
        inside += &format!(
            "ip -n pod{i} -batch - <<'END'\nlink set lo up\naddr add 10.10.{i}.2/30 dev eth0\nlink set eth0 up\nroute add default via 10.10.{i}.1\nEND\n"
        );
    }
    let mut child = Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn().expect("start ip");
    child.stdin.take().expect("its input").write_all(batch.as_bytes()).expect("tell it");
    assert!(child.wait().expect("wait for ip").success(), "{batch}");
    run(&inside);
    run("echo 1 > /proc/sys/net/ipv4/ip_forward
         ip -n server -batch - <<'END'
link set lo up
addr add 10.0.0.2/30 dev eth0
link set eth0 up
route add default via 10.0.0.1
route add local 10.1.0.0/24 dev lo
END
         ip netns exec server nft -f - <<'END'
table ip f {
    chain odd { }
    chain input {
        type filter hook input priority 0
        ip daddr 10.1.0.254 drop
        ip daddr & 0.0.0.1 == 1 ip daddr 10.1.0.0/24 jump odd
        ip daddr 10.1.0.0/24 ip daddr & 0.0.0.1 == 0 drop
    }
}
END");
}

fn run(script: &str) {
    let status = Command::new("sh").args(["-ec", script]).status().expect("run sh");
    assert!(status.success(), "{script}: {status}");
}

/// Accepts and closes, in a process of its own, so that what that costs is not counted.
fn serve() {
    let listen = |port: u16| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("make a socket");
        socket.bind(&SocketAddr::from(([0, 0, 0, 0], port)).into()).expect("bind");
        socket.listen(4096).expect("listen");
        TcpListener::from(socket)
    };
    let (targets, controls) = (listen(80), listen(53));
    std::io::stdout().write_all(b"r").and_then(|()| std::io::stdout().flush()).expect("say so");
    thread::spawn(move || controls.incoming().for_each(drop));
    targets.incoming().for_each(drop);
}

fn page() -> String {
    let mut stream = TcpStream::connect(PAGE).expect("connect to the agent");
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("ask");
    let mut page = String::new();
    stream.read_to_string(&mut page).expect("read the page");
    page
}

/// The value of the first sample that begins so; 0 where there is none.
fn value(page: &str, name: &str) -> f64 {
    let line = page.lines().find(|line| line.starts_with(name));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0.0)
}

/// A line of `/proc/PID/status` in MB.
fn status(pid: u32, key: &str) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix(key));
    let kib = line.and_then(|l| l.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or(0.0) / 1000.0 * 1.024
}

/// In the program, and in the kernel for it.
fn cpu_seconds(pid: u32) -> (f64, f64) {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).expect("read its times");
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let seconds = |field: usize| fields[field].parse::<f64>().expect("a time") / 100.0;
    (seconds(11), seconds(12))
}

struct Agent(Child);

impl Agent {
    fn start(config: &Path) -> Self {
        // Any program that is started with the agent's own arguments may stand in: a profiler.
        let program = env::var_os("SEGPROBE").unwrap_or_else(|| SEGPROBE.into());
        let mut command = Command::new(program);
        command.arg0("segprobe");
        command.args(["agent", "--web.listen-address", PAGE, "--log.level", "error", "--config.file"]);
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
