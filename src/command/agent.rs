//! `segprobe agent`: sweeps for ever, serves what it knows, reloads, and ends in good order.

use std::{
    collections::BTreeMap,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::{
    Failure, Loaded, load_plan, load_web, most_in_flight,
    node::{Node, can_enter, least_privilege, speakers, who_asks},
    run_info, runtime,
};
use crate::{
    cli::AgentArgs,
    config::{Config, Heartbeat, WitnessWho},
    export::{
        Run,
        access::{Access, may_start},
        http::{self, Current, ReloadRequest, Site},
        log,
        metrics::Metrics,
    },
    inventory::{
        pods::Pods,
        stands::{NodePods, zone_of},
    },
    ledger::{Ledger, NodeView, SweepReport, Transition},
    model::VantageMode,
    plan::NotTested,
    sweep::{
        Sweeper, is_pods_own,
        schedule::{Observer, Schedule},
    },
    vantage::raise_descriptor_limit,
    web::{Web, listener},
};

/// Changed files are noticed within this time.
const WATCH: Duration = Duration::from_secs(5);
/// Why a reload was tried: the files were looked at.
const WATCHED: &str = "changed file";
/// Why a reload was tried: somebody asked for it over HTTP.
const REQUESTED: &str = "request";
/// Running sweeps and open requests get this long at the end.
const GRACE: Duration = Duration::from_secs(10);

pub fn run(args: &AgentArgs) -> Result<ExitCode, Failure> {
    log::init(args.log.level, args.log.format);
    let access = Access { detail: args.enable_detail, lifecycle: args.enable_lifecycle };
    let needs_authentication = may_start(&args.web.listen_address, access, false).is_err();
    let web = load_web(&args.web, needs_authentication)?;
    may_start(&args.web.listen_address, access, web.authenticates()).map_err(Failure::Usage)?;
    let loaded = load_plan(&args.config.config_file, &args.place, true)?;
    let descriptors = raise_descriptor_limit().map_err(Failure::system("raise the limit of open descriptors"))?;
    let address = &args.web.listen_address;
    let listener = listener::bind(address).map_err(Failure::listen(address))?;
    least_privilege(&loaded.config)?;
    let run = run_info(&args.place);
    let metrics = Metrics::new(run.clone(), web.clone()).map_err(|e| Failure::Usage(e.to_string()))?;
    runtime()?.block_on(async {
        let (reload, reload_requests) = mpsc::channel(1);
        let agent = Agent {
            args,
            web,
            run: run.clone(),
            descriptors,
            ledger: Arc::default(),
            metrics: Arc::new(metrics),
            current: Arc::new(ArcSwap::from_pointee(Current::from(&*loaded.config))),
            told: ArcSwap::default(),
        };
        let site = Site {
            ledger: agent.ledger.clone(),
            metrics: agent.metrics.clone(),
            current: agent.current.clone(),
            run,
            telemetry_path: args.web.telemetry_path.as_str().into(),
            access,
            reload: Some(reload),
        };
        agent.live(loaded, listener, site, reload_requests).await
    })
}

struct Agent<'a> {
    args: &'a AgentArgs,
    web: Web,
    run: Run,
    descriptors: u64,
    ledger: Arc<Ledger>,
    metrics: Arc<Metrics>,
    current: Arc<ArcSwap<Current>>,
    /// What was logged as not tested.
    told: ArcSwap<Vec<NotTested>>,
}

/// The sweeps of one configuration.
struct Sweeping {
    loaded: Loaded,
    schedule: Schedule,
    /// The pods of this node, where they are needed.
    node: Option<Pods>,
}

impl Sweeping {
    /// The pods that are known, where another configuration asks the same runtime.
    fn known_pods(&self, other: &Config) -> NodePods {
        let socket = |config: &Config| config.pods.as_ref().map(|pods| pods.socket.clone());
        match &self.node {
            Some(node) if socket(&self.loaded.config) == socket(other) => node.borrow().clone(),
            _ => NodePods::default(),
        }
    }
}

/// What was last tried to load, so that a bad file is not complained of again and again.
struct Tried {
    digest: String,
    problem: Option<String>,
}

impl Agent<'_> {
    async fn live(
        &self,
        loaded: Loaded,
        listener: std::net::TcpListener,
        site: Site,
        mut reload_requests: mpsc::Receiver<ReloadRequest>,
    ) -> Result<ExitCode, Failure> {
        let handle = |kind| signal(kind).map_err(Failure::system("handle signals"));
        let (mut term, mut int) = (handle(SignalKind::terminate())?, handle(SignalKind::interrupt())?);
        let mut hangup = handle(SignalKind::hangup())?;

        let node = Node::look(&loaded.config).await;
        node.as_ref().map_or(Ok(()), |node| node.check(&loaded.config))?;
        // The address as it is bound: the port may have been left to the system.
        let address = listener.local_addr().map_err(Failure::system("read the listener's address"))?;
        info!(version = crate::export::VERSION, %address, node = &*self.run.node,
            kernel = &*self.run.kernel, icmp_evidence = self.run.icmp_evidence, "started");
        let mut sweeping = self.start(loaded, node, None);
        self.metrics.reloaded(true);
        let stop = CancellationToken::new();
        let app = self.web.guard(http::router(site));
        let tls = self.web.clone();
        let mut server = tokio::spawn(listener::serve(listener, app, move || tls.tls(), stop.clone()));
        tokio::spawn(self.web.clone().watch());
        let mut watch = tokio::time::interval(WATCH);
        watch.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut tried = Tried { digest: sweeping.loaded.config.hash.clone(), problem: None };
        loop {
            tokio::select! {
                _ = term.recv() => break,
                _ = int.recv() => break,
                _ = hangup.recv() => {
                    let _ = self.reload_all(&mut sweeping, "SIGHUP", &mut tried).await;
                }
                Some(answer) = reload_requests.recv() => {
                    // Nobody waits for the answer of a request that was given up.
                    let _ = answer.send(self.reload_all(&mut sweeping, REQUESTED, &mut tried).await);
                }
                _ = watch.tick() => {
                    let look = sweeping.loaded.files.look();
                    let now = look.as_ref().map_or_else(ToString::to_string, |look| look.digest.clone());
                    // A bad configuration is tried again: what mends it may be a file that it only names.
                    if now != tried.digest || tried.problem.is_some() {
                        let _ = self.reload(&mut sweeping, WATCHED, &mut tried).await;
                    } else if let Ok(look) = look {
                        // Discovery's word for what is known already: nothing begins anew.
                        self.vouch(&sweeping.loaded.config, &look.heartbeats);
                    }
                }
                () = changed(&mut sweeping.node) => self.follow(&mut sweeping),
                ended = &mut server => {
                    let what = ended.map_err(std::io::Error::other).and_then(|served| served);
                    return Err(Failure::system("serve HTTP")(what.err().unwrap_or_else(|| std::io::Error::other("it ended"))));
                }
            }
        }
        info!("stopping");
        stop.cancel();
        let drained = async {
            sweeping.schedule.stop().await;
            let _ = server.await;
        };
        if tokio::time::timeout(GRACE, drained).await.is_err() {
            warn!(seconds = GRACE.as_secs(), "stopped before everything was drained");
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Starts the sweeps of a configuration, after those of another.
    fn start(&self, mut loaded: Loaded, node: Option<Node>, before: Option<&Sweeping>) -> Sweeping {
        let most = most_in_flight(self.descriptors);
        if let Some(config) = Arc::get_mut(&mut loaded.config)
            && config.pace.in_flight > most
        {
            warn!(
                configured = config.pace.in_flight,
                used = most,
                "pace.in_flight exceeds the limit of open descriptors: raise the limit (ulimit -n), or lower it"
            );
            config.pace.in_flight = most;
        }
        let Loaded { config, plan, .. } = &loaded;
        let node = node.map(Node::keep_watching);
        let asks_node = config.witnesses.iter().any(|w| w.who == WitnessWho::Node);
        if asks_node && node.as_ref().is_some_and(|node| is_pods_own(&node.borrow())) {
            warn!("the witness `node` is ignored: the agent lives in a pod's network; set hostNetwork: true");
        }
        let sweeper = Sweeper::new(config.clone(), plan.clone(), node.clone(), self.run.icmp_evidence);
        // At the start of the agent nobody knows who is new.
        let known = before.map(|before| before.loaded.plan.endpoints()).filter(|_| config.pods.is_some());
        let new =
            known.into_iter().flat_map(|known| plan.endpoints().into_iter().filter(move |ip| !known.contains(ip)));
        let now = Instant::now();
        let sweeper = Arc::new(sweeper.with_new_endpoints(new.map(|ip| (ip, now)).collect()));
        self.current.store(Arc::new(Current::from(&**config)));
        for planned in &plan.boundaries {
            self.metrics.announce(&planned.boundary.name);
        }
        let names_in_log = config.dns.names_in_log as usize;
        let observer: Arc<dyn Observer> =
            Arc::new(Recorder { ledger: self.ledger.clone(), metrics: self.metrics.clone(), names_in_log });
        let schedule = Schedule::new(sweeper, self.ledger.clone(), observer);
        let schedule = match before {
            Some(before) => schedule.after(&before.schedule),
            None => schedule,
        };
        // What is known of not being tested belongs to another configuration.
        self.told.store(Arc::default());
        let mut sweeping = Sweeping { loaded, schedule, node };
        self.follow(&mut sweeping);
        self.vouch(&sweeping.loaded.config, &sweeping.loaded.config.heartbeats);
        sweeping
    }

    /// Takes discovery's word for the target files.
    fn vouch(&self, config: &Config, heartbeats: &[Heartbeat]) {
        let transitions = self.ledger.vouch(heartbeats, Instant::now());
        log::transitions(&transitions, |id| self.ledger.view(id), config.dns.names_in_log as usize);
    }

    /// Sweeps from who is there now.
    fn follow(&self, sweeping: &mut Sweeping) {
        let Sweeping { loaded, schedule, node } = sweeping;
        let config = &loaded.config;
        let node = node.as_mut().map(|node| node.borrow_and_update().clone());
        let stands = who_asks(config, &loaded.own, node.as_ref());
        let plan = loaded.plan.with_stands(config, &stands);
        if config.vantage.mode == VantageMode::Pods {
            debug!(identities = stands.len(), pods = speakers(&stands), "the pods of this node changed");
        }
        let transitions = self.ledger.follow(&plan, &config.hash, Instant::now());
        self.ledger.note_node(node.as_ref().map(|node| node_view(config, node)));
        log::transitions(&transitions, |id| self.ledger.view(id), config.dns.names_in_log as usize);
        let told = self.told.load();
        for gap in plan.not_tested.iter().filter(|gap| !told.contains(gap)) {
            info!(boundary = &*gap.boundary, what = gap.what, why = gap.why, "not tested");
        }
        self.told.store(Arc::new(plan.not_tested.clone()));
        schedule.follow(&plan.legs);
        loaded.plan = Arc::new(plan);
    }

    /// Reads the web configuration and the configuration again; neither waits for the other to be good.
    async fn reload_all(&self, sweeping: &mut Sweeping, why: &str, tried: &mut Tried) -> Result<(), String> {
        match (self.web.reload(why), self.reload(sweeping, why, tried).await) {
            (Err(web), Err(config)) => Err(format!("{config}\n{web}")),
            (web, config) => config.and(web),
        }
    }

    /// Reads the configuration again; a bad one leaves the old one running.
    async fn reload(&self, sweeping: &mut Sweeping, why: &str, tried: &mut Tried) -> Result<(), String> {
        if why == REQUESTED
            && tried.problem.is_none()
            && let Ok(look) = sweeping.loaded.files.look()
            && look.digest == tried.digest
        {
            // Nothing begins anew, or requests would keep every sweep from its end.
            self.vouch(&sweeping.loaded.config, &look.heartbeats);
            self.metrics.reloaded(true);
            return Ok(());
        }
        let loaded = load_plan(&self.args.config.config_file, &self.args.place, true);
        tried.digest = sweeping.loaded.files.look().map_or_else(|e| e.to_string(), |look| look.digest);
        let result = match loaded {
            Err(failure) => Err(failure.to_string()),
            Ok(loaded) => {
                tried.digest = loaded.config.hash.clone();
                // What was dropped at start cannot be had again.
                match can_enter(&loaded.config) {
                    Err(failure) => Err(failure.to_string()),
                    Ok(()) => {
                        let node = Node::look_again(&loaded.config, sweeping.known_pods(&loaded.config)).await;
                        sweeping.schedule.stop().await;
                        let old = sweeping.loaded.plan.clone();
                        *sweeping = self.start(loaded, node, Some(sweeping));
                        let new = &sweeping.loaded.plan.boundaries;
                        let kept = |name: &Arc<str>| new.iter().any(|b| b.boundary.name == *name);
                        let names = old.boundaries.iter().map(|b| &b.boundary.name);
                        names.filter(|name| !kept(name)).for_each(|name| self.metrics.forget(name));
                        Ok(())
                    }
                }
            }
        };
        self.metrics.reloaded(result.is_ok());
        match &result {
            Ok(()) => info!(why, config_hash = sweeping.loaded.config.hash, "configuration reloaded"),
            Err(problem) if why == WATCHED && tried.problem.as_ref() == Some(problem) => {}
            Err(problem) => error!(why, problem, "configuration not reloaded, the old one stays"),
        }
        tried.problem = result.clone().err();
        result
    }
}

/// Waits until the pods of this node change; for ever where nobody needs them.
async fn changed(node: &mut Option<Pods>) {
    if let Some(node) = node
        && node.changed().await.is_ok()
    {
        return;
    }
    std::future::pending::<()>().await;
}

/// The pods of each zone on this node, and what they are good for.
fn node_view(config: &Config, node: &NodePods) -> NodeView {
    let mut zones: BTreeMap<Arc<str>, usize> = config.zones.keys().map(|zone| (zone.clone(), 0)).collect();
    for sandbox in node.sandboxes.iter().filter(|s| s.ready && s.running) {
        if let Some(count) = zone_of(config, sandbox).and_then(|zone| zones.get_mut(zone)) {
            *count += 1;
        }
    }
    NodeView { zones, runtime_answers: node.listed.is_some() && node.problem.is_none() }
}

/// Counts and logs what the sweeps find.
struct Recorder {
    ledger: Arc<Ledger>,
    metrics: Arc<Metrics>,
    names_in_log: usize,
}

impl Observer for Recorder {
    fn swept(&self, report: &SweepReport, transitions: &[Transition]) {
        self.metrics.count(report);
        log::transitions(transitions, |id| self.ledger.view(id), self.names_in_log);
    }

    fn overran(&self, boundary: &str, times: u64) {
        self.metrics.overran(boundary, times);
        warn!(
            boundary,
            times, "a sweep took longer than its interval: raise the interval, or pace.per_second and pace.in_flight"
        );
    }
}
