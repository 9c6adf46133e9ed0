//! `service-lookup`: does the name of a known service of the protected zone resolve from here at all?

use std::{collections::BTreeSet, sync::Arc};

use hickory_resolver::proto::rr::{Name, RecordType};

use super::{
    Answer, Known, List, Question, Questions, Technique, add_name, below, fingerprint, read_names, tells_existence,
    whole,
};
use crate::observation::Disclosures;

const KINDS: [RecordType; 3] = [RecordType::A, RecordType::AAAA, RecordType::SRV];

/// A, AAAA and SRV of each known service.
pub struct ServiceLookup {
    zone: Name,
    services: Box<[(Arc<str>, Arc<str>)]>,
}

impl ServiceLookup {
    /// For each `(namespace, service)`.
    pub fn new(zone: &Name, services: impl IntoIterator<Item = (Arc<str>, Arc<str>)>) -> Self {
        Self { zone: zone.clone(), services: services.into_iter().collect() }
    }
}

impl Questions for ServiceLookup {
    fn count(&self) -> u64 {
        (KINDS.len() * self.services.len()) as u64
    }

    fn at(&self, index: u64) -> Option<Question> {
        let index = usize::try_from(index).ok()?;
        let (namespace, service) = self.services.get(index / KINDS.len())?;
        Some(Question {
            name: below(&self.zone, &format!("{service}.{namespace}.svc"))?,
            kind: KINDS[index % KINDS.len()],
        })
    }

    fn fingerprint(&self) -> u64 {
        fingerprint(&self.services)
    }
}

impl Technique for ServiceLookup {
    fn lists(&self) -> Vec<List<'_>> {
        vec![whole(self)]
    }

    /// A service that nobody has, in each of the namespaces.
    fn absent(&self, nobody: &str) -> Vec<Question> {
        let namespaces: BTreeSet<&str> = self.services.iter().map(|(namespace, _)| &**namespace).collect();
        let names = namespaces.iter().filter_map(|namespace| below(&self.zone, &format!("{nobody}.{namespace}.svc")));
        names.flat_map(|name| KINDS.map(|kind| Question { name: name.clone(), kind })).collect()
    }

    fn known(&self, known: &Known) -> Vec<Question> {
        let names = known.names.iter();
        names.flat_map(|name| KINDS.map(|kind| Question { name: name.clone(), kind })).collect()
    }

    /// An answer of any of the types says that the name exists: the name itself is disclosed, and what else it tells. So
    /// does one without records where nobody's name is NXDOMAIN.
    fn read(&self, answer: &Answer<'_>, told: &mut Disclosures) {
        // Whatever the rcode says, records tell: an alias to nowhere is NXDOMAIN with its CNAME.
        if !answer.message.answers.is_empty() || (tells_existence(answer) && answer.differs_from_absent()) {
            add_name(&self.zone, &answer.question.name, &mut told.names);
            read_names(&self.zone, answer.question, answer.message, &mut told.names);
        }
    }
}
