//! Who against what: for each boundary a table of sources and targets, each cell as bad as the worst of its checks.

use std::collections::{BTreeMap, BTreeSet};

use maud::{Markup, html};

use super::{Query, badge, scroll};
use crate::{
    export::report::{Row, Section},
    model::{CheckKind, Mode, Verdict, plain},
};

/// Most rows; with more targets than that a row is a namespace.
const MOST_ROWS: usize = 40;
/// Most columns; with more sources than that a column is a namespace.
const MOST_COLUMNS: usize = 16;

/// One end of checks: a target or a source, or all of a namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct End {
    /// What it is called.
    pub label: String,
    /// What asks the page for it: keys and values.
    pub filter: Vec<(&'static str, String)>,
}

/// The ends and the checks between them.
#[derive(Debug, Default)]
pub struct Matrix {
    /// Targets, the worst first.
    pub rows: Vec<End>,
    /// Sources, the worst first.
    pub columns: Vec<End>,
    /// Checks with each verdict, by row and column.
    pub cells: BTreeMap<(usize, usize), [usize; 4]>,
    /// Rows and columns that found no place.
    pub left_out: (usize, usize),
}

/// Sorts the judged checks of a boundary into a matrix.
pub fn matrix(rows: &[Row<'_>]) -> Matrix {
    let rows: Vec<&Row<'_>> = rows.iter().filter(|row| row.view.mode == Mode::Judge).collect();
    let (targets, rows_left_out) = ends(&rows, target, target_namespace, MOST_ROWS);
    let (sources, columns_left_out) = ends(&rows, source, source_namespace, MOST_COLUMNS);
    let mut cells: BTreeMap<(usize, usize), [usize; 4]> = BTreeMap::new();
    for row in rows {
        if let (Some(at), Some(across)) = (targets.place(row), sources.place(row)) {
            cells.entry((at, across)).or_default()[row.reason.verdict() as usize] += 1;
        }
    }
    Matrix { rows: targets.ends, columns: sources.ends, cells, left_out: (rows_left_out, columns_left_out) }
}

type Named = fn(&Row<'_>) -> End;

struct Ends {
    ends: Vec<End>,
    places: BTreeMap<End, usize>,
    named: Named,
}

impl Ends {
    fn place(&self, row: &Row<'_>) -> Option<usize> {
        self.places.get(&(self.named)(row)).copied()
    }
}

/// The ends of checks one by one or, where there are too many, by their namespaces; and how many have no place even so.
fn ends(rows: &[&Row<'_>], one: Named, namespace: Named, most: usize) -> (Ends, usize) {
    let few = rows.iter().map(|row| one(row)).collect::<BTreeSet<_>>().len() <= most;
    let named = if few { one } else { namespace };
    let mut worst: BTreeMap<End, Verdict> = BTreeMap::new();
    for row in rows {
        let verdict = row.reason.verdict();
        worst.entry(named(row)).and_modify(|worst| *worst = verdict.min(*worst)).or_insert(verdict);
    }
    let mut ends: Vec<(Verdict, End)> = worst.into_iter().map(|(end, verdict)| (verdict, end)).collect();
    ends.sort();
    let left_out = ends.len().saturating_sub(most);
    ends.truncate(most);
    let ends: Vec<End> = ends.into_iter().map(|(_, end)| end).collect();
    let places = ends.iter().cloned().zip(0..).collect();
    (Ends { ends, places, named }, left_out)
}

fn target(row: &Row<'_>) -> End {
    let id = &row.view.id;
    let label = match id.kind {
        CheckKind::TcpConnect | CheckKind::DnsQuery if id.target_namespace.is_empty() => id.target.to_string(),
        CheckKind::TcpConnect | CheckKind::DnsQuery => format!("{}/{}", id.target_namespace, id.target),
        CheckKind::NodeCoResidency => format!("same node: {}", id.target),
        _ => format!("DNS {}", id.target),
    };
    let mut filter = vec![("target_namespace", id.target_namespace.to_string()), ("target", id.target.to_string())];
    // A zone may be called as a server is.
    if id.kind == CheckKind::NodeCoResidency {
        filter.push(("check", id.kind.to_string()));
    }
    End { label: plain(&label), filter }
}

fn target_namespace(row: &Row<'_>) -> End {
    let id = &row.view.id;
    if id.target_namespace.is_empty() {
        return target(row);
    }
    let filter = vec![("target_namespace", id.target_namespace.to_string())];
    End { label: plain(&format!("{}/…", id.target_namespace)), filter }
}

fn source(row: &Row<'_>) -> End {
    let source = &row.view.id.source;
    let namespace = ("source_namespace", source.namespace.to_string());
    End { label: row.source(), filter: vec![namespace, ("source", source.name.to_string())] }
}

fn source_namespace(row: &Row<'_>) -> End {
    let namespace = &row.view.id.source.namespace;
    let filter = vec![("source_namespace", namespace.to_string())];
    End { label: plain(&format!("{namespace}/…")), filter }
}

/// The matrix of one boundary.
pub fn show(section: &Section<'_>, query: &Query) -> Markup {
    let matrix = matrix(&section.rows);
    let query = query.of_all().with("boundary", &section.boundary.name);
    let href = |ends: [&End; 2]| {
        let filters = ends.into_iter().flat_map(|end| &end.filter);
        filters.fold(query.clone(), |query, (key, value)| query.with(key, value)).href()
    };
    let name = plain(&section.boundary.name);
    html! {
        h3 {
            a href=(query.href()) { (name) } " "
            small { (plain(&section.heading())) }
        }
        @if matrix.rows.is_empty() {
            p { "No check of it is judged" @if let Some(why) = section.untested { ": " (plain(why)) } "." }
        } @else {
            (scroll(&format!("Matrix of {name}"), &html! {
                table.matrix {
                    thead { tr {
                        th scope="col" { "target ╲ source" }
                        @for column in &matrix.columns { th scope="col" { (column.label) } }
                    } }
                    tbody { @for (at, row) in matrix.rows.iter().enumerate() {
                        tr {
                            th scope="row" { (row.label) }
                            @for (across, column) in matrix.columns.iter().enumerate() {
                                @match matrix.cells.get(&(at, across)) {
                                    None => td { span.nothing { "not tested" } }
                                    Some(counts) => td { a href=(href([row, column])) { (cell(*counts)) } }
                                }
                            }
                        }
                    } }
                }
            }))
            @if matrix.left_out != (0, 0) {
                p.more { "Left out here: " (matrix.left_out.0) " more targets and " (matrix.left_out.1)
                    " more sources, none worse than those shown. " a href=(query.href()) { "All checks" } }
            }
        }
    }
}

/// The worst verdict, and of how many checks.
fn cell(counts: [usize; 4]) -> Markup {
    let all: usize = counts.iter().sum();
    let worst = Verdict::ALL.iter().find(|v| counts[**v as usize] > 0).map_or("pass", |v| v.as_str());
    let count = counts.iter().find(|n| **n > 0).copied().unwrap_or_default();
    html! {
        (badge(worst))
        @if all > 1 { small.count { " " (count) " of " (all) } }
    }
}
