//! The first look: the answer, totals, open findings, the matrix, and what all of it rests on.

use std::collections::BTreeMap;

use maud::{Markup, html};

use super::{Query, Shown, badge, dns, headline::Headline, list, matrix, moment, scroll, target};
use crate::{
    export::report::{Report, Row, Totals, named},
    ledger::{ControlState, Finding},
    model::{Identity, Verdict, plain},
    plan::share::in_words,
};

/// Open findings that are told one by one.
const MOST_FINDINGS: usize = 12;
/// Sources whose controls are told.
const MOST_SOURCES: usize = 50;
/// Things not tested that are told.
const MOST_GAPS: usize = 100;

pub fn overview(
    shown: &Shown<'_>,
    report: &Report<'_>,
    rows: &[Row<'_>],
    headline: &Headline,
    query: &Query,
) -> Markup {
    html! {
        (answer(shown, headline, report.totals, query))
        div.sides {
            (findings(shown, rows, query))
            section aria-labelledby="matrix" {
                h2 #matrix { "Who reaches what" }
                @if report.sections.is_empty() { p { "No boundary is configured." } }
                @for section in &report.sections { (matrix::show(section, query)) }
            }
            (dns::disclosures(rows, query))
            (sweeps(shown))
            (controls(shown))
            (node(shown))
            (not_tested(shown))
        }
        section aria-labelledby="checks" {
            h2 #checks { "Checks" }
            (list::form(shown, query))
            (list::table(shown, &rows.iter().collect::<Vec<_>>(), query))
        }
    }
}

fn answer(shown: &Shown<'_>, headline: &Headline, totals: Totals, query: &Query) -> Markup {
    // The boundary that was swept longest ago speaks for all but those of which nothing is tested.
    let tested = || shown.snapshot.boundaries.iter().filter(|boundary| boundary.untested.is_none());
    let swept = tested().map(|boundary| boundary.completed).min();
    let shared = tested().any(|boundary| boundary.share_nodes != 1);
    html! {
        div class=(format!("answer {}", headline.state)) {
            h1 { (headline.answer) }
            p { (headline.meaning) }
            p { @match swept {
                Some(Some(time)) => { @if shared { "This node's share" } @else { "Everything" }
                    " was swept by " (moment(time, shown.clock)) "." }
                Some(None) => "Not every boundary has been swept yet.",
                None => "Nothing is swept here.",
            } }
        }
        ul.totals {
            @for verdict in Verdict::ALL {
                li class=(if totals.of(*verdict) == 0 { "zero" } else { "some" }) {
                    a href=(query.of_all().with("verdict", verdict.as_str()).href()) {
                        strong { (totals.of(*verdict)) } " " (badge(verdict.as_str()))
                    }
                }
            }
        }
    }
}

fn findings(shown: &Shown<'_>, rows: &[Row<'_>], query: &Query) -> Markup {
    let (open, all) = newest(rows);
    html! {
        section aria-labelledby="findings" {
            h2 #findings { "Open findings " small { (all) } }
            @if open.is_empty() {
                p { "None is open." }
            } @else {
                (scroll("Open findings", &html! {
                    table.stack {
                        thead { tr { th { "Since" } th { "From" } th { "To" } th { "Reason" } th { "Last failed" } } }
                        tbody { @for (row, finding) in &open {
                            tr {
                                td data-label="Since" { (moment(finding.since, shown.clock)) }
                                td data-label="From" { (row.source())
                                    @if let Some(pod) = &finding.from { br; small { "pod " (plain(&pod.name)) } } }
                                td data-label="To" { a href=(query.of(row).href()) { (target(row)) }
                                    br; small { (row.view.id.kind) @if let Some(address) = finding.address { " at " (address) } } }
                                td data-label="Reason" { strong { (finding.reason) } ": " (finding.reason.explain()) }
                                td data-label="Last failed" { (moment(finding.last_failed, shown.clock))
                                    @if finding.blocked > 0 { br; small { "blocked since, " (finding.blocked) " of " (finding.closes_at) " times" } } }
                            }
                        } }
                    }
                }))
                @if all > open.len() {
                    p.more { "And " (all - open.len()) " more. "
                        a href=(query.of_all().with("verdict", "fail").href()) { "All failed checks" } }
                }
            }
        }
    }
}

/// The newest findings, newest first, and how many there are: what has just been opened is what one came for.
fn newest<'a>(rows: &'a [Row<'a>]) -> (Vec<(&'a Row<'a>, &'a Finding)>, usize) {
    let (mut newest, mut all) = (Vec::<(&Row<'_>, &Finding)>::new(), 0);
    for (row, finding) in rows.iter().flat_map(|row| row.view.findings.iter().map(move |finding| (row, finding))) {
        all += 1;
        let place = newest.partition_point(|(_, known)| known.since >= finding.since);
        if place < MOST_FINDINGS {
            newest.insert(place, (row, finding));
            newest.truncate(MOST_FINDINGS);
        }
    }
    (newest, all)
}

fn sweeps(shown: &Shown<'_>) -> Markup {
    let boundaries = &shown.snapshot.boundaries;
    html! {
        section aria-labelledby="sweeps" {
            h2 #sweeps { "Sweeps" }
            (scroll("Sweeps", &html! {
                table.stack {
                    thead { tr { th { "Boundary" } th { "Vantage" } th { "Every" } th { "Last completed" } th { "Took" } } }
                    tbody { @for boundary in boundaries {
                        tr {
                            td data-label="Boundary" { (plain(&boundary.name)) }
                            td data-label="Vantage" { (boundary.vantage) }
                            td data-label="Every" { (in_words(boundary.interval))
                                @match (boundary.share_nodes, boundary.share_sweeps) {
                                    (1, _) => {}
                                    (0, _) => { br; small { "shared by nodes, and none is listed: nothing is probed" } }
                                    (nodes, sweeps) => { br; small { "all targets in " (sweeps) " sweeps, shared by " (nodes) " nodes" } }
                                } }
                            td data-label="Last completed" {
                                @match boundary.completed { Some(time) => (moment(time, shown.clock)), None => "not yet" }
                            }
                            td data-label="Took" {
                                @match boundary.took { Some(took) => { (format!("{:.1} s", took.as_secs_f64())) }, None => "–" }
                            }
                        }
                    } }
                }
            }))
        }
    }
}

/// By source: those with a control that cannot be trusted come first.
fn controls(shown: &Shown<'_>) -> Markup {
    let mut sources: BTreeMap<&Identity, Vec<&ControlState>> = BTreeMap::new();
    for control in &shown.snapshot.controls {
        sources.entry(&control.source).or_default().push(control);
    }
    let bad = |controls: &[&ControlState]| controls.iter().filter(|control| !control.ok).count();
    let mut sources: Vec<_> = sources.into_iter().collect();
    sources.sort_by_key(|(_, controls)| std::cmp::Reverse(bad(controls)));
    html! {
        section aria-labelledby="controls" {
            h2 #controls { "Vantages and their controls" }
            @if sources.is_empty() { p { "No controls were tried yet." } }
            @else {
                (scroll("Vantages and their controls", &html! {
                    table.stack {
                        thead { tr { th { "Vantage" } th { "Trustworthy" } th { "Not trustworthy" } } }
                        tbody { @for (source, controls) in sources.iter().take(MOST_SOURCES) {
                            tr {
                                td data-label="Vantage" { (named(source)) }
                                td data-label="Trustworthy" { (controls.len() - bad(controls)) " of " (controls.len()) " controls" }
                                td data-label="Not trustworthy" {
                                    @if bad(controls) == 0 { "none" }
                                    @for control in controls.iter().filter(|control| !control.ok) {
                                        div { (badge("inconclusive")) " " (control.kind) " " (plain(&control.control)) }
                                    }
                                }
                            }
                        } }
                    }
                }))
                @if sources.len() > MOST_SOURCES { p.more { "And " (sources.len() - MOST_SOURCES) " vantages more, none of them worse." } }
            }
        }
    }
}

/// This node's pods and discovery's word, where they are looked at.
fn node(shown: &Shown<'_>) -> Markup {
    let snapshot = shown.snapshot;
    html! {
        @if snapshot.node.is_some() || !snapshot.heartbeats.is_empty() {
            section aria-labelledby="node" {
                h2 #node { "This node and its sources" }
                ul {
                    @if let Some(node) = &snapshot.node {
                        li { "The container runtime " @if node.runtime_answers { "answers." } @else { strong { "does not answer." } } }
                        @for (zone, pods) in &node.zones { li { (pods) " running pods of zone " (plain(zone)) } }
                    }
                    @for (file, time) in &snapshot.heartbeats {
                        li { "Discovery vouched for " code { (plain(file)) } " at " (moment(*time, shown.clock)) }
                    }
                }
            }
        }
    }
}

fn not_tested(shown: &Shown<'_>) -> Markup {
    let gaps = &shown.snapshot.not_tested;
    html! {
        section aria-labelledby="not-tested" {
            h2 #not-tested { "Not tested, or not provable " small { (gaps.len()) } }
            @if gaps.is_empty() { p { "Nothing was left out." } }
            @else {
                ul { @for gap in gaps.iter().take(MOST_GAPS) {
                    li { strong { (plain(&gap.boundary)) } ": " (plain(&gap.what)) ": " (plain(&gap.why)) }
                } }
                @if gaps.len() > MOST_GAPS { p.more { "And " (gaps.len() - MOST_GAPS) " more: see the JSON." } }
            }
        }
    }
}
