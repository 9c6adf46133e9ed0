//! TAP 14: a subtest for each boundary, a test point for each check, its evidence as a YAML diagnostic.
//!
//! What makes the exit code 1 or 2 is `not ok`. What was not proven is `not ok` too, with a `TODO`: harnesses count that as no
//! failure, and show it. What is not judged, or not tested, is skipped. Source: the specification at testanything.org.

use std::io::{self, Write};

use super::report::{Report, Row, Section, Weight};
use crate::model::plain;

/// Writes the document.
///
/// # Errors
/// What the writer said.
pub fn write(out: &mut impl Write, report: &Report<'_>) -> io::Result<()> {
    writeln!(out, "TAP version 14")?;
    writeln!(out, "# {}", escape(&comment(report)))?;
    writeln!(out, "1..{}", report.sections.len())?;
    for (section, number) in report.sections.iter().zip(1..) {
        let name = escape(&section.boundary.name);
        writeln!(out, "# Subtest: {name}")?;
        let points = points(report, section);
        let skip = if points.is_empty() { " # SKIP no checks" } else { "" };
        writeln!(out, "    1..{}{skip}", points.len())?;
        points.iter().zip(1..).try_for_each(|(point, number)| write_point(out, point, number))?;
        let failed = points.iter().any(|point| !point.ok && !matches!(point.directive, Some(("TODO", _))));
        writeln!(out, "{} {number} - {name}{skip}", ok(!failed))?;
    }
    Ok(())
}

struct Point {
    ok: bool,
    name: String,
    /// `SKIP` or `TODO`, and why.
    directive: Option<(&'static str, String)>,
    /// Keys and what they say; empty where there is nothing to say.
    diagnostic: Vec<(&'static str, String)>,
}

fn comment(report: &Report<'_>) -> String {
    let header = &report.header;
    format!("segprobe {} on {}: {}", header.version, header.node, report.totals)
}

fn points(report: &Report<'_>, section: &Section<'_>) -> Vec<Point> {
    let untested = section.untested.map(|why| Point {
        ok: false,
        name: "nothing was tested".into(),
        directive: None,
        diagnostic: vec![("reason", "not-tested".into()), ("message", plain(why))],
    });
    let rows = section.rows.iter().map(|row| of_row(row, report.require_witness));
    let gaps = section.not_tested.iter().map(|gap| Point {
        ok: true,
        name: plain(&gap.what),
        directive: Some(("SKIP", format!("not tested: {}", plain(&gap.why)))),
        diagnostic: Vec::new(),
    });
    untested.into_iter().chain(rows).chain(gaps).collect()
}

fn of_row(row: &Row<'_>, require_witness: bool) -> Point {
    let explained = format!("{}: {}", row.reason, row.reason.explain());
    let (ok, directive) = match row.weight(require_witness) {
        Weight::Failed | Weight::Undecided => (false, None),
        Weight::Unproven => (false, Some(("TODO", format!("unverified: {explained}")))),
        Weight::Passed => (true, None),
        Weight::Reported => (true, Some(("SKIP", "reported, not judged".into()))),
    };
    let mut diagnostic = vec![("verdict", row.word().into())];
    if row.weight(false) != Weight::Reported {
        diagnostic.extend([("reason", row.reason.as_str().into()), ("message", row.reason.explain().into())]);
    }
    diagnostic.extend([("source", row.source()), ("target", row.target()), ("evidence", row.evidence())]);
    diagnostic.extend(row.since().map(|since| ("finding_open_since", since.to_string())));
    Point { ok, name: row.name(), directive, diagnostic }
}

fn write_point(out: &mut impl Write, point: &Point, number: usize) -> io::Result<()> {
    write!(out, "    {} {number} - {}", ok(point.ok), escape(&point.name))?;
    if let Some((word, why)) = &point.directive {
        write!(out, " # {word} {}", escape(why))?;
    }
    writeln!(out)?;
    if point.diagnostic.is_empty() {
        return Ok(());
    }
    writeln!(out, "      ---")?;
    for (key, value) in &point.diagnostic {
        // A string of JSON is one of YAML as well.
        writeln!(out, "      {key}: {}", serde_json::to_string(value)?)?;
    }
    writeln!(out, "      ...")
}

const fn ok(ok: bool) -> &'static str {
    if ok { "ok" } else { "not ok" }
}

/// A description or the reason of a directive: in one line, and no directive of its own.
fn escape(text: &str) -> String {
    plain(text).replace('\\', "\\\\").replace('#', "\\#")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_is_a_directive() {
        assert_eq!(escape("a # SKIP b\\c\nok"), "a \\# SKIP b\\\\c\\\\nok");
    }
}
