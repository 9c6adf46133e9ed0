//! `service-lookup`: does the name of a known service of the protected zone resolve from here at all?

use hickory_resolver::proto::{
    op::Message,
    rr::{Name, RecordType},
};

use super::{Question, namespace_of, read_names};
use crate::observation::DnsSeen;

/// A, AAAA and SRV of each `(namespace, service)`.
pub fn questions<'a>(zone: &Name, services: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<Question> {
    let names = services.into_iter().filter_map(|(ns, s)| service_name(zone, ns, s));
    names
        .flat_map(|name| {
            [RecordType::A, RecordType::AAAA, RecordType::SRV].map(|kind| Question { name: name.clone(), kind })
        })
        .collect()
}

/// `<service>.<namespace>.svc.<zone>`, where that is a name.
pub fn service_name(zone: &Name, namespace: &str, service: &str) -> Option<Name> {
    Name::from_ascii(format!("{service}.{namespace}.svc")).ok()?.append_domain(zone).ok()
}

/// An answer of any of the types says that the name exists: the name itself is disclosed, and what else the answer tells.
pub fn read(zone: &Name, question: &Question, message: &Message, seen: &mut DnsSeen) {
    if let Some(namespace) = namespace_of(&question.name, zone) {
        seen.names.add(&namespace, &question.name.to_ascii().to_ascii_lowercase());
    }
    read_names(zone, question, message, &mut seen.names);
}
