//! `segprobe demo`: a lab of its own, the table after the first sweep, then the page until Ctrl-C.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, BufWriter, Write},
    net::TcpListener,
    path::Path,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

use super::{Failure, browse, run_info, runtime};
use crate::{
    cli::{DemoArgs, PlaceArgs},
    config,
    export::{
        Run,
        access::Access,
        http::{self, Current, Site},
        metrics::Metrics,
        report::Report,
        table,
    },
    inventory::stands::Stand,
    lab::{self, Entered, Lab},
    ledger::{Carried, Ledger, Snapshot, SweepReport, Transition},
    model::{Mode, Verdict},
    plan::plan,
    sweep::{
        Sweeper,
        schedule::{Observer, Schedule},
    },
    web::{Web, listener},
};

pub fn run(args: &DemoArgs) -> Result<ExitCode, Failure> {
    // The page is for this machine's browser, so its listener is made before the machine's network is left.
    let listener = if args.once { None } else { Some(bind(&args.listen_address)?) };
    let entered = lab::enter().map_err(Failure::system("use a network namespace of the demo's own"))?;
    runtime()?.block_on(async {
        let lab = lab::start().await.map_err(Failure::system("start the lab on 127.86.0.0/16"))?;
        introduce(&lab, &entered).map_err(Failure::output)?;
        demonstrate(lab, listener).await
    })
}

fn bind(address: &str) -> Result<TcpListener, Failure> {
    // Another demo may be running: any port will do.
    let listener = listener::bind(address).or_else(|_| listener::bind("127.0.0.1:0"));
    listener.map_err(Failure::listen(address))
}

fn introduce(lab: &Lab, entered: &Entered) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "A cluster in miniature, made here: pods of `storefront` must neither reach nor enumerate the")?;
    writeln!(out, "services of `payments`. segprobe stands in `storefront` and tries …")?;
    if let Entered::Refused(why) = entered {
        writeln!(out, "No network namespace of its own is allowed here ({why}): it uses the loopback interface.")?;
    }
    if lab.only_open {
        writeln!(out, "Silence cannot be made without CAP_NET_ADMIN: segmented and dead services are left out.")?;
    }
    writeln!(out)
}

async fn demonstrate(lab: Lab, listener: Option<TcpListener>) -> Result<ExitCode, Failure> {
    let run = run_info(&PlaceArgs { node_name: Some("demo".into()), namespace: String::new() });
    let config = Arc::new(config::parse(Path::new("demo"), &lab.config)?);
    let own = Stand::own(&config, &[], "");
    let plan = Arc::new(plan(&config, std::slice::from_ref(&own)));
    let sweeper = Arc::new(Sweeper::new(config.clone(), plan.clone(), None, run.icmp_evidence));
    let ledger = Arc::new(Ledger::default());
    ledger.follow(&plan, &config.hash, Instant::now());
    let began = Instant::now();
    let mut first = Vec::new();
    for leg in &plan.legs {
        let carried = Carried::default();
        for report in join_all(leg.parts().map(|part| sweeper.sweep(leg, part, &[], &carried))).await {
            ledger.record(&report);
            first.push(report);
        }
    }
    let (snapshot, now) = (ledger.snapshot(), Instant::now());
    let surprises = surprises(&lab, &snapshot, now);
    print(&lab, &Report::new(&run, &snapshot, now), began.elapsed(), &surprises).map_err(Failure::output)?;
    match listener {
        Some(listener) => serve(listener, run, sweeper, ledger, &first).await,
        None if surprises.is_empty() => Ok(ExitCode::SUCCESS),
        None => Ok(ExitCode::FAILURE),
    }
}

/// Targets whose worst verdict is not the one that the lab was built to give.
fn surprises(lab: &Lab, snapshot: &Snapshot, now: Instant) -> Vec<String> {
    let mut found: BTreeMap<String, Verdict> = BTreeMap::new();
    for check in snapshot.checks.iter().filter(|c| c.mode == Mode::Judge) {
        let verdict = check.reason_at(now).verdict();
        let target = match check.id.via {
            Some(_) => check.id.target.to_string(),
            None => format!("{} at {}", check.id.kind, check.id.target),
        };
        found.entry(target).and_modify(|worst| *worst = verdict.min(*worst)).or_insert(verdict);
    }
    let expected: BTreeMap<&str, Verdict> = lab.expected.iter().copied().collect();
    let targets: BTreeSet<&str> = expected.keys().copied().chain(found.keys().map(String::as_str)).collect();
    let told = |verdict: Option<&Verdict>| verdict.map_or("no verdict", |v| v.as_str());
    targets
        .into_iter()
        .filter(|target| expected.get(target) != found.get(*target))
        .map(|t| format!("{t}: expected {}, found {}", told(expected.get(t)), told(found.get(t))))
        .collect()
}

fn print(lab: &Lab, report: &Report<'_>, took: Duration, surprises: &[String]) -> io::Result<()> {
    let width = terminal_size::terminal_size_of(io::stdout()).map(|(w, _)| usize::from(w.0));
    let mut out = BufWriter::new(anstream::AutoStream::auto(io::stdout()).lock());
    table::write(&mut out, report, width)?;
    writeln!(out, "{} in {:.1} s", report.totals, took.as_secs_f64())?;
    writeln!(out, "\nOnly `pass` is proof: not reached from a vantage that works, while a witness did reach it.")?;
    if !lab.only_open {
        writeln!(out, "`batch` is dead: other tools call that blocked, segprobe calls it inconclusive.")?;
    }
    for surprise in surprises {
        writeln!(out, "not as built: {surprise}")?;
    }
    out.flush()
}

async fn serve(
    listener: TcpListener,
    run: Run,
    sweeper: Arc<Sweeper>,
    ledger: Arc<Ledger>,
    first: &[SweepReport],
) -> Result<ExitCode, Failure> {
    let address = listener.local_addr().map_err(Failure::system("read the listener's address"))?;
    let metrics = Arc::new(Metrics::new(run.clone(), Web::open()).map_err(|e| Failure::Usage(e.to_string()))?);
    metrics.reloaded(true);
    for report in first {
        metrics.announce(&report.boundary);
        metrics.count(report);
    }
    let site = Site {
        ledger: ledger.clone(),
        metrics: metrics.clone(),
        current: Arc::new(ArcSwap::from_pointee(Current::from(&*sweeper.config))),
        run,
        telemetry_path: "/metrics".into(),
        access: Access::default(),
        reload: None,
    };
    let stop = CancellationToken::new();
    let mut schedule = Schedule::new(sweeper.clone(), ledger, Arc::new(Counter(metrics)));
    schedule.follow(&sweeper.plan.legs);
    let server = tokio::spawn(listener::serve(listener, http::router(site), || None, stop.clone()));
    writeln!(io::stdout(), "\nThe page: {0}  The metrics: {0}metrics  Ctrl-C ends it.", browse(address))
        .map_err(Failure::output)?;
    tokio::signal::ctrl_c().await.map_err(Failure::system("wait for Ctrl-C"))?;
    stop.cancel();
    // How the server ended is of no interest at the end of a demo.
    let _ = server.await;
    Ok(ExitCode::SUCCESS)
}

struct Counter(Arc<Metrics>);

impl Observer for Counter {
    fn swept(&self, report: &SweepReport, _: &[Transition]) {
        self.0.count(report);
    }

    fn overran(&self, boundary: &str, times: u64) {
        self.0.overran(boundary, times);
    }
}
