//! What a data file cannot say: many sweeps of one network, sweeps over time, and the program itself at its limits.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    process::{Command, Stdio},
    sync::{Arc, PoisonError},
    thread,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream};
use libtest_mimic::{Failed, Trial};
use segprobe::{
    export::{Run, metrics::Metrics},
    ledger::{Carried, Closed, Ledger, SweepReport, Transition},
    model::{Family, Reason, Verdict},
    plan::Part,
    sweep::{
        Sweeper,
        schedule::{Observer, Schedule},
    },
};
use tokio::sync::mpsc;

use crate::{
    HEAVY,
    engine::{Knobs, PORT, block_on},
    network::{Hook, Network, fill},
    servers::{Servers, Temper},
};

pub fn trials() -> Vec<Trial> {
    let trial = |name: &str, test: fn() -> Result<(), Failed>| Trial::test(format!("dynamic::{name}"), test);
    vec![
        trial("loss-never-proves", loss_never_proves),
        trial("no-loss-always-proves", no_loss_always_proves),
        trial("finding-opens-and-closes", finding_opens_and_closes),
        trial("finding-of-a-virtual-address-stays", finding_of_a_virtual_address_stays),
        trial("stalled-agent-goes-stale", stalled_agent_goes_stale),
        trial("20000-targets-1024-descriptors", twenty_thousand_targets),
    ]
}

/// Only the low vantage is kept away.
pub const POLICY: &str = "$ip saddr $client tcp dport 5432 drop";

/// A network with an open target, and a configuration that tests it.
pub fn lab(family: Family) -> Result<(Network, Servers, Knobs), Failed> {
    let network = Network::new()?;
    let open = |text: &str| (fill(text, family).parse::<SocketAddr>().expect("an address"), Temper::Open);
    let target = SocketAddr::new(fill("$target", family).parse()?, PORT);
    let second = SocketAddr::new(fill("$second", family).parse()?, PORT);
    let servers =
        Servers::start(&network.server, vec![open("$control"), (target, Temper::Open), (second, Temper::Open)], None);
    let knobs = Knobs {
        target: fill("endpoints: '$target'", family),
        positive: vec![fill("$control", family)],
        resolver: fill("$control", family),
        ..Knobs::default()
    };
    Ok((network, servers, knobs))
}

pub fn rules(network: &Network, family: Family, rules: &[&str]) -> Result<(), String> {
    network.router.rules(Hook::Forward, &rules.iter().map(|rule| fill(rule, family)).collect::<Vec<_>>())
}

async fn sweep(sweeper: &Arc<Sweeper>, ledger: &Ledger) -> SweepReport {
    let leg = &sweeper.plan.legs[0];
    sweeper.sweep(leg, Part::Reach, &[], &ledger.carried(leg)).await
}

/// How many sweeps came to each conclusion, each with a sweeper of its own, every second one with a witness; and the longest time for
/// which this process had no processor.
fn repeat(network: &Network, knobs: &Knobs, family: Family) -> (BTreeMap<Reason, usize>, Duration) {
    const TIMES: usize = 100;
    const AT_ONCE: usize = 25;
    const TICK: Duration = Duration::from_millis(20);
    block_on(&network.client, || async {
        let one = async |index: usize| {
            let witness = (index % 2 == 1).then(|| fill("$witness", family));
            let sweeper = Knobs { witness, ..knobs.clone() }.sweeper(true);
            let report = sweeper.sweep(&sweeper.plan.legs[0], Part::Reach, &[], &Carried::default()).await;
            report.results[0].reason
        };
        let (mut counts, mut longest) = (BTreeMap::new(), Duration::ZERO);
        let mut reasons = stream::iter(0..TIMES).map(one).buffer_unordered(AT_ONCE);
        loop {
            let began = Instant::now();
            tokio::select! {
                reason = reasons.next() => match reason {
                    Some(reason) => *counts.entry(reason).or_default() += 1,
                    None => return (counts, longest),
                },
                () = tokio::time::sleep(TICK) => longest = longest.max(began.elapsed()),
            }
        }
    })
}

/// Nobody is blocked, but three packets of ten are lost each way: two hundred sweeps, no `pass` and no `unverified`. (Twelve
/// controls are all clean in one sweep of 5,000, both attempts silent in one of 30: a false alarm is one run in a thousand.)
fn loss_never_proves() -> Result<(), Failed> {
    both_families(|family| {
        let (network, _servers, knobs) = lab(family)?;
        rules(&network, family, &["numgen random mod 100 < 30 drop"])?;
        let (reasons, _) = repeat(&network, &knobs, family);
        let proven = reasons.keys().any(|reason| reason.verdict() > Verdict::Inconclusive);
        if proven { Err(format!("an open path looks blocked: {reasons:?}").into()) } else { Ok(()) }
    })
}

/// Nothing is lost: two hundred sweeps of a blocked path and as many of an open one, nothing `inconclusive`. A process that has no
/// processor for longer than half a second may take that for a loss, and does not take it for anything else.
fn no_loss_always_proves() -> Result<(), Failed> {
    both_families(|family| {
        let (network, _servers, knobs) = lab(family)?;
        let proves = |(mut seen, stalled): (BTreeMap<Reason, usize>, Duration), expected: &[(Reason, usize)]| {
            if stalled > Duration::from_millis(500) {
                seen.retain(|reason, _| reason.verdict() != Verdict::Inconclusive);
                assert!(seen.keys().all(|reason| expected.iter().any(|(of, _)| of == reason)), "{seen:?}");
            } else {
                assert_eq!(seen, expected.iter().copied().collect(), "without a stall: {stalled:?}");
            }
        };
        proves(repeat(&network, &knobs, family), &[(Reason::Reached, 100)]);
        rules(&network, family, &[POLICY])?;
        proves(repeat(&network, &knobs, family), &[(Reason::NoWitness, 50), (Reason::Blocked, 50)]);
        Ok(())
    })
}

/// Both at the same time.
fn both_families(test: impl Fn(Family) -> Result<(), Failed> + Sync) -> Result<(), Failed> {
    std::thread::scope(|scope| {
        let test = &test;
        let running = [Family::V4, Family::V6].map(|family| scope.spawn(move || test(family)));
        running.map(|thread| thread.join().expect("it says what failed")).into_iter().collect()
    })
}

/// What the scheduler tells of.
struct Told(mpsc::UnboundedSender<Vec<Transition>>);

impl Observer for Told {
    fn swept(&self, _: &SweepReport, transitions: &[Transition]) {
        // The test is over where nobody listens.
        let _ = self.0.send(transitions.to_vec());
    }

    fn overran(&self, boundary: &str, times: u64) {
        eprintln!("{boundary}: {times} sweeps were skipped");
    }
}

/// An agent without its command line: scheduler, ledger, and what it tells.
struct Agent {
    ledger: Arc<Ledger>,
    schedule: Schedule,
    transitions: mpsc::UnboundedReceiver<Vec<Transition>>,
}

impl Agent {
    fn start(sweeper: &Arc<Sweeper>) -> Self {
        let ledger = Arc::new(Ledger::default());
        ledger.follow(&sweeper.plan, &sweeper.config.hash, Instant::now());
        let (tell, transitions) = mpsc::unbounded_channel();
        let mut schedule = Schedule::new(sweeper.clone(), ledger.clone(), Arc::new(Told(tell)));
        schedule.follow(&sweeper.plan.legs);
        Self { ledger, schedule, transitions }
    }

    /// The transitions of the next sweep in words, and what is served after it.
    async fn next(&mut self) -> (Vec<String>, Reason) {
        let transitions = self.transitions.recv().await.expect("the scheduler runs");
        (transitions.iter().map(words).collect(), self.served(Duration::ZERO))
    }

    fn served(&self, later: Duration) -> Reason {
        self.ledger.snapshot().checks[0].reason_at(Instant::now() + later)
    }

    async fn stop(&mut self) {
        self.schedule.stop().await;
    }
}

fn words(transition: &Transition) -> String {
    match transition {
        Transition::Opened { reason, .. } => format!("opened: {reason}"),
        Transition::Closed { closed: Closed::Resolved, .. } => "closed: resolved".into(),
        Transition::Closed { closed: Closed::Gone, .. } => "closed: gone".into(),
        Transition::Startup { .. } => "startup".into(),
        Transition::Changed { from, to, .. } => format!("{} to {to}", from.map_or("nothing", Reason::as_str)),
    }
}

/// The shortest interval that the configuration allows for one attempt.
const INTERVAL: Duration = Duration::from_secs(7);

/// The policy is removed and restored while the agent runs: the finding opens with the next sweep and closes with the third
/// blocked one.
fn finding_opens_and_closes() -> Result<(), Failed> {
    let family = Family::V4;
    let (network, _servers, knobs) = lab(family)?;
    rules(&network, family, &[POLICY])?;
    let knobs = Knobs { interval: "7s".into(), attempts: 1, ..knobs };
    block_on(&network.client, || async {
        let mut agent = Agent::start(&knobs.sweeper(true));
        assert_eq!(agent.next().await, (vec!["nothing to no-witness".into()], Reason::NoWitness));

        rules(&network, family, &[])?;
        let removed = Instant::now();
        let opened = vec!["opened: reached".into(), "no-witness to reached".into()];
        assert_eq!(agent.next().await, (opened, Reason::Reached), "the next sweep sees it");
        assert!(removed.elapsed() < 2 * INTERVAL, "the next sweep came after {:?}", removed.elapsed());
        assert_eq!(agent.next().await, (vec![], Reason::Reached), "a finding is opened once");

        rules(&network, family, &[POLICY])?;
        assert_eq!(agent.next().await, (vec!["reached to finding-open".into()], Reason::FindingOpen));
        rules(&network, family, &["$ip saddr $client drop"])?;
        assert_eq!(
            agent.next().await,
            (vec![], Reason::FindingOpen),
            "an offline vantage neither counts nor starts anew"
        );
        rules(&network, family, &[POLICY])?;
        assert_eq!(agent.next().await, (vec![], Reason::FindingOpen));
        let closed = vec!["closed: resolved".into(), "finding-open to no-witness".into()];
        assert_eq!(agent.next().await, (closed, Reason::NoWitness));
        let counted: Vec<u64> = agent.ledger.snapshot().findings.values().map(|count| count.total).collect();
        assert_eq!(counted, [1]);
        agent.stop().await;
        Ok(())
    })
}

/// A policy on one of two backends, one connect a sweep through the virtual address: it is reached every other time, and the
/// finding stays open between. It closes after ten blocked results in a row, no sooner.
fn finding_of_a_virtual_address_stays() -> Result<(), Failed> {
    let family = Family::V4;
    let (network, _servers, knobs) = lab(family)?;
    let dnat = "$ip daddr $virtual tcp dport 5432 dnat $ip to numgen inc mod 2 map { 0 : $target, 1 : $second }";
    network.router.rules(Hook::NatPrerouting, &[fill(dnat, family)])?;
    network.server.rules(Hook::Input, &[fill("$ip saddr $client $ip daddr $target tcp dport 5432 drop", family)])?;
    let knobs = Knobs { target: fill("cluster_ip: '$virtual'", family), attempts: 1, ..knobs };
    block_on(&network.client, || async {
        let sweeper = knobs.sweeper(true);
        let ledger = Ledger::default();
        ledger.follow(&sweeper.plan, "", Instant::now());
        let next = async || {
            let transitions = ledger.record(&sweep(&sweeper, &ledger).await);
            let of_findings = transitions.iter().map(words).filter(|word| word.contains(':'));
            (of_findings.collect::<Vec<_>>(), ledger.snapshot().checks[0].reason_at(Instant::now()))
        };
        let nothing = Vec::<String>::new;
        assert_eq!(next().await, (nothing(), Reason::VirtualAddress));
        assert_eq!(next().await, (vec!["opened: reached".into()], Reason::Reached));
        for _ in 0..3 {
            assert_eq!(next().await, (nothing(), Reason::FindingOpen));
            assert_eq!(next().await, (nothing(), Reason::Reached));
        }
        network.server.rules(Hook::Input, &[fill(POLICY, family)])?;
        for _ in 0..9 {
            assert_eq!(next().await, (nothing(), Reason::FindingOpen));
        }
        assert_eq!(next().await, (vec!["closed: resolved".into()], Reason::VirtualAddress));
        Ok(())
    })
}

/// The scheduler stops: after three rounds nothing is served as good any more, on the page either.
fn stalled_agent_goes_stale() -> Result<(), Failed> {
    let family = Family::V6;
    let (network, _servers, knobs) = lab(family)?;
    rules(&network, family, &[POLICY])?;
    let knobs = Knobs { interval: "11s".into(), attempts: 1, witness: Some(fill("$witness", family)), ..knobs };
    block_on(&network.client, || async {
        let sweeper = knobs.sweeper(true);
        let mut agent = Agent::start(&sweeper);
        assert_eq!(agent.next().await.1, Reason::Blocked);
        agent.stop().await;
        let interval = sweeper.plan.boundaries[0].boundary.interval;
        assert_eq!(agent.served(2 * interval), Reason::Blocked);
        assert_eq!(agent.served(4 * interval), Reason::Stale);

        let run = Run { node: "lab".into(), kernel: "".into(), icmp_evidence: true };
        let metrics = Metrics::new(run, segprobe::web::Web::open())?;
        let verdict = |later| {
            let page = metrics.page(&agent.ledger.snapshot(), sweeper.config.series, Instant::now() + later);
            let of_check = page.lines().filter(|line| line.starts_with("segprobe_check_verdict{"));
            let set = of_check.filter_map(|line| line.strip_suffix("\"} 1")?.rsplit('"').next());
            set.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(verdict(2 * interval), ["pass"]);
        assert_eq!(verdict(4 * interval), ["inconclusive"]);
        Ok(())
    })
}

/// The program itself, with 20,000 targets and 1,024 descriptors: 18,000 are open, 2,000 silent.
fn twenty_thousand_targets() -> Result<(), Failed> {
    let _turn = HEAVY.lock().unwrap_or_else(PoisonError::into_inner);
    const OPEN: usize = 18_000;
    const SILENT: usize = 2_000;
    /// In a build without optimization; the JSON of 20,000 checks is the most of it.
    const MOST_KIB: u64 = 128 * 1024;
    let family = Family::V4;
    let (network, _servers, knobs) = lab(family)?;
    network.client.ip(&fill("route add 10.0.0.0/8 via $router", family))?;
    network.router.ip(&fill("route add 10.0.0.0/8 via $server", family))?;
    network.server.ip("route add local 10.0.0.0/8 dev lo")?;
    rules(&network, family, &["ip daddr 10.1.0.0/16 drop"])?;
    let _farm = Servers::start(&network.server, vec![(SocketAddr::from(([0, 0, 0, 0], 8200)), Temper::Open)], None);

    let target = |second: u8, index: usize| {
        let address = format!("10.{second}.{}.{}", index / 250, index % 250 + 1);
        format!(
            "{{\"zone\": \"high\", \"name\": \"t{second}-{index}\", \"external\": \"{address}\", \"ports\": [8200]}}"
        )
    };
    let targets: Vec<String> = (0..OPEN).map(|i| target(0, i)).chain((0..SILENT).map(|i| target(1, i))).collect();
    let directory = tempfile::tempdir()?;
    let folder = directory.path();
    fs::write(folder.join("targets.json"), format!("{{\"targets\": [{}]}}", targets.join(",\n")))?;
    // As fast as a listener accepts that shares its core with other trials: what it drops would be a loss.
    let pace = "pace: {in_flight: 60000, per_second: 4000, spacing: 0s}";
    let yaml =
        Knobs { attempts: 1, ..knobs }.yaml().replace("pace: {in_flight: 512, per_second: 10000, spacing: 10ms}", pace);
    fs::write(folder.join("segprobe.yaml"), format!("{yaml}target_files: [targets.json]\n"))?;

    let output = network.client.run(|| {
        let mut limited = Command::new("sh");
        limited.args(["-c", "ulimit -n 1024 && exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_segprobe")]);
        limited.args(["check", "--output", "json", "--config.file"]).arg(folder.join("segprobe.yaml"));
        let child = limited.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let peak = watch_memory(child.id());
        let output = child.wait_with_output()?;
        Ok::<_, std::io::Error>((output, peak.join().expect("it reads on")))
    });
    let (output, peak) = output?;
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for check in report["checks"].as_array().expect("checks") {
        *reasons.entry(check["reason"].as_str().expect("a reason")).or_default() += 1;
    }
    // The open target of every lab is among the reached.
    assert_eq!(reasons, [("reached", OPEN + 1), ("virtual-address", SILENT)].into());
    assert!(peak < MOST_KIB, "{peak} KiB at the peak");
    Ok(())
}

/// The most memory that a process ever has, in KiB, until it ends. Not from its resource usage: that counts its parent's
/// memory from before the program began.
fn watch_memory(pid: u32) -> thread::JoinHandle<u64> {
    thread::spawn(move || {
        let mut peak = 0;
        while let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) {
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            // A process that has ended has no memory.
            let Some(now) = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok()) else { break };
            // What is not segprobe yet is small.
            peak = u64::max(peak, now);
            thread::sleep(Duration::from_millis(5));
        }
        peak
    })
}
