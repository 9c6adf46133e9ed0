//! The table for people: by boundary, worst first, reason and evidence beside each verdict.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};

use super::report::{Report, Row, Section, named};
use crate::model::{Identity, Mode, VantageMode, Verdict, plain};

/// ` from web/app=web`, where not the agent's own network is meant.
pub fn source(mode: VantageMode, source: &Identity) -> String {
    match mode {
        VantageMode::Own => String::new(),
        VantageMode::Pods => format!(" ({})", named(source)),
    }
}

/// Writes the table. `width` is the terminal's, or none where lines may be as long as they are.
///
/// # Errors
/// What the writer said.
pub fn write(out: &mut impl Write, report: &Report<'_>, width: Option<usize>) -> io::Result<()> {
    for section in &report.sections {
        heading(out, section, width)?;
        if let Some(why) = section.untested {
            let yellow = AnsiColor::Yellow.on_default();
            write!(out, "  {yellow}{:VERDICT_WIDTH$}{yellow:#}", "INCONCLUSIVE")?;
            let indent = 2 + VERDICT_WIDTH + 2;
            wrapped(out, &format!("nothing was tested: {}", plain(why)), 2, indent, width)?;
        }
        let names = section.rows.iter().map(name_width).max().unwrap_or(0).min(60);
        section.rows.iter().try_for_each(|row| write_row(out, row, names, width))?;
        writeln!(out)?;
    }
    let mut gaps = report.not_tested().peekable();
    if gaps.peek().is_some() {
        writeln!(out, "Not tested, or not provable:")?;
        for gap in gaps {
            let text = format!("{}: {}: {}", gap.boundary, plain(&gap.what), gap.why);
            wrapped(out, &text, 2, 4, width)?;
        }
        writeln!(out)?;
    }
    Ok(())
}

fn heading(out: &mut impl Write, section: &Section<'_>, width: Option<usize>) -> io::Result<()> {
    let bold = Style::new().bold();
    let (name, text) = (&section.boundary.name, section.heading());
    write!(out, "{bold}{name}{bold:#}")?;
    if width.is_some_and(|w| w < name.chars().count() + 2 + text.chars().count()) {
        writeln!(out)?;
        return wrapped(out, &text, 4, 4, width);
    }
    writeln!(out, "  {text}")
}

const VERDICT_WIDTH: usize = 12;
/// Room for the longest word beside a name: an IPv6 address and its port.
const LEAST_WORDS: usize = 48;

fn name_width(row: &Row<'_>) -> usize {
    row.name().chars().count()
}

fn write_row(out: &mut impl Write, row: &Row<'_>, names: usize, width: Option<usize>) -> io::Result<()> {
    let style = match (row.view.mode, row.verdict()) {
        (Mode::Report, _) => Style::new().dimmed(),
        (_, Verdict::Fail) => AnsiColor::Red.on_default().bold(),
        (_, Verdict::Inconclusive) => AnsiColor::Yellow.on_default(),
        (_, Verdict::Unverified) => AnsiColor::Cyan.on_default(),
        (_, Verdict::Pass) => AnsiColor::Green.on_default(),
    };
    let verdict = match row.view.mode {
        Mode::Judge => row.word().to_uppercase(),
        Mode::Report => format!("({})", row.word()),
    };
    let (name, text) = (row.name(), row.text());
    let indent = 2 + VERDICT_WIDTH + 2;
    write!(out, "  {style}{verdict:VERDICT_WIDTH$}{style:#}  ")?;
    let used = indent + name.chars().count().max(names) + 2;
    match width {
        // Beside the name where there is room for words, below it where there is not.
        Some(width) if width < used + LEAST_WORDS => {
            wrapped(out, &name, 0, indent, Some(width))?;
            wrapped(out, &text, indent + 2, indent + 2, Some(width))
        }
        width => {
            write!(out, "{name:names$}  ")?;
            let lines = wrap(&text, width.map(|w| w - used));
            for (i, line) in lines.iter().enumerate() {
                if i > 0 {
                    write!(out, "{:used$}", "")?;
                }
                writeln!(out, "{line}")?;
            }
            Ok(())
        }
    }
}

fn wrapped(out: &mut impl Write, text: &str, first: usize, rest: usize, width: Option<usize>) -> io::Result<()> {
    for (i, line) in wrap(text, width.map(|w| w.saturating_sub(rest))).iter().enumerate() {
        let indent = if i == 0 { first } else { rest };
        writeln!(out, "{:indent$}{line}", "")?;
    }
    Ok(())
}

/// Breaks at spaces; a word that is longer than a line stays whole, so that it can be copied.
fn wrap(text: &str, width: Option<usize>) -> Vec<String> {
    let Some(width) = width.map(|w| w.max(20)) else { return vec![text.trim_end().to_owned()] };
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_at_spaces_and_long_words_stay_whole() {
        let lines = wrap("one two three four fivefivefivefivefivefivefive six", Some(20));
        assert_eq!(lines, ["one two three four", "fivefivefivefivefivefivefive", "six"]);
        assert_eq!(wrap("a  b", None), ["a  b"]);
    }
}
