//! `srv-wildcard`: what CoreDNS up to 1.8 (`any`, `*`) and kube-dns (`*`) answer to wildcards over services and namespaces.
//! CoreDNS removed them in 1.9.0 (coredns#5019).

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use hickory_resolver::proto::{
    op::Message,
    rr::{Name, RData, RecordType},
};

use super::{Question, read_names};
use crate::observation::DnsSeen;

/// The questions: SRV tells names, A tells addresses.
pub fn questions<'a>(zone: &Name, namespaces: impl IntoIterator<Item = &'a str>) -> Vec<Question> {
    let mut prefixes: Vec<String> = ["any.any", "*.*", "any.any.any", "*.*.*"].map(String::from).into();
    for namespace in namespaces {
        prefixes.extend([format!("any.{namespace}"), format!("*.*.{namespace}")]);
    }
    let names = prefixes.iter().filter_map(|p| Name::from_ascii(format!("{p}.svc")).ok()?.append_domain(zone).ok());
    names.flat_map(|name| [RecordType::SRV, RecordType::A].map(|kind| Question { name: name.clone(), kind })).collect()
}

/// Reads names from SRV answers, and from A answers what is known of their addresses: the owner is only the question's
/// name, so an address counts for the namespace that was asked for, or for the one whose known target it is.
pub fn read(
    zone: &Name,
    known_addresses: &HashMap<IpAddr, Arc<str>>,
    question: &Question,
    message: &Message,
    seen: &mut DnsSeen,
) {
    read_names(zone, question, message, &mut seen.names);
    if question.kind != RecordType::A {
        return;
    }
    let asked: Option<Arc<str>> =
        super::namespace_of(&question.name, zone).filter(|ns| ns != "any" && ns != "*").map(Into::into);
    for record in &message.answers {
        if let RData::A(address) = &record.data {
            let address = IpAddr::V4(address.0);
            if let Some(namespace) = asked.as_ref().or_else(|| known_addresses.get(&address)) {
                seen.addresses.add(namespace, &address.to_string());
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
        let asked: Vec<_> = questions(&zone, ["payments"]).iter().map(|q| format!("{} {}", q.name, q.kind)).collect();
        assert_eq!(asked.len(), 12);
        for name in ["any.any", "*.*", "any.any.any", "*.*.*", "any.payments", "*.*.payments"] {
            assert!(asked.contains(&format!("{name}.svc.cluster.local. SRV")), "{name} in {asked:?}");
            assert!(asked.contains(&format!("{name}.svc.cluster.local. A")), "{name} in {asked:?}");
        }
    }
}
