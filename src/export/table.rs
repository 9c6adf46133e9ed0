//! The table for people: by boundary, worst first, reason and evidence beside each verdict.

use std::{
    io::{self, Write},
    time::Instant,
};

use anstyle::{AnsiColor, Style};

use super::words;
use crate::{
    ledger::{BoundaryView, CheckView, Snapshot},
    model::{CheckKind, Identity, Mode, Reason, VantageMode, Verdict, plain},
};

/// ` from web/app=web`, where not the agent's own network is meant.
pub fn source(mode: VantageMode, source: &Identity) -> String {
    match mode {
        VantageMode::Own => String::new(),
        VantageMode::Pods => format!(" ({})", named(source)),
    }
}

/// `web/app=web`; without a namespace where it has none, as those whom the runtime does not tell.
fn named(source: &Identity) -> String {
    if source.namespace.is_empty() {
        plain(&source.name)
    } else {
        plain(&format!("{}/{}", source.namespace, source.name))
    }
}

/// Writes the table. `width` is the terminal's, or none where lines may be as long as they are.
///
/// # Errors
/// What the writer said.
pub fn write(out: &mut impl Write, snapshot: &Snapshot, now: Instant, width: Option<usize>) -> io::Result<()> {
    let mut rows: Vec<Row<'_>> = snapshot.checks.iter().map(|view| Row::new(snapshot, view, now)).collect();
    rows.sort_by_key(|row| (row.view.mode, row.reason));
    for boundary in &snapshot.boundaries {
        let own: Vec<&Row<'_>> = rows.iter().filter(|r| r.view.id.boundary == boundary.name).collect();
        heading(out, boundary, &own, width)?;
        let names = own.iter().map(|r| r.name_width()).max().unwrap_or(0).min(60);
        for row in own {
            row.write(out, names, width)?;
        }
        writeln!(out)?;
    }
    if !snapshot.not_tested.is_empty() {
        writeln!(out, "Not tested, or not provable:")?;
        for gap in &snapshot.not_tested {
            let text = format!("{}: {}: {}", gap.boundary, plain(&gap.what), gap.why);
            wrapped(out, &text, 2, 4, width)?;
        }
        writeln!(out)?;
    }
    Ok(())
}

/// How many checks have each verdict; reported ones do not count.
pub fn totals(snapshot: &Snapshot, now: Instant) -> [usize; 4] {
    let mut totals = [0; 4];
    for check in snapshot.checks.iter().filter(|c| c.mode == Mode::Judge) {
        totals[check.reason_at(now).verdict() as usize] += 1;
    }
    totals
}

/// `1 fail, 2 pass`: what there is none of is left out.
pub fn summary(totals: [usize; 4]) -> String {
    let some = Verdict::ALL.iter().filter(|v| totals[**v as usize] > 0);
    let words: Vec<String> = some.map(|v| format!("{} {v}", totals[*v as usize])).collect();
    if words.is_empty() { "no checks".into() } else { words.join(", ") }
}

fn heading(out: &mut impl Write, boundary: &BoundaryView, rows: &[&Row<'_>], width: Option<usize>) -> io::Result<()> {
    let bold = Style::new().bold();
    let mut totals = [0; 4];
    for row in rows.iter().filter(|r| r.view.mode == Mode::Judge) {
        totals[row.reason.verdict() as usize] += 1;
    }
    let BoundaryView { name, from, to, expect, .. } = boundary;
    let text = format!("{from} → {to}, expected {expect}: {}", summary(totals));
    write!(out, "{bold}{name}{bold:#}")?;
    if width.is_some_and(|w| w < name.chars().count() + 2 + text.chars().count()) {
        writeln!(out)?;
        return wrapped(out, &text, 4, 4, width);
    }
    writeln!(out, "  {text}")
}

struct Row<'a> {
    view: &'a CheckView,
    reason: Reason,
    /// The check's source is told: there may be several.
    has_source: bool,
}

const VERDICT_WIDTH: usize = 12;
/// Room for the longest word beside a name: an IPv6 address and its port.
const LEAST_WORDS: usize = 48;

impl<'a> Row<'a> {
    fn new(snapshot: &Snapshot, view: &'a CheckView, now: Instant) -> Self {
        let boundary = snapshot.boundaries.iter().find(|b| b.name == view.id.boundary);
        let has_source =
            boundary.is_some_and(|b| b.vantage == VantageMode::Pods) && view.id.kind != CheckKind::NodeCoResidency;
        Self { view, reason: view.reason_at(now), has_source }
    }

    fn name(&self) -> String {
        let id = &self.view.id;
        let udp = if id.kind == CheckKind::DnsQuery { "/udp" } else { "" };
        let target = match id.via {
            Some(via) if id.target_namespace.is_empty() => format!("{}{udp} ({via})", id.target),
            Some(via) => format!("{}/{}{udp} ({via})", id.target_namespace, id.target),
            None if id.kind == CheckKind::NodeCoResidency => {
                format!("{}: {} with {}", id.kind, id.source.name, id.target)
            }
            None => format!("{} at {}", id.kind, id.target),
        };
        if self.has_source {
            return format!("{} → {}", named(&id.source), plain(&target));
        }
        plain(&target)
    }

    fn name_width(&self) -> usize {
        self.name().chars().count()
    }

    fn write(&self, out: &mut impl Write, names: usize, width: Option<usize>) -> io::Result<()> {
        let style = match (self.view.mode, self.reason.verdict()) {
            (Mode::Report, _) => Style::new().dimmed(),
            (_, Verdict::Fail) => AnsiColor::Red.on_default().bold(),
            (_, Verdict::Inconclusive) => AnsiColor::Yellow.on_default(),
            (_, Verdict::Unverified) => AnsiColor::Cyan.on_default(),
            (_, Verdict::Pass) => AnsiColor::Green.on_default(),
        };
        let (verdict, text) = match self.view.mode {
            Mode::Judge => {
                let text = format!("{}: {}. {}", self.reason, self.reason.explain(), words::evidence(self.view));
                (self.reason.verdict().as_str().to_uppercase(), text)
            }
            Mode::Report => ("(reported)".to_owned(), words::evidence(self.view)),
        };
        let indent = 2 + VERDICT_WIDTH + 2;
        write!(out, "  {style}{verdict:VERDICT_WIDTH$}{style:#}  ")?;
        let used = indent + self.name_width().max(names) + 2;
        match width {
            // Beside the name where there is room for words, below it where there is not.
            Some(width) if width < used + LEAST_WORDS => {
                wrapped(out, &self.name(), 0, indent, Some(width))?;
                wrapped(out, &text, indent + 2, indent + 2, Some(width))
            }
            width => {
                write!(out, "{:names$}  ", self.name())?;
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

    #[test]
    fn a_summary_leaves_out_zeros() {
        assert_eq!(summary([1, 0, 0, 12]), "1 fail, 12 pass");
        assert_eq!(summary([0; 4]), "no checks");
    }
}
