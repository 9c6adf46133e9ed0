//! What a probe costs from a pod's network namespace, beside the same probe from the own one, alternating in one run.
//!
//! `cargo bench --bench from_a_pod`. Needs `ip`, no root. Figures are ratios of one run on one machine.

#![allow(clippy::expect_used, clippy::panic, reason = "a benchmark that cannot measure has nothing to say")]

use std::{
    env,
    fs::{self, File},
    io::Write,
    net::{SocketAddr, TcpListener},
    os::{fd::AsRawFd, unix::process::CommandExt},
    path::{Path, PathBuf},
    process::{self, Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream};
use nix::{
    sched::{CloneFlags, setns, unshare},
    sys::resource::{UsageWho, getrusage},
};
use segprobe::{
    model::Transport,
    observation::TcpOutcome,
    probe::{Reach, reach},
    vantage::{InPod, Listeners, Netns, Own, Vantage},
};
use socket2::{Domain, Socket, Type};

const ROUNDS: usize = 15;
/// Open ones, and as many closed ones.
const TARGETS: [u32; 3] = [3, 100, 8192];
/// How often a round is repeated so that it takes long enough to be measured.
const REPEATS: [u32; 3] = [1000, 60, 1];
const IN_FLIGHT: usize = 256;
const OPEN: u16 = 80;
const CLOSED: u16 = 81;

fn main() {
    if env::args().nth(1).is_some_and(|role| role == "serve") {
        serve();
        return;
    }
    if Command::new("ip").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
        eprintln!("NOT RUN: the benchmark needs `ip`; install it (Debian: iproute2)");
        process::exit(1);
    }
    segprobe::lab::enter().expect("enter namespaces");
    segprobe::vantage::raise_descriptor_limit().expect("raise the limit of descriptors");
    let (pod, server) = (namespace(), namespace());
    let mut child = network(&pod, &server);
    let path = path_of(&pod);
    println!(
        "| targets, open and closed each | CPU, own → pod | ratio | time, own → pod | ratio |\n|---|---|---|---|---|"
    );
    for (targets, repeats) in TARGETS.into_iter().zip(REPEATS) {
        compare(&pod, &path, targets, repeats);
    }
    visits(&path);
    child.kill().expect("end the server");
    child.wait().expect("wait for the server");
}

/// Medians over the rounds of what one probe takes.
fn compare(pod: &File, path: &Path, targets: u32, repeats: u32) {
    let addresses: Vec<(SocketAddr, TcpOutcome)> = (0..targets)
        .flat_map(|i| {
            let ip = [10, 1, u8::try_from(i / 256).expect("few targets"), u8::try_from(i % 256).expect("a byte")];
            [(SocketAddr::from((ip, OPEN)), TcpOutcome::Open), (SocketAddr::from((ip, CLOSED)), TcpOutcome::Closed)]
        })
        .collect();
    let mut measured = [const { Vec::new() }; 2];
    for round in 0..ROUNDS {
        // Neither is always the first.
        for turn in [round % 2, 1 - round % 2] {
            let one = || match turn {
                0 => measure(&addresses, repeats, Own::new),
                _ => measure(&addresses, repeats, || in_pod(path)),
            };
            measured[turn].push(if turn == 0 {
                inside(pod, one)
            } else {
                thread::scope(|s| s.spawn(one).join()).expect("no panic")
            });
        }
    }
    let median = |turn: usize, of: fn(&(f64, f64)) -> f64| {
        let mut figures: Vec<f64> = measured[turn].iter().map(of).collect();
        figures.sort_by(f64::total_cmp);
        figures[ROUNDS / 2]
    };
    let (cpu, wall) = ([0, 1].map(|t| median(t, |m| m.0)), [0, 1].map(|t| median(t, |m| m.1)));
    println!(
        "| {targets} | {:.1} → {:.1} µs | {:.3} | {:.1} → {:.1} µs | {:.3} |",
        cpu[0],
        cpu[1],
        cpu[1] / cpu[0],
        wall[0],
        wall[1],
        wall[1] / wall[0]
    );
}

fn in_pod(path: &Path) -> InPod {
    InPod::new(Netns::open(path).expect("open the pod's namespace")).expect("enter it")
}

/// A vantage of its own for each repeat, as for each sweep. Returns µs of CPU and of time for each probe.
fn measure<V: Vantage>(addresses: &[(SocketAddr, TcpOutcome)], repeats: u32, vantage: impl Fn() -> V) -> (f64, f64) {
    let how = Reach { timeout: Duration::from_secs(5), icmp_evidence: true };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (cpu, began) = (cpu_time(), Instant::now());
    for _ in 0..repeats {
        let vantage = vantage();
        runtime.block_on(async {
            let probe = async |(address, expected): &(SocketAddr, TcpOutcome)| {
                let seen = reach(Transport::Tcp, &vantage, address, &how).await;
                assert_eq!(seen.outcome, *expected, "{address}: {seen:?}");
            };
            stream::iter(addresses).map(probe).buffer_unordered(IN_FLIGHT).count().await;
        });
    }
    let (cpu, wall) = (cpu_time() - cpu, began.elapsed());
    let probes = f64::from(repeats) * f64::from(u32::try_from(addresses.len()).expect("few"));
    (cpu.as_secs_f64() * 1e6 / probes, wall.as_secs_f64() * 1e6 / probes)
}

/// User and system time of the whole process, its visitors' too.
fn cpu_time() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("its times");
    [usage.user_time(), usage.system_time()]
        .map(|t| Duration::from_micros(u64::try_from(t.tv_sec() * 1_000_000 + t.tv_usec()).expect("positive")))
        .into_iter()
        .sum()
}

fn visits(path: &Path) {
    const TIMES: u32 = 2000;
    let each = |what: &str, work: &dyn Fn()| {
        let began = Instant::now();
        (0..TIMES).for_each(|_| work());
        println!("{what}: {:.1} µs", began.elapsed().as_secs_f64() * 1e6 / f64::from(TIMES));
    };
    let netns = Netns::open(path).expect("open the pod's namespace");
    each("open and close a namespace", &|| drop(Netns::open(path).expect("open")));
    each("a vantage, made and dropped", &|| drop(in_pod(path)));
    each("a visit that does nothing", &|| netns.visit(|| ()).expect("a visit"));
    each("the listeners of a namespace", &|| drop(Listeners::of(&netns).expect("listeners")));
}

/// Runs `work` on a thread in the namespace.
fn inside<T: Send>(namespace: &File, work: impl FnOnce() -> T + Send) -> T {
    let entered = || {
        setns(namespace, CloneFlags::CLONE_NEWNET).expect("enter the namespace");
        work()
    };
    thread::scope(|scope| scope.spawn(entered).join()).expect("no panic")
}

fn namespace() -> File {
    let make = || {
        unshare(CloneFlags::CLONE_NEWNET).expect("make a network namespace");
        File::open("/proc/thread-self/ns/net").expect("open it")
    };
    thread::spawn(make).join().expect("no panic")
}

fn path_of(namespace: &File) -> PathBuf {
    format!("/proc/{}/fd/{}", process::id(), namespace.as_raw_fd()).into()
}

/// Joins the two, and starts a server for every address of 10.1.0.0/18.
fn network(pod: &File, server: &File) -> Child {
    let to = path_of(server);
    inside(pod, || {
        fs::write("/proc/sys/net/ipv4/ip_local_port_range", "1024 65000").expect("more ports");
        ip(&format!(
            "link set lo up\nlink add name eth0 type veth peer name eth0 netns {}\naddr add 10.0.0.2/24 dev eth0\n\
             link set eth0 up\nroute add default via 10.0.0.1\n",
            to.display()
        ));
    });
    inside(server, || {
        fs::write("/proc/sys/net/core/somaxconn", "65535").expect("a longer queue");
        ip("link set lo up\naddr add 10.0.0.1/24 dev eth0\nlink set eth0 up\nroute add local 10.1.0.0/18 dev lo\n");
        let mut command = Command::new(env::current_exe().expect("its own path"));
        let mut child = command.arg0("server").arg("serve").stdout(Stdio::piped()).spawn().expect("start the server");
        let mut ready = [0];
        std::io::Read::read_exact(child.stdout.as_mut().expect("its output"), &mut ready).expect("it listens");
        child
    })
}

fn ip(batch: &str) {
    let mut child = Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn().expect("start ip");
    child.stdin.take().expect("its input").write_all(batch.as_bytes()).expect("tell it");
    assert!(child.wait().expect("wait for ip").success(), "{batch}");
}

/// In a process of its own, so that what accepting costs is not counted.
fn serve() {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("make a socket");
    socket.bind(&SocketAddr::from(([0, 0, 0, 0], OPEN)).into()).expect("bind");
    socket.listen(65_535).expect("listen");
    std::io::stdout().write_all(b"r").and_then(|()| std::io::stdout().flush()).expect("say so");
    let listener: TcpListener = socket.into();
    for stream in listener.incoming() {
        drop(stream);
    }
}
