//! The status page: one look answers whether we are segmented, and everything else is one click away.
//!
//! It is rendered here whole, without scripts; what is asked of it stands in its address ([`Query`]). All names are hostile:
//! `plain` makes them visible, and the templates escape them.

mod check;
mod dns;
mod headline;
mod layout;
mod list;
mod matrix;
mod overview;
mod query;
#[cfg(test)]
mod tests;

use std::time::Instant;

use jiff::{SignedDuration, Timestamp};
use maud::{Markup, html};

use super::{
    Run, VERSION,
    report::{Report, Row},
};
use crate::{
    ledger::Snapshot,
    model::{Expect, plain},
};
use headline::headline;
pub use layout::policy;
pub use query::Query;

/// The page is loaded again after so many seconds, where it was not asked to stay.
pub const REFRESH_SECONDS: u32 = 30;

/// What is shown.
pub struct Shown<'a> {
    /// Who speaks.
    pub run: &'a Run,
    /// Path of the metrics.
    pub telemetry_path: &'a str,
    /// The results.
    pub snapshot: &'a Snapshot,
    /// The moment, on the monotonic clock: what is too old says so.
    pub now: Instant,
    /// The moment, for people.
    pub clock: Timestamp,
}

/// `payments/vault:8200`, or the DNS server's name.
fn target(row: &Row<'_>) -> String {
    let id = &row.view.id;
    if id.target_namespace.is_empty() {
        plain(&id.target)
    } else {
        plain(&format!("{}/{}", id.target_namespace, id.target))
    }
}

/// The landing page of what has no verdicts to show.
pub fn bare(telemetry_path: &str) -> String {
    let body = html! {
        main.bare {
            h1 { "segprobe" }
            p { "Version " (VERSION) ". " a href=(relative(telemetry_path)) { "Metrics" } }
        }
    };
    layout::document("segprobe", "none", &body)
}

/// Verdicts, as they were asked for.
pub fn detail(shown: &Shown<'_>, query: &Query) -> String {
    let report = Report::new(shown.run, shown.snapshot, shown.now);
    let untested = report.untested().filter(|(boundary, _)| boundary.expect == Expect::Blocked).count();
    let mut rows: Vec<Row<'_>> = report.rows().copied().collect();
    // Worst first, reports last; the rest stays in the order of identities.
    rows.sort_by_key(|row| (row.view.mode, row.reason));
    let headline = headline(&rows, untested);
    let title = format!("{} · segprobe {}", headline.answer, plain(&shown.run.node));
    let content = if query.is_filter() {
        list::filtered(shown, &rows, query)
    } else {
        overview::overview(shown, &report, &rows, &headline, query)
    };
    let body = html! {
        (header(shown, query))
        main { (content) }
        (footer(shown))
    };
    layout::document(&title, headline.state, &body)
}

fn header(shown: &Shown<'_>, query: &Query) -> Markup {
    html! {
        header {
            p.brand { a href=(query.of_all().href()) { "segprobe" } " " span { (plain(&shown.run.node)) } }
            p.clock {
                time datetime=(shown.clock.strftime("%Y-%m-%dT%H:%M:%SZ")) { (at(shown.clock)) }
                " "
                a href=(query.turned().href()) {
                    @if query.paused { "Refresh again" } @else { "Stop refreshing" }
                }
            }
        }
    }
}

fn footer(shown: &Shown<'_>) -> Markup {
    let hash = shown.snapshot.config_hash.get(..12).unwrap_or(&shown.snapshot.config_hash);
    html! {
        footer {
            p {
                "Version " (VERSION) " · kernel " (plain(&shown.run.kernel)) " · configuration "
                code { (plain(hash)) }
            }
            nav aria-label="Other forms" {
                a href=(relative(shown.telemetry_path)) { "Metrics" } " "
                a href="api/v1/checks" { "JSON" } " "
                a href="config" { "Configuration" }
            }
        }
    }
}

/// A verdict as a word and a sign: neither needs a colour.
fn badge(word: &str) -> Markup {
    let sign = match word {
        "fail" => "✗",
        "inconclusive" => "?",
        "unverified" => "○",
        "pass" => "✓",
        _ => "·",
    };
    html! { span class=(format!("badge {word}")) { span aria-hidden="true" { (sign) } " " (word) } }
}

/// What may be wider than the screen scrolls alone, with the keyboard too.
fn scroll(label: &str, content: &Markup) -> Markup {
    html! { div.scroll role="region" aria-label=(format!("{label}: table")) tabindex="0" { (content) } }
}

/// A path below this page's own.
fn relative(path: &str) -> String {
    format!(".{path}")
}

fn at(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// `3 min ago`, coarse: it is read, not counted with.
fn ago(time: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(time).max(SignedDuration::ZERO).as_secs();
    match seconds {
        0..120 => format!("{seconds} s ago"),
        120..7_200 => format!("{} min ago", seconds / 60),
        7_200..172_800 => format!("{} h ago", seconds / 3_600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

/// A moment and how long ago it was.
fn moment(time: Timestamp, now: Timestamp) -> Markup {
    html! { time datetime=(time.strftime("%Y-%m-%dT%H:%M:%SZ")) { (at(time)) } " " small { "(" (ago(time, now)) ")" } }
}
