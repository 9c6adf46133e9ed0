//! `docs/metrics.md`, as tables: what is exported, and by whom.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// A metric of the reference.
#[derive(Debug)]
pub struct Metric {
    /// `gauge`, `counter` or `histogram`.
    pub kind: String,
    /// Its labels, without those of the scrape.
    pub labels: BTreeSet<String>,
}

/// The metrics of one section (`Agents`, `Discovery`), by name.
pub fn metrics(section: &str) -> BTreeMap<String, Metric> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let text = fs::read_to_string(path).unwrap();
    let rest = text.split_once(&format!("\n## {section}\n")).unwrap().1;
    let section = rest.split("\n## ").next().unwrap();
    let mut metrics = BTreeMap::new();
    for row in section.lines().filter(|line| line.starts_with("| `segprobe_")) {
        let columns: Vec<&str> = row.split('|').map(str::trim).collect();
        let [_, names, kind, labels, _] = columns[..] else { panic!("{row}: expected three columns") };
        let kind = kind.split(|c: char| !c.is_alphanumeric()).next().unwrap();
        // What a label may be stands in parentheses.
        let (mut outside, mut depth) = (String::new(), 0);
        for c in labels.chars() {
            match c {
                '(' => depth += 1,
                ')' => depth -= 1,
                c if depth == 0 => outside.push(c),
                _ => {}
            }
        }
        let labels: BTreeSet<String> =
            outside.split(',').map(|label| label.trim().to_owned()).filter(|label| !label.is_empty()).collect();
        for name in
            names.split(',').map(|name| name.trim().trim_matches('`')).filter(|name| name.starts_with("segprobe_"))
        {
            let metric = Metric { kind: kind.to_owned(), labels: labels.clone() };
            assert!(metrics.insert(name.to_owned(), metric).is_none(), "{name} stands in the reference twice");
        }
    }
    assert!(metrics.len() > 10, "docs/metrics.md has another form: {metrics:?}");
    metrics
}
