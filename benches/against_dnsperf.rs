//! How fast and how small: a `reverse-sweep` beside dnsperf at one named, in one run, on loopback.
//!
//! `cargo bench --bench against_dnsperf`. Needs `dnsperf` and `named`, no root. Figures are ratios of one run on one machine.
//! segprobe's time is the whole sweep as it tells it itself: the questions, and the controls and self-checks around them.

#![allow(clippy::expect_used, clippy::panic, reason = "a benchmark that cannot measure has nothing to say")]

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

const ADDRESSES: u32 = 65_536;
const IN_FLIGHT: u32 = 100;
const MOST_SOCKETS: usize = 16;
const RUNS: usize = 5;
const SEGPROBE: &str = env!("CARGO_BIN_EXE_segprobe");

/// Programs, and what they can be asked without doing anything.
const NEEDED: [(&str, &str); 2] = [("dnsperf", "-h"), ("named", "-v")];

fn main() {
    for (program, version) in NEEDED {
        if Command::new(program).arg(version).stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
            eprintln!("NOT RUN: the benchmark needs `{program}`; install it (Debian: dnsperf, bind9)");
            std::process::exit(1);
        }
    }
    let directory = std::env::temp_dir().join(format!("segprobe-bench-{}", std::process::id()));
    fs::create_dir_all(&directory).expect("make a directory for the configurations");
    let named = Named::start(&directory);
    let queries = queries(&directory);
    // The default, and with the one for TCP as many as there may be.
    let measured = [4, MOST_SOCKETS - 1].map(|sockets| side_by_side(&directory, &named, &queries, sockets));
    println!("\n| measure | figure |\n|---|---|");
    for (measure, figure) in measured.into_iter().flatten() {
        println!("| {measure} | {figure} |");
    }
    drop(named);
    fs::remove_dir_all(&directory).expect("remove the directory");
}

type Figures = Vec<(String, String)>;

/// The same questions from as many sockets, as many at the same time, in turn.
fn side_by_side(directory: &Path, named: &Named, queries: &Path, sockets: usize) -> Figures {
    let config = config(directory, named.port, sockets);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for run in 0..RUNS {
        let (segprobe, dnsperf) = (segprobe(&config, named.port), dnsperf(named.port, queries, sockets));
        println!("{sockets} sockets, run {}: segprobe {segprobe}, dnsperf {dnsperf:.0} queries/s", run + 1);
        assert!(segprobe.sockets <= sockets + 1, "{segprobe}, {sockets} for UDP and one for TCP are allowed");
        ours.push(segprobe);
        theirs.push(dnsperf);
    }
    ours.sort_by(|a, b| a.rate.total_cmp(&b.rate));
    theirs.sort_by(f64::total_cmp);
    let (ours, theirs) = (&ours[RUNS / 2], theirs[RUNS / 2]);
    vec![
        (
            format!("reverse-sweep of 65,536 addresses, 100 in flight, {sockets} UDP sockets: segprobe"),
            ours.to_string(),
        ),
        ("the same: dnsperf".into(), format!("{theirs:.0} queries/s")),
        ("rate against dnsperf".into(), format!("{:.2}×", ours.rate / theirs)),
    ]
}

struct Swept {
    rate: f64,
    peak_mb: f64,
    sockets: usize,
}

impl std::fmt::Display for Swept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.0} queries/s, {:.1} MB peak, {} sockets", self.rate, self.peak_mb, self.sockets)
    }
}

fn segprobe(config: &Path, port: u16) -> Swept {
    let mut command = Command::new(SEGPROBE);
    command.args(["check", "--output", "json", "--config.file"]).arg(config);
    let mut child = command.stdout(Stdio::piped()).stdin(Stdio::null()).spawn().expect("start segprobe");
    let mut stdout = child.stdout.take().expect("its output");
    let reader = thread::spawn(move || {
        let mut output = String::new();
        stdout.read_to_string(&mut output).map(|_| output)
    });
    let (mut peak_mb, mut sockets): (f64, usize) = (0.0, 0);
    while child.try_wait().expect("wait for segprobe").is_none() {
        peak_mb = peak_mb.max(peak_memory(child.id()));
        sockets = sockets.max(sockets_to(port));
        thread::sleep(Duration::from_millis(5));
    }
    let output = reader.join().expect("its reader").expect("its output is text");
    let report: serde_json::Value = serde_json::from_str(&output).expect("its output is JSON");
    let dns = &report["checks"][0]["dns"];
    assert_eq!(dns["asked"], ADDRESSES, "everything was asked: {report:#}");
    assert_eq!((&dns["lost"], &dns["retried"]), (&0.into(), &0.into()), "nothing was lost: {report:#}");
    let took = report["boundaries"][0]["last_duration_seconds"].as_f64().expect("the sweep's duration");
    Swept { rate: f64::from(ADDRESSES) / took, peak_mb, sockets }
}

/// Queries a second.
fn dnsperf(port: u16, queries: &Path, sockets: usize) -> f64 {
    let mut command = Command::new("dnsperf");
    command.args(["-s", "127.0.0.1", "-m", "udp", "-e", "-n", "1", "-T", "1", "-p"]).arg(port.to_string());
    command.args(["-q", &IN_FLIGHT.to_string(), "-c", &sockets.to_string(), "-d"]).arg(queries);
    let output = command.output().expect("run dnsperf");
    let output = String::from_utf8(output.stdout).expect("its output is text");
    let figure = |what: &str| {
        let line = output.lines().find_map(|line| line.trim().strip_prefix(what));
        line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or_else(|| panic!("{output}"))
    };
    assert_eq!(figure("Queries completed:"), f64::from(ADDRESSES), "{output}");
    figure("Queries per second:")
}

/// Authoritative for the cluster's zone and for the reverse zone of its services.
struct Named {
    child: Child,
    port: u16,
}

impl Named {
    fn start(directory: &Path) -> Self {
        let at = directory.display();
        let head = "$TTL 30\n@ IN SOA ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 30\n\
                    @ IN NS ns.dns.cluster.local.\n";
        let forward =
            "ns.dns IN A 127.0.0.1\nkubernetes.default.svc IN A 127.96.0.1\nweb.storefront.svc IN A 127.96.0.2\n";
        let reverse =
            "1.0 IN PTR kubernetes.default.svc.cluster.local.\n2.0 IN PTR web.storefront.svc.cluster.local.\n";
        fs::write(directory.join("forward.zone"), head.to_owned() + forward).expect("write a zone");
        fs::write(directory.join("reverse.zone"), head.to_owned() + reverse).expect("write a zone");
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|l| l.local_addr()).expect("find a port");
        let port = free.port();
        let configuration = format!(
            "options {{
  directory \"{at}\"; managed-keys-directory \"{at}\"; pid-file none; session-keyfile none; lock-file none;
  listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};
  recursion no; dnssec-validation no; notify no; empty-zones-enable no;
}};
controls {{ }};
zone \"cluster.local\" {{ type master; file \"{at}/forward.zone\"; }};
zone \"96.127.in-addr.arpa\" {{ type master; file \"{at}/reverse.zone\"; }};
"
        );
        let path = directory.join("named.conf");
        fs::write(&path, configuration).expect("write named's configuration");
        let mut command = Command::new("named");
        let mut child = command.args(["-g", "-c"]).arg(path).stderr(Stdio::piped()).spawn().expect("start named");
        let mut log = BufReader::new(child.stderr.take().expect("its log")).lines();
        let is_running = |line: std::io::Result<String>| line.expect("its log is text").ends_with(" running");
        assert!(log.any(is_running), "named did not start");
        // Whoever does not read it stops it.
        thread::spawn(move || log.for_each(drop));
        Self { child, port }
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        self.child.kill().expect("end named");
        self.child.wait().expect("wait for named");
    }
}

fn config(directory: &Path, port: u16, sockets: usize) -> PathBuf {
    let path = directory.join("segprobe.yaml");
    let text = format!(
        "zones: {{low: {{namespaces: [storefront]}}, high: {{namespaces: [payments]}}}}
boundaries:
  - name: b
    from: low
    to: high
    interval: 10m
    dns: {{reverse-sweep: judge, srv-wildcard: off, service-lookup: off, namespace-oracle: off, pod-oracle: off}}
controls: {{positive: [{{tcp: '127.0.0.1:{port}'}}]}}
dns:
  resolver: '127.0.0.1:{port}'
  servers: ['127.0.0.1:{port}']
  queries_per_second: 1000000
  in_flight: {IN_FLIGHT}
  sockets: {sockets}
  reverse_sweep: {{ranges: [127.96.0.0/16], queries_per_sweep: {ADDRESSES}}}
pace: {{per_second: 1000000, spacing: 0s}}
"
    );
    fs::write(&path, text).expect("write the configuration");
    path
}

/// The names of the same addresses, as dnsperf reads them.
fn queries(directory: &Path) -> PathBuf {
    let path = directory.join("queries");
    let lines = (0..ADDRESSES).map(|i| format!("{}.{}.96.127.in-addr.arpa PTR\n", i % 256, i / 256));
    fs::write(&path, lines.collect::<String>()).expect("write the queries");
    path
}

/// Sockets of anybody, UDP and TCP, that are connected to the port.
fn sockets_to(port: u16) -> usize {
    const TIME_WAIT: &str = "06";
    let remote = format!(":{port:04X}");
    let is_one = |line: &&str| {
        let mut fields = line.split_whitespace().skip(2);
        fields.next().is_some_and(|r| r.ends_with(&remote)) && fields.next() != Some(TIME_WAIT)
    };
    let tables = ["/proc/net/udp", "/proc/net/tcp"].map(|table| fs::read_to_string(table).expect("read the sockets"));
    tables.iter().flat_map(|table| table.lines().skip(1)).filter(is_one).count()
}

/// In MB; 0 where the process has ended.
fn peak_memory(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let kib = line.and_then(|l| l.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or(0.0) / 1000.0 * 1.024
}
