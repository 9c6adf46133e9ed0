//! Pods that die while they are probed from, and pods that cannot be probed from.

use std::{fs, os::unix::fs::MetadataExt, path::Path, time::Duration};

use futures_util::future::{join, join_all};
use libtest_mimic::Failed;
use segprobe::{model::Reason, vantage::NetnsId};

use super::{
    agent::{Agent, Knobs, until},
    node::{Node, at, low},
    startup::Scheduled,
};
use crate::{
    engine::{PORT, block_on},
    fake_cri::FakePod,
    network::Namespace,
};

/// Dies in each way that there is: each ends in `vantage-gone`. What was open before stays a breach.
pub fn in_mid_sweep() -> Result<(), Failed> {
    let node = Node::new()?;
    let _controls = node.controls()?;
    let names = ["unmounted", "replaced", "cut", "not-ready", "forgotten", "survivor"];
    let mut pods = Vec::new();
    for (name, last) in names.iter().zip(10..) {
        pods.push(node.pod(low(&format!("{name}-0"), name), &format!("10.244.1.{last}"))?);
    }
    let _silent = node.server("10.244.2.20", PORT)?;
    let (open, _servers) = node.server("10.244.2.21", PORT)?;
    node.policy(&["ip daddr 10.244.2.20 tcp dport 5432 drop"])?;
    let knobs = Knobs {
        targets: vec![("silent", "endpoints: 10.244.2.20".into()), ("open", "endpoints: 10.244.2.21".into())],
        // The list that is there at the end of the sweep is not the one that knows of the last of them.
        poll: "3s",
        ..Knobs::default()
    };
    let another = Namespace::new()?;
    block_on(&node.host, || async {
        let agent = Agent::of(&knobs.yaml(&node).replace("timeout: 2s", "timeout: 8s")).await;
        let dies = async {
            // The target is silent for eight seconds: that is the middle of the sweep.
            until("each pod has reached the one target and tries the other", || {
                open.tcp_counter("PassiveOpens") as usize >= pods.len()
                    && pods.iter().all(|pod| pod.namespace.is_connecting_to(at("10.244.2.20", PORT)))
            })
            .await;
            let [unmounted, replaced, cut, not_ready, forgotten, _] = pods.as_slice() else { panic!("{names:?}") };
            fs::remove_file(&unmounted.path)?;
            node.lead(&replaced.id, &another.path());
            // As the runtime does it: first the network, a moment later the sandbox.
            node.cut(cut)?;
            node.change(&not_ready.id, |pod| pod.ready = false);
            node.forget(&forgotten.id);
            tokio::time::sleep(Duration::from_secs(5)).await;
            node.forget(&cut.id);
            Ok::<_, Failed>(())
        };
        let identities = names.map(|name| format!("app={name}"));
        let sweeps = join_all(identities.iter().map(|identity| agent.sweep(identity)));
        let (swept, died) = join(sweeps, dies).await;
        died?;
        for (name, swept) in names.iter().zip(&swept) {
            let expected = if *name == "survivor" { Reason::NoWitness } else { Reason::VantageGone };
            assert_eq!(swept.reason("silent"), expected, "{name}: {:#?}", swept.results);
            assert_eq!(swept.reason("open"), Reason::Reached, "{name}");
        }
        for pod in &pods {
            assert_eq!(held(&pod.namespace), 1, "only the test itself still holds the namespace of {}", pod.id);
        }
        // One that was gone before it began.
        let swept = agent.sweep("app=unmounted").await;
        assert_eq!(swept.reason("silent"), Reason::VantageGone);
        assert_eq!(swept.from("silent"), ["web/unmounted-0"]);
        Ok(())
    })
}

/// So many descriptors of this process lead to a namespace.
fn held(namespace: &Namespace) -> usize {
    let id = |path: &Path| fs::metadata(path).map(|file| NetnsId { device: file.dev(), inode: file.ino() });
    let own = id(Path::new(&namespace.path())).expect("it is open");
    let descriptors = fs::read_dir("/proc/self/fd").expect("the own descriptors").flatten();
    descriptors.filter(|entry| id(&entry.path()).is_ok_and(|other| other == own)).count()
}

/// Who cannot be probed from is never left out, and who is none of the zone's workloads is nobody.
pub fn unusable() -> Result<(), Failed> {
    let node = Node::new()?;
    let file = node.lead("ordinary", "/etc/hostname");
    let other_kind = node.lead("other-kind", "/proc/self/ns/mnt");
    let absent = file.with_file_name("absent");
    let usable = node.attach(&["10.244.1.10"])?;
    let usable = node.lead("usable", &usable.0.path());
    let told = |name: &str, netns| FakePod { netns: Some(netns), ..low(name, name) };
    for pod in [
        FakePod { runtime_type: "io.containerd.kata.v2".into(), ..told("kata", usable.clone()) },
        FakePod { runtime_handler: "gvisor".into(), ..told("gvisor", usable.clone()) },
        told("ordinary", file),
        told("other-kind", other_kind),
        told("absent", absent),
        FakePod { netns: None, ..told("untold", usable.clone()) },
        FakePod { host_network: true, netns: None, ..told("host", usable.clone()) },
        FakePod { ready: false, ..told("not-ready", usable.clone()) },
        FakePod { running: false, ..told("not-running", usable.clone()) },
        FakePod { namespace: "monitoring".into(), ..told("elsewhere", usable) },
    ] {
        node.tell(pod);
    }
    let knobs = Knobs {
        dns: "{service-lookup: judge}",
        targets: vec![("ledger", "endpoints: 10.244.2.20".into())],
        ..Knobs::default()
    };
    block_on(&node.host, || async {
        let agent = Agent::start(&node, &knobs).await;
        let expected = [
            ("app=absent", Reason::VantageGone),
            ("app=gvisor", Reason::VantageUnsupported),
            ("app=kata", Reason::VantageUnsupported),
            ("app=ordinary", Reason::VantageClosed),
            ("app=other-kind", Reason::VantageClosed),
            ("app=untold", Reason::VantageClosed),
        ];
        assert_eq!(agent.identities(), expected.map(|(identity, _)| identity));
        for (identity, reason) in expected {
            let swept = agent.sweep(identity).await;
            let asked = agent.leg(identity).checks().count();
            assert_eq!(swept.results.len(), asked, "{identity}: every check has its word");
            assert!(asked > 1, "DNS is asked as well");
            for result in &swept.results {
                assert_eq!(result.reason, reason, "{identity}: {}", result.id);
            }
            let name = format!("web/{}", identity.trim_start_matches("app="));
            assert_eq!(swept.from("ledger"), [name]);
        }
        assert_eq!(agent.pods.borrow().sandboxes.len(), 10);
    });
    Ok(())
}

/// The last pod of an identity ends in mid-sweep: the identity is gone, and what it reached is told.
pub fn the_last() -> Result<(), Failed> {
    let node = Node::new()?;
    let _controls = node.controls()?;
    let job = node.pod(low("job-0", "job"), "10.244.1.10")?;
    let (open, _servers) = node.server("10.244.2.20", PORT)?;
    let _silent = node.server("10.244.2.21", PORT)?;
    node.policy(&["ip daddr 10.244.2.21 tcp dport 5432 drop"])?;
    let knobs = Knobs {
        boundary: "interval: 7s",
        targets: vec![("ledger", "endpoints: [10.244.2.20, 10.244.2.21]".into())],
        ..Knobs::default()
    };
    block_on(&node.host, || async {
        let mut agent = Agent::start(&node, &knobs).await;
        let mut scheduled = Scheduled::start(&agent);
        until("one target is reached and the other is tried", || {
            open.tcp_counter("PassiveOpens") > 0 && job.namespace.is_connecting_to(at("10.244.2.21", PORT))
        })
        .await;
        node.forget(&job.id);
        agent.until_pods(0).await;
        scheduled.schedule.follow(&agent.plan.legs);
        let told = scheduled.next().await.findings();
        assert_eq!(
            told,
            ["opened: reached, web/job-0 to 10.244.2.20:5432", "closed: gone, web/job-0 to 10.244.2.20:5432"]
        );
        let snapshot = agent.ledger.snapshot();
        assert_eq!((snapshot.checks.len(), snapshot.findings.values().map(|count| count.total).sum::<u64>()), (0, 1));
        scheduled.schedule.stop().await;
        Ok(())
    })
}

/// A witness that ended vouches for nobody, and denies nothing.
pub fn of_the_witness() -> Result<(), Failed> {
    let node = Node::new()?;
    let _controls = node.controls()?;
    let _web = node.pod(low("web-0", "web"), "10.244.1.10")?;
    let prober = FakePod { labels: [("role".into(), "prober".into())].into(), ..FakePod::new("payments", "prober-0") };
    let prober = node.pod(prober, "10.244.1.30")?;
    let _far = node.server("10.244.2.20", PORT)?;
    node.policy(&["ip saddr 10.244.1.10 tcp dport 5432 drop"])?;
    let knobs = Knobs {
        targets: vec![("ledger", "endpoints: 10.244.2.20".into())],
        witnesses: "{zone: high, pods: {role: prober}}",
        ..Knobs::default()
    };
    block_on(&node.host, || async {
        let agent = Agent::start(&node, &knobs).await;
        assert_eq!(agent.sweep("app=web").await.reason("ledger"), Reason::Blocked);
        // Its network is taken down before the sweep begins, and the runtime tells of its end a moment later.
        node.policy(&["ip saddr { 10.244.1.10, 10.244.1.30 } tcp dport 5432 drop"])?;
        let ends = async {
            let tries = || prober.namespace.is_connecting_to(at("10.244.2.20", PORT));
            until("the witness tries the target", tries).await;
            node.forget(&prober.id);
        };
        let (swept, ()) = join(agent.sweep("app=web"), ends).await;
        assert_eq!(swept.reason("ledger"), Reason::NoWitness, "{:#?}", swept.results);
        Ok(())
    })
}
