//! Pods and targets that are new: what is open for a moment only is no finding, and what stays open is one.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use libtest_mimic::Failed;
use segprobe::{
    ledger::{SweepReport, Transition},
    model::Reason,
    plan::Part,
    sweep::schedule::{Observer, Schedule},
};
use tokio::sync::mpsc;

use super::{
    REJECT,
    agent::{Agent, Knobs, SOON, of_findings, until, words},
    node::{Node, high, low, newborn},
};
use crate::engine::{PORT, block_on};

/// The policy is enforced so long after the runtime told of a pod.
const LAG: Duration = Duration::from_millis(500);

/// What the clocks of the test and of the node may differ.
const SLACK: Duration = Duration::from_millis(50);

/// A sweep that the schedule has started and ended.
pub(super) struct Event {
    source: String,
    pub part: Part,
    pub started: Instant,
    pub ended: Instant,
    reason: Reason,
    transitions: Vec<Transition>,
}

impl Event {
    pub fn findings(&self) -> Vec<String> {
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

pub(super) struct Told(mpsc::UnboundedSender<Event>);

/// A schedule, and what it tells.
pub(super) struct Scheduled {
    pub schedule: Schedule,
    events: mpsc::UnboundedReceiver<Event>,
}

impl Scheduled {
    pub fn start(agent: &Agent) -> Self {
        let (tell, events) = mpsc::unbounded_channel();
        let mut schedule = Schedule::new(agent.sweeper.clone(), agent.ledger.clone(), Arc::new(Told(tell)));
        schedule.follow(&agent.plan.legs);
        Self { schedule, events }
    }

    pub async fn next(&mut self) -> Event {
        tokio::time::timeout(SOON, self.events.recv()).await.expect("a sweep").expect("it runs")
    }
}

impl Observer for Told {
    fn swept(&self, report: &SweepReport, transitions: &[Transition]) {
        // The test is over where nobody listens.
        let _ = self.0.send(Event {
            source: report.source.name.to_string(),
            part: report.part,
            started: report.ended - report.took,
            ended: report.ended,
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
    const WINDOW: Duration = Duration::from_secs(10);
    /// The schedule alone would begin at a random moment within three seconds: that all of so many come in time is no chance.
    const NEW: [&str; 5] = ["batch", "cron", "job", "mail", "report"];
    const IN_TIME: Duration = Duration::from_secs(1);
    let node = Node::new()?;
    let _controls = node.controls()?;
    let _old = node.pod(low("web-0", "web"), "10.244.1.10")?;
    let _far = node.server("10.244.2.20", PORT)?;
    let knobs = Knobs {
        targets: vec![("ledger", "endpoints: 10.244.2.20".into())],
        pods: "per_second: 100000, startup_window: 10s",
        ..Knobs::default()
    };
    let enforced_for = |addresses: &str| node.policy(&[&format!("ip saddr {{ {addresses} }} tcp dport 5432 {REJECT}")]);
    block_on(&node.host, || async {
        enforced_for("10.244.1.10")?;
        let mut agent = Agent::start(&node, &knobs).await;
        let mut scheduled = Scheduled::start(&agent);
        assert_eq!(scheduled.next().await.reason, Reason::NoWitness);

        // The second is open for a moment.
        let born = Instant::now();
        let _second = node.pod(newborn(low("web-1", "web")), "10.244.1.11")?;
        let followed = agent.until_pods(2).await;
        assert_eq!(followed, Vec::<String>::new());
        scheduled.schedule.follow(&agent.plan.legs);
        tokio::time::sleep(LAG).await;
        let enforced = Instant::now();
        enforced_for("10.244.1.10, 10.244.1.11")?;
        let event = scheduled.next().await;
        let seen = Instant::now();
        assert_eq!(event.findings(), ["startup: web/web-1 to 10.244.2.20:5432"]);
        assert_eq!(event.reason, Reason::NoWitness, "by what follows");
        let length = event.startup();
        assert!(length + SLACK >= enforced - born && length <= seen - born + SLACK, "{length:?}");

        // The third stays open.
        let born = Instant::now();
        let _third = node.pod(newborn(low("web-2", "web")), "10.244.1.12")?;
        agent.until_pods(3).await;
        scheduled.schedule.follow(&agent.plan.legs);
        let event = scheduled.next().await;
        assert!(born.elapsed() + SLACK >= WINDOW, "before the window was over: {:?}", born.elapsed());
        assert_eq!(event.findings(), ["opened: reached, web/web-2 to 10.244.2.20:5432"]);
        assert_eq!(event.reason, Reason::Reached);

        // Nor does an identity that is new wait for its turn.
        enforced_for("10.244.1.0/24")?;
        let mut more = Vec::new();
        for (app, last) in NEW.iter().zip(13..) {
            more.push(node.pod(newborn(low(&format!("{app}-0"), app)), &format!("10.244.1.{last}"))?);
        }
        agent.until_pods(3 + NEW.len()).await;
        let told = Instant::now();
        scheduled.schedule.follow(&agent.plan.legs);
        let mut sources = Vec::new();
        for _ in NEW {
            let event = scheduled.next().await;
            assert!(event.started < told + IN_TIME, "{} came late", event.source);
            sources.push(event.source);
        }
        sources.sort_unstable();
        assert_eq!(sources, NEW.map(|app| format!("app={app}")));
        scheduled.schedule.stop().await;
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
    let pods = [&fresh, &old, &future];
    let _listeners = pods.map(|pod| pod.listens(PORT));
    let target = |name, address: &str| (name, format!("endpoints: {address}"));
    let knobs = Knobs {
        targets: vec![target("fresh", "10.244.1.20"), target("old", "10.244.1.21"), target("future", "10.244.1.22")],
        pods: "per_second: 100000, startup_window: 30s",
        ..Knobs::default()
    };
    block_on(&node.host, || async {
        let agent = Agent::start(&node, &knobs).await;
        let enforced = async {
            until("each is reached", || pods.iter().all(|pod| pod.namespace.tcp_counter("PassiveOpens") > 0)).await;
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

/// One that comes while its identity is swept does not wait for the end of it.
pub fn beside_a_sweep() -> Result<(), Failed> {
    let node = Node::new()?;
    let _controls = node.controls()?;
    let old = node.pod(low("web-0", "web"), "10.244.1.10")?;
    node.policy(&[&format!("tcp dport 5432 {REJECT}")])?;
    let endpoints: Vec<String> = (1..=20).map(|last| format!("10.244.2.{last}")).collect();
    let knobs = Knobs {
        targets: vec![("ledger", format!("endpoints: [{}]", endpoints.join(", ")))],
        // A sweep takes more than ten seconds.
        pods: "per_second: 3",
        ..Knobs::default()
    };
    block_on(&node.host, || async {
        let mut agent = Agent::start(&node, &knobs).await;
        let mut scheduled = Scheduled::start(&agent);
        let before = old.namespace.tcp_counter("ActiveOpens");
        // A quarter of it: it must still run when the new pod is known, and end before the new pod's own sweep.
        until("a sweep is under way", || old.namespace.tcp_counter("ActiveOpens") >= before + 8).await;
        let _new = node.pod(newborn(low("web-1", "web")), "10.244.1.11")?;
        agent.until_pods(2).await;
        let told = Instant::now();
        scheduled.schedule.follow(&agent.plan.legs);
        let (due, new) = (scheduled.next().await, scheduled.next().await);
        assert!(due.started < told && told < due.ended, "its identity is being swept");
        assert!(told <= new.started && new.started < due.ended, "{:?} late", new.started - told);
        scheduled.schedule.stop().await;
        Ok(())
    })
}

/// One that ends while it is new was never seen blocked: what it reached is a finding.
pub fn and_ends() -> Result<(), Failed> {
    let node = Node::new()?;
    let _controls = node.controls()?;
    let job = node.pod(newborn(low("job-0", "job")), "10.244.1.10")?;
    let (far, _servers) = node.server("10.244.2.20", PORT)?;
    let knobs = Knobs {
        targets: vec![("ledger", "endpoints: 10.244.2.20".into())],
        pods: "per_second: 100000, startup_window: 10s",
        ..Knobs::default()
    };
    block_on(&node.host, || async {
        let agent = Agent::start(&node, &knobs).await;
        let ends = async {
            until("it has reached the target", || far.tcp_counter("PassiveOpens") > 0).await;
            node.cut(&job)?;
            node.forget(&job.id);
            Ok::<_, String>(())
        };
        let (swept, ended) = futures_util::future::join(agent.sweep("app=job"), ends).await;
        ended?;
        assert_eq!(swept.findings(), ["opened: reached, web/job-0 to 10.244.2.20:5432"]);
        Ok(())
    })
}

/// Where it is promised to be open, being open is no start-up.
pub fn where_it_is_promised() -> Result<(), Failed> {
    let node = Node::new()?;
    let _controls = node.controls()?;
    let _web = node.pod(newborn(low("web-0", "web")), "10.244.1.10")?;
    let fresh = node.pod(newborn(high("fresh-0")), "10.244.1.20")?;
    let _listener = fresh.listens(PORT);
    let knobs = Knobs {
        boundary: "interval: 60s\n  expect: open",
        targets: vec![("ledger", "endpoints: 10.244.1.20".into())],
        pods: "per_second: 100000, startup_window: 30s",
        ..Knobs::default()
    };
    block_on(&node.host, || async {
        let agent = Agent::of(&knobs.yaml(&node).replace("  dns: off\n", "")).await;
        let began = Instant::now();
        let closes = async {
            until("it is reached", || fresh.namespace.tcp_counter("PassiveOpens") > 0).await;
            node.policy(&[&format!("tcp dport 5432 {REJECT}")])
        };
        let (swept, closed) = futures_util::future::join(agent.sweep("app=web"), closes).await;
        closed?;
        assert_eq!(swept.reason("ledger"), Reason::Reachable);
        assert!(swept.seen("ledger")[0].0.startup.is_none());
        assert!(began.elapsed() < Duration::from_secs(15), "it waited for the window's end: {:?}", began.elapsed());
        Ok(())
    })
}
