//! An agent of a node without its command line: who is there, whose turn it is, what was found.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use segprobe::{
    config,
    inventory::{
        cri::Client,
        pods::{Pods, look, watch},
        stands::{NodePods, stands},
    },
    ledger::{CheckResult, Closed, ControlState, Evidence, Ledger, Transition},
    model::Reason,
    observation::AddressSeen,
    plan::{Leg, Plan, plan},
    sweep::{Sweeper, Waiters},
};

use super::node::{CONTROL, NOBODY, Node};

/// Nothing takes longer unless it hangs.
pub const SOON: Duration = Duration::from_secs(120);

/// Waits until a condition holds that the sweep under way brings about.
pub async fn until(what: &str, holds: impl Fn() -> bool) {
    let give_up = Instant::now() + SOON;
    while !holds() {
        assert!(Instant::now() < give_up, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// What varies in the configuration of an agent. All texts are YAML.
#[derive(Clone)]
pub struct Knobs {
    /// More keys of the boundary, one a line.
    pub boundary: &'static str,
    pub dns: &'static str,
    /// `name: what is in it` for each service of the high zone.
    pub targets: Vec<(&'static str, String)>,
    pub witnesses: &'static str,
    pub negative: bool,
    pub poll: &'static str,
    /// More keys of `pods`.
    pub pods: &'static str,
    /// More sections.
    pub more: &'static str,
}

impl Default for Knobs {
    fn default() -> Self {
        Self {
            boundary: "interval: 60s",
            dns: "off",
            targets: Vec::new(),
            witnesses: "",
            negative: false,
            poll: "200ms",
            pods: "per_second: 100000",
            more: "",
        }
    }
}

impl Knobs {
    pub fn yaml(&self, node: &Node) -> String {
        let Self { boundary, dns, targets, witnesses, negative, poll, pods, more } = self;
        let target = |(name, of): &(&str, String)| {
            format!("- {{zone: high, namespace: payments, service: {name}, ports: [5432], {of}}}\n")
        };
        let negative = if *negative { format!("{{tcp: {NOBODY}, ports: [5432]}}") } else { String::new() };
        format!(
            "zones: {{low: {{namespaces: [web]}}, high: {{namespaces: [payments]}}}}\n\
             vantage: {{mode: pods}}\n\
             boundaries:\n- name: lab\n  from: low\n  to: high\n  dns: {dns}\n  tcp: {{timeout: 2s, attempts: 1}}\n  {boundary}\n\
             targets:\n{}\
             witnesses: [{witnesses}]\n\
             controls: {{positive: [{{tcp: '{CONTROL}:53'}}], negative: [{negative}]}}\n\
             pods: {{socket: {}, poll: {poll}, {pods}}}\n\
             pace: {{in_flight: 512, per_second: 10000, spacing: 10ms}}\n{more}",
            targets.iter().map(target).collect::<String>(),
            node.runtime.socket().display(),
        )
    }
}

pub struct Agent {
    pub sweeper: Arc<Sweeper>,
    pub ledger: Arc<Ledger>,
    /// Who asks now.
    pub plan: Plan,
    pub pods: Pods,
    waiters: Waiters,
}

impl Agent {
    /// To be called in a runtime on the node.
    pub async fn start(node: &Node, knobs: &Knobs) -> Self {
        Self::of(&knobs.yaml(node)).await
    }

    pub async fn of(yaml: &str) -> Self {
        let config = config::parse(Path::new("lab.yaml"), yaml).unwrap_or_else(|e| panic!("{e}\n{yaml}"));
        let config = Arc::new(config);
        let of_pods = config.pods.clone().expect("pods are looked at");
        let within = of_pods.turn_within;
        let mut client = Client::new(&of_pods.socket);
        let (known, pods) = tokio::sync::watch::channel(NodePods::default());
        // That it does not answer is what a test may be about.
        let _ = look(&mut client, &of_pods, &known).await;
        tokio::spawn(watch(client, of_pods, known));
        let before = plan(&config, &[]);
        let sweeper = Arc::new(Sweeper::new(config, Arc::new(before), Some(pods.clone()), true));
        let plan = plan(&sweeper.config, &[]);
        let waiters = Waiters::new(within);
        let mut agent = Self { sweeper, ledger: Arc::default(), plan, pods, waiters };
        agent.follow();
        agent
    }

    /// Sweeps from who is there now. Gives what it changed, in words.
    pub fn follow(&mut self) -> Vec<String> {
        let node = self.pods.borrow_and_update().clone();
        let config = &self.sweeper.config;
        self.plan = self.plan.with_stands(config, &stands(config, &node));
        self.ledger.follow(&self.plan, &config.hash, Instant::now()).iter().map(words).collect()
    }

    /// Waits until the runtime has told this, and follows.
    pub async fn until(&mut self, what: &str, told: impl Fn(&NodePods) -> bool) -> Vec<String> {
        let waits = tokio::time::timeout(SOON, self.pods.wait_for(|node| told(node))).await;
        drop(waits.unwrap_or_else(|_| panic!("waited in vain until {what}")).expect("it is watched"));
        self.follow()
    }

    /// Waits until the runtime tells of so many pods, and follows.
    pub async fn until_pods(&mut self, count: usize) -> Vec<String> {
        self.until("the pods have changed", |node| node.sandboxes.len() == count).await
    }

    /// The names of all who ask, in order.
    pub fn identities(&self) -> Vec<&str> {
        self.plan.legs.iter().map(|leg| &*leg.stand.source.identity.name).collect()
    }

    pub fn leg(&self, identity: &str) -> &Arc<Leg> {
        let found = self.plan.legs.iter().find(|leg| &*leg.stand.source.identity.name == identity);
        found.unwrap_or_else(|| panic!("no {identity} in {:?}", self.identities()))
    }

    /// One sweep from the pods whose turn it is.
    pub async fn sweep(&self, identity: &str) -> Swept {
        self.sweep_leg(self.leg(identity)).await
    }

    /// All its parts at the same time.
    pub async fn sweep_leg(&self, leg: &Leg) -> Swept {
        let carried = self.ledger.carried(leg);
        let sweeps = leg.parts().map(async |part| {
            let turn = self.waiters.next(&leg.asked(part), &leg.stand.speakers);
            self.sweeper.sweep(leg, part, &turn, &carried).await
        });
        let reports = join_all(sweeps).await;
        let told = reports.iter().flat_map(|report| self.ledger.record(report)).map(|t| words(&t)).collect();
        let (results, controls): (Vec<_>, Vec<_>) = reports.into_iter().map(|r| (r.results, r.controls)).unzip();
        Swept { results: results.concat(), controls: controls.concat(), told }
    }

    /// What is served of an identity's check of a target now.
    pub fn served(&self, identity: &str, target: &str, via: &str) -> Reason {
        let snapshot = self.ledger.snapshot();
        let is_it = |id: &segprobe::model::CheckId| {
            *id.source.name == *identity && is_of(&id.target, target) && id.via_str() == via
        };
        let found = snapshot.checks.iter().find(|check| is_it(&check.id));
        found.unwrap_or_else(|| panic!("no check of {target} via {via} from {identity}")).reason_at(Instant::now())
    }
}

fn is_of(label: &str, target: &str) -> bool {
    label.split(':').next() == Some(target)
}

/// What one sweep gave.
pub struct Swept {
    pub results: Vec<Arc<CheckResult>>,
    pub controls: Vec<ControlState>,
    /// What it changed, in words.
    pub told: Vec<String>,
}

impl Swept {
    pub fn result(&self, target: &str, via: &str) -> &CheckResult {
        let is_it = |r: &&Arc<CheckResult>| is_of(&r.id.target, target) && r.id.via_str() == via;
        self.results.iter().find(is_it).unwrap_or_else(|| panic!("no {target} via {via} in {:#?}", self.results))
    }

    pub fn reason(&self, target: &str) -> Reason {
        self.result(target, "endpoint").reason
    }

    /// What was seen of a target's endpoints.
    pub fn seen(&self, target: &str) -> &[(AddressSeen, Reason)] {
        match &self.result(target, "endpoint").evidence {
            Evidence::Reach(seen) => seen,
            other => panic!("{other:?}"),
        }
    }

    /// The pods that spoke of a target's endpoints, each once.
    pub fn from(&self, target: &str) -> Vec<&str> {
        let mut names: Vec<&str> =
            self.seen(target).iter().filter_map(|(s, _)| Some(&*s.from.as_ref()?.name)).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// What it told of findings and start-ups.
    pub fn findings(&self) -> Vec<&str> {
        of_findings(&self.told)
    }
}

pub fn of_findings(told: &[String]) -> Vec<&str> {
    told.iter().map(String::as_str).filter(|words| !words.starts_with("changed")).collect()
}

/// A transition, without what differs from run to run.
pub fn words(transition: &Transition) -> String {
    let pair = |from: &Option<Arc<segprobe::model::PodName>>, address: &Option<std::net::SocketAddr>| {
        let (from, address) = (from.as_ref().map_or("-", |f| &*f.name), address.map(|a| a.to_string()));
        format!("{from} to {}", address.as_deref().unwrap_or("-"))
    };
    match transition {
        Transition::Opened { from, address, reason, .. } => format!("opened: {reason}, {}", pair(from, address)),
        Transition::Closed { from, address, closed, .. } => {
            let how = if *closed == Closed::Gone { "gone" } else { "resolved" };
            format!("closed: {how}, {}", pair(from, address))
        }
        Transition::Startup { from, address, .. } => format!("startup: {}", pair(from, address)),
        Transition::Changed { id, from, to } => {
            format!("changed: {} from {} to {to}", id.source.name, from.map_or("nothing", Reason::as_str))
        }
    }
}
