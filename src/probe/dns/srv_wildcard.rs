//! `srv-wildcard`: what CoreDNS up to 1.8 (`any`, `*`) and kube-dns (`*`) answer to wildcards over services and namespaces.
//! CoreDNS removed them in 1.9.0 (coredns#5019).

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use hickory_resolver::proto::rr::{Name, RData, RecordType};

use super::{Answer, Known, List, Question, Technique, below, namespace_of, read_names, whole};
use crate::observation::Disclosures;

/// Over everything: by service, by endpoint, by port; kube-dns takes `*` for `svc` as well, which slips past a rule on
/// the suffix. The last two listed everything before CoreDNS 1.1.2 (coredns#1692).
const EVERYWHERE: [&str; 9] = [
    "any.any.svc",
    "*.*.svc",
    "any.any.any.svc",
    "*.*.*.svc",
    "_any._tcp.any.any.svc",
    "*.*.*.*.svc",
    "*.*.*.*",
    "svc",
    "",
];

/// Over one namespace: what is global may be cut at 64 KiB. The bare namespace listed it before CoreDNS 1.2.1
/// (coredns#2042).
const IN_NAMESPACE: [&str; 4] = ["any.", "*.", "*.*.", ""];

/// The wildcards, over everything and over each protected namespace.
pub struct SrvWildcard {
    zone: Name,
    questions: Vec<Question>,
    known_addresses: Arc<BTreeMap<IpAddr, Arc<str>>>,
}

impl SrvWildcard {
    /// `known_addresses` tell whose an address is that comes without a name.
    pub fn new<'a>(
        zone: &Name,
        namespaces: impl IntoIterator<Item = &'a str>,
        known_addresses: Arc<BTreeMap<IpAddr, Arc<str>>>,
    ) -> Self {
        let mut prefixes: Vec<String> = EVERYWHERE.map(String::from).into();
        let mut bare = Vec::new();
        for namespace in namespaces {
            prefixes.extend(IN_NAMESPACE.map(|wildcard| format!("{wildcard}{namespace}.svc")));
            bare.push(format!("{namespace}.svc"));
        }
        let names = prefixes.iter().filter_map(|prefix| below(zone, prefix));
        // SRV tells names, A tells addresses.
        let mut questions: Vec<Question> = names
            .flat_map(|name| [RecordType::SRV, RecordType::A].map(|kind| Question { name: name.clone(), kind }))
            .collect();
        // Below the apex NS fell through to a copy of the zone before CoreDNS 1.6.2 (coredns#3098).
        let bare = bare.iter().filter_map(|prefix| below(zone, prefix));
        questions.extend(bare.map(|name| Question { name, kind: RecordType::NS }));
        Self { zone: zone.clone(), questions, known_addresses }
    }
}

impl Technique for SrvWildcard {
    fn lists(&self) -> Vec<List<'_>> {
        vec![whole(&self.questions)]
    }

    /// That wildcards are answered nobody may expect; that SRV is, shows that the questions get through.
    fn known(&self, known: &Known) -> Vec<Question> {
        known.names.iter().map(|name| Question { name: name.clone(), kind: RecordType::SRV }).collect()
    }

    /// Reads names from records of any kind, and from A answers what is known of their addresses: the owner is only the
    /// question's name, so an address counts for the namespace that was asked for, or for the one whose target it is.
    fn read(&self, answer: &Answer<'_>, told: &mut Disclosures) {
        let Answer { question, message, .. } = *answer;
        read_names(&self.zone, question, message, &mut told.names);
        if question.kind != RecordType::A {
            return;
        }
        let asked: Option<Arc<str>> =
            namespace_of(&question.name, &self.zone).filter(|ns| ns != "any" && ns != "*").map(Into::into);
        for record in &message.answers {
            if let RData::A(address) = &record.data {
                let address = IpAddr::V4(address.0);
                if let Some(namespace) = asked.as_ref().or_else(|| self.known_addresses.get(&address)) {
                    told.addresses.add(namespace, &address.to_string());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_asked_for_srv_and_a() {
        let zone = Name::from_ascii("cluster.local.").unwrap();
        let wildcard = SrvWildcard::new(&zone, ["payments"], Arc::default());
        let asked: Vec<_> = wildcard.questions.iter().map(|q| format!("{} {}", q.name, q.kind)).collect();
        assert_eq!(asked.len(), 27);
        for name in ["any.any", "*.*", "any.any.any", "*.*.*", "any.payments", "*.*.payments", "payments"] {
            assert!(asked.contains(&format!("{name}.svc.cluster.local. SRV")), "{name} in {asked:?}");
            assert!(asked.contains(&format!("{name}.svc.cluster.local. A")), "{name} in {asked:?}");
        }
        assert!(asked.contains(&"cluster.local. SRV".to_owned()));
        assert!(asked.contains(&"payments.svc.cluster.local. NS".to_owned()));
    }
}
