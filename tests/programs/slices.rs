//! Long lists are asked in slices: where one sweep ends the next goes on, also after a reload; nothing passes before
//! everything was asked, and what was disclosed counts until it was asked again.

use std::{path::Path, sync::Arc, time::Instant};

use segprobe::{
    config,
    inventory::stands::Stand,
    ledger::{CheckResult, Evidence, Ledger},
    model::Reason,
    observation::DnsSeen,
    plan::{Part, plan},
    sweep::Sweeper,
};

use crate::{
    cluster_dns::{ClusterDns, Defences, Flavour, Inventory, Protocol, Running, Service, Upstream},
    support::loopback,
};

/// 64 addresses, of which a sweep asks for 20.
const IN_A_ROUND: u64 = 64;

fn server() -> Running {
    let tcp = Protocol::Tcp;
    let inventory = Inventory::new()
        .service(Service::cluster_ip("default", "kubernetes", &["127.95.0.1"]).port("https", tcp, 443))
        .service(Service::cluster_ip("payments", "ledger", &["127.96.0.33"]).port("pg", tcp, 5432));
    ClusterDns::new(Flavour::CoreDns114, inventory).with(hidden()).start(loopback())
}

fn open() -> Defences {
    Defences { upstream: Upstream::NxDomain, ..Defences::default() }
}

fn hidden() -> Defences {
    Defences { namespaces: Some(vec!["default".into()]), ..open() }
}

/// One agent's sweeps of one server, without its pauses.
struct Bench {
    sweeper: Arc<Sweeper>,
    ledger: Ledger,
}

impl Bench {
    fn new(server: &Running) -> Self {
        let text = format!(
            "zones: {{low: {{namespaces: [web]}}, high: {{namespaces: [payments]}}}}
boundaries:
  - name: b
    from: low
    to: high
    interval: 40s
    dns: {{srv-wildcard: off, service-lookup: off, namespace-oracle: off, pod-oracle: off}}
controls: {{positive: [{{tcp: '127.0.0.1:1'}}]}}
dns:
  resolver: 127.0.0.1:1
  queries_per_second: 10000
  servers: [{{name: s, address: '{}', kind: endpoint}}]
  reverse_sweep: {{ranges: [127.96.0.0/26], queries_per_sweep: 20}}
",
            server.address
        );
        let config = Arc::new(config::parse(Path::new("test"), &text).unwrap());
        let plan = Arc::new(plan(&config, &[Stand::own(&config, &[], "web")]));
        let bench = Self { sweeper: Arc::new(Sweeper::new(config, plan, None, true)), ledger: Ledger::default() };
        bench.reload();
        bench
    }

    /// As the agent does when a file changed.
    fn reload(&self) {
        self.ledger.follow(&self.sweeper.plan, "hash", Instant::now());
    }

    fn sweep(&self) -> (Reason, Arc<CheckResult>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let leg = &self.sweeper.plan.legs[0];
        let report = runtime.block_on(self.sweeper.sweep(leg, Part::Dns, &[], &self.ledger.carried(leg)));
        self.ledger.record(&report);
        let result = report.results[0].clone();
        (result.reason, result)
    }
}

fn seen(result: &CheckResult) -> &DnsSeen {
    match &result.evidence {
        Evidence::Dns(dns) => &dns.seen,
        Evidence::Reach(_) | Evidence::Node(_) => unreachable!(),
    }
}

#[test]
fn nothing_passes_before_everything_was_asked() {
    let server = server();
    let bench = Bench::new(&server);
    for asked in [20, 40, 60] {
        let (reason, result) = bench.sweep();
        assert_eq!((reason, seen(&result).progress()), (Reason::NotCovered, (asked, IN_A_ROUND)));
        assert_eq!(seen(&result).covered(), None);
        bench.reload();
    }
    let (reason, result) = bench.sweep();
    assert_eq!((reason, seen(&result).progress()), (Reason::NothingDisclosed, (IN_A_ROUND, IN_A_ROUND)));
    let covered = seen(&result).covered().unwrap();
    // Each address once, and the self-check's over both transports.
    let ptr = |transport| server.received().of(transport, hickory_resolver::proto::rr::RecordType::PTR);
    let self_checks = 4;
    assert_eq!(ptr(crate::cluster_dns::Transport::Udp), 64 + self_checks);
    assert_eq!(ptr(crate::cluster_dns::Transport::Tcp), self_checks);

    // The next round begins, and the last one still counts.
    let (reason, result) = bench.sweep();
    assert_eq!((reason, seen(&result).progress()), (Reason::NothingDisclosed, (20, IN_A_ROUND)));
    assert_eq!(seen(&result).covered(), Some(covered));
}

#[test]
fn what_was_disclosed_counts_until_it_was_asked_again() {
    let server = server();
    let bench = Bench::new(&server);
    server.set(open());
    let found = (0..4).position(|_| bench.sweep().0 == Reason::Disclosed).expect("found in the first round");
    server.set(hidden());
    // To the end of its round, and then until the next has asked for it.
    let mut after = 0;
    let mut reason = Reason::Disclosed;
    while reason == Reason::Disclosed {
        let swept = bench.sweep();
        reason = swept.0;
        assert!(seen(&swept.1).names().contains_key("payments") == (reason == Reason::Disclosed));
        after += 1;
        assert!(after <= 8, "two rounds are 8 sweeps");
    }
    assert_eq!((reason, after), (Reason::NothingDisclosed, 7 - found), "found in sweep {found}");
}

#[test]
fn a_finding_closes_after_rounds_and_not_after_slices() {
    let server = server();
    let bench = Bench::new(&server);
    let is_open = || !bench.ledger.snapshot().checks[0].findings.is_empty();
    server.set(open());
    (0..4).for_each(|_| drop(bench.sweep()));
    assert!(is_open(), "found in the first round");
    server.set(hidden());
    // Three rounds of four slices: each asks for what was told once.
    for slice in 1..=12 {
        assert!(is_open(), "closed before slice {slice}");
        bench.sweep();
    }
    assert!(!is_open());
}

#[test]
fn a_round_with_a_loss_is_no_round() {
    let server = server();
    let bench = Bench::new(&server);
    // No upstream: a miss is SERVFAIL, and nobody knows what it hides.
    server.set(Defences { upstream: Upstream::Absent, ..hidden() });
    assert_eq!(bench.sweep().0, Reason::ServerError);
    server.set(hidden());
    for _ in 0..3 {
        assert_eq!(bench.sweep().0, Reason::ServerError, "of this round something is unknown");
    }
    // The broken round is over; it counts until the next one is.
    for _ in 0..3 {
        let (reason, result) = bench.sweep();
        assert_eq!((reason, seen(&result).covered()), (Reason::ServerError, None));
    }
    let (reason, result) = bench.sweep();
    assert_eq!(reason, Reason::NothingDisclosed);
    assert!(seen(&result).covered().is_some());
}

#[test]
fn each_slice_has_other_addresses() {
    let services = (0..64).map(|i| Service::cluster_ip("payments", &format!("s{i}"), &[&format!("127.96.0.{i}")]));
    let kubernetes = Service::cluster_ip("default", "kubernetes", &["127.95.0.1"]).port("https", Protocol::Tcp, 443);
    let inventory = services.fold(Inventory::new().service(kubernetes), Inventory::service);
    let server = ClusterDns::new(Flavour::CoreDns114, inventory).with(open()).start(loopback());
    let bench = Bench::new(&server);
    for names in [20, 40, 60, 64] {
        assert_eq!(seen(&bench.sweep().1).names()["payments"].len(), names);
    }
}
