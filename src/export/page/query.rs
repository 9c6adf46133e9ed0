//! What of the page is asked for, as its address says it: labels as in the metrics, words, and which part of a long list.

use std::borrow::Cow;

use form_urlencoded::Serializer;

use super::Row;

/// What can be asked for exactly: the labels of `segprobe_check_verdict` and the reason.
pub const KEYS: [&str; 9] =
    ["verdict", "boundary", "check", "source_namespace", "source", "target_namespace", "target", "via", "reason"];

/// A question to the page. Keys that it does not know are passed over: a link may be of another version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// By the order of [`KEYS`]; empty where anything will do.
    exact: [String; KEYS.len()],
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
                        query.exact[at] = value.into_owned();
                    }
                }
            }
        }
        query
    }

    /// The value of one of [`KEYS`], empty where anything will do.
    pub fn get(&self, key: &str) -> &str {
        KEYS.iter().position(|known| *known == key).map_or("", |at| &self.exact[at])
    }

    /// Those of [`KEYS`] that are asked for.
    pub fn exact(&self) -> impl Iterator<Item = (&'static str, &str)> {
        KEYS.into_iter().zip(self.exact.iter().map(String::as_str)).filter(|(_, value)| !value.is_empty())
    }

    /// True where only some checks are asked for.
    pub fn is_filter(&self) -> bool {
        !self.words.is_empty() || self.exact().next().is_some()
    }

    /// The same from the beginning of the list, with another value of one of [`KEYS`].
    pub fn with(&self, key: &str, value: &str) -> Self {
        let mut query = Self { part: 0, ..self.clone() };
        if let Some(at) = KEYS.iter().position(|known| *known == key) {
            query.exact[at] = value.to_owned();
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

    /// Whether a check is asked for.
    pub fn wants(&self, row: &Row<'_>) -> bool {
        self.exact().all(|(key, value)| field(row, key) == value)
            && self.words.split_whitespace().all(|word| {
                let word = word.to_ascii_lowercase();
                KEYS.iter().any(|key| lower(field(row, key)).contains(&word))
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
        fn an_address_says_what_was_asked(values in prop::array::uniform9(".{0,20}"), words in "\\S{0,9}( \\S{1,5})?", part in 0..1_000usize, paused: bool) {
            let query = Query { exact: values, words: words.trim().to_owned(), part, paused };
            let href = query.href();
            prop_assert!(href.is_ascii() && !href.contains(['<', '>', '"', '\'', ' ']), "{}", href);
            prop_assert_eq!(Query::parse(href.trim_start_matches("./").trim_start_matches('?')), query);
        }
    }
}
