//! What a server gave away, written down where it puts the thing into an answer, not read from its messages.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use hickory_resolver::proto::rr::RecordType;

use super::Transport;

/// One thing of the inventory that an answer gives away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// An absolute name in lower case, of an object in this namespace.
    Name { namespace: String, name: String },
    /// An address without the name of its object: answers to wildcards.
    Address(IpAddr),
}

/// Everything that some answers gave away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// By namespace: `svc.ns.svc.Z.`, `host.svc.ns.svc.Z.`, `ns.svc.Z.`, `ns.pod.Z.`, `1-2-3-4.ns.pod.Z.`.
    pub names: BTreeMap<String, BTreeSet<String>>,
    /// Given without a name.
    pub addresses: BTreeSet<IpAddr>,
}

impl Told {
    pub fn is_empty(&self) -> bool {
        self.names.is_empty() && self.addresses.is_empty()
    }

    pub fn add(&mut self, fact: &Fact) {
        match fact {
            Fact::Name { namespace, name } => {
                self.names.entry(namespace.clone()).or_default().insert(name.clone());
            }
            Fact::Address(address) => {
                self.addresses.insert(*address);
            }
        }
    }

    pub fn merge(&mut self, other: &Self) {
        for (namespace, names) in &other.names {
            self.names.entry(namespace.clone()).or_default().extend(names.iter().cloned());
        }
        self.addresses.extend(&other.addresses);
    }

    /// Names of one namespace.
    pub fn of(&self, namespace: &str) -> BTreeSet<String> {
        self.names.get(namespace).cloned().unwrap_or_default()
    }
}

impl<'a> FromIterator<&'a Fact> for Told {
    fn from_iter<I: IntoIterator<Item = &'a Fact>>(facts: I) -> Self {
        facts.into_iter().fold(Self::default(), |mut told, fact| {
            told.add(fact);
            told
        })
    }
}

/// One answered question that gave something away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disclosure {
    /// In lower case.
    pub name: String,
    pub kind: RecordType,
    pub transport: Transport,
    pub client: SocketAddr,
    pub told: Told,
}
