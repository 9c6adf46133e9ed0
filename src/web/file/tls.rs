//! `tls_server_config`: its words to what rustls has.

use std::path::Path;

use rustls::{
    NamedGroup, ProtocolVersion, SupportedCipherSuite, SupportedProtocolVersion,
    crypto::{SupportedKxGroup, ring},
    version::{TLS12, TLS13},
};
use serde::Deserialize;

use super::{MOST_BYTES, Wrong};
use crate::config::{Located, Position, read_text};

/// What TLS is made of.
pub struct Tls {
    pub cert: Pem,
    pub key: Pem,
    pub clients: Clients,
    pub versions: Vec<&'static SupportedProtocolVersion>,
    /// In the server's order.
    pub suites: Vec<SupportedCipherSuite>,
    /// In the server's order.
    pub groups: Vec<&'static dyn SupportedKxGroup>,
    /// The server's order of cipher suites counts.
    pub own_order: bool,
}

/// What clients show.
pub enum Clients {
    /// No certificate.
    Nothing,
    /// A certificate that nobody verifies.
    Any { mandatory: bool },
    /// A certificate that a CA vouches for, and that has one of the names where some are given.
    Verified { mandatory: bool, ca: Pem, names: Vec<String> },
}

/// A text in PEM, and where the file says so.
pub struct Pem {
    pub text: String,
    /// The key, and the file where there is one: the beginning of messages.
    pub what: String,
    pub at: Position,
}

impl Tls {
    /// All that was read.
    pub fn materials(&self) -> impl Iterator<Item = &Pem> {
        let ca = match &self.clients {
            Clients::Verified { ca, .. } => Some(ca),
            Clients::Nothing | Clients::Any { .. } => None,
        };
        [&self.cert, &self.key].into_iter().chain(ca)
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsDocument {
    cert: Option<Located<String>>,
    cert_file: Option<Located<String>>,
    key: Option<Located<String>>,
    key_file: Option<Located<String>>,
    client_ca: Option<Located<String>>,
    client_ca_file: Option<Located<String>>,
    client_auth_type: Option<Located<String>>,
    client_allowed_sans: Option<Vec<Located<String>>>,
    min_version: Option<Located<String>>,
    max_version: Option<Located<String>>,
    cipher_suites: Option<Vec<Located<String>>>,
    prefer_server_cipher_suites: Option<bool>,
    curve_preferences: Option<Vec<Located<String>>>,
}

/// The settings; none where there are none, which is plain HTTP, or where they are wrong.
pub fn check(directory: &Path, document: Located<TlsDocument>, wrong: &mut Wrong<'_>) -> Option<Tls> {
    let Located { value: document, at } = document;
    if is_blank(&document) {
        return None;
    }
    let mut pem = |inline, file, keys| pem(directory, inline, file, keys, wrong);
    let cert = pem(document.cert, document.cert_file, ("cert", "cert_file"));
    let key = pem(document.key, document.key_file, ("key", "key_file"));
    let ca = pem(document.client_ca, document.client_ca_file, ("client_ca", "client_ca_file"));
    for (given, keys) in [(&cert, "cert or cert_file"), (&key, "key or key_file")] {
        if given.is_absent() {
            wrong(at, format!("tls_server_config: {keys} is missing"));
        }
    }
    let clients = clients(document.client_auth_type, ca, document.client_allowed_sans, at, wrong);
    let versions = versions(document.min_version.as_ref(), document.max_version.as_ref(), wrong);
    let suites = suites(document.cipher_suites.unwrap_or_default(), &versions, wrong);
    let groups = groups(document.curve_preferences.unwrap_or_default(), wrong);
    let own_order = document.prefer_server_cipher_suites.unwrap_or(true);
    Some(Tls { cert: cert.found()?, key: key.found()?, clients: clients?, versions, suites, groups, own_order })
}

fn is_blank(document: &TlsDocument) -> bool {
    let TlsDocument {
        cert,
        cert_file,
        key,
        key_file,
        client_ca,
        client_ca_file,
        client_auth_type,
        client_allowed_sans,
        min_version,
        max_version,
        cipher_suites,
        prefer_server_cipher_suites,
        curve_preferences,
    } = document;
    let texts = [cert, cert_file, key, key_file, client_ca, client_ca_file, client_auth_type, min_version, max_version];
    let lists = [client_allowed_sans, cipher_suites, curve_preferences];
    texts.iter().all(|text| text.is_none())
        && lists.iter().all(|list| list.is_none())
        && prefer_server_cipher_suites.is_none()
}

/// What became of a pair of keys.
enum Given {
    Absent,
    /// It was told what is wrong.
    Bad,
    Found(Pem),
}

impl Given {
    fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }
    fn found(self) -> Option<Pem> {
        match self {
            Self::Found(pem) => Some(pem),
            Self::Absent | Self::Bad => None,
        }
    }
}

fn pem(
    directory: &Path,
    inline: Option<Located<String>>,
    file: Option<Located<String>>,
    (inline_key, file_key): (&str, &str),
    wrong: &mut Wrong<'_>,
) -> Given {
    let given = |value: Option<Located<String>>| value.filter(|text| !text.value.trim().is_empty());
    match (given(inline), given(file)) {
        (None, None) => Given::Absent,
        (Some(_), Some(file)) => {
            wrong(file.at, format!("{file_key}: {inline_key} is given too, expected one of them"));
            Given::Bad
        }
        (Some(Located { value: text, at }), None) => Given::Found(Pem { text, what: inline_key.into(), at }),
        (None, Some(Located { value: name, at })) => match read_text(&directory.join(&name), MOST_BYTES) {
            Ok(text) => Given::Found(Pem { text, what: format!("{file_key}: {name}"), at }),
            Err(problem) => {
                let binary = problem.message.starts_with("not UTF-8");
                let message = if binary { "binary, expected PEM, which is text" } else { &problem.message };
                wrong(at, format!("{file_key}: {name}: {message}"));
                Given::Bad
            }
        },
    }
}

fn clients(
    word: Option<Located<String>>,
    ca: Given,
    names: Option<Vec<Located<String>>>,
    tls_at: Position,
    wrong: &mut Wrong<'_>,
) -> Option<Clients> {
    let word_at = word.as_ref().map_or(tls_at, |word| word.at);
    let word = word.map(|word| word.value).filter(|word| !word.is_empty()).unwrap_or_else(|| "NoClientCert".into());
    let names = names.unwrap_or_default();
    let (verifies, mandatory) = match word.as_str() {
        "NoClientCert" | "RequestClientCert" => (false, false),
        // The second is an old name of the first.
        "RequireAnyClientCert" | "RequireClientCert" => (false, true),
        "VerifyClientCertIfGiven" => (true, false),
        "RequireAndVerifyClientCert" => (true, true),
        _ => {
            let all = "NoClientCert, RequestClientCert, RequireAnyClientCert, VerifyClientCertIfGiven or RequireAndVerifyClientCert";
            wrong(word_at, format!("client_auth_type: found `{word}`, expected {all}"));
            return None;
        }
    };
    if let Some(name) = names.first().filter(|_| !(verifies && mandatory)) {
        let why = if verifies { "lets clients in that show none" } else { "verifies none" };
        wrong(
            name.at,
            format!("client_allowed_sans: client_auth_type {word} {why}, expected RequireAndVerifyClientCert"),
        );
    }
    if let Some(name) = names.iter().find(|name| name.value.is_empty()) {
        wrong(name.at, "client_allowed_sans: found an empty name".into());
    }
    match ca {
        Given::Bad => None,
        Given::Absent if verifies => {
            wrong(word_at, format!("client_auth_type: {word} needs client_ca or client_ca_file"));
            None
        }
        Given::Found(ca) if verifies => {
            Some(Clients::Verified { mandatory, ca, names: names.into_iter().map(|name| name.value).collect() })
        }
        Given::Found(ca) => {
            let key = ca.what.split(':').next().unwrap_or_default();
            let expected = "expected RequireAndVerifyClientCert or VerifyClientCertIfGiven";
            wrong(ca.at, format!("{key}: client_auth_type {word} verifies no certificate, {expected}"));
            None
        }
        Given::Absent if word == "NoClientCert" => Some(Clients::Nothing),
        Given::Absent => Some(Clients::Any { mandatory }),
    }
}

fn versions(
    min: Option<&Located<String>>,
    max: Option<&Located<String>>,
    wrong: &mut Wrong<'_>,
) -> Vec<&'static SupportedProtocolVersion> {
    let mut version = |key: &str, word: Option<&Located<String>>, default| match word {
        None => default,
        Some(Located { value, at }) => match value.as_str() {
            "" => default,
            "TLS12" => ProtocolVersion::TLSv1_2,
            "TLS13" => ProtocolVersion::TLSv1_3,
            "TLS10" | "TLS11" => {
                wrong(
                    *at,
                    format!("{key}: {value} is not offered: rustls has no TLS before 1.2; expected TLS12 or TLS13"),
                );
                default
            }
            _ => {
                wrong(*at, format!("{key}: found `{value}`, expected TLS12 or TLS13"));
                default
            }
        },
    };
    let least = version("min_version", min, ProtocolVersion::TLSv1_2);
    let most = version("max_version", max, ProtocolVersion::TLSv1_3);
    let offered: Vec<_> = [&TLS12, &TLS13]
        .into_iter()
        .filter(|v| (u16::from(least)..=u16::from(most)).contains(&u16::from(v.version)))
        .collect();
    if offered.is_empty() {
        let at = min.map_or(Position::default(), |min| min.at);
        wrong(at, "min_version: it is above max_version, and no version is left".into());
    }
    offered
}

/// Go's name of a cipher suite.
fn name(suite: SupportedCipherSuite) -> String {
    let name = format!("{:?}", suite.suite());
    name.strip_prefix("TLS13_").map_or(name.clone(), |rest| format!("TLS_{rest}"))
}

fn suites(
    listed: Vec<Located<String>>,
    versions: &[&SupportedProtocolVersion],
    wrong: &mut Wrong<'_>,
) -> Vec<SupportedCipherSuite> {
    let all = ring::ALL_CIPHER_SUITES;
    let Some(first) = listed.first().map(|first| first.at) else { return all.to_vec() };
    let mut chosen = Vec::new();
    for Located { value, at } in listed {
        match all.iter().find(|suite| name(**suite) == value) {
            Some(suite) => chosen.push(*suite),
            None => {
                let known: Vec<String> = all.iter().map(|suite| name(*suite)).collect();
                wrong(at, format!("cipher_suites: found `{value}`, and rustls has only {}", known.join(", ")));
            }
        }
    }
    chosen.retain(|suite| suite.tls13().is_none());
    if chosen.is_empty() && versions.iter().all(|v| v.version == ProtocolVersion::TLSv1_2) {
        wrong(first, "cipher_suites: none of them is of TLS 1.2, which is the only version that is offered".into());
    }
    // As Go does it: the list is of TLS 1.2 alone, and the suites of TLS 1.3 are always offered.
    all.iter().filter(|suite| suite.tls13().is_some()).copied().chain(chosen).collect()
}

fn groups(listed: Vec<Located<String>>, wrong: &mut Wrong<'_>) -> Vec<&'static dyn SupportedKxGroup> {
    let all = ring::ALL_KX_GROUPS;
    if listed.is_empty() {
        return all.to_vec();
    }
    let mut chosen = Vec::new();
    for Located { value, at } in listed {
        let group = match value.as_str() {
            "X25519" => Some(NamedGroup::X25519),
            "CurveP256" => Some(NamedGroup::secp256r1),
            "CurveP384" => Some(NamedGroup::secp384r1),
            _ => None,
        };
        match all.iter().find(|known| Some(known.name()) == group) {
            Some(group) => chosen.push(*group),
            None => {
                let message = "and rustls has only X25519, CurveP256, CurveP384";
                wrong(at, format!("curve_preferences: found `{value}`, {message}"));
            }
        }
    }
    chosen
}
