//! `pod-oracle`: `1-2-3-4.<namespace>.pod` tells whether that pod lives in that namespace (`pods verified`), or only that
//! the namespace exists (`pods insecure`, which answers for every address).

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use hickory_resolver::proto::rr::{Name, RecordType};

use super::{Answer, Known, List, Question, Questions, Technique, add_name, below, fingerprint, whole};
use crate::observation::Disclosures;

/// Addresses that no pod has (RFC 5737, RFC 3849).
const NOBODYS: [&str; 2] = ["192.0.2.77", "2001:db8::77"];

/// The pods of the protected namespaces.
pub struct PodOracle {
    zone: Name,
    namespaces: BTreeSet<Arc<str>>,
    pods: Box<[(Arc<str>, IpAddr)]>,
}

impl PodOracle {
    /// For each `(namespace, address)` of a pod.
    pub fn new(zone: &Name, pods: impl IntoIterator<Item = (Arc<str>, IpAddr)>) -> Self {
        let pods: Box<[_]> = pods.into_iter().collect();
        Self { zone: zone.clone(), namespaces: pods.iter().map(|(namespace, _)| namespace.clone()).collect(), pods }
    }

    /// Whether `<namespace>.pod.…` is of one of the protected namespaces.
    fn is_protected(&self, name: &Name) -> bool {
        let label = name.iter().next().unwrap_or_default();
        self.namespaces.iter().any(|namespace| namespace.as_bytes() == label)
    }

    fn nobodys(&self, namespace: &str) -> impl Iterator<Item = Question> {
        NOBODYS.iter().filter_map(move |address| question(&self.zone, namespace, address.parse().ok()?))
    }
}

impl Questions for PodOracle {
    fn count(&self) -> u64 {
        self.pods.len() as u64
    }

    fn at(&self, index: u64) -> Option<Question> {
        let (namespace, address) = self.pods.get(usize::try_from(index).ok()?)?;
        question(&self.zone, namespace, *address)
    }

    fn fingerprint(&self) -> u64 {
        fingerprint(&self.pods)
    }
}

fn question(zone: &Name, namespace: &str, address: IpAddr) -> Option<Question> {
    let dashed = address.to_string().replace(['.', ':'], "-");
    let kind = if address.is_ipv4() { RecordType::A } else { RecordType::AAAA };
    Some(Question { name: below(zone, &format!("{dashed}.{namespace}.pod"))?, kind })
}

impl Technique for PodOracle {
    fn lists(&self) -> Vec<List<'_>> {
        vec![whole(self)]
    }

    /// Nobody's address in nobody's namespace, and in each of the protected ones.
    fn absent(&self, nobody: &str) -> Vec<Question> {
        let namespaces = self.namespaces.iter().map(|namespace| &**namespace);
        [nobody].into_iter().chain(namespaces).flat_map(|namespace| self.nobodys(namespace)).collect()
    }

    /// The agent's own pod.
    fn known(&self, known: &Known) -> Vec<Question> {
        let own = known.own.as_ref().and_then(|(address, namespace)| question(&self.zone, namespace, *address));
        own.into_iter().collect()
    }

    /// A pod is told where its address is answered and one that nobody has is not; the namespace is told where nobody's
    /// address is answered in it and not in nobody's namespace. That it is denied in another protected one, which a defence may
    /// hide alone, says nothing.
    fn read(&self, answer: &Answer<'_>, told: &mut Disclosures) {
        let Answer { question, message, absent, .. } = *answer;
        // Whatever the rcode says, records tell.
        if message.answers.is_empty() {
            return;
        }
        let namespace = question.name.base_name();
        let denied = |like: &dyn Fn(&Question) -> bool| absent.iter().any(|q| q.kind == question.kind && like(q));
        if self.nobodys("any").any(|nobodys| first_label(&nobodys) == first_label(question)) {
            if denied(&|q| !self.is_protected(&q.name.base_name())) {
                add_name(&self.zone, &namespace, &mut told.names);
            }
        } else if denied(&|q| q.name.base_name() == namespace) {
            add_name(&self.zone, &question.name, &mut told.names);
        }
    }
}

fn first_label(question: &Question) -> Option<&[u8]> {
    question.name.iter().next()
}
