//! One check with all that it rests on.

use std::sync::Arc;

use maud::{Markup, html};

use super::{Query, Shown, badge, moment, scroll, target};
use crate::{
    export::{report::Row, words},
    ledger::{DnsEvidence, Evidence, Finding},
    model::{AddressKind, Mode, Reason, Transport, plain},
    observation::{AddressSeen, NodeSeen, ReplyClass},
    plan::share::in_words,
};

/// Addresses, findings or names that are told one by one; the JSON has them all.
const MOST: usize = 200;

pub fn show(shown: &Shown<'_>, row: &Row<'_>, query: &Query) -> Markup {
    let id = &row.view.id;
    html! {
        p { a href=(query.of_all().href()) { "← Overview" } " · "
            a href=(query.of_all().with("boundary", &id.boundary).href()) { "all of " (plain(&id.boundary)) } }
        div class=(format!("answer {}", row.word())) {
            h1 { (badge(row.word())) " " (row.source()) " → " (target(row)) }
            p { strong { (row.reason) } ": " (row.reason.explain()) "." }
        }
        dl {
            dt { "Boundary" } dd { (plain(&id.boundary)) ", expected " (id.expect) }
            dt { "Check" } dd { (id.kind) @if let Some(via) = id.via { ", addressed by its " (via) }
                @if row.view.mode == Mode::Report { ", reported only: it counts for no verdict" } }
            dt { "Measured" } dd {
                @match &row.view.result { Some(result) => (moment(result.at, shown.clock)), None => "not yet" }
                ", about every " (in_words(row.view.round)) }
            @if row.view.result.is_some() { dt { "In short" } dd { (words::evidence(row.view)) } }
        }
        (findings(shown, &row.view.findings))
        @if let Some(result) = &row.view.result {
            @match &result.evidence {
                Evidence::Reach(addresses) => (reach(addresses)),
                Evidence::Dns(dns) => (names(dns)),
                Evidence::Node(seen) => (pods(seen)),
            }
        }
    }
}

fn findings(shown: &Shown<'_>, findings: &[Finding]) -> Markup {
    html! {
        @if !findings.is_empty() {
            section aria-labelledby="findings" {
                h2 #findings { "Open findings " small { (findings.len()) } }
                (scroll("Open findings", &html! {
                    table.stack {
                        thead { tr { th { "Since" } th { "From" } th { "Address" } th { "Reason" } th { "Last failed" } th { "Closes" } } }
                        tbody { @for finding in findings.iter().take(MOST) {
                            tr {
                                td data-label="Since" { (moment(finding.since, shown.clock)) }
                                td data-label="From" { @match &finding.from { Some(pod) => (plain(&pod.name)), None => "this agent" } }
                                td data-label="Address" { @match finding.address { Some(address) => (address), None => "–" } }
                                td data-label="Reason" { (finding.reason) }
                                td data-label="Last failed" { (moment(finding.last_failed, shown.clock)) }
                                td data-label="Closes" { "blocked " (finding.blocked) " of " (finding.closes_at) " times in a row" }
                            }
                        } }
                    }
                }))
                (more(findings.len()))
            }
        }
    }
}

fn more(all: usize) -> Markup {
    html! { @if all > MOST { p.more { "And " (all - MOST) " more: see the JSON." } } }
}

fn reach(addresses: &[(AddressSeen, Reason)]) -> Markup {
    let mut worst: Vec<&(AddressSeen, Reason)> = addresses.iter().collect();
    worst.sort_by_key(|(_, reason)| *reason);
    html! {
        section aria-labelledby="addresses" {
            h2 #addresses { "Addresses " small { (addresses.len()) } }
            (scroll("Addresses", &html! {
                table.stack {
                    thead { tr { th { "Verdict" } th { "Reason" } th { "Kind" } th { "What was seen" } } }
                    tbody { @for (seen, reason) in worst.iter().take(MOST) {
                        tr {
                            td data-label="Verdict" { (badge(reason.verdict().as_str())) }
                            td data-label="Reason" { strong { (reason) } ": " (reason.explain()) }
                            td data-label="Kind" { @match seen.kind {
                                AddressKind::Endpoint => "endpoint: one answers there",
                                AddressKind::Virtual => "virtual: who answers may change",
                            } }
                            td data-label="What was seen" { (plain(&words::of_address(seen))) }
                        }
                    } }
                }
            }))
            (more(addresses.len()))
        }
    }
}

fn names(dns: &DnsEvidence) -> Markup {
    let seen = &dns.seen;
    let disclosed = seen.names();
    let is_protected = |namespace: &str| dns.protected.iter().any(|p| **p == *namespace);
    let (asked, questions) = seen.progress();
    let over = Transport::ALL.iter().zip(&seen.over).filter(|(_, over)| over.used);
    html! {
        section aria-labelledby="names" {
            h2 #names { "Names disclosed" }
            @if disclosed.is_empty() { p { "None." } }
            @for (namespace, names) in disclosed.iter().take(MOST) {
                h3 { (plain(namespace)) " " small { (names.len())
                    @if is_protected(namespace) { ", protected" } @else { ", not of the protected zone" } } }
                ul.names { @for name in names.iter().take(MOST) { li { code { (plain(name)) } } } }
                (more(names.len()))
            }
            (more(disclosed.len()))
            @if seen.overflow() > 0 { p.more { "And " (seen.overflow()) " that found no place in memory." } }
        }
        section aria-labelledby="questions" {
            h2 #questions { "Questions to " (dns.server) }
            @if questions > 0 { p { (asked) " of " (questions) " asked in the round under way." } }
            (scroll("Questions", &html! {
                table.stack {
                    thead { tr { th { "Over" } th { "Replies" } th { "Sent" } th { "Answered" } th { "Control" } th { "Known name" } } }
                    tbody { @for (transport, over) in over {
                        tr {
                            td data-label="Over" { (transport) }
                            td data-label="Replies" { @for class in ReplyClass::ALL.iter().filter(|class| over.count(**class) > 0) {
                                div { (over.count(*class)) " " (class) } } }
                            td data-label="Sent" { (over.sent) }
                            td data-label="Answered" { (over.answered) }
                            td data-label="Control" { (words::control(over.control[0])) ", then " (words::control(over.control[1])) }
                            td data-label="Known name" { @if over.self_check { "found" } @else { "not found" } }
                        }
                    } }
                }
            }))
        }
    }
}

fn pods(seen: &NodeSeen) -> Markup {
    let zone = |told: &Option<(Vec<Arc<str>>, usize)>| match told {
        None => html! { "not known" },
        Some((some, count)) => html! {
            (count) ul { @for name in some { li { code { (plain(name)) } } } }
        },
    };
    html! {
        section aria-labelledby="pods" {
            h2 #pods { "Pods on this node" }
            dl { dt { "Of the low zone" } dd { (zone(&seen.from)) } dt { "Of the high zone" } dd { (zone(&seen.to)) } }
        }
    }
}
