//! The web configuration file, in the format of Prometheus' exporter-toolkit: its text, and the files that it names, to checked
//! settings. Nothing is built or served here.

#[cfg(test)]
mod tests;
pub mod tls;

use std::{collections::BTreeMap, path::Path, time::Duration};

use axum::http::{HeaderName, HeaderValue, header};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::passwords::{MOST_COST, Users, cost_of};
use crate::config::{LoadError, Located, Position, Problem, parse_yaml, read_text};
use tls::{Tls, TlsDocument};

/// Largest file, and largest file that it names, in bytes.
const MOST_BYTES: u32 = 1 << 20;
const MOST_INTERVAL: Duration = Duration::from_secs(3600);

/// A checked web configuration.
pub struct Settings {
    /// What TLS is made of; none where plain HTTP is served.
    pub tls: Option<Tls>,
    /// HTTP/2 is offered, over TLS.
    pub http2: bool,
    /// Added to every answer.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Who may ask; none where nobody is asked for a password.
    pub users: Option<Users>,
    /// How many requests are answered.
    pub rate: Option<Rate>,
}

/// A token bucket: `burst` requests at once, and one more in each interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    pub interval: Duration,
    pub burst: u32,
}

/// What is wrong with a file, collected.
pub type Wrong<'a> = dyn FnMut(Position, String) + 'a;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Document {
    tls_server_config: Option<Located<TlsDocument>>,
    http_server_config: Option<HttpDocument>,
    basic_auth_users: Option<BTreeMap<String, Located<String>>>,
    rate_limit: Option<Located<RateDocument>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct HttpDocument {
    http2: Option<bool>,
    headers: Option<BTreeMap<String, Located<String>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RateDocument {
    interval: Option<Located<String>>,
    burst: Option<Located<u32>>,
}

/// The headers that may be set, and the values that some of them may have.
const HEADERS: [(&str, HeaderName, &[&str]); 5] = [
    ("Content-Security-Policy", header::CONTENT_SECURITY_POLICY, &[]),
    ("X-Frame-Options", header::X_FRAME_OPTIONS, &["deny", "sameorigin"]),
    ("X-Content-Type-Options", header::X_CONTENT_TYPE_OPTIONS, &["nosniff"]),
    ("X-XSS-Protection", header::X_XSS_PROTECTION, &[]),
    ("Strict-Transport-Security", header::STRICT_TRANSPORT_SECURITY, &[]),
];

/// The file as it is now.
pub struct Source {
    /// What it says.
    pub settings: Settings,
    /// Over the contents of it and of every file that it names.
    pub digest: [u8; 32],
    /// There is nothing in it at all.
    pub empty: bool,
}

/// Reads the file and those that it names.
///
/// # Errors
/// Everything that is wrong with it, with line and column. Keys, hashes and passwords are not shown.
pub fn read(path: &Path) -> Result<Source, LoadError> {
    let text = read_text(path, MOST_BYTES)?;
    let empty = text.trim().is_empty();
    let document = if empty { Document::default() } else { parse(path, &text)? };
    let mut problems = Vec::new();
    let settings = check(path, document, &mut |at, message| problems.push(Problem::new(path, at, message)));
    if !problems.is_empty() {
        return Err(LoadError(problems));
    }
    let mut hash = Sha256::new();
    let materials = settings.tls.iter().flat_map(Tls::materials).map(|pem| pem.text.as_bytes());
    for part in [text.as_bytes()].into_iter().chain(materials) {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    Ok(Source { settings, digest: hash.finalize().into(), empty })
}

fn parse(path: &Path, text: &str) -> Result<Document, Problem> {
    parse_yaml::<Option<Document>>(path, text).map(Option::unwrap_or_default).map_err(|mut problem| {
        // What stands there may be a private key or a password.
        if let Some((told, _)) = problem.message.split_once(", found `") {
            problem.message.truncate(told.len());
        }
        problem
    })
}

fn check(path: &Path, document: Document, wrong: &mut Wrong<'_>) -> Settings {
    let directory = path.parent().unwrap_or(Path::new(""));
    let http = document.http_server_config.unwrap_or_default();
    Settings {
        tls: document.tls_server_config.and_then(|tls| tls::check(directory, tls, wrong)),
        http2: http.http2.unwrap_or(true),
        headers: http.headers.into_iter().flatten().filter_map(|(name, value)| header(&name, &value, wrong)).collect(),
        users: users(document.basic_auth_users.unwrap_or_default(), wrong),
        rate: document.rate_limit.and_then(|rate| check_rate(rate, wrong)),
    }
}

fn header(name: &str, value: &Located<String>, wrong: &mut Wrong<'_>) -> Option<(HeaderName, HeaderValue)> {
    let Some((_, header, allowed)) = HEADERS.iter().find(|(known, ..)| *known == name) else {
        let all: Vec<&str> = HEADERS.iter().map(|(known, ..)| *known).collect();
        wrong(value.at, format!("headers: `{name}` cannot be set, expected one of {}", all.join(", ")));
        return None;
    };
    let Located { value, at } = value;
    if value.is_empty() {
        return None;
    }
    if !allowed.is_empty() && !allowed.contains(&value.as_str()) {
        wrong(*at, format!("headers: {name}: found `{value}`, expected {}", allowed.join(" or ")));
    }
    let parsed = HeaderValue::from_str(value);
    if parsed.is_err() {
        wrong(*at, format!("headers: {name}: found `{value}`, expected one line of printable ASCII"));
    }
    Some((header.clone(), parsed.ok()?))
}

fn users(document: BTreeMap<String, Located<String>>, wrong: &mut Wrong<'_>) -> Option<Users> {
    for (user, Located { value: hash, at }) in &document {
        if user.contains(':') {
            wrong(*at, format!("basic_auth_users: `{user}`: a name with a colon cannot log in"));
        }
        match cost_of(hash) {
            None => wrong(
                *at,
                format!(
                    "basic_auth_users: `{user}`: not a bcrypt hash such as $2y$10$…; make one with htpasswd -nBC 10 \"\""
                ),
            ),
            Some(cost) if cost > MOST_COST => wrong(
                *at,
                format!(
                    "basic_auth_users: `{user}`: the hash has cost {cost}, expected {MOST_COST} at most: each more doubles the work"
                ),
            ),
            Some(_) => {}
        }
    }
    Users::new(document.into_iter().map(|(user, hash)| (user, hash.value)))
}

fn check_rate(rate: Located<RateDocument>, wrong: &mut Wrong<'_>) -> Option<Rate> {
    let Located { value: RateDocument { interval, burst }, at } = rate;
    let interval = interval.and_then(|Located { value, at }| {
        let parsed = match value.as_str() {
            "0" => Some(Duration::ZERO),
            text => text.parse::<jiff::SignedDuration>().ok().and_then(|d| Duration::try_from(d).ok()),
        };
        if parsed.is_none_or(|interval| interval > MOST_INTERVAL) {
            wrong(
                at,
                format!("rate_limit.interval: found `{value}`, expected a duration up to 1h such as 200ms, or 0"),
            );
        }
        parsed
    });
    // As there: no interval, no limit.
    let interval = interval.filter(|interval| !interval.is_zero())?;
    let burst = burst.map_or(0, |burst| burst.value);
    if burst == 0 {
        wrong(at, "rate_limit.burst: found 0, and nothing would ever be answered; expected 1 or more".into());
    }
    Some(Rate { interval, burst })
}
