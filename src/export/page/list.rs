//! The list of checks: what is asked for, in parts, and a check alone where it is the only one.

use maud::{Markup, html};

use super::{
    Query, Shown, badge, check, moment,
    query::{FIELDS, KEYS},
    scroll, target,
};
use crate::{
    export::report::{Row, Totals},
    model::{CheckKind, Verdict, plain},
};

/// Checks in one part of the list.
pub const PART: usize = 100;

/// What was asked for.
pub fn filtered(shown: &Shown<'_>, rows: &[Row<'_>], query: &Query) -> Markup {
    let found: Vec<&Row<'_>> = query.select(rows).collect();
    if let [row] = found[..] {
        return check::show(shown, row, query);
    }
    html! {
        h1 { (found.len()) @if found.len() == 1 { " check" } @else { " checks" }
            " " small { (Totals::of_rows(found.iter().copied())) } }
        (form(shown, query))
        (table(shown, &found, query))
    }
}

/// The filter. Exact values that have no field of their own are shown, and can be taken away.
pub fn form(shown: &Shown<'_>, query: &Query) -> Markup {
    let boundaries = shown.snapshot.boundaries.iter().map(|b| &*b.name);
    let verdicts = Verdict::ALL.iter().map(|v| v.as_str()).chain(["reported"]);
    let kinds = CheckKind::ALL.iter().map(|kind| kind.as_str());
    let (fields, others) = KEYS.split_at(FIELDS);
    html! {
        form.filter method="get" action="./" role="search" aria-label="Filter checks" {
            label { "Name contains " input type="search" name="q" value=(plain(&query.words)); }
            (select("Verdict", fields[0], verdicts, query))
            (select("Boundary", fields[1], boundaries, query))
            (select("Check", fields[2], kinds, query))
            @for (key, value) in query.exact().filter(|(key, _)| others.contains(key)) {
                input type="hidden" name=(key) value=(value);
            }
            @if query.paused { input type="hidden" name="refresh" value="off"; }
            button { "Filter" }
            @if query.is_filter() { " " a href=(query.of_all().href()) { "All checks" } }
        }
        @if query.exact().any(|(key, _)| others.contains(&key)) {
            ul.chips { @for (key, value) in query.exact().filter(|(key, _)| others.contains(key)) {
                li { (key) ": " strong { @if value.is_empty() { "none" } @else { (plain(value)) } } " "
                    a href=(query.without(key).href()) aria-label=(format!("Without {key}")) { "✕" } }
            } }
        }
    }
}

fn select<'a>(label: &str, key: &str, values: impl Iterator<Item = &'a str>, query: &'a Query) -> Markup {
    let asked = query.get(key);
    let mut values: Vec<&str> = values.collect();
    // What is asked for and is not there is shown, or it would seem that nothing was asked for.
    if !asked.is_empty() && !values.contains(&asked) {
        values.push(asked);
    }
    html! {
        label { (label) " "
            select name=(key) {
                option value="" { "any" }
                @for value in values { option value=(value) selected[asked == value] { (plain(value)) } }
            }
        }
    }
}

/// One part of the list, worst first.
pub fn table(shown: &Shown<'_>, rows: &[&Row<'_>], query: &Query) -> Markup {
    let parts = rows.len().div_ceil(PART).max(1);
    let part = query.part.min(parts - 1);
    let first = part * PART;
    html! {
        @if rows.is_empty() {
            p { "No check is like that." }
        } @else {
            (scroll("Checks", &html! {
                table.stack {
                    thead { tr { th { "Verdict" } th { "From" } th { "To" } th { "Check" } th { "Reason" } th { "Measured" } } }
                    tbody { @for row in rows.iter().skip(first).take(PART) {
                        tr {
                            td data-label="Verdict" { (badge(row.word())) }
                            td data-label="From" { (row.source()) }
                            td data-label="To" { a href=(query.of(row).href()) { (target(row)) } }
                            td data-label="Check" { (row.view.id.kind) @if let Some(via) = row.view.id.via { " " small { "(" (via) ")" } }
                                br; small { (plain(&row.view.id.boundary)) } }
                            td data-label="Reason" { strong { (row.reason) } ": " (row.reason.explain()) }
                            td data-label="Measured" {
                                @match &row.view.result { Some(result) => (moment(result.at, shown.clock)), None => "not yet" }
                            }
                        }
                    } }
                }
            }))
            nav.parts aria-label="Parts of the list" {
                @if part > 0 { a href=(query.at(part - 1).href()) rel="prev" { "← Before" } " " }
                span { (first + 1) " to " (rows.len().min(first + PART)) " of " (rows.len()) }
                @if part + 1 < parts { " " a href=(query.at(part + 1).href()) rel="next" { "Next →" } }
            }
        }
    }
}
