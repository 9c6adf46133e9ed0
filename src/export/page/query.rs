//! What of the page is asked for, as its address says it: labels as in the metrics, words, and which part of a long list.

use std::{borrow::Cow, collections::BTreeSet};

use form_urlencoded::Serializer;

use crate::export::report::Row;

/// What can be asked for exactly: the labels of `segprobe_check_verdict` and the reason.
pub const KEYS: [&str; 10] = [
    "verdict",
    "boundary",
    "check",
    "expect",
    "source_namespace",
    "source",
    "target_namespace",
    "target",
    "via",
    "reason",
];
/// So many of them have fields of the form: there an empty value asks for anything. For the others it asks for what has none, as an
/// external target has no namespace.
pub const FIELDS: usize = 3;
/// Most words that are looked for.
const MOST_WORDS: usize = 16;

/// A question to the page. Keys that it does not know are passed over: a link may be of another version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// By the order of [`KEYS`]; none where anything will do.
    exact: [Option<String>; KEYS.len()],
    /// Any part of a check's names; empty where anything will do.
    pub words: String,
    /// Part of a long list, from 0.
    pub part: usize,
    /// The page does not refresh itself.
    pub paused: bool,
}

impl Query {
    /// Reads the part of an address behind `?`.
    pub fn parse(text: &str) -> Self {
        let mut query = Self::default();
        for (key, value) in form_urlencoded::parse(text.as_bytes()) {
            match &*key {
                "q" => query.words = value.trim().to_owned(),
                "part" => query.part = value.parse().unwrap_or(1).max(1) - 1,
                "refresh" => query.paused = value == "off",
                key => {
                    if let Some(at) = KEYS.iter().position(|known| *known == key) {
                        query.exact[at] = Some(value.into_owned()).filter(|value| at >= FIELDS || !value.is_empty());
                    }
                }
            }
        }
        query
    }

    /// The value of one of the keys, empty where anything will do.
    pub fn get(&self, key: &str) -> &str {
        self.exact().find(|(known, _)| *known == key).map_or("", |(_, value)| value)
    }

    /// The keys that are asked for, and their values.
    pub fn exact(&self) -> impl Iterator<Item = (&'static str, &str)> {
        KEYS.into_iter().zip(&self.exact).filter_map(|(key, value)| Some((key, value.as_deref()?)))
    }

    /// True where only some checks are asked for.
    pub fn is_filter(&self) -> bool {
        !self.words.is_empty() || self.exact().next().is_some()
    }

    /// The same from the beginning of the list, with another value of one of the keys.
    pub fn with(&self, key: &str, value: &str) -> Self {
        self.changed(key, Some(value.to_owned()))
    }

    /// The same from the beginning of the list, with any value of one of the keys.
    pub fn without(&self, key: &str) -> Self {
        self.changed(key, None)
    }

    fn changed(&self, key: &str, value: Option<String>) -> Self {
        let mut query = Self { part: 0, ..self.clone() };
        if let Some(at) = KEYS.iter().position(|known| *known == key) {
            query.exact[at] = value;
        }
        query
    }

    /// The same, and nothing is asked for.
    pub fn of_all(&self) -> Self {
        Self { paused: self.paused, ..Self::default() }
    }

    /// The same for another part of the list.
    pub fn at(&self, part: usize) -> Self {
        Self { part, ..self.clone() }
    }

    /// The same, and refreshing turned off or on.
    pub fn turned(&self) -> Self {
        Self { paused: !self.paused, ..self.clone() }
    }

    /// The one check of a row, by all that it is identified by.
    pub fn of(&self, row: &Row<'_>) -> Self {
        let id = &row.view.id;
        self.of_all()
            .with("boundary", &id.boundary)
            .with("check", id.kind.as_str())
            .with("source_namespace", &id.source.namespace)
            .with("source", &id.source.name)
            .with("target_namespace", &id.target_namespace)
            .with("target", &id.target)
            .with("via", id.via_str())
    }

    /// The address, relative: it holds behind a proxy with a path of its own, too.
    pub fn href(&self) -> String {
        let mut text = Serializer::for_suffix(String::from("?"), 1);
        text.extend_pairs(self.exact());
        if !self.words.is_empty() {
            text.append_pair("q", &self.words);
        }
        if self.part > 0 {
            text.append_pair("part", &(self.part + 1).to_string());
        }
        if self.paused {
            text.append_pair("refresh", "off");
        }
        let text = text.finish();
        if text == "?" { "./".into() } else { text }
    }

    /// The checks that are asked for.
    pub fn select<'a, 'r>(&'a self, rows: &'a [Row<'r>]) -> impl Iterator<Item = &'a Row<'r>> {
        let words: BTreeSet<String> =
            self.words.split_whitespace().take(MOST_WORDS).map(str::to_ascii_lowercase).collect();
        let has = move |row: &Row<'_>, word: &str| KEYS.iter().any(|key| lower(field(row, key)).contains(word));
        rows.iter().filter(move |row| {
            self.exact().all(|(key, value)| field(row, key) == value) && words.iter().all(|word| has(row, word))
        })
    }
}

fn lower(text: &str) -> Cow<'_, str> {
    if text.bytes().any(|b| b.is_ascii_uppercase()) { text.to_ascii_lowercase().into() } else { text.into() }
}

fn field<'a>(row: &'a Row<'_>, key: &str) -> &'a str {
    let id = &row.view.id;
    match key {
        "verdict" => row.word(),
        "boundary" => &id.boundary,
        "check" => id.kind.as_str(),
        "expect" => id.expect.as_str(),
        "source_namespace" => &id.source.namespace,
        "source" => &id.source.name,
        "target_namespace" => &id.target_namespace,
        "target" => &id.target,
        "via" => id.via_str(),
        _ => row.reason.as_str(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_not_known_or_senseless_is_passed_over() {
        for text in ["", "part=0", "part=x", "part=-1", "nobody=knows", "refresh=on", "q=+", "verdict="] {
            assert_eq!(Query::parse(text), Query::default(), "{text}");
        }
        assert_eq!(Query::default().href(), "./");
        assert_eq!(Query::parse("part=99999999999999999999999").part, 0);
    }

    #[test]
    fn another_filter_begins_at_the_beginning_and_keeps_the_others() {
        let query = Query::parse("boundary=b&part=3&refresh=off&q=vault");
        assert_eq!(query.with("verdict", "fail").href(), "?verdict=fail&boundary=b&q=vault&refresh=off");
        assert_eq!(query.at(1).href(), "?boundary=b&q=vault&part=2&refresh=off");
        assert_eq!(query.of_all().href(), "?refresh=off");
    }

    proptest! {
        #[test]
        fn an_address_says_what_was_asked(values in prop::array::uniform10(prop::option::of(".{0,20}")), words in "\\S{0,9}( \\S{1,5})?", part in 0..1_000usize, paused: bool) {
            let exact = std::array::from_fn(|at| values[at].clone().filter(|value| at >= FIELDS || !value.is_empty()));
            let query = Query { exact, words: words.trim().to_owned(), part, paused };
            let href = query.href();
            prop_assert!(href.is_ascii() && !href.contains(['<', '>', '"', '\'', ' ']), "{}", href);
            prop_assert_eq!(Query::parse(href.trim_start_matches("./").trim_start_matches('?')), query);
        }
    }
}
