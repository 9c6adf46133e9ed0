//! `segprobe check`: one sweep of every boundary, and the verdicts.

use std::{
    io::{self, BufWriter, IsTerminal, Write},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;

use super::{
    Failure, Loaded, complain, load_plan,
    node::{Node, least_privilege},
    run_info, runtime,
};
use crate::{
    cli::{CheckArgs, Output},
    config::Config,
    export::{Run, json, junit, markdown, report::Report, sarif, table, tap},
    ledger::{Carried, Ledger, Snapshot},
    model::VantageMode,
    plan::{
        Leg, Part, Plan,
        share::{Share, in_words},
    },
    sweep::{Progress, Sweeper, Turns},
    vantage::raise_descriptor_limit,
};

pub fn run(args: &CheckArgs) -> Result<ExitCode, Failure> {
    // Who asks here and now wants to know all: it is one node, once. What agents would do is shown by the plan.
    let mut loaded = load_plan(&args.config.config_file, &args.place, args.plan)?;
    if args.plan {
        if let Some(node) = runtime()?.block_on(loaded.ask_node()) {
            node.tell_problem();
        }
        show_plan(&loaded.config, &loaded.plan).map_err(Failure::output)?;
        return Ok(ExitCode::SUCCESS);
    }
    let descriptors = raise_descriptor_limit().map_err(Failure::system("raise the limit of open descriptors"))?;
    if let Some(config) = Arc::get_mut(&mut loaded.config) {
        config.pace.in_flight = config.pace.in_flight.min(super::most_in_flight(descriptors));
    }
    least_privilege(&loaded.config)?;
    let run = run_info(&args.place);
    let began = Instant::now();
    let snapshot = runtime()?.block_on(sweep_all(loaded, &run))?;
    let (took, now) = (began.elapsed(), Instant::now());
    let report = Report::new(&run, &snapshot, now).requiring_witness(args.require_witness);
    for (boundary, why) in report.untested() {
        complain(format_args!("nothing of boundary `{}` was tested: {why}", boundary.name));
    }
    let mut out = BufWriter::new(io::stdout().lock());
    let written = match args.output {
        Output::Table => print_table(&report, took),
        Output::Json => json::write(&mut out, &json::Report::new(&run, &snapshot, now)),
        Output::Junit => junit::write(&mut out, &report),
        Output::Tap => tap::write(&mut out, &report),
        Output::Sarif => sarif::write(&mut out, &report, &args.config.config_file),
        Output::Markdown => out.write_all(markdown::text(&report).as_bytes()),
    };
    written.and_then(|()| out.flush()).map_err(Failure::output)?;
    Ok(ExitCode::from(report.exit_code()))
}

/// All boundaries one after the other: their budgets are the agent's. Each from all identities, and all of their pods.
async fn sweep_all(mut loaded: Loaded, run: &Run) -> Result<Arc<Snapshot>, Failure> {
    let node = loaded.ask_node().await;
    if let Some(node) = &node {
        node.check(&loaded.config)?;
        node.tell_problem();
    }
    let node = node.map(Node::keep_watching);
    let Loaded { config, plan, .. } = loaded;
    let sweeper = Arc::new(Sweeper::new(config.clone(), plan.clone(), node, run.icmp_evidence));
    let ledger = Ledger::default();
    ledger.follow(&plan, &config.hash, Instant::now());
    let progress = io::stderr().is_terminal().then(|| tokio::spawn(show_progress(sweeper.progress())));
    for planned in &plan.boundaries {
        let legs = plan.legs.iter().filter(|leg| Arc::ptr_eq(&leg.boundary, planned));
        let sweeps = legs.flat_map(|leg| leg.parts().map(move |part| (leg, part))).map(async |(leg, part)| {
            let turn = Turns::default().next(&leg.stand.speakers, 1);
            ledger.record(&sweeper.sweep(leg, part, &turn, &Carried::default()).await);
        });
        join_all(sweeps).await;
    }
    if let Some(progress) = progress {
        progress.abort();
        let _ = write!(io::stderr(), "\r\x1b[K");
    }
    Ok(ledger.snapshot())
}

async fn show_progress(progress: Arc<Progress>) {
    let mut ticks = tokio::time::interval(Duration::from_millis(200));
    loop {
        ticks.tick().await;
        let (done, planned) = progress.get();
        let _ = write!(io::stderr(), "\r\x1b[Kprobing: {done} of {planned} addresses and DNS techniques");
    }
}

fn print_table(report: &Report<'_>, took: Duration) -> io::Result<()> {
    let width = terminal_size::terminal_size_of(io::stdout()).map(|(w, _)| usize::from(w.0));
    let mut out = BufWriter::new(anstream::AutoStream::auto(io::stdout()).lock());
    table::write(&mut out, report, width)?;
    writeln!(out, "{} in {:.1} s", report.totals, took.as_secs_f64())?;
    out.flush()
}

fn show_plan(config: &Config, plan: &Plan) -> io::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    for leg in &plan.legs {
        let boundary = &leg.boundary.boundary;
        let cost = leg.cost(config);
        writeln!(
            out,
            "{}  {}{} → {}, expected {}, every {} s: {} checks of {} addresses and ports",
            boundary.name,
            boundary.from,
            table::source(leg.boundary.mode, &leg.stand.source.identity),
            boundary.to,
            boundary.expect,
            boundary.interval.as_secs(),
            cost.checks,
            cost.addresses
        )?;
        writeln!(
            out,
            "  one sweep: at most {} connects and {} DNS queries, {} packets a second, {} s to {} s",
            cost.connects, cost.dns_queries, cost.packets_per_second, cost.least_seconds, cost.most_seconds
        )?;
        if let Some(share) = leg.share(Part::Reach) {
            write_share(&mut out, leg, share, cost.addresses_per_sweep)?;
        }
        let (paces, of_dns) = match leg.boundary.mode {
            VantageMode::Own => ("pace.per_second", "dns.queries_per_second"),
            VantageMode::Pods => ("pods.per_second", "pods.per_second"),
        };
        if cost.most_seconds > boundary.interval.as_secs() {
            writeln!(out, "  a silent network would overrun the interval: raise it, or {paces} and pace.in_flight")?;
        }
        // A fifth of the interval is for repeats and controls.
        if cost.dns_seconds * 5 > boundary.interval.as_secs() * 4 {
            writeln!(
                out,
                "  its DNS queries take {} s and go on from sweep to sweep: to have them in one, raise the interval or {of_dns}",
                cost.dns_seconds
            )?;
        }
        for check in leg.checks() {
            writeln!(out, "  {}", check.id)?;
        }
    }
    for gap in &plan.not_tested {
        writeln!(out, "not tested: {}: {}: {}", gap.boundary, gap.what, gap.why)?;
    }
    out.flush()
}

/// What this node's share is, and what each address gets from all nodes together.
fn write_share(out: &mut impl Write, leg: &Leg, share: &Share, addresses: usize) -> io::Result<()> {
    let boundary = &leg.boundary.boundary;
    if share.nodes == 0 {
        return writeln!(out, "  shared by nodes, and no node is listed: nothing is probed");
    }
    let (least, most) = share.nodes_per_sweep();
    let of_nodes = if least == most { format!("{least}") } else { format!("{least} or {most}") };
    let per_second = f64::from(share.nodes) / f64::from(share.sweeps) * f64::from(leg.boundary.connects())
        / boundary.interval.as_secs_f64();
    writeln!(
        out,
        "  shared by {} nodes: of their pairs with {} addresses this node has about {addresses} in a sweep, and each within {} \
         sweeps ({}); each address is probed by {of_nodes} of them in a sweep, {per_second:.3} connects a second{}",
        share.nodes,
        share.slots().len(),
        share.sweeps,
        in_words(boundary.interval * share.sweeps),
        match leg.boundary.mode {
            VantageMode::Own => "",
            VantageMode::Pods => " for each pod of a node",
        },
    )
}
