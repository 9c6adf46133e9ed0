//! JUnit XML, as Jenkins, GitLab and their like read it: a suite for each boundary, a case for each check.
//!
//! What makes the exit code 1 is a `failure`, what makes it 2 an `error`; what was not proven is `skipped`, not passed. Source of the
//! form: the schema of Ant's JUnit task (windyroad/JUnit-Schema) and, of what it leaves open, Jenkins' xunit plugin.

use std::{
    io::{self, Write},
    time::Duration,
};

use jiff::Timestamp;

use super::report::{Report, Row, Section, Weight};
use crate::model::plain;

/// Writes the document.
///
/// # Errors
/// What the writer said.
pub fn write(out: &mut impl Write, report: &Report<'_>) -> io::Result<()> {
    writeln!(out, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>")?;
    writeln!(out, "<testsuites>")?;
    report.sections.iter().enumerate().try_for_each(|(id, section)| suite(out, report, section, id))?;
    writeln!(out, "</testsuites>")
}

/// What a case is besides passed.
struct Mark {
    element: &'static str,
    kind: &'static str,
    message: String,
}

struct Case {
    name: String,
    mark: Option<Mark>,
    /// Evidence in words.
    text: String,
    took: Duration,
}

fn suite(out: &mut impl Write, report: &Report<'_>, section: &Section<'_>, id: usize) -> io::Result<()> {
    let (header, boundary) = (&report.header, section.boundary);
    let cases = cases(report, section);
    let marked = |element| cases.iter().filter(|c| c.mark.as_ref().is_some_and(|m| m.element == element)).count();
    // The form has no place for a time that is not known, and none for a zone.
    let started = boundary.span.map(|(started, _)| started).or(header.started).unwrap_or(Timestamp::UNIX_EPOCH);
    let host = if header.node.is_empty() { "localhost" } else { header.node };
    writeln!(
        out,
        "  <testsuite package=\"segprobe\" id=\"{id}\" name=\"{}\" timestamp=\"{}\" hostname=\"{}\" tests=\"{}\" failures=\"{}\" \
         errors=\"{}\" skipped=\"{}\" time=\"{}\">",
        escape(&boundary.name),
        started.strftime("%Y-%m-%dT%H:%M:%S"),
        escape(&plain(host)),
        cases.len(),
        marked("failure"),
        marked("error"),
        marked("skipped"),
        seconds(boundary.took.unwrap_or_default()),
    )?;
    writeln!(out, "    <properties>")?;
    for (name, value) in [
        ("segprobe.version", header.version),
        ("segprobe.config_hash", header.config_hash),
        ("segprobe.from", &boundary.from),
        ("segprobe.to", &boundary.to),
        ("segprobe.expect", boundary.expect.as_str()),
        ("segprobe.vantage", boundary.vantage.as_str()),
    ] {
        writeln!(out, "      <property name=\"{name}\" value=\"{}\"/>", escape(&plain(value)))?;
    }
    writeln!(out, "    </properties>")?;
    cases.iter().try_for_each(|c| case(out, section, c))?;
    // What passed has no place for its evidence but here.
    let passed: String =
        cases.iter().filter(|c| c.mark.is_none()).map(|c| format!("{}: {}\n", c.name, c.text)).collect();
    writeln!(out, "    <system-out>{}</system-out>", escape(&passed))?;
    writeln!(out, "    <system-err></system-err>")?;
    writeln!(out, "  </testsuite>")
}

fn cases(report: &Report<'_>, section: &Section<'_>) -> Vec<Case> {
    let mark = |element, kind, message: &str| Some(Mark { element, kind, message: plain(message) });
    let other = |name: &str, mark| Case { name: plain(name), mark, text: String::new(), took: Duration::ZERO };
    let untested = section.untested.map(|why| other("nothing was tested", mark("error", "not-tested", why)));
    let rows = section.rows.iter().map(|row| of_row(row, report.require_witness));
    let gaps = section.not_tested.iter().map(|gap| other(&gap.what, mark("skipped", "not-tested", &gap.why)));
    untested.into_iter().chain(rows).chain(gaps).collect()
}

fn of_row(row: &Row<'_>, require_witness: bool) -> Case {
    let explained = format!("{}: {}", row.reason, row.reason.explain());
    let mark = |element, kind, message| Some(Mark { element, kind, message });
    let mark = match row.weight(require_witness) {
        Weight::Failed => mark("failure", row.reason.as_str(), explained),
        Weight::Undecided => mark("error", row.reason.as_str(), explained),
        Weight::Unproven => mark("skipped", row.reason.as_str(), format!("unverified: {explained}")),
        Weight::Reported => mark("skipped", "reported", "reported, not judged".into()),
        Weight::Passed => None,
    };
    Case { name: row.name(), mark, text: row.text(), took: row.took().unwrap_or_default() }
}

fn case(out: &mut impl Write, section: &Section<'_>, case: &Case) -> io::Result<()> {
    let (class, name) = (escape(&section.boundary.name), escape(&case.name));
    write!(out, "    <testcase classname=\"{class}\" name=\"{name}\" time=\"{}\"", seconds(case.took))?;
    let Some(Mark { element, kind, message }) = &case.mark else { return writeln!(out, "/>") };
    let (message, text) = (escape(message), escape(&case.text));
    writeln!(out, ">\n      <{element} type=\"{kind}\" message=\"{message}\">{text}</{element}>\n    </testcase>")
}

fn seconds(duration: Duration) -> String {
    format!("{:.3}", duration.as_secs_f64())
}

/// Text for an element or an attribute. What XML 1.0 has no way to write (section 2.2) becomes U+FFFD.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\u{0}'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => {
                escaped.push('\u{fffd}');
            }
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_is_escaped_and_what_xml_cannot_write_replaced() {
        assert_eq!(
            escape("<a b=\"c\">]]>&\0\u{b}\u{ffff}\té"),
            "&lt;a b=&quot;c&quot;&gt;]]&gt;&amp;\u{fffd}\u{fffd}\u{fffd}\té"
        );
    }
}
