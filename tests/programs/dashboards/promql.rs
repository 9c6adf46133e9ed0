//! As much of PromQL as tells which metrics, labels and words an expression names. Whether it is well-formed is for Prometheus to
//! say.

use std::collections::BTreeSet;

/// What an expression names.
#[derive(Debug, Default)]
pub struct Named {
    pub metrics: BTreeSet<String>,
    /// In selectors, `by (…)`, `on (…)` and the like.
    pub labels: BTreeSet<String>,
    /// Label and value of each matcher.
    pub matchers: BTreeSet<(String, String)>,
    /// String arguments of functions: among them are labels that `label_replace` and `label_join` make.
    pub strings: BTreeSet<String>,
}

const KEYWORDS: [&str; 5] = ["and", "or", "unless", "bool", "offset"];
const BEFORE_LABELS: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];

pub fn named(expression: &str) -> Named {
    let mut named = Named::default();
    let mut rest = expression;
    while let Some(c) = rest.chars().next() {
        if c == '"' {
            named.strings.insert(string(&mut rest));
        } else if c == '{' {
            matchers(&mut rest, &mut named);
        } else if c == '[' {
            rest = rest.split_once(']').expect("the end of a range").1;
        } else if c == '$' || c.is_ascii_digit() {
            // A variable, a number or a duration.
            rest = rest[1..].trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.');
        } else if c.is_ascii_alphabetic() || c == '_' || c == ':' {
            let word = identifier(&mut rest);
            let next = rest.trim_start();
            if BEFORE_LABELS.contains(&word) && next.starts_with('(') {
                let (labels, after) = next[1..].split_once(')').expect("the end of labels");
                named.labels.extend(labels.split(',').map(|label| label.trim().to_owned()).filter(|l| !l.is_empty()));
                rest = after;
            } else if !KEYWORDS.contains(&word) && !["(", "by ", "without "].iter().any(|after| next.starts_with(after))
            {
                named.metrics.insert(word.to_owned());
            }
        } else {
            rest = &rest[c.len_utf8()..];
        }
    }
    named
}

fn identifier<'a>(rest: &mut &'a str) -> &'a str {
    let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':')).unwrap_or(rest.len());
    let (word, after) = rest.split_at(end);
    *rest = after;
    word
}

/// A string without escaped quotes.
fn string(rest: &mut &str) -> String {
    let (text, after) = rest[1..].split_once('"').expect("the end of a string");
    assert!(!text.contains('\\'), "escapes are not read: {text}");
    *rest = after;
    text.to_owned()
}

fn matchers(rest: &mut &str, named: &mut Named) {
    *rest = &rest[1..];
    loop {
        *rest = rest.trim_start_matches([' ', '\n', ',']);
        if let Some(after) = rest.strip_prefix('}') {
            *rest = after;
            return;
        }
        let label = identifier(rest).to_owned();
        assert!(!label.is_empty(), "a label, not {rest}");
        *rest = rest.trim_start_matches(['=', '!', '~']);
        named.matchers.insert((label.clone(), string(rest)));
        named.labels.insert(label);
    }
}

#[test]
fn names_are_told_apart() {
    let named = named(
        "topk(3, sum by (node, le) (rate(up{job=~\"$job\", x!=\"a|b\"}[$__range])) > bool 0.5e3) and on () label_join(:a_b * 2, \"n\", \"/\")
         or segprobe_x{} - $__range_s",
    );
    let set = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(named.metrics, set(&["up", ":a_b", "segprobe_x"]));
    assert_eq!(named.labels, set(&["node", "le", "job", "x"]));
    assert_eq!(named.strings, set(&["n", "/"]));
    assert!(named.matchers.contains(&("x".into(), "a|b".into())), "{named:?}");
}
