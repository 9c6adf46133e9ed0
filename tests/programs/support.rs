//! What all subjects share: processes that die with their test, deadlines, loopback addresses, segprobe itself.

pub mod cluster_dns;
pub mod dns;
pub mod document;
pub mod http;
pub mod metrics;
pub mod process;
pub mod prometheus;
pub mod reference;
#[path = "../support/skipped.rs"]
mod skipped;
pub mod tls;
pub mod told;

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use nix::sys::stat::{Mode, umask};
use serde_json::Value;
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use process::{Ended, Process};

/// The built binary.
pub const SEGPROBE: &str = env!("CARGO_BIN_EXE_segprobe");
/// Nothing here takes longer unless it hangs: generous, because other tests run at the same time.
pub const SOON: Duration = Duration::from_secs(300);

/// Asks again and again until there is an answer; fails the test when the time is up.
pub fn wait_for<T>(what: &str, within: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(began.elapsed() < within, "waited {within:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(25));
    }
}

/// A directory that vanishes with the test. What is written into it can be read by the plain user as whom programs run where
/// the tests are run by root, whatever root's own umask is.
pub fn directory() -> TempDir {
    umask(Mode::from_bits_truncate(0o022));
    tempfile::Builder::new().prefix("segprobe-test-").tempdir().unwrap()
}

/// A loopback address that no other test of this run uses, and hardly any other process.
pub fn loopback() -> Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let [.., run] = std::process::id().to_be_bytes();
    let [_, wide, high, low] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    assert_eq!(wide, 0, "more than 65,535 addresses");
    Ipv4Addr::new(127, 100 + run % 100, high, low)
}

/// Listens on an address and port of its own; accepts nothing by itself, the kernel does: as many connections as a test that is slow
/// may need, where the standard library would have it refuse the 129th.
pub fn listen() -> (TcpListener, SocketAddr) {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.bind(&SocketAddr::from((loopback(), 0)).into()).unwrap();
    listener.listen(4096).unwrap();
    let listener = TcpListener::from(listener);
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// How many times longer than on an idle processor a thread of the HTTP server's priority takes at this moment: a promise of time is
/// one of a machine that has the time.
pub fn slowdown() -> f64 {
    const WORK: Duration = Duration::from_millis(50);
    let on_processor = || {
        let statistics = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        Duration::from_nanos(statistics.split(' ').next().unwrap().parse().unwrap())
    };
    let work = move || {
        rustix::process::setpriority_process(None, 10).unwrap();
        let (began, before) = (Instant::now(), on_processor());
        while on_processor() < before + WORK {}
        began.elapsed().as_secs_f64() / WORK.as_secs_f64()
    };
    std::thread::spawn(work).join().unwrap().max(1.0)
}

/// An address and port where nobody listens: it was free a moment ago, and its address is nobody else's.
pub fn closed() -> SocketAddr {
    listen().1
}

/// A listener whose queue is full: the kernel drops further SYNs, so that connects to it hear nothing.
pub struct Silent {
    pub address: SocketAddr,
    _listener: Socket,
    _queued: Vec<std::net::TcpStream>,
}

impl Silent {
    pub fn new() -> Self {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.bind(&SocketAddr::from((loopback(), 0)).into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let mut queued = Vec::new();
        while let Ok(stream) = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
            queued.push(stream);
            assert!(queued.len() < 16, "a backlog of 0 takes no end of connections");
        }
        Self { address, _listener: listener, _queued: queued }
    }
}

/// Where a program is. Where it is absent, the test is skipped, except in CI.
pub fn path_of(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = std::env::split_paths(&path).chain(["/usr/sbin".into()]).map(|place| place.join(program));
    let found = places.find(|place| place.is_file());
    if found.is_none() {
        skip(&format!("`{program}` is not installed"));
    }
    found
}

/// True when a program is there; else the same as for [`path_of`].
pub fn have(program: &str) -> bool {
    path_of(program).is_some()
}

/// Says that this test is not run, and why; in CI that is a failure.
pub fn skip(why: &str) -> bool {
    assert!(!skipped::is_required(), "{why}, which CI requires");
    skipped::skip(std::thread::current().name().unwrap_or("programs"), why);
    false
}

/// True when a test may make a network of its own; where it may not, the same holds as for a missing program.
pub fn namespaces_are_allowed() -> bool {
    let mut command = Command::new("unshare");
    command.args(["-Urn", "true"]);
    process::run(command, SOON).code == Some(0) || skip("user namespaces are not allowed here")
}

/// A command that is run as a plain user where the tests are run by root.
pub fn as_plain_user(program: &Path) -> Command {
    if !nix::unistd::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(program);
    command
}

/// Runs segprobe to its end.
pub fn segprobe(arguments: &[&str]) -> Ended {
    let mut command = Command::new(SEGPROBE);
    command.args(arguments);
    process::run(command, SOON)
}

/// Writes a configuration and gives its path.
pub fn write_config(directory: &Path, text: &str) -> String {
    let path = directory.join("segprobe.yaml");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// A running agent.
pub struct Agent {
    pub process: Process,
    pub address: SocketAddr,
}

impl Agent {
    /// Starts it on a port that the system chooses and waits until it listens.
    pub fn start(directory: &Path, config: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(SEGPROBE);
        command.args(["agent", "--config.file", config, "--web.listen-address", "127.0.0.1:0"]).args(arguments);
        let mut process = Process::start(command, directory, "agent");
        let address = wait_for("the agent listens", SOON, || {
            if let Some(status) = process.ended() {
                panic!("the agent ended with {status}: {}", process.stderr());
            }
            address_in(&process.stderr())
        });
        Self { process, address }
    }

    pub fn get(&self, path: &str) -> http::Answer {
        http::get(self.address, path)
    }

    pub fn page(&self) -> metrics::Page {
        metrics::Page::parse(&self.get("/metrics").text())
    }

    pub fn checks(&self) -> Value {
        serde_json::from_slice(&self.get("/api/v1/checks").body).unwrap()
    }

    /// Waits until every boundary was swept once.
    pub fn wait_for_sweeps(&self) {
        wait_for("every boundary is swept", SOON, || {
            let checks = self.checks();
            checks["boundaries"].as_array()?.iter().all(|b| b["last_completed"].is_string()).then_some(())
        });
    }
}

/// `address=127.0.0.1:1234`, or the same in JSON.
fn address_in(log: &str) -> Option<SocketAddr> {
    let line = log.lines().find(|line| line.contains("started"))?;
    let rest = line.split_once("address=").or_else(|| line.split_once("\"address\":\""))?.1;
    rest.split([' ', '"']).next()?.parse().ok()
}

/// The check of a JSON report that asks for `kind` of `target`.
pub fn find<'a>(report: &'a Value, kind: &str, target: &str) -> &'a Value {
    let mut found = report["checks"].as_array().unwrap().iter().filter(|c| c["check"] == kind && c["target"] == target);
    let check = found.next().unwrap_or_else(|| panic!("no check {kind} {target} in {report:#}"));
    assert!(found.next().is_none(), "two checks {kind} {target} in {report:#}");
    check
}

/// A character that has no business in what people or programs read: it moves the cursor, hides, or turns text round.
pub fn hostile(c: char) -> bool {
    (c.is_control() && c != '\n')
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}
