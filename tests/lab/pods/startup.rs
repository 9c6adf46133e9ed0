//! Pods and targets that are new: what is open for a moment only is no finding, and what stays open is one.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use libtest_mimic::Failed;
use segprobe::{
    ledger::{SweepReport, Transition},
    model::Reason,
    sweep::schedule::{Observer, Schedule},
};
use tokio::sync::mpsc;

use super::{
    REJECT,
    agent::{Agent, Knobs, SOON, of_findings, words},
    node::{Node, high, low, newborn},
};
use crate::engine::{PORT, block_on};

/// The policy is enforced so long after the runtime told of a pod.
const LAG: Duration = Duration::from_millis(500);

/// What the clocks of the test and of the node may differ.
const SLACK: Duration = Duration::from_millis(50);

/// A sweep that the schedule has started and ended.
struct Event {
    source: String,
    started: Instant,
    reason: Reason,
    transitions: Vec<Transition>,
}

impl Event {
    fn findings(&self) -> Vec<String> {
        let told: Vec<String> = self.transitions.iter().map(words).collect();
        of_findings(&told).into_iter().map(Into::into).collect()
    }

    fn startup(&self) -> Duration {
        let length = |t: &Transition| match t {
            Transition::Startup { length, .. } => Some(*length),
            _ => None,
        };
        self.transitions.iter().find_map(length).expect("a start-up")
    }
}

struct Told(mpsc::UnboundedSender<Event>);

impl Observer for Told {
    fn swept(&self, report: &SweepReport, transitions: &[Transition]) {
        // The test is over where nobody listens.
        let _ = self.0.send(Event {
            source: report.source.name.to_string(),
            started: report.ended - report.took,
            reason: report.results[0].reason,
            transitions: transitions.to_vec(),
        });
    }

    fn overran(&self, boundary: &str, times: u64) {
        eprintln!("{boundary}: {times} sweeps were skipped");
    }
}

/// New pods of an identity that is swept once a minute, and new identities.
pub fn of_the_vantage() -> Result<(), Failed> {
    const WINDOW: Duration = Duration::from_secs(4);
    let node = Node::new()?;
    let _controls = node.controls()?;
    let _old = node.pod(low("web-0", "web"), "10.244.1.10")?;
    let _far = node.server("10.244.2.20", PORT)?;
    let knobs = Knobs {
        targets: vec![("ledger", "endpoints: 10.244.2.20".into())],
        pods: "per_second: 100000, startup_window: 4s",
        ..Knobs::default()
    };
    let enforced_for = |addresses: &str| node.policy(&[&format!("ip saddr {{ {addresses} }} tcp dport 5432 {REJECT}")]);
    block_on(&node.host, || async {
        enforced_for("10.244.1.10")?;
        let mut agent = Agent::start(&node, &knobs).await;
        let (tell, mut events) = mpsc::unbounded_channel();
        let mut next = async || tokio::time::timeout(SOON, events.recv()).await.expect("a sweep").expect("it runs");
        let mut schedule = Schedule::new(agent.sweeper.clone(), agent.ledger.clone(), Arc::new(Told(tell)));
        schedule.follow(&agent.plan.legs);
        assert_eq!(next().await.reason, Reason::NoWitness);

        // The second is open for a moment.
        let born = Instant::now();
        let _second = node.pod(newborn(low("web-1", "web")), "10.244.1.11")?;
        let followed = agent.until_pods(2).await;
        assert_eq!(followed, Vec::<String>::new());
        schedule.follow(&agent.plan.legs);
        tokio::time::sleep(LAG).await;
        let enforced = Instant::now();
        enforced_for("10.244.1.10, 10.244.1.11")?;
        let event = next().await;
        let seen = Instant::now();
        assert_eq!(event.findings(), ["startup: web/web-1 to 10.244.2.20:5432"]);
        assert_eq!(event.reason, Reason::NoWitness, "by what follows");
        let length = event.startup();
        assert!(length + SLACK >= enforced - born && length <= seen - born + SLACK, "{length:?}");

        // The third stays open.
        let born = Instant::now();
        let _third = node.pod(newborn(low("web-2", "web")), "10.244.1.12")?;
        agent.until_pods(3).await;
        schedule.follow(&agent.plan.legs);
        let event = next().await;
        assert!(born.elapsed() + SLACK >= WINDOW, "before the window was over: {:?}", born.elapsed());
        assert_eq!(event.findings(), ["opened: reached, web/web-2 to 10.244.2.20:5432"]);
        assert_eq!(event.reason, Reason::Reached);

        // Nor does an identity that is new wait for its turn: the schedule would be up to 3 s late.
        enforced_for("10.244.1.0/24")?;
        let _fourth = node.pod(newborn(low("job-0", "job")), "10.244.1.13")?;
        let _fifth = node.pod(newborn(low("cron-0", "cron")), "10.244.1.14")?;
        agent.until_pods(5).await;
        let told = Instant::now();
        schedule.follow(&agent.plan.legs);
        let mut sources = Vec::new();
        for event in [next().await, next().await] {
            assert!(event.started < told + LAG / 2, "{} came late", event.source);
            sources.push(event.source);
        }
        sources.sort_unstable();
        assert_eq!(sources, ["app=cron", "app=job"]);
        schedule.stop().await;
        Ok(())
    })
}

/// Its own endpoint has a moment's grace, and no other.
pub fn of_the_target() -> Result<(), Failed> {
    let node = Node::new()?;
    let _controls = node.controls()?;
    let _web = node.pod(low("web-0", "web"), "10.244.1.10")?;
    let old = node.pod(high("old-0"), "10.244.1.21")?;
    let future = newborn(high("future-0"));
    let future = crate::fake_cri::FakePod { created: future.created + 3_600_000_000_000, ..future };
    let future = node.pod(future, "10.244.1.22")?;
    let fresh = node.pod(newborn(high("fresh-0")), "10.244.1.20")?;
    let _listeners = [&fresh, &old, &future].map(|pod| pod.listens(PORT));
    let target = |name, address: &str| (name, format!("endpoints: {address}"));
    let knobs = Knobs {
        targets: vec![target("fresh", "10.244.1.20"), target("old", "10.244.1.21"), target("future", "10.244.1.22")],
        pods: "per_second: 100000, startup_window: 30s",
        ..Knobs::default()
    };
    block_on(&node.host, || async {
        let agent = Agent::start(&node, &knobs).await;
        let enforced = async {
            tokio::time::sleep(LAG).await;
            node.policy(&[&format!("tcp dport 5432 {REJECT}")])
        };
        let (swept, enforced) = futures_util::future::join(agent.sweep("app=web"), enforced).await;
        enforced?;
        assert_eq!(
            ["fresh", "old", "future"].map(|t| swept.reason(t)),
            [Reason::Blocked, Reason::Reached, Reason::Reached]
        );
        let startup = swept.seen("fresh")[0].0.startup.expect("it was open at first");
        assert!(startup.get() + 50 >= LAG.as_millis().try_into()?, "{startup} ms");
        assert!(["old", "future"].iter().all(|t| swept.seen(t)[0].0.startup.is_none()));
        let mut findings = swept.findings();
        findings.sort_unstable();
        assert_eq!(
            findings,
            [
                "opened: reached, web/web-0 to 10.244.1.21:5432",
                "opened: reached, web/web-0 to 10.244.1.22:5432",
                "startup: web/web-0 to 10.244.1.20:5432",
            ]
        );
        assert_eq!(agent.sweep("app=web").await.reason("fresh"), Reason::Blocked);
        Ok(())
    })
}
