//! The landing page: a plain one for everybody, and the totals for whoever may see them.

use std::{fmt::Write, time::Instant};

use super::{VERSION, report::Totals, words};
use crate::{ledger::Snapshot, model::Mode};

/// Most checks on the page; the JSON has them all.
const MOST_ROWS: usize = 1_000;

/// What anybody may see: nothing of the protected zone.
pub fn plain(telemetry_path: &str) -> String {
    document(&format!(
        "<p>Version {VERSION}.</p><ul><li><a href=\"{0}\">Metrics</a></li></ul>\
         <p>Verdicts are shown on the loopback address only: <code>kubectl port-forward</code> leads there.</p>",
        escape(telemetry_path)
    ))
}

/// The landing page of what has no verdicts to show.
pub fn bare(telemetry_path: &str) -> String {
    let metrics = escape(telemetry_path);
    document(&format!("<p>Version {VERSION}.</p><ul><li><a href=\"{metrics}\">Metrics</a></li></ul>"))
}

/// Verdicts, worst first.
pub fn detail(telemetry_path: &str, snapshot: &Snapshot, now: Instant) -> String {
    let mut body = String::new();
    let _ = write!(
        body,
        "<p>Version {VERSION}, configuration {}. <a href=\"{}\">Metrics</a>, <a href=\"/api/v1/checks\">JSON</a>.</p>\
         <p><strong>{}</strong></p>",
        escape(snapshot.config_hash.get(..12).unwrap_or_default()),
        escape(telemetry_path),
        Totals::at(snapshot, now),
    );
    body.push_str(
        "<table><thead><tr><th>Verdict<th>Boundary<th>Check<th>Source<th>Target<th>Reason and evidence</thead><tbody>",
    );
    let mut checks: Vec<_> = snapshot.checks.iter().map(|c| (c.mode, c.reason_at(now), c)).collect();
    checks.sort_by_key(|(mode, reason, _)| (*mode, *reason));
    for (mode, reason, check) in checks.iter().take(MOST_ROWS) {
        let id = &check.id;
        let verdict = if *mode == Mode::Judge { reason.verdict().as_str() } else { "reported" };
        let _ = write!(
            body,
            "<tr class=\"{verdict}\"><td>{verdict}<td>{}<td>{}<td>{}<td>{}<td>{}: {}. {}",
            escape(&id.boundary),
            id.kind,
            escape(&format!("{} {}", id.source.namespace, id.source.name)),
            escape(&format!("{} {} {}", id.target_namespace, id.target, id.via_str())),
            reason,
            reason.explain(),
            escape(&words::evidence(check)),
        );
    }
    body.push_str("</tbody></table>");
    if checks.len() > MOST_ROWS {
        let _ = write!(body, "<p>And {} more: see the JSON.</p>", checks.len() - MOST_ROWS);
    }
    document(&body)
}

fn document(body: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>segprobe</title>\
         <meta name=\"viewport\" content=\"width=device-width\"><style>{STYLE}</style></head>\
         <body><h1>segprobe</h1>{body}</body></html>"
    )
}

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;margin:2rem;color-scheme:light dark}\
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid #8886;vertical-align:top}\
td:first-child{font-weight:600;white-space:nowrap}.fail td:first-child{color:#fff;background:#b3261e}\
.inconclusive td:first-child{color:#000;background:#e6b800}.unverified td:first-child{color:#000;background:#8ecae6}\
.pass td:first-child{color:#fff;background:#2e7d32}";

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    #[test]
    fn markup_is_escaped() {
        assert_eq!(super::escape("<a href='x'>&\""), "&lt;a href=&#39;x&#39;&gt;&amp;&quot;");
    }
}
