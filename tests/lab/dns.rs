//! A cluster's DNS behind a network that loses packets, a policy that blocks a part of it, and a server that goes away.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::Path,
    sync::{Arc, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt, future::join, stream};
use libtest_mimic::{Failed, Trial};
use segprobe::{
    config,
    inventory::stands::Stand,
    ledger::{Carried, SweepReport},
    model::{CheckKind, Family, Reason, Verdict},
    plan::{Part, plan},
    sweep::Sweeper,
};

use crate::{
    HEAVY,
    cluster_dns::{ClusterDns, Defences, Flavour, Inventory, Running, Upstream},
    engine::block_on,
    network::{Hook, Network, fill},
};

pub fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for family in [Family::V4, Family::V6] {
        for (name, rules, clean, leaky) in POLICIES {
            let test = move || policy(family, rules, clean, leaky);
            trials.push(Trial::test(format!("dns::policy::{family}::{name}"), test));
        }
    }
    for (percent, attempts) in [(10, 2), (50, 5)] {
        trials.push(Trial::test(format!("dns::loss-of-{percent}-percent"), move || loss(percent, attempts)));
    }
    trials.push(Trial::test("dns::restart-in-mid-sweep", restart));
    trials.push(Trial::test("dns::death-in-mid-sweep", death));
    trials
}

/// Two servers of one cluster: one hides the protected namespace, one tells it in every way.
struct Lab {
    network: Network,
    family: Family,
    clean: Option<Running>,
    _leaky: Running,
}

impl Lab {
    fn new(family: Family) -> Result<Self, Failed> {
        let network = Network::new()?;
        let clean = Some(network.server.run(|| clean(family)));
        let leaky = network.server.run(|| {
            let leaks = Defences { transfer: true, upstream: Upstream::NxDomain, ..Defences::default() };
            ClusterDns::new(Flavour::CoreDns18, Inventory::recorded()).with(leaks).start_at(address("$second", family))
        });
        Ok(Self { network, family, clean, _leaky: leaky })
    }

    fn rules(&self, rules: &[&str]) -> Result<(), String> {
        let rules: Vec<_> = rules.iter().map(|rule| fill(rule, self.family)).collect();
        self.network.router.rules(Hook::Forward, &rules)
    }
}

fn address(word: &str, family: Family) -> SocketAddr {
    SocketAddr::new(fill(word, family).parse().expect("an address"), 53)
}

fn clean(family: Family) -> Running {
    let namespaces = Some(["default", "kube-system", "low"].map(String::from).into());
    let hides = Defences { namespaces, upstream: Upstream::NxDomain, ..Defences::default() };
    ClusterDns::new(Flavour::CoreDns114, Inventory::recorded()).with(hides).start_at(address("$target", family))
}

const KINDS: [CheckKind; 6] = [
    CheckKind::SrvWildcard,
    CheckKind::ReverseSweep,
    CheckKind::ServiceLookup,
    CheckKind::NamespaceOracle,
    CheckKind::PodOracle,
    CheckKind::ZoneTransfer,
];

const TIMEOUT: Duration = Duration::from_millis(400);
/// Questions a second.
const FAST: u32 = 2000;
/// Slow enough that something can happen in the middle.
const SLOWLY: u32 = 60;

/// To be called in a runtime of the client.
fn sweeper(family: Family, per_second: u32, timeout: Duration, attempts: u32) -> Arc<Sweeper> {
    let judged = KINDS.map(|kind| format!("{kind}: judge")).join(", ");
    let yaml = fill(
        &format!(
            "zones: {{low: {{namespaces: [low]}}, high: {{namespaces: [high]}}}}\n\
             boundaries:\n\
             - {{name: lab, from: low, to: high, interval: 12s, tcp: {{attempts: 1}}, dns: {{{judged}}}}}\n\
             vantage: {{namespace: low}}\n\
             targets:\n\
             - {{zone: high, namespace: high, service: web, cluster_ip: 10.96.201.90, endpoints: [10.244.1.5], ports: [80]}}\n\
             controls: {{positive: [{{tcp: '$control'}}]}}\n\
             dns:\n  \
               resolver: '$control'\n  \
               timeout: {}ms\n  attempts: {attempts}\n  ask_again: 100ms\n  queries_per_second: {per_second}\n  \
               servers: [{{name: clean, address: '{}'}}, {{name: leaky, address: '{}'}}]\n",
            timeout.as_millis(),
            address("$target", family),
            address("$second", family),
        ),
        family,
    );
    let config = config::parse(Path::new("lab.yaml"), &yaml).unwrap_or_else(|e| panic!("{e}\n{yaml}"));
    let plan = plan(&config, &[Stand::own(&config, &[], "low")]);
    Arc::new(Sweeper::new(Arc::new(config), Arc::new(plan), None, true))
}

type Reasons = BTreeMap<CheckKind, Reason>;

fn reasons(report: &SweepReport, server: &str) -> Reasons {
    let of_server = report.results.iter().filter(|r| *r.id.target == *server);
    let reasons: Reasons = of_server.map(|r| (r.id.kind, r.reason)).collect();
    assert_eq!(reasons.len(), KINDS.len(), "{reasons:?}");
    reasons
}

async fn sweep(sweeper: &Arc<Sweeper>) -> SweepReport {
    sweeper.sweep(&sweeper.plan.legs[0], Part::Dns, &[], &Carried::default()).await
}

/// Every technique but a transfer, and a transfer: it knows TCP only.
type Expected = (Reason, Reason);

const CLEAN: Expected = (Reason::NothingDisclosed, Reason::NothingDisclosed);
const TOLD: Expected = (Reason::Disclosed, Reason::Disclosed);
const DEAD: Expected = (Reason::ControlFailed, Reason::ControlFailed);

/// What is dropped may come another time; what is rejected is closed, and the rest is judged. One transport that tells is
/// enough.
const POLICIES: [(&str, &[&str], Expected, Expected); 9] = [
    ("none", &[], CLEAN, TOLD),
    ("udp-dropped", &["udp dport 53 drop"], (Reason::NoSelfCheck, Reason::NothingDisclosed), TOLD),
    (
        "tcp-dropped",
        &["tcp dport 53 drop"],
        (Reason::NoSelfCheck, Reason::ControlFailed),
        (Reason::Disclosed, Reason::ControlFailed),
    ),
    ("both-dropped", &["meta l4proto { tcp, udp } th dport 53 drop"], DEAD, DEAD),
    ("udp-rejected", &["udp dport 53 reject with icmpx admin-prohibited"], CLEAN, TOLD),
    (
        "tcp-rejected",
        &["tcp dport 53 reject with icmpx admin-prohibited"],
        CLEAN,
        (Reason::Disclosed, Reason::NothingDisclosed),
    ),
    ("tcp-reset", &["tcp dport 53 reject with tcp reset"], CLEAN, (Reason::Disclosed, Reason::NothingDisclosed)),
    ("both-rejected", &["meta l4proto { tcp, udp } th dport 53 reject with icmpx port-unreachable"], DEAD, DEAD),
    ("answers-dropped", &["meta l4proto { tcp, udp } th sport 53 drop"], DEAD, DEAD),
];

fn policy(family: Family, rules: &[&str], clean: Expected, leaky: Expected) -> Result<(), Failed> {
    let lab = Lab::new(family)?;
    lab.rules(rules)?;
    let report = block_on(&lab.network.client, || async { sweep(&sweeper(family, FAST, TIMEOUT, 2)).await });
    let all = |(reason, of_transfer)| {
        let of = |kind| if kind == CheckKind::ZoneTransfer { of_transfer } else { reason };
        KINDS.map(|kind| (kind, of(kind))).into()
    };
    assert_eq!(reasons(&report, "clean"), all(clean), "the clean server");
    assert_eq!(reasons(&report, "leaky"), all(leaky), "the leaky server");
    Ok(())
}

/// So many packets of a hundred are lost each way. Who tells never looks as if he did not; who does not tell is never
/// accused. `attempts` are so many that the controls come through now and then.
fn loss(percent: u32, attempts: u32) -> Result<(), Failed> {
    const SWEEPS: usize = 24;
    // One that failed has let go of it.
    let _turn = HEAVY.lock().unwrap_or_else(PoisonError::into_inner);
    let lab = Lab::new(Family::V4)?;
    lab.rules(&[&format!("numgen random mod 100 < {percent} drop")])?;
    let reports: Vec<SweepReport> = block_on(&lab.network.client, || async {
        let one = |_| async { sweep(&sweeper(Family::V4, FAST, TIMEOUT / 2, attempts)).await };
        stream::iter(0..SWEEPS).map(one).buffer_unordered(SWEEPS).collect().await
    });
    let seen = |server| -> BTreeSet<(CheckKind, Reason)> {
        reports.iter().flat_map(|report| reasons(report, server)).collect()
    };
    let (clean, leaky) = (seen("clean"), seen("leaky"));
    // Time may be up before all is asked; that is said, and is no proof.
    let no_proof = |reason: &Reason| reason.verdict() <= Verdict::Inconclusive || *reason == Reason::NotCovered;
    assert!(leaky.iter().all(|(_, reason)| no_proof(reason)), "the leaky server: {leaky:?}");
    assert!(clean.iter().all(|(_, reason)| reason.verdict() != Verdict::Fail), "the clean server: {clean:?}");
    // That it was measured at all.
    assert!(leaky.iter().any(|(_, reason)| *reason == Reason::Disclosed), "the leaky server: {leaky:?}");
    assert!(clean.iter().any(|(_, reason)| *reason == Reason::LostQueries), "the clean server: {clean:?}");
    Ok(())
}

/// All six ask for more than a hundred times.
async fn in_the_middle(server: &Running) {
    while server.received().total() < 40 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// It is away for a moment: what was asked meanwhile proves nothing, and the next sweep proves all of it again.
fn restart() -> Result<(), Failed> {
    let mut lab = Lab::new(Family::V4)?;
    let first = lab.clean.take().expect("it runs");
    let server = &lab.network.server;
    let (restarted, recovered) = block_on(&lab.network.client, || async {
        let slow = sweeper(Family::V4, SLOWLY, TIMEOUT, 1);
        let restarts = async {
            in_the_middle(&first).await;
            drop(first);
            tokio::time::sleep(Duration::from_millis(600)).await;
            server.run(|| clean(Family::V4))
        };
        let (restarted, _second) = join(sweep(&slow), restarts).await;
        // What a busy machine loses is asked again.
        let patient = sweeper(Family::V4, FAST, 5 * TIMEOUT, 3);
        (reasons(&restarted, "clean"), reasons(&sweep(&patient).await, "clean"))
    });
    assert!(restarted.values().any(|reason| reason.verdict() == Verdict::Inconclusive), "{restarted:?}");
    assert!(restarted.values().all(|reason| reason.verdict() != Verdict::Fail), "{restarted:?}");
    assert!(recovered.values().all(|reason| *reason == Reason::NothingDisclosed), "{recovered:?}");
    Ok(())
}

/// It goes away and stays away: what was asked before is no proof either, because nobody vouches for the time after it.
fn death() -> Result<(), Failed> {
    let mut lab = Lab::new(Family::V4)?;
    let clean = lab.clean.take().expect("it runs");
    let report = block_on(&lab.network.client, || async {
        let dies = async {
            in_the_middle(&clean).await;
            drop(clean);
        };
        let sweeper = sweeper(Family::V4, SLOWLY, TIMEOUT, 1);
        join(sweep(&sweeper), dies).await.0
    });
    let clean = reasons(&report, "clean");
    assert!(clean.values().all(|reason| *reason == Reason::ControlFailed), "{clean:?}");
    Ok(())
}
