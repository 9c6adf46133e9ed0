//! DNS from pods: each asks its own server, from where it is.

use std::time::Duration;

use libtest_mimic::Failed;
use segprobe::{
    ledger::Evidence,
    model::{CheckKind, Reason},
    plan::Part,
};

use super::{
    REJECT,
    agent::{Agent, Knobs},
    node::{CONTROL, Node, at, low},
    startup::Scheduled,
};
use crate::{
    cluster_dns::{ClusterDns, Defences, Flavour, Inventory, Upstream},
    engine::{PORT, block_on},
    fake_cri::FakePod,
};

/// The server that only one pod may ask; it tells everything.
const LEAKY: &str = "10.96.0.11";

const KINDS: [CheckKind; 3] = [CheckKind::SrvWildcard, CheckKind::ServiceLookup, CheckKind::ReverseSweep];

pub fn from_pods() -> Result<(), Failed> {
    let node = Node::new()?;
    let (clean, _) = node.attach(&[CONTROL])?;
    let (leaky, _) = node.attach(&[LEAKY])?;
    let start = |flavour, defences, address: &str| {
        ClusterDns::new(flavour, Inventory::recorded()).with(defences).start_at(at(address, 53))
    };
    let namespaces = Some(["default", "kube-system", "low"].map(String::from).into());
    let open = Defences { upstream: Upstream::NxDomain, ..Defences::default() };
    let _clean = clean.run(|| start(Flavour::CoreDns114, Defences { namespaces, ..open.clone() }, CONTROL));
    let _leaky = leaky.run(|| start(Flavour::CoreDns18, open, LEAKY));
    let asks = |name: &str, server: &str| FakePod {
        namespace: "low".into(),
        dns_servers: vec![server.into()],
        ..low(&format!("{name}-0"), name)
    };
    let _web = node.pod(asks("web", CONTROL), "10.244.1.10")?;
    let _job = node.pod(asks("job", LEAKY), "10.244.1.11")?;
    let _cron = node.pod(asks("cron", LEAKY), "10.244.1.12")?;
    node.policy(&[&format!(
        "ip saddr != 10.244.1.11 ip daddr {LEAKY} meta l4proto {{ tcp, udp }} th dport 53 {REJECT}"
    )])?;
    // The cluster that was recorded has other names and addresses than the lab's.
    let yaml = Knobs {
        boundary: "interval: 12s",
        dns: "{srv-wildcard: judge, service-lookup: judge, reverse-sweep: judge}",
        targets: vec![("web", "cluster_ip: 10.96.201.90, endpoints: [10.244.1.5]".into())],
        more: "dns: {timeout: 200ms, ask_again: 100ms, queries_per_second: 2000}\n",
        ..Knobs::default()
    }
    .yaml(&node)
    .replace("namespaces: [web]", "namespaces: [low]")
    .replace("namespaces: [payments]", "namespaces: [high]")
    .replace("namespace: payments", "namespace: high");
    block_on(&node.host, || async {
        let agent = Agent::of(&yaml).await;
        let expected = [
            ("web", CONTROL, Reason::NothingDisclosed),
            ("job", LEAKY, Reason::Disclosed),
            ("cron", LEAKY, Reason::ControlFailed),
        ];
        for (name, asked, reason) in expected {
            let swept = agent.sweep(&format!("app={name}")).await;
            for kind in KINDS {
                let result = swept.results.iter().find(|r| r.id.kind == kind).expect("every technique");
                assert_eq!((result.reason, &*result.id.target), (reason, "system"), "{name}: {kind}");
                let Evidence::Dns(dns) = &result.evidence else { panic!("{result:?}") };
                let from = dns.from.as_ref().map(|pod| &*pod.name);
                assert_eq!((from, dns.server), (Some(&*format!("low/{name}-0")), at(asked, 53)));
            }
        }
    });
    Ok(())
}

/// One pod of an identity asks in each sweep, each in its turn; one that cannot leaves the lists as they are.
pub fn in_turns() -> Result<(), Failed> {
    let node = Node::new()?;
    let (server, _) = node.attach(&[CONTROL])?;
    let _server = server.run(|| {
        ClusterDns::new(Flavour::CoreDns114, Inventory::recorded()).with(Defences::default()).start_at(at(CONTROL, 53))
    });
    let web = |name: &str| FakePod { dns_servers: vec![CONTROL.into()], ..low(name, "web") };
    let _pods = [
        node.pod(web("web-0"), "10.244.1.10")?,
        node.pod(web("web-1"), "10.244.1.11")?,
        node.pod(web("web-2"), "10.244.1.12")?,
    ];
    let no_namespace = node.lead("ordinary", "/etc/hostname");
    node.tell(FakePod { netns: Some(no_namespace), ..web("web-3") });
    let knobs = Knobs {
        boundary: "interval: 12s",
        dns: "{srv-wildcard: judge}",
        // All of them have their turn in each sweep over TCP.
        pods: "per_second: 100000, turn_within: 1",
        more: "dns: {timeout: 200ms, ask_again: 100ms, queries_per_second: 2000}\n",
        ..Knobs::default()
    };
    block_on(&node.host, || async {
        let agent = Agent::start(&node, &knobs).await;
        let mut asked = Vec::new();
        for _ in 0..8 {
            let swept = agent.sweep("app=web").await;
            let result = swept.results.iter().find(|r| r.id.kind == CheckKind::SrvWildcard).expect("it is asked");
            let Evidence::Dns(dns) = &result.evidence else { panic!("{result:?}") };
            let from = dns.from.as_ref().expect("a pod asks").name.to_string();
            assert_eq!(result.reason == Reason::VantageClosed, from == "web/web-3", "{from}: {}", result.reason);
            assert!(asked.is_empty() || !result.lists().is_empty(), "what was asked is forgotten");
            asked.push(from);
        }
        for round in asked.chunks_mut(4) {
            round.sort_unstable();
            assert_eq!(round, ["web/web-0", "web/web-1", "web/web-2", "web/web-3"]);
        }
        Ok(())
    })
}

/// Over TCP all is known while DNS is still asked, at the same pod's pace.
pub fn holds_nothing_up() -> Result<(), Failed> {
    let node = Node::new()?;
    let (server, _) = node.attach(&[CONTROL])?;
    let _server = server.run(|| {
        ClusterDns::new(Flavour::CoreDns114, Inventory::recorded()).with(Defences::default()).start_at(at(CONTROL, 53))
    });
    let _web = node.pod(FakePod { dns_servers: vec![CONTROL.into()], ..low("web-0", "web") }, "10.244.1.10")?;
    let _far = node.server("10.244.2.20", PORT)?;
    let knobs = Knobs {
        boundary: "interval: 30s",
        dns: "{srv-wildcard: judge, service-lookup: judge}",
        targets: vec![("ledger", "endpoints: 10.244.2.20".into())],
        pods: "per_second: 5",
        ..Knobs::default()
    };
    block_on(&node.host, || async {
        let agent = Agent::start(&node, &knobs).await;
        let mut scheduled = Scheduled::start(&agent);
        let (first, second) = (scheduled.next().await, scheduled.next().await);
        assert_eq!((first.part, second.part), (Part::Reach, Part::Dns));
        assert_eq!(first.findings(), ["opened: reached, web/web-0 to 10.244.2.20:5432"]);
        let earlier = second.ended - first.ended;
        assert!(earlier > Duration::from_secs(5), "only {earlier:?} earlier");
        scheduled.schedule.stop().await;
        Ok(())
    })
}
