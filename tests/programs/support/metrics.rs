//! A reader of Prometheus' text format that believes nothing: what is not well-formed fails the test.

use std::collections::{BTreeMap, BTreeSet};

/// A page, sample by sample.
pub struct Page(pub Vec<Sample>);

#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

impl Sample {
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }
}

impl Page {
    pub fn parse(text: &str) -> Self {
        assert!(text.ends_with('\n'), "the page ends within a line");
        let lines = text.lines().filter(|l| !l.starts_with("# HELP ") && !l.starts_with("# TYPE "));
        Self(lines.map(|line| sample(line).unwrap_or_else(|| panic!("not a sample: {line:?}"))).collect())
    }

    /// All samples of a name that carry these labels.
    pub fn all(&self, name: &str, labels: &[(&str, &str)]) -> Vec<&Sample> {
        let fits = |s: &&Sample| s.name == name && labels.iter().all(|(label, value)| s.label(label) == *value);
        self.0.iter().filter(fits).collect()
    }

    /// The value of the only such sample; none where there is none.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let found = self.all(name, labels);
        assert!(found.len() < 2, "{name} {labels:?} is not unique: {found:?}");
        found.first().map(|s| s.value)
    }

    /// The verdicts that are 1, by target; fails where a check does not have exactly one of four.
    pub fn verdicts(&self) -> BTreeMap<(String, String, String, String), String> {
        let mut sets: BTreeMap<_, Vec<&Sample>> = BTreeMap::new();
        for sample in self.all("segprobe_check_verdict", &[]) {
            let key = ["boundary", "check", "target", "via"].map(|label| sample.label(label).to_owned());
            sets.entry(<(String, String, String, String)>::from(key)).or_default().push(sample);
        }
        let one = |(key, set): (_, Vec<&Sample>)| {
            let set_values: BTreeSet<_> = set.iter().map(|s| s.label("verdict")).collect();
            assert_eq!(set_values, BTreeSet::from(["fail", "inconclusive", "pass", "unverified"]), "{key:?}");
            let ones: Vec<_> = set.iter().filter(|s| s.value == 1.0).collect();
            let zeros = set.iter().filter(|s| s.value == 0.0).count();
            assert_eq!((set.len(), ones.len(), zeros), (4, 1, 3), "{key:?}: {set:?}");
            (key, ones[0].label("verdict").to_owned())
        };
        sets.into_iter().map(one).collect()
    }

    /// Fails where two samples share name and labels.
    pub fn assert_unique(&self) {
        let mut seen = BTreeSet::new();
        for sample in &self.0 {
            assert!(seen.insert((&sample.name, &sample.labels)), "twice: {sample:?}");
        }
    }
}

fn sample(line: &str) -> Option<Sample> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = BTreeMap::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        loop {
            let (label, after) = rest.split_once("=\"")?;
            let (value, after) = quoted(after)?;
            if labels.insert(label.to_owned(), value).is_some() {
                return None;
            }
            match after.strip_prefix(',') {
                Some(next) => rest = next,
                None => {
                    rest = after.strip_prefix('}')?;
                    break;
                }
            }
        }
    }
    let plain = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    (plain(name) && labels.keys().all(|label| plain(label))).then_some(())?;
    Some(Sample { name: name.to_owned(), labels, value: rest.strip_prefix(' ')?.parse().ok()? })
}

/// The text up to the closing quote, unescaped, and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match chars.next()?.1 {
                'n' => '\n',
                c @ ('"' | '\\') => c,
                _ => return None,
            }),
            c => value.push(c),
        }
    }
    None
}
