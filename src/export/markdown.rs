//! Markdown for a pull request or a ticket: what did not pass in one table, the rest folded. As GitHub and GitLab show it.
//!
//! Names are hostile, so that whatever comes from outside stands in a code span: there nothing is markup, a link or a mention.

use super::report::{Report, Row, Weight};
use crate::model::{Mode, Verdict, plain};

/// What GitHub takes of a comment, in characters, less what other tools put around it.
pub const MOST_BYTES: usize = 60_000;
/// The same of one cell: what is left out stands in the JSON.
const MOST_IN_CELL: usize = 400;
/// Kept for what is told below the tables: how much of each was left out.
const RESERVE: usize = 2_000;

/// The document, of [`MOST_BYTES`] at most.
pub fn text(report: &Report<'_>) -> String {
    let header = &report.header;
    let mut text = Text(format!("## segprobe: {}\n\n", report.totals));
    text.push(&format!(
        "Node {}, segprobe {}, configuration {}",
        code(header.node),
        header.version,
        code(short(header.config_hash))
    ));
    if let Some(ended) = header.ended {
        text.push(&format!(", until {}", ended.strftime("%Y-%m-%d %H:%M:%SZ")));
    }
    text.push(".\n\n");
    let untested: Vec<String> = report
        .untested()
        .map(|(boundary, why)| {
            format!("**Nothing of boundary {} was tested**: {}\n\n", code(&boundary.name), code(why))
        })
        .collect();
    text.push_all("boundaries of which nothing was tested", untested.into_iter());
    let is_bad = |row: &Row<'_>| matches!(row.weight(report.require_witness), Weight::Failed | Weight::Undecided);
    let (mut bad, rest): (Vec<&Row<'_>>, Vec<&Row<'_>>) = report.rows().partition(|row| is_bad(row));
    bad.sort_by_key(|row| row.reason);
    if !bad.is_empty() {
        rows(&mut text, "checks that did not pass", &bad);
    } else if report.exit_code() == 0 {
        text.push("Nothing failed, and nothing is inconclusive.\n\n");
    }
    for (mode, verdict) in
        [(Mode::Judge, Some(Verdict::Unverified)), (Mode::Judge, Some(Verdict::Pass)), (Mode::Report, None)]
    {
        let of_it = |row: &&Row<'_>| row.view.mode == mode && verdict.is_none_or(|v| v == row.verdict());
        let some: Vec<&Row<'_>> = rest.iter().copied().filter(of_it).collect();
        if let Some(first) = some.first() {
            text.push(&format!("<details><summary>{} {}</summary>\n\n", some.len(), first.word()));
            rows(&mut text, "checks", &some);
            text.push("</details>\n\n");
        }
    }
    let gaps: Vec<_> = report.not_tested().collect();
    if !gaps.is_empty() {
        text.push(&format!("<details><summary>{} not tested, or not provable</summary>\n\n", gaps.len()));
        // Our own words quote with backticks, which a code span has no room for.
        let quoted = |text: &str| code(&text.replace('`', "'"));
        let lines =
            gaps.iter().map(|gap| format!("- {}: {}: {}\n", code(&gap.boundary), quoted(&gap.what), quoted(&gap.why)));
        text.push_all("of these", lines);
        text.push("\n</details>\n");
    }
    text.0
}

fn rows(text: &mut Text, what: &str, rows: &[&Row<'_>]) {
    text.push(
        "| verdict | boundary | source | target | reason | open since | evidence |\n|---|---|---|---|---|---|---|\n",
    );
    text.push_all(what, rows.iter().map(|row| line(row)));
    text.push("\n");
}

fn line(row: &Row<'_>) -> String {
    let since = row.since().map(|since| since.strftime("%Y-%m-%d %H:%M:%SZ").to_string()).unwrap_or_default();
    let verdict = if row.word() == "fail" { "**fail**" } else { row.word() };
    let reason = match row.view.mode {
        Mode::Judge => format!("{}: {}", row.reason, row.reason.explain()),
        Mode::Report => String::new(),
    };
    let [boundary, source, target, evidence] =
        [&*row.view.id.boundary, &row.source(), &row.target(), &row.evidence()].map(code);
    format!("| {verdict} | {boundary} | {source} | {target} | {reason} | {since} | {evidence} |\n")
}

/// A text that grows up to a bound.
struct Text(String);

impl Text {
    fn push(&mut self, text: &str) {
        self.0.push_str(text);
    }

    fn push_within(&mut self, text: &str) -> bool {
        let fits = self.0.len() + text.len() <= MOST_BYTES - RESERVE;
        if fits {
            self.push(text);
        }
        fits
    }

    /// Lines as long as they fit, and how many do not.
    fn push_all(&mut self, what: &str, lines: impl ExactSizeIterator<Item = String>) {
        let all = lines.len();
        let told = lines.take_while(|line| self.push_within(line)).count();
        if told < all {
            self.push(&format!("\n{} more {what} are left out here; the JSON has all.\n\n", all - told));
        }
    }
}

/// The first digits of a hash.
fn short(hash: &str) -> &str {
    hash.get(..12).unwrap_or(hash)
}

/// A code span. What could end it, or the cell of the table that it stands in, is shown as [`plain`] shows what hides.
fn code(text: &str) -> String {
    let text = plain(text.trim());
    if text.is_empty() {
        return String::new();
    }
    let mut shown = String::new();
    for c in text.chars().take(MOST_IN_CELL) {
        match c {
            '`' => shown.push_str("\\u{60}"),
            '|' => shown.push_str("\\u{7c}"),
            c => shown.push(c),
        }
    }
    if text.chars().count() > MOST_IN_CELL {
        shown.push('…');
    }
    format!("`{shown}`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leaves_its_code_span() {
        assert_eq!(code("a|b`c\n<x> @you"), "`a\\u{7c}b\\u{60}c\\n<x> @you`");
        assert_eq!(code(" "), "");
        assert_eq!(code(&"é".repeat(500)), format!("`{}…`", "é".repeat(400)));
    }
}
