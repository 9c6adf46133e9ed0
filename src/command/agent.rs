//! `segprobe agent`: sweeps for ever, serves what it knows, reloads, and ends in good order.

use std::{
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, info, warn};

use super::{Failure, Loaded, load_plan, most_in_flight, run_info, runtime};
use crate::{
    cli::AgentArgs,
    config::SeriesConfig,
    export::{
        Run,
        http::{self, ReloadRequest, Site},
        log,
        metrics::Metrics,
    },
    ledger::{Ledger, SweepReport, Transition},
    sweep::{
        Sweeper,
        schedule::{self, Observer},
    },
    vantage::raise_descriptor_limit,
};

/// Changed files are noticed within this time.
const WATCH: Duration = Duration::from_secs(5);
/// Why a reload was tried: the files were looked at.
const WATCHED: &str = "changed file";
/// Running sweeps and open requests get this long at the end.
const GRACE: Duration = Duration::from_secs(10);

pub fn run(args: &AgentArgs) -> Result<ExitCode, Failure> {
    log::init(args.log.level, args.log.format);
    let loaded = load_plan(&args.config.config_file, &args.place)?;
    let descriptors = raise_descriptor_limit().map_err(Failure::system("raise the limit of open descriptors"))?;
    let address = &args.listen_address;
    let listener = http::bind(address).map_err(Failure::system(format!("listen on {address}")))?;
    let run = run_info(&args.place);
    let metrics = Metrics::new(run.clone()).map_err(|e| Failure::Usage(e.to_string()))?;
    runtime()?.block_on(async {
        let (reload, reload_requests) = mpsc::channel(1);
        let agent = Agent {
            args,
            run: run.clone(),
            descriptors,
            ledger: Arc::default(),
            metrics: Arc::new(metrics),
            series: Arc::new(ArcSwap::from_pointee(loaded.config.series)),
        };
        let site = Site {
            ledger: agent.ledger.clone(),
            metrics: agent.metrics.clone(),
            series: agent.series.clone(),
            run,
            telemetry_path: args.telemetry_path.as_str().into(),
            reload: Some(reload),
        };
        agent.live(loaded, listener, site, reload_requests).await
    })
}

struct Agent<'a> {
    args: &'a AgentArgs,
    run: Run,
    descriptors: u64,
    ledger: Arc<Ledger>,
    metrics: Arc<Metrics>,
    series: Arc<ArcSwap<SeriesConfig>>,
}

/// The sweeps of one configuration.
struct Sweeping {
    loaded: Loaded,
    stop: CancellationToken,
    tasks: TaskTracker,
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

        // The address as it is bound: the port may have been left to the system.
        let address = listener.local_addr().map_err(Failure::system("read the listener's address"))?;
        info!(version = crate::export::VERSION, %address, node = &*self.run.node,
            kernel = &*self.run.kernel, icmp_evidence = self.run.icmp_evidence, "started");
        let mut sweeping = self.start(loaded)?;
        self.metrics.reloaded(true);
        let stop = CancellationToken::new();
        let mut server = tokio::spawn(http::serve(listener, site, stop.clone()));
        let mut watch = tokio::time::interval(WATCH);
        watch.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut tried = Tried { digest: sweeping.loaded.config.hash.clone(), problem: None };
        loop {
            tokio::select! {
                _ = term.recv() => break,
                _ = int.recv() => break,
                _ = hangup.recv() => {
                    let _ = self.reload(&mut sweeping, "SIGHUP", &mut tried).await;
                }
                Some(answer) = reload_requests.recv() => {
                    // Nobody waits for the answer of a request that was given up.
                    let _ = answer.send(self.reload(&mut sweeping, "request", &mut tried).await);
                }
                _ = watch.tick() => {
                    let now = sweeping.loaded.files.digest().unwrap_or_else(|e| e.to_string());
                    // A bad configuration is tried again: what mends it may be a file that it only names.
                    if now != tried.digest || tried.problem.is_some() {
                        let _ = self.reload(&mut sweeping, WATCHED, &mut tried).await;
                    }
                }
                ended = &mut server => {
                    let what = ended.map_err(std::io::Error::other).and_then(|served| served);
                    return Err(Failure::system("serve HTTP")(what.err().unwrap_or_else(|| std::io::Error::other("it ended"))));
                }
            }
        }
        info!("stopping");
        stop.cancel();
        sweeping.stop.cancel();
        sweeping.tasks.close();
        let drained = async {
            sweeping.tasks.wait().await;
            let _ = server.await;
        };
        if tokio::time::timeout(GRACE, drained).await.is_err() {
            warn!(seconds = GRACE.as_secs(), "stopped before everything was drained");
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Starts the sweeps of a configuration.
    fn start(&self, mut loaded: Loaded) -> Result<Sweeping, Failure> {
        let most = most_in_flight(self.descriptors);
        if let Some(config) = Arc::get_mut(&mut loaded.config)
            && config.pace.in_flight > most
        {
            warn!(
                configured = config.pace.in_flight,
                used = most,
                "pace.in_flight exceeds the limit of open descriptors"
            );
            config.pace.in_flight = most;
        }
        let Loaded { config, plan, .. } = &loaded;
        let sweeper = Sweeper::new(config.clone(), plan.clone(), self.run.icmp_evidence);
        let sweeper = Arc::new(sweeper.map_err(Failure::system("set up the resolver"))?);
        let transitions = self.ledger.follow(plan, &config.hash, Instant::now());
        log::transitions(&transitions, &self.ledger.snapshot(), config.dns.names_in_log as usize);
        self.series.store(Arc::new(config.series));
        for planned in &plan.boundaries {
            self.metrics.announce(&planned.boundary.name);
        }
        for gap in &plan.not_tested {
            info!(boundary = &*gap.boundary, what = gap.what, why = gap.why, "not tested");
        }
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let names_in_log = config.dns.names_in_log as usize;
        let observer: Arc<dyn Observer> =
            Arc::new(Recorder { ledger: self.ledger.clone(), metrics: self.metrics.clone(), names_in_log });
        schedule::run(&sweeper, &self.ledger, &observer, &stop, &tasks);
        Ok(Sweeping { loaded, stop, tasks })
    }

    /// Reads the configuration again; a bad one leaves the old one running.
    async fn reload(&self, sweeping: &mut Sweeping, why: &str, tried: &mut Tried) -> Result<(), String> {
        let loaded = load_plan(&self.args.config.config_file, &self.args.place);
        tried.digest = sweeping.loaded.files.digest().unwrap_or_else(|e| e.to_string());
        let result = match loaded {
            Err(failure) => Err(failure.to_string()),
            Ok(loaded) => {
                tried.digest = loaded.config.hash.clone();
                sweeping.stop.cancel();
                sweeping.tasks.close();
                sweeping.tasks.wait().await;
                let old: Vec<_> = sweeping.loaded.plan.boundaries.iter().map(|b| b.boundary.name.clone()).collect();
                self.start(loaded).map_err(|e| e.to_string()).map(|new| {
                    let kept = |name: &Arc<str>| new.loaded.plan.boundaries.iter().any(|b| b.boundary.name == *name);
                    old.iter().filter(|name| !kept(name)).for_each(|name| self.metrics.forget(name));
                    *sweeping = new;
                })
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

/// Counts and logs what the sweeps find.
struct Recorder {
    ledger: Arc<Ledger>,
    metrics: Arc<Metrics>,
    names_in_log: usize,
}

impl Observer for Recorder {
    fn swept(&self, report: &SweepReport, transitions: &[Transition]) {
        self.metrics.count(report);
        log::transitions(transitions, &self.ledger.snapshot(), self.names_in_log);
    }

    fn overran(&self, boundary: &str, times: u64) {
        self.metrics.overran(boundary, times);
        warn!(boundary, times, "a sweep took longer than its interval");
    }
}
