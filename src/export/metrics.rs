//! `/metrics`: results from the snapshot, the agent's own counters from its registry.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use prometheus::{Encoder, Gauge, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry, TextEncoder};

use super::{
    REVISION, RUSTVERSION, Run, VERSION, exposition::Exposition, process::process, web_configuration::web_configuration,
};
use crate::{
    config::SeriesConfig,
    ledger::{CheckView, DnsEvidence, Evidence, Snapshot, SweepReport},
    model::{CheckId, Mode, Reason, Transport, Verdict},
    observation::TcpOutcome,
    web::Web,
};

/// The agent's own counters, and the page.
pub struct Metrics {
    registry: Registry,
    probes: IntCounterVec,
    dns_queries: IntCounterVec,
    probe_duration: HistogramVec,
    sweep_duration: HistogramVec,
    overruns: IntCounterVec,
    startup: HistogramVec,
    reload_successful: Gauge,
    reload_time: Gauge,
    web: Web,
    run: Run,
}

impl Metrics {
    /// # Errors
    /// Two metrics of one name; not expected.
    pub fn new(run: Run, web: Web) -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let seconds = |name, help, label, buckets: &[f64]| {
            HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), &[label])
        };
        let metrics = Self {
            probes: IntCounterVec::new(
                Opts::new("segprobe_probes_total", "TCP connects and DNS questions by outcome, controls excluded."),
                &["check", "outcome"],
            )?,
            dns_queries: IntCounterVec::new(
                Opts::new(
                    "segprobe_dns_queries_total",
                    "DNS queries on the wire by outcome, controls and repeats included.",
                ),
                &["server", "transport", "outcome"],
            )?,
            probe_duration: seconds(
                "segprobe_probe_duration_seconds",
                "Duration of TCP connects that did not time out.",
                "check",
                &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5],
            )?,
            sweep_duration: seconds(
                "segprobe_sweep_duration_seconds",
                "Duration of sweeps.",
                "boundary",
                &[0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0],
            )?,
            overruns: IntCounterVec::new(
                Opts::new("segprobe_sweep_overruns_total", "Sweeps that were skipped because one was still running."),
                &["boundary"],
            )?,
            startup: seconds(
                "segprobe_startup_open_seconds",
                "How long a new pod or target was open before it was blocked; no findings.",
                "boundary",
                &[0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0],
            )?,
            reload_successful: Gauge::new(
                "segprobe_config_last_reload_successful",
                "Whether the last reload of the configuration was successful.",
            )?,
            reload_time: Gauge::new(
                "segprobe_config_last_reload_success_timestamp_seconds",
                "Time of the last successful reload of the configuration.",
            )?,
            registry,
            web,
            run,
        };
        let r = &metrics.registry;
        r.register(Box::new(metrics.probes.clone()))?;
        r.register(Box::new(metrics.dns_queries.clone()))?;
        r.register(Box::new(metrics.probe_duration.clone()))?;
        r.register(Box::new(metrics.sweep_duration.clone()))?;
        r.register(Box::new(metrics.overruns.clone()))?;
        r.register(Box::new(metrics.startup.clone()))?;
        r.register(Box::new(metrics.reload_successful.clone()))?;
        r.register(Box::new(metrics.reload_time.clone()))?;
        Ok(metrics)
    }

    /// Makes a boundary's counters exist before they count.
    pub fn announce(&self, boundary: &str) {
        self.overruns.with_label_values(&[boundary]);
        self.startup.with_label_values(&[boundary]);
    }

    /// Forgets a boundary that is no longer configured.
    pub fn forget(&self, boundary: &str) {
        // An error only says that there was none.
        let _ = self.overruns.remove_label_values(&[boundary]);
        let _ = self.sweep_duration.remove_label_values(&[boundary]);
        let _ = self.startup.remove_label_values(&[boundary]);
    }

    /// Counts what a sweep did.
    pub fn count(&self, report: &SweepReport) {
        self.sweep_duration.with_label_values(&[&*report.boundary]).observe(report.took.as_secs_f64());
        for result in &report.results {
            let kind = result.id.kind.as_str();
            match &result.evidence {
                Evidence::Reach(addresses) => {
                    for startup in addresses.iter().filter_map(|(seen, _)| seen.startup) {
                        let seconds = f64::from(startup.get()) / 1e3;
                        self.startup.with_label_values(&[&*report.boundary]).observe(seconds);
                    }
                    for attempt in addresses.iter().flat_map(|(seen, _)| &seen.attempts) {
                        self.probes.with_label_values(&[kind, attempt.outcome.as_str()]).inc();
                        if !matches!(attempt.outcome, TcpOutcome::Filtered | TcpOutcome::Error | TcpOutcome::Unresolved)
                        {
                            let seconds = f64::from(attempt.elapsed_us) / 1e6;
                            self.probe_duration.with_label_values(&[kind]).observe(seconds);
                        }
                    }
                }
                Evidence::Node(_) => {}
                Evidence::Dns(dns) => {
                    for class in crate::observation::ReplyClass::ALL {
                        let replies = u64::from(dns.seen.count(*class));
                        if replies > 0 {
                            self.probes.with_label_values(&[kind, class.as_str()]).inc_by(replies);
                        }
                    }
                    for (transport, over) in Transport::ALL.iter().zip(&dns.seen.over) {
                        let server = &*result.id.target;
                        for (outcome, queries) in
                            [("answered", over.answered), ("lost", over.sent.saturating_sub(over.answered))]
                        {
                            let labels = [server, transport.as_str(), outcome];
                            self.dns_queries.with_label_values(&labels).inc_by(u64::from(queries));
                        }
                    }
                }
            }
        }
    }

    /// Counts sweeps that were skipped.
    pub fn overran(&self, boundary: &str, times: u64) {
        self.overruns.with_label_values(&[boundary]).inc_by(times);
    }

    /// Notes how a reload went.
    pub fn reloaded(&self, successful: bool) {
        self.reload_successful.set(if successful { 1.0 } else { 0.0 });
        if successful {
            self.reload_time.set(jiff::Timestamp::now().as_second() as f64);
        }
    }

    /// The whole page at a moment.
    pub fn page(&self, snapshot: &Snapshot, series: SeriesConfig, now: Instant) -> String {
        let mut page = Exposition::default();
        page.family("segprobe_build_info", "gauge", "Version of this agent.");
        let build = [("version", VERSION), ("revision", REVISION), ("rustversion", RUSTVERSION)];
        page.sample("segprobe_build_info", &build, 1);
        page.family("segprobe_icmp_evidence", "gauge", "Whether the kernel tells an RST from an ICMP error.");
        page.sample("segprobe_icmp_evidence", &[], u8::from(self.run.icmp_evidence));
        results(&mut page, snapshot, series, now);
        web_configuration(&mut page, self.web.status());
        process(&mut page);
        let mut text = page.finish().into_bytes();
        // Writing to memory cannot fail, and all families are well-formed.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut text);
        String::from_utf8(text).unwrap_or_default()
    }
}

/// The families that come from the snapshot.
fn results(page: &mut Exposition, snapshot: &Snapshot, series: SeriesConfig, now: Instant) {
    let judged: Vec<(&CheckView, Reason)> =
        snapshot.checks.iter().filter(|c| c.mode == Mode::Judge).map(|c| (c, c.reason_at(now))).collect();
    boundaries(page, snapshot);
    node(page, snapshot);
    heartbeats(page, snapshot);
    totals(page, snapshot, &judged);
    verdicts(page, snapshot, series, &judged);
    findings(page, snapshot);
    disclosures(page, snapshot, now);
    page.family("segprobe_control_ok", "gauge", "Whether a control of a vantage is trustworthy.");
    for control in &snapshot.controls {
        let labels = [
            ("source_namespace", &*control.source.namespace),
            ("source", &*control.source.name),
            ("control", &*control.control),
            ("kind", control.kind),
        ];
        page.sample("segprobe_control_ok", &labels, u8::from(control.ok));
    }
}

fn boundaries(page: &mut Exposition, snapshot: &Snapshot) {
    page.family("segprobe_boundary_info", "gauge", "The boundaries that are tested.");
    for b in &snapshot.boundaries {
        let labels = [
            ("boundary", &*b.name),
            ("from", &*b.from),
            ("to", &*b.to),
            ("expect", b.expect.as_str()),
            ("vantage", b.vantage.as_str()),
        ];
        page.sample("segprobe_boundary_info", &labels, 1);
    }
    page.family("segprobe_boundary_interval_seconds", "gauge", "Time between the starts of two sweeps.");
    for b in &snapshot.boundaries {
        page.sample("segprobe_boundary_interval_seconds", &[("boundary", &b.name)], b.interval.as_secs_f64());
    }
    let name = "segprobe_boundary_share_nodes";
    page.family(
        name,
        "gauge",
        "Nodes that share the targets; 1: this one probes all of them, 0: none, their number is not known.",
    );
    for b in &snapshot.boundaries {
        page.sample(name, &[("boundary", &b.name)], b.share_nodes);
    }
    let name = "segprobe_boundary_share_sweeps";
    page.family(name, "gauge", "Sweeps within which this node probes each target; 0: it probes none.");
    for b in &snapshot.boundaries {
        page.sample(name, &[("boundary", &b.name)], b.share_sweeps);
    }
    let name = "segprobe_sweep_last_completed_timestamp_seconds";
    page.family(name, "gauge", "When the last sweep was completed.");
    for (b, completed) in snapshot.boundaries.iter().filter_map(|b| Some((b, b.completed?))) {
        page.sample(name, &[("boundary", &b.name)], completed.as_millisecond() as f64 / 1e3);
    }
}

fn node(page: &mut Exposition, snapshot: &Snapshot) {
    let Some(node) = &snapshot.node else { return };
    page.family("segprobe_node_pods", "gauge", "Running pods of a zone on this node.");
    for (zone, count) in &node.zones {
        page.sample("segprobe_node_pods", &[("zone", zone)], count);
    }
    page.family("segprobe_runtime_up", "gauge", "Whether the container runtime told its pods when it was last asked.");
    page.sample("segprobe_runtime_up", &[], u8::from(node.runtime_answers));
}

fn heartbeats(page: &mut Exposition, snapshot: &Snapshot) {
    let name = "segprobe_targets_heartbeat_timestamp_seconds";
    page.family(name, "gauge", "When discovery last vouched for a target file.");
    for (file, at) in &snapshot.heartbeats {
        page.sample(name, &[("file", file)], at.as_second());
    }
}

fn totals(page: &mut Exposition, snapshot: &Snapshot, judged: &[(&CheckView, Reason)]) {
    let mut counts: BTreeMap<(&Arc<str>, Reason), u64> = BTreeMap::new();
    for (check, reason) in judged {
        *counts.entry((&check.id.boundary, *reason)).or_default() += 1;
    }
    page.family("segprobe_boundary_checks", "gauge", "Checks by verdict and reason; checks in report mode excluded.");
    for b in &snapshot.boundaries {
        for reason in Reason::ALL {
            let labels = [
                ("boundary", &*b.name),
                ("expect", b.expect.as_str()),
                ("verdict", reason.verdict().as_str()),
                ("reason", reason.as_str()),
            ];
            page.sample("segprobe_boundary_checks", &labels, counts.get(&(&b.name, *reason)).unwrap_or(&0));
        }
    }
}

/// The state set. Past the first bound only `fail` and `inconclusive` have series, past the second only the worst of them.
fn verdicts(page: &mut Exposition, snapshot: &Snapshot, series: SeriesConfig, judged: &[(&CheckView, Reason)]) {
    let shown: Vec<&(&CheckView, Reason)> = if judged.len() <= series.every_check as usize {
        judged.iter().collect()
    } else {
        let mut worst: Vec<_> = judged.iter().filter(|(_, reason)| reason.verdict() <= Verdict::Inconclusive).collect();
        // Stable by identity within a verdict, so that the same ones are kept from scrape to scrape.
        worst.sort_by_key(|(_, reason)| reason.verdict());
        worst.truncate(series.worst_checks as usize);
        worst
    };
    page.family("segprobe_check_verdict", "gauge", "Verdict of a check: exactly one of the four is 1.");
    for (check, reason) in &shown {
        for verdict in Verdict::ALL {
            let id = &check.id;
            let labels = [
                ("boundary", &*id.boundary),
                ("expect", id.expect.as_str()),
                ("check", id.kind.as_str()),
                ("source_namespace", &*id.source.namespace),
                ("source", &*id.source.name),
                ("target_namespace", &*id.target_namespace),
                ("target", &*id.target),
                ("via", id.via_str()),
                ("verdict", verdict.as_str()),
            ];
            page.sample("segprobe_check_verdict", &labels, u8::from(reason.verdict() == *verdict));
        }
    }
    page.family("segprobe_series_suppressed", "gauge", "Checks without series of their own.");
    for b in &snapshot.boundaries {
        let of = |id: &crate::model::CheckId| id.boundary == b.name;
        let all = judged.iter().filter(|(c, _)| of(&c.id)).count();
        let kept = shown.iter().filter(|(c, _)| of(&c.id)).count();
        page.sample("segprobe_series_suppressed", &[("boundary", &b.name)], all - kept);
    }
}

fn findings(page: &mut Exposition, snapshot: &Snapshot) {
    page.family("segprobe_findings_total", "counter", "Findings opened.");
    for ((boundary, kind), count) in &snapshot.findings {
        page.sample("segprobe_findings_total", &[("boundary", boundary), ("check", kind.as_str())], count.total);
    }
    let name = "segprobe_last_finding_timestamp_seconds";
    page.family(name, "gauge", "When the last finding was opened.");
    for ((boundary, kind), last) in snapshot.findings.iter().filter_map(|(key, count)| Some((key, count.last?))) {
        let labels = [("boundary", &**boundary), ("check", kind.as_str())];
        page.sample(name, &labels, last.as_millisecond() as f64 / 1e3);
    }
}

/// Counts for the protected namespaces, zeros included, and one with an empty `target_namespace` for all others: names that
/// a server makes up must not become labels.
fn disclosures(page: &mut Exposition, snapshot: &Snapshot, now: Instant) {
    page.family(
        "segprobe_dns_disclosed_names",
        "gauge",
        "Names that a DNS server disclosed in the last round of questions.",
    );
    for (id, dns) in dns_results(snapshot, now) {
        let mut sample = |namespace: &str, count: usize| {
            let labels = [&dns_labels(id)[..], &[("target_namespace", namespace)]].concat();
            page.sample("segprobe_dns_disclosed_names", &labels, count);
        };
        let names = dns.seen.names();
        for namespace in dns.protected.iter() {
            sample(namespace, names.get(&**namespace).map_or(0, BTreeSet::len));
        }
        let others = names.iter().filter(|(ns, _)| !dns.protected.iter().any(|p| **p == ***ns));
        sample("", others.map(|(_, names)| names.len()).sum());
    }
    let name = "segprobe_dns_sweep_progress_ratio";
    page.family(name, "gauge", "How much of its questions a DNS check has asked in the round under way.");
    for (id, dns) in dns_results(snapshot, now) {
        let (asked, questions) = dns.seen.progress();
        page.sample(name, &dns_labels(id), if questions == 0 { 1.0 } else { asked as f64 / questions as f64 });
    }
    let name = "segprobe_dns_last_full_coverage_timestamp_seconds";
    page.family(name, "gauge", "When a DNS check had last asked all of its questions without losing any.");
    for (id, dns) in dns_results(snapshot, now) {
        if let Some(covered) = dns.seen.covered() {
            page.sample(name, &dns_labels(id), covered.as_millisecond() as f64 / 1e3);
        }
    }
}

fn dns_results(snapshot: &Snapshot, now: Instant) -> impl Iterator<Item = (&CheckId, &DnsEvidence)> {
    snapshot.checks.iter().filter_map(move |check| {
        let result = check.result.as_ref().filter(|_| check.reason_at(now) != Reason::Stale)?;
        match &result.evidence {
            Evidence::Dns(dns) => Some((&*check.id, &**dns)),
            Evidence::Reach(_) | Evidence::Node(_) => None,
        }
    })
}

fn dns_labels(id: &CheckId) -> [(&'static str, &str); 5] {
    [
        ("boundary", &*id.boundary),
        ("check", id.kind.as_str()),
        ("source_namespace", &*id.source.namespace),
        ("source", &*id.source.name),
        ("server", &*id.target),
    ]
}
