//! What DNS tells of the protected zone, by technique and server.

use std::collections::{BTreeMap, BTreeSet};

use maud::{Markup, html};

use super::{Query, badge, scroll};
use crate::{
    export::report::Row,
    ledger::{DnsEvidence, Evidence},
    model::{CheckKind, Verdict, plain},
};

/// Most servers that are told one by one.
const MOST: usize = 32;

/// The checks of one technique at one server.
#[derive(Default)]
struct Told<'a> {
    /// The worst of them comes first.
    rows: Vec<&'a Row<'a>>,
    /// Distinct names of protected namespaces, and distinct addresses without one.
    names: BTreeSet<&'a str>,
    addresses: BTreeSet<&'a str>,
    /// What found no place in memory, of whatever namespace.
    overflow: u64,
}

impl<'a> Told<'a> {
    fn add(&mut self, row: &'a Row<'a>, dns: &'a DnsEvidence) {
        let is_protected = |namespace: &str| dns.protected.iter().any(|p| **p == *namespace);
        let of_protected = |(namespace, told): (&str, BTreeSet<&'a str>)| is_protected(namespace).then_some(told);
        self.rows.push(row);
        self.overflow += dns.seen.overflow();
        self.names.extend(dns.seen.names().into_iter().filter_map(of_protected).flatten());
        self.addresses.extend(dns.seen.addresses().into_iter().filter_map(of_protected).flatten());
    }

    fn in_words(&self) -> String {
        let plural = |count: usize, one: &str, many: &str| format!("{count} {}", if count == 1 { one } else { many });
        let measured = self.rows.iter().any(|row| row.verdict() != Verdict::Inconclusive);
        let told = match (self.names.len(), self.addresses.len()) {
            (0, 0) if !measured => "not measured".into(),
            (0, 0) => "nothing".into(),
            (0, addresses) => plural(addresses, "address", "addresses"),
            (names, _) => plural(names, "name", "names"),
        };
        if self.overflow > 0 { format!("{told}, and {} more of any namespace", self.overflow) } else { told }
    }
}

pub fn disclosures<'a>(rows: &'a [Row<'a>], query: &Query) -> Markup {
    let mut told: BTreeMap<(CheckKind, &str), Told<'_>> = BTreeMap::new();
    for row in rows {
        let id = &row.view.id;
        match row.view.result.as_ref().map(|result| &result.evidence) {
            // A target that is a DNS server is no source of names.
            Some(Evidence::Dns(dns)) if id.kind != CheckKind::DnsQuery => {
                told.entry((id.kind, &id.target)).or_default().add(row, dns);
            }
            _ => {}
        }
    }
    let kinds: BTreeSet<CheckKind> = told.keys().map(|(kind, _)| *kind).collect();
    let servers: BTreeSet<&str> = told.keys().map(|(_, server)| *server).collect();
    let href = |kind: CheckKind, server| query.of_all().with("check", kind.as_str()).with("target", server).href();
    html! {
        @if !told.is_empty() {
            section aria-labelledby="dns" {
                h2 #dns { "What DNS tells of the protected zone" }
                (scroll("What DNS tells of the protected zone", &html! {
                    table.matrix {
                        thead { tr {
                            th scope="col" { "technique ╲ server" }
                            @for server in servers.iter().take(MOST) { th scope="col" { (plain(server)) } }
                        } }
                        tbody { @for kind in &kinds {
                            tr {
                                th scope="row" { (kind) }
                                @for server in servers.iter().take(MOST) {
                                    @match told.get(&(*kind, *server)) {
                                        None => td { span.nothing { "not asked" } }
                                        Some(told) => td { a href=(href(*kind, *server)) {
                                            (badge(told.rows[0].word())) small { " " (told.in_words()) } } }
                                    }
                                }
                            }
                        } }
                    }
                }))
                @if servers.len() > MOST { p.more { "And " (servers.len() - MOST) " servers more." } }
            }
        }
    }
}
