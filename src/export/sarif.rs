//! SARIF 2.1.0, for code scanning: what makes the exit code 1 or 2, at the configuration that asks for it.
//!
//! What passes is no result: GitHub makes an alert of each, of whatever kind. An alert closes when its check passes or
//! is unverified. It is known again by its rule, which is the check's kind and not the reason, and its fingerprint. Source: the OASIS standard, and GitHub's "SARIF support for code scanning".

use std::{
    collections::BTreeSet,
    io::{self, Write},
    path::Path,
};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::report::{Report, Row, Weight};
use crate::model::{CheckKind, plain};

/// The rule of a boundary of which nothing was tested.
const NOT_TESTED: &str = "not-tested";

/// Writes the document. `config` is the configuration's file, as the user named it.
///
/// # Errors
/// What the writer said.
pub fn write(out: &mut impl Write, report: &Report<'_>, config: &Path) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, &document(report, config))?;
    writeln!(out)
}

fn document(report: &Report<'_>, config: &Path) -> Value {
    let header = &report.header;
    let counts = |row: &&Row<'_>| matches!(row.weight(report.require_witness), Weight::Failed | Weight::Undecided);
    let rows: Vec<&Row<'_>> = report.rows().filter(counts).collect();
    let kinds: BTreeSet<CheckKind> = rows.iter().map(|row| row.view.id.kind).collect();
    let told = kinds.into_iter().map(|kind| rule(kind.as_str(), asks(kind)));
    let rules: Vec<Value> = told.chain([rule(NOT_TESTED, "nothing of the boundary was tested")]).collect();
    let place = |logical: &str| {
        json!([{
            "physicalLocation": {"artifactLocation": {"uri": uri(config)}, "region": {"startLine": 1}},
            "logicalLocations": [{"fullyQualifiedName": logical, "kind": "resource"}],
        }])
    };
    let untested = report.untested().map(|(boundary, why)| {
        let name = plain(&boundary.name);
        json!({
            "ruleId": NOT_TESTED, "kind": "open", "level": "none", "locations": place(&name),
            "message": {"text": format!("Nothing of boundary {name} was tested: {}", plain(why))},
            "partialFingerprints": fingerprints(&[NOT_TESTED, &name]),
        })
    });
    let results: Vec<Value> =
        rows.iter().map(|row| result(row, report.require_witness, place)).chain(untested).collect();
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "segprobe",
                "version": header.version,
                "informationUri": env!("CARGO_PKG_REPOSITORY"),
                "rules": rules,
            }},
            // What stands before the last slash is the category: nodes do not replace each other's results.
            "automationDetails": {"id": format!("segprobe/{}/", plain(header.node))},
            "invocations": [{
                "executionSuccessful": true,
                "exitCode": report.exit_code(),
                "machine": plain(header.node),
            }],
            "columnKind": "unicodeCodePoints",
            "properties": {"configHash": plain(header.config_hash), "summary": report.totals.to_string()},
            "results": results,
        }],
    })
}

fn rule(id: &str, explanation: &str) -> Value {
    json!({"id": id, "shortDescription": {"text": explanation}})
}

fn result(row: &Row<'_>, require_witness: bool, place: impl Fn(&str) -> Value) -> Value {
    // A level other than `none` is for failures alone (3.27.10).
    let (kind, level) =
        if row.weight(require_witness) == Weight::Failed { ("fail", "error") } else { ("open", "none") };
    let (boundary, name) = (plain(&row.view.id.boundary), row.name());
    let (source, target) = (row.source(), row.target());
    json!({
        "ruleId": row.view.id.kind, "kind": kind, "level": level,
        "message": {"text": format!("{boundary}: {source} → {target}: {}", row.text())},
        "locations": place(&format!("{boundary}/{name}")),
        "partialFingerprints": fingerprints(&[&boundary, &source, &target]),
        "properties": {
            "boundary": boundary, "source": source, "target": target, "reason": row.reason, "openSince": row.since(),
        },
    })
}

/// What a check of this kind asks.
const fn asks(kind: CheckKind) -> &'static str {
    match kind {
        CheckKind::TcpConnect => "a TCP connect to the target",
        CheckKind::DnsQuery => "a DNS query over UDP to the target",
        CheckKind::SrvWildcard => "DNS: SRV and A wildcards over services and namespaces",
        CheckKind::ServiceLookup => "DNS: the known services of the zone, by name",
        CheckKind::NamespaceOracle => "DNS: which namespaces exist",
        CheckKind::PodOracle => "DNS: which pods live where",
        CheckKind::ZoneTransfer => "DNS: a copy of whole zones (AXFR)",
        CheckKind::ReverseSweep => "DNS: the names of addresses (PTR)",
        CheckKind::NodeCoResidency => "whether pods of both zones run on this node",
    }
}

/// Tells the check again, whatever its reason is then. GitHub looks at `primaryLocationLineHash` alone, and would make one alert of all
/// that points at the same line.
fn fingerprints(parts: &[&str]) -> Value {
    let digest = Sha256::digest(parts.join("\0"));
    let print: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    json!({"primaryLocationLineHash": print, "segprobeCheck/v1": print})
}

/// The file as a reference (RFC 3986): relative as it was named, so that code scanning finds it in the repository.
fn uri(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    let mut uri = if path.is_absolute() { "file://".to_owned() } else { String::new() };
    for byte in path.strip_prefix(".").unwrap_or(path).as_os_str().as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => uri.push(char::from(*byte)),
            byte => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_references() {
        for (path, expected) in [
            ("./ci/segprobe.yaml", "ci/segprobe.yaml"),
            ("a b:c?#é.yaml", "a%20b%3Ac%3F%23%C3%A9.yaml"),
            ("/etc/segprobe.yaml", "file:///etc/segprobe.yaml"),
        ] {
            assert_eq!(uri(Path::new(path)), expected);
        }
    }
}
