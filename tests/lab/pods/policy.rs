//! Policies that hold, and that miss an identity, a pod or an endpoint; and who vouches for the targets.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use futures_util::future::join;
use libtest_mimic::Failed;
use segprobe::{
    model::{Reason, Verdict, WitnessKind},
    vantage::{EnterError, Listeners, Netns},
};
use socket2::{Domain, Socket, Type};

use super::{
    REJECT,
    agent::{self, Agent, Knobs, Swept},
    node::{CONTROL, Node, at, high, low},
};
use crate::{
    engine::{PORT, block_on},
    fake_cri::FakePod,
    netns::until,
    network::Hook,
    servers::{Servers, Temper},
};

/// Who spoke for each target, and what was concluded of it.
type Vouched = BTreeMap<&'static str, (Reason, Option<(WitnessKind, String)>)>;

/// A listener here, one here that loopback alone reaches, one elsewhere, and a pod without a listener that no policy protects.
const TARGETS: [(&str, &str); 4] =
    [("here", "10.244.1.20"), ("deaf", "10.244.1.21"), ("far", "10.244.2.20"), ("shut", "10.244.1.22")];

fn vouched(swept: &Swept) -> Vouched {
    let of = |target| {
        let [(seen, reason)] = swept.seen(target) else { panic!("{:#?}", swept.seen(target)) };
        (target, (*reason, seen.witness.as_ref().map(|w| (w.by, w.name.to_string()))))
    };
    TARGETS.map(|(target, _)| of(target)).into()
}

pub fn holds() -> Result<(), Failed> {
    let node = Node::new()?;
    let _controls = node.controls()?;
    let _web = node.pod(low("web-0", "web"), "10.244.1.10")?;
    let _job = node.pod(low("job-0", "job"), "10.244.1.11")?;
    let here = node.pod(high("here-0"), "10.244.1.20")?;
    let deaf = node.pod(high("deaf-0"), "10.244.1.21")?;
    let _shut = node.pod(high("shut-0"), "10.244.1.22")?;
    let prober = FakePod { labels: [("role".into(), "prober".into())].into(), ..high("prober-0") };
    let _prober = node.pod(prober, "10.244.1.30")?;
    let _far = node.server("10.244.2.20", PORT)?;
    // It says that it has the address that is elsewhere, and would accept.
    let impostor = node.pod(low("impostor-0", "impostor"), "10.244.1.12")?;
    node.change(&impostor.id, |pod| pod.ips.push("10.244.2.20".into()));
    let _listeners = [here.listens(PORT), deaf.listens_at("127.0.0.1"), impostor.listens(PORT)];
    node.policy(&[
        "ip daddr 10.244.1.22 accept",
        "ip saddr { 10.244.1.10, 10.244.1.11, 10.244.1.12 } tcp dport 5432 drop",
    ])?;

    let none = || None;
    let by = |kind, name: &str| Some((kind, name.to_owned()));
    let listening = |name| by(WitnessKind::Listening, name);
    let here = || (Reason::Blocked, listening("payments/here-0"));
    let of = |deaf, far, shut| -> Vouched {
        [("here", here()), ("deaf", (Reason::TargetDown, deaf)), ("far", far), ("shut", (Reason::HostAnswered, shut))]
            .into()
    };
    let node_itself = || by(WitnessKind::Node, "this node");
    let prober = || by(WitnessKind::Pod, "payments/prober-0");
    let source = || by(WitnessKind::Source, "169.254.1.1");
    let nobody_else = || of(listening("payments/deaf-0"), (Reason::NoWitness, none()), listening("payments/shut-0"));
    let expected = [
        ("", nobody_else()),
        ("{zone: high, node: true}", of(node_itself(), (Reason::NoWitness, none()), node_itself())),
        ("{zone: high, pods: {role: prober}}", of(prober(), (Reason::Blocked, prober()), prober())),
        ("{zone: high, pods: {role: absent}}", nobody_else()),
        ("{zone: high, source: 169.254.1.1}", of(source(), (Reason::Blocked, source()), source())),
    ];
    let targets = TARGETS.map(|(name, address)| (name, format!("endpoints: {address}")));
    let sweep = async |witnesses: &'static str| {
        let knobs = Knobs { targets: targets.to_vec(), witnesses, ..Knobs::default() };
        let agent = Agent::start(&node, &knobs).await;
        let sweeps = ["app=web", "app=job"].map(|identity| agent.sweep(identity));
        futures_util::future::join_all(sweeps).await
    };
    block_on(&node.host, || async {
        let all = expected.iter().map(|(witnesses, _)| sweep(witnesses));
        for (swept, (witnesses, expected)) in futures_util::future::join_all(all).await.iter().zip(&expected) {
            for swept in swept {
                assert_eq!(vouched(swept), *expected, "witnesses: {witnesses}");
            }
        }
        // The agent lives in the network of a pod: it is not the node.
        let own = node.lead("agent", "/proc/self/ns/net");
        node.tell(FakePod { netns: Some(own), ..FakePod::new("monitoring", "segprobe") });
        for swept in sweep("{zone: high, node: true}").await {
            assert_eq!(vouched(&swept), nobody_else(), "an agent in a pod's network");
        }
        // Nor where that network's path is not seen from here; but who has the host's network is the node.
        let lives_in = |own: FakePod| {
            node.runtime.change(|pods| pods.retain(|pod| pod.namespace != "monitoring"));
            node.tell(FakePod { ips: vec!["169.254.1.1".into()], ..own });
        };
        let agent = || FakePod::new("monitoring", "segprobe");
        lives_in(FakePod { netns: Some("/var/run/netns/absent".into()), ..agent() });
        for swept in sweep("{zone: high, node: true}").await {
            assert_eq!(vouched(&swept), nobody_else(), "an agent with a pod's address");
        }
        lives_in(FakePod { netns: None, host_network: true, ..agent() });
        for swept in sweep("{zone: high, node: true}").await {
            assert_eq!(vouched(&swept), expected[1].1, "an agent in the host's network");
        }
    });
    Ok(())
}

/// Listeners that were there before and after the attempts, or seem so, behind a policy that is silent or resets.
pub fn do_not_vouch() -> Result<(), Failed> {
    let node = Node::new()?;
    let _controls = node.controls()?;
    let web = node.pod(low("web-0", "web"), "10.244.1.10")?;
    let targets = [
        ("stays", "10.244.1.20", Reason::Blocked),
        ("restarts", "10.244.1.21", Reason::WitnessUnclear),
        ("stops", "10.244.1.22", Reason::WitnessUnclear),
        ("full", "10.244.1.23", Reason::WitnessUnclear),
        ("on-device", "10.244.1.24", Reason::WitnessUnclear),
        ("absent", "10.244.1.25", Reason::HostAnswered),
    ];
    let mut pods = Vec::new();
    for (name, address, _) in targets {
        pods.push(node.pod(high(name), address)?);
    }
    let [stays, restarts, stops, full, on_device, _] = pods.as_slice() else { panic!("{targets:?}") };
    let _stays = stays.listens(PORT);
    let ending = [restarts.listens(PORT), stops.listens(PORT)];
    let _full = Servers::start(&full.namespace, vec![(at("10.244.1.23", PORT), Temper::Full)], None);
    let _on_device = on_device.namespace.run(|| -> std::io::Result<Socket> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind_device(Some(b"eth0"))?;
        socket.bind(&at("0.0.0.0", PORT).into())?;
        socket.listen(16)?;
        Ok(socket)
    })?;
    node.policy(&[
        "ip daddr { 10.244.1.23, 10.244.1.24, 10.244.1.25 } tcp dport 5432 reject with tcp reset",
        "tcp dport 5432 drop",
    ])?;
    let knobs = Knobs {
        targets: targets.map(|(name, address, _)| (name, format!("endpoints: {address}"))).to_vec(),
        witnesses: "{zone: high, node: true}",
        ..Knobs::default()
    };
    block_on(&node.host, || async {
        let agent = Agent::start(&node, &knobs).await;
        let restart = async {
            // Silent for two seconds: the listeners were looked at before, and will be afterwards.
            let tries = |target: &str| web.namespace.is_connecting_to(at(target, PORT));
            agent::until("both are tried", || tries("10.244.1.21") && tries("10.244.1.22")).await;
            drop(ending);
            let netns = Netns::open(&restarts.path)?;
            until("it does not stop", || Listeners::of(&netns).is_ok_and(|found| found.ports().next().is_none()));
            Ok::<_, EnterError>(restarts.listens(PORT))
        };
        let (swept, restarted) = join(agent.sweep("app=web"), restart).await;
        drop(restarted?);
        for (name, _, expected) in targets {
            assert_eq!(swept.reason(name), expected, "{name}: {:#?}", swept.seen(name));
        }
        Ok(())
    })
}

pub fn misses_one_identity() -> Result<(), Failed> {
    let node = Node::new()?;
    let _controls = node.controls()?;
    let _web = node.pod(low("web-0", "web"), "10.244.1.10")?;
    let _job = node.pod(low("job-0", "job"), "10.244.1.11")?;
    let target = node.pod(high("ledger-0"), "10.244.1.20")?;
    let _listener = target.listens(PORT);
    node.policy(&[&format!("ip saddr 10.244.1.11 tcp dport 5432 {REJECT}")])?;
    let knobs = Knobs { targets: vec![("ledger", "endpoints: 10.244.1.20".into())], ..Knobs::default() };
    block_on(&node.host, || async {
        let agent = Agent::start(&node, &knobs).await;
        let web = agent.sweep("app=web").await;
        assert_eq!(web.reason("ledger"), Reason::Reached);
        assert_eq!(web.findings(), ["opened: reached, web/web-0 to 10.244.1.20:5432"]);
        let job = agent.sweep("app=job").await;
        assert_eq!((job.reason("ledger"), job.findings()), (Reason::Blocked, vec![]));
        assert_eq!(agent.served("app=web", "ledger", "endpoint"), Reason::Reached);
        assert_eq!(agent.served("app=job", "ledger", "endpoint"), Reason::Blocked);
    });
    Ok(())
}

/// One pod of an identity speaks in each sweep; the second of the three is not bound by the policy.
pub fn misses_one_pod() -> Result<(), Failed> {
    const WITHIN: usize = 3;
    let node = Node::new()?;
    let _controls = node.controls()?;
    let pods = [
        node.pod(low("web-0", "web"), "10.244.1.10")?,
        node.pod(low("web-1", "web"), "10.244.1.11")?,
        node.pod(low("web-2", "web"), "10.244.1.12")?,
    ];
    let target = node.pod(high("ledger-0"), "10.244.1.20")?;
    let _listener = target.listens(PORT);
    let knobs = Knobs {
        targets: vec![("ledger", "endpoints: 10.244.1.20".into())],
        pods: "per_second: 100000, turn_within: 3",
        ..Knobs::default()
    };
    let all_but_one = format!("ip saddr {{ 10.244.1.10, 10.244.1.12 }} tcp dport 5432 {REJECT}");
    let all = format!("ip saddr 10.244.1.0/28 tcp dport 5432 {REJECT}");
    const OPENED: &str = "opened: reached, web/web-1 to 10.244.1.20:5432";
    block_on(&node.host, || async {
        let mut agent = Agent::start(&node, &knobs).await;
        let served = |agent: &Agent| agent.served("app=web", "ledger", "endpoint");
        node.policy(&[&all_but_one])?;
        let mut found = Vec::new();
        for _ in 0..WITHIN {
            let swept = agent.sweep("app=web").await;
            let first = found.is_empty();
            found.extend(swept.findings().iter().map(ToString::to_string));
            if first && found.is_empty() {
                assert_eq!((swept.from("ledger").len(), swept.reason("ledger")), (1, Reason::Blocked));
            }
        }
        assert_eq!(found, [OPENED], "each has its turn within {WITHIN} sweeps");

        // From now on it speaks in each sweep, and the others take their turns beside it.
        let mut spoke = Vec::new();
        for _ in 0..2 * WITHIN {
            let swept = agent.sweep("app=web").await;
            let from = swept.from("ledger");
            assert!(from.contains(&"web/web-1") && from.len() <= 2, "{from:?}");
            spoke.extend(from.iter().map(ToString::to_string));
            assert_eq!((swept.findings(), swept.reason("ledger")), (vec![], Reason::Reached));
        }
        for other in ["web/web-0", "web/web-2"] {
            assert_eq!(spoke.iter().filter(|name| *name == other).count(), 2, "{spoke:?}");
        }

        // Only what that very pod sees counts for its end.
        node.policy(&[&all])?;
        for _ in 0..2 {
            let swept = agent.sweep("app=web").await;
            assert_eq!((swept.findings(), swept.reason("ledger")), (vec![], Reason::Blocked));
            assert_eq!(served(&agent), Reason::FindingOpen);
        }
        assert_eq!(agent.sweep("app=web").await.findings(), ["closed: resolved, web/web-1 to 10.244.1.20:5432"]);
        assert_eq!(served(&agent), Reason::Blocked);

        node.policy(&[&all_but_one])?;
        let mut found = Vec::new();
        for _ in 0..WITHIN {
            found.extend(agent.sweep("app=web").await.findings().iter().map(ToString::to_string));
        }
        assert_eq!(found, [OPENED]);
        assert_eq!(agent.plan.legs[0].stand.source.identity.name.as_ref(), "app=web");
        node.forget(&pods[1].id);
        let gone = agent.until_pods(3).await;
        assert_eq!(gone, ["closed: gone, web/web-1 to 10.244.1.20:5432"]);
        // What it saw last still stands until the next sweep.
        let swept = agent.sweep("app=web").await;
        assert_eq!((swept.findings(), swept.reason("ledger")), (vec![], Reason::Blocked));
        assert_eq!(served(&agent), Reason::Blocked);
        Ok(())
    })
}

/// A Service with two endpoints, of which the policy protects one.
pub fn misses_one_endpoint() -> Result<(), Failed> {
    let node = Node::new()?;
    let _controls = node.controls()?;
    let _web = node.pod(low("web-0", "web"), "10.244.1.10")?;
    let here = node.pod(high("ledger-0"), "10.244.1.20")?;
    let _here = here.listens(PORT);
    let _far = node.server("10.244.2.20", PORT)?;
    node.host.rules(
        Hook::NatPrerouting,
        &["ip daddr 10.96.0.40 tcp dport 5432 dnat ip to numgen inc mod 2 map { 0 : 10.244.1.20, 1 : 10.244.2.20 }"
            .into()],
    )?;
    let knobs = Knobs {
        targets: vec![("ledger", "cluster_ip: 10.96.0.40, endpoints: [10.244.1.20, 10.244.2.20]".into())],
        ..Knobs::default()
    };
    block_on(&node.host, || async {
        let agent = Agent::start(&node, &knobs).await;
        node.policy(&[&format!("ip daddr 10.244.1.20 tcp dport 5432 {REJECT}")])?;
        let mut of_service = Vec::new();
        for sweep in 0..4 {
            let swept = agent.sweep("app=web").await;
            assert_eq!(swept.reason("ledger"), Reason::Reached);
            let each: Vec<_> = swept.seen("ledger").iter().map(|(seen, reason)| (seen.address, *reason)).collect();
            let (protected, open) = (at("10.244.1.20", PORT), at("10.244.2.20", PORT));
            assert_eq!(each, [(Some(protected), Reason::Blocked), (Some(open), Reason::Reached)]);
            let opened = swept.findings().iter().filter(|f| f.ends_with("10.244.2.20:5432")).count();
            assert_eq!(opened, usize::from(sweep == 0), "{:?}", swept.told);
            of_service.push(swept.result("ledger", "service").reason);
        }
        of_service.sort_unstable();
        use Reason::{Reached, VirtualAddress};
        assert_eq!(of_service, [Reached, Reached, VirtualAddress, VirtualAddress], "every other connect");
        assert_eq!(agent.served("app=web", "ledger", "service").verdict(), Verdict::Fail);
        Ok(())
    })
}

/// What a pod reaches in itself is no way out of it.
pub fn itself_is_no_control() -> Result<(), Failed> {
    let node = Node::new()?;
    let (_elsewhere, _servers) = node.controls()?;
    let web = node.pod(low("web-0", "web"), "10.244.1.10")?;
    let _listener = web.listens(PORT);
    let _far = node.server("10.244.2.20", PORT)?;
    let knobs = Knobs { targets: vec![("ledger", "endpoints: 10.244.2.20".into())], ..Knobs::default() };
    node.policy(&[&format!("tcp dport 5432 {REJECT}")])?;
    block_on(&node.host, || async {
        for (control, expected) in [
            (format!("{CONTROL}:53"), Reason::NoWitness),
            ("10.244.1.10:5432".into(), Reason::VantageOffline),
            ("127.0.0.1:5432".into(), Reason::VantageOffline),
        ] {
            let yaml = knobs.yaml(&node).replace(&format!("{CONTROL}:53"), &control);
            let swept = Agent::of(&yaml).await.sweep("app=web").await;
            assert_eq!(swept.reason("ledger"), expected, "{control}");
        }
    });
    Ok(())
}

/// Where nothing is amiss, nobody waits for what the runtime tells next: on a cluster with IPv4 alone, too.
pub fn one_family_is_enough() -> Result<(), Failed> {
    let node = Node::new()?;
    let _controls = node.controls()?;
    let _web = node.pod(low("web-0", "web"), "10.244.1.10")?;
    let _far = node.server("10.244.2.20", PORT)?;
    node.policy(&[&format!("tcp dport 5432 {REJECT}")])?;
    let knobs = Knobs { targets: vec![("ledger", "endpoints: 10.244.2.20".into())], poll: "40s", ..Knobs::default() };
    block_on(&node.host, || async {
        let agent = Agent::start(&node, &knobs).await;
        let began = Instant::now();
        assert_eq!(agent.sweep("app=web").await.reason("ledger"), Reason::NoWitness);
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    });
    Ok(())
}
