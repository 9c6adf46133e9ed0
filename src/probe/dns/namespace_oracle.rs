//! `namespace-oracle`: a name that exists but has no records is NODATA, one that does not is NXDOMAIN. Never asked as TXT:
//! CoreDNS answers NXDOMAIN to that for namespaces that exist (coredns#5737).

use std::collections::BTreeSet;

use hickory_resolver::proto::rr::{Name, RecordType};

use super::{Answer, Known, List, Question, Technique, add_name, below, namespace_of, tells_existence, whole};
use crate::observation::Disclosures;

const KINDS: [RecordType; 2] = [RecordType::A, RecordType::SRV];
const WHERE: [&str; 2] = ["svc", "pod"];

/// `<namespace>.svc` and `<namespace>.pod` of each protected namespace.
pub struct NamespaceOracle {
    zone: Name,
    questions: Vec<Question>,
}

impl NamespaceOracle {
    /// For these namespaces.
    pub fn new<'a>(zone: &Name, namespaces: impl IntoIterator<Item = &'a str>) -> Self {
        let questions = namespaces.into_iter().flat_map(|namespace| questions(zone, namespace)).collect();
        Self { zone: zone.clone(), questions }
    }
}

fn questions(zone: &Name, namespace: &str) -> Vec<Question> {
    let names = WHERE.iter().filter_map(|kind| below(zone, &format!("{namespace}.{kind}")));
    names.flat_map(|name| KINDS.map(|kind| Question { name: name.clone(), kind })).collect()
}

impl Technique for NamespaceOracle {
    fn lists(&self) -> Vec<List<'_>> {
        vec![whole(&self.questions)]
    }

    fn absent(&self, nobody: &str) -> Vec<Question> {
        questions(&self.zone, nobody)
    }

    fn known(&self, known: &Known) -> Vec<Question> {
        let namespaces: BTreeSet<String> = known.names.iter().filter_map(|n| namespace_of(n, &self.zone)).collect();
        namespaces.iter().flat_map(|namespace| questions(&self.zone, namespace)).collect()
    }

    fn finds(&self, answer: &Answer<'_>) -> bool {
        tells_existence(answer) && answer.differs_from_absent()
    }

    fn read(&self, answer: &Answer<'_>, told: &mut Disclosures) {
        // That the name exists, while that of nobody's namespace in the same place does not.
        if self.finds(answer) {
            add_name(&self.zone, &answer.question.name, &mut told.names);
        }
    }
}
