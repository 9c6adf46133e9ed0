//! From what the API tells to targets. Pure: the same objects give the same targets, whatever order they came in.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::IpAddr,
};

use serde::{Serialize, Serializer};
use sha2::{Digest, Sha256};

use super::{
    objects::{EndpointSlice, Inventory, Meta, Objects, Pod, Service},
    presets,
    settings::{Settings, Zone},
    unallocated,
};
use crate::{
    config::{is_label, is_word},
    model::{AddressKind, Transport, words},
};

/// Label of a slice that names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Longest name of a target.
const MOST_NAME: usize = 63;

words! {
    /// What the API tells of and is no target, or only in part.
    Gap {
        /// A Service that is another name: whoever answers there is not of the zone.
        ExternalName = "external-name",
        /// A Service or pod with ports, and no address yet.
        NoAddress = "no-address",
        /// A port over SCTP, or over UDP where it is no DNS server's.
        Protocol = "protocol",
        /// A slice with endpoints that tells no port of its Service.
        UnknownPort = "unknown-port",
        /// A name, address or number that cannot be one.
        Malformed = "malformed",
        /// A namespace with the labels of two zones: it counts as the one with targets.
        TwoZones = "two-zones",
        /// A range of ClusterIPs in which no free address was found, or none is known: there is no negative control.
        NoFreeAddress = "no-free-address",
        /// A port that the negative controls are not tried on: they have 16 at most.
        NegativePort = "negative-port",
    }
}

/// What is found to be in the zones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetSet {
    /// Namespaces of each zone.
    pub zones: BTreeMap<String, BTreeSet<String>>,
    /// Targets, in the order of their keys.
    pub targets: Vec<Target>,
    /// Addresses that nobody has.
    pub negative: Vec<Negative>,
    /// Nodes with an agent, by the agents' namespace.
    pub nodes: BTreeMap<String, BTreeSet<String>>,
    /// What is no target.
    pub gaps: BTreeMap<Gap, usize>,
    /// Endpoints of Services by zone and readiness.
    pub endpoints: BTreeMap<(String, bool), usize>,
}

/// A target as it stands in a target file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Target {
    /// Its zone.
    pub zone: String,
    /// Its namespace.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// The Service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The name of what is no Service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// ClusterIPs.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub cluster_ip: BTreeSet<IpAddr>,
    /// Pods' and hosts' own addresses.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub endpoints: BTreeSet<IpAddr>,
    /// Nodes whose NodePorts lead to it.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub nodes: BTreeSet<IpAddr>,
    /// Load balancers and external addresses.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub external: BTreeSet<String>,
    /// Any other address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// Who answers at `address`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<AddressKind>,
    /// Its ports.
    pub ports: Vec<Port>,
}

/// A port of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Port {
    /// The port.
    pub port: u16,
    /// TCP, or UDP of a DNS server.
    #[serde(rename = "protocol", serialize_with = "upper_case", skip_serializing_if = "is_tcp")]
    pub transport: Transport,
    /// The endpoints' port, where it is another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_port: Option<u16>,
    /// The nodes' port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_port: Option<u16>,
}

/// A negative control.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Negative {
    /// The address that nobody has.
    pub tcp: IpAddr,
    /// The ports that it is tried on.
    pub ports: BTreeSet<u16>,
}

// serde asks for references.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_tcp(transport: &Transport) -> bool {
    *transport == Transport::Tcp
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn upper_case<S: Serializer>(transport: &Transport, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(match transport {
        Transport::Tcp => "TCP",
        Transport::Udp => "UDP",
    })
}

impl Target {
    /// The name of the Service or of what is none.
    pub fn label(&self) -> &str {
        self.service.as_deref().or(self.name.as_deref()).unwrap_or_default()
    }

    /// Addresses and ports that agents hold for it.
    pub fn weight(&self) -> usize {
        let addresses = self.cluster_ip.len() + self.endpoints.len() + self.nodes.len() + self.external.len();
        addresses.max(1) * self.ports.len()
    }

    fn has_address(&self) -> bool {
        let listed = self.cluster_ip.len() + self.endpoints.len() + self.nodes.len() + self.external.len();
        listed > 0 || self.address.is_some()
    }
}

impl Port {
    pub(super) const fn tcp(port: u16) -> Self {
        Self { port, transport: Transport::Tcp, target_port: None, node_port: None }
    }
}

/// What a target is found by.
pub(super) struct Finder<'a> {
    pub settings: &'a Settings,
    pub inventory: &'a Inventory,
    /// The zone of each namespace.
    zone_of: BTreeMap<&'a str, &'a str>,
    /// Slices by namespace and Service.
    slices: BTreeMap<(&'a str, &'a str), Vec<&'a EndpointSlice>>,
    /// Addresses and ports that are an endpoint of some target already.
    covered: HashSet<(IpAddr, u16, Transport)>,
    /// Identities of checks that there are already.
    known: HashSet<(String, String, u16, Transport)>,
    pub found: TargetSet,
}

mod pods;
mod services;

/// Which addresses answer at a port.
type ByPort = BTreeMap<(u16, Transport), BTreeSet<IpAddr>>;

/// Finds the targets.
pub fn find(settings: &Settings, inventory: &Inventory) -> TargetSet {
    let mut finder = Finder {
        settings,
        inventory,
        zone_of: BTreeMap::new(),
        slices: BTreeMap::new(),
        covered: HashSet::new(),
        known: HashSet::new(),
        found: TargetSet::default(),
    };
    finder.zones();
    for slice in inventory.slices.values() {
        let service = slice.metadata.labels.get(SERVICE_NAME).map_or("", String::as_str);
        finder.slices.entry((&slice.metadata.namespace, service)).or_default().push(slice);
    }
    let of_zones: Vec<(&Service, &str)> = in_zones(&inventory.services, &finder);
    for (service, zone) in of_zones {
        finder.service(service, zone);
    }
    finder.pods();
    presets::find(&mut finder);
    finder.nodes();
    let mut found = finder.found;
    found.targets.sort_by(|a, b| {
        let key = |t: &Target| (t.namespace.clone(), t.label().to_owned(), t.ports.clone());
        key(a).cmp(&key(b))
    });
    unallocated::find(settings, inventory, &mut found);
    found
}

/// Objects of the zones whose contents are targets.
fn in_zones<'a, T: super::objects::Object>(objects: &'a Objects<T>, finder: &Finder<'a>) -> Vec<(&'a T, &'a str)> {
    let zones = &finder.settings.zones;
    let of = |object: &'a T| {
        let zone = *finder.zone_of.get(object.metadata().namespace.as_str())?;
        zones[zone].targets.then_some((object, zone))
    };
    objects.values().filter_map(of).collect()
}

fn has(meta: &Meta, labels: &BTreeMap<String, String>) -> bool {
    labels.iter().all(|(key, value)| meta.labels.get(key) == Some(value))
}

/// An address that a target may have: never one that would lead back to the agent itself.
pub(super) fn address(text: &str) -> Option<IpAddr> {
    let ip: IpAddr = text.parse().ok()?;
    let ip = ip.to_canonical();
    let odd = ip.is_unspecified() || ip.is_loopback() || ip.is_multicast();
    (!odd).then_some(ip)
}

/// True for agents of ours. They are in the zones, and what is tested is not who tests it: their own policy closes them.
fn is_agent(settings: &Settings, pod: &Pod) -> bool {
    let Meta { namespace, labels, .. } = &pod.metadata;
    let label = |key: &str| labels.get(key).map_or("", String::as_str);
    settings.into.contains(namespace)
        && label("app.kubernetes.io/name") == "segprobe"
        && matches!(label("app.kubernetes.io/component"), "agent" | "pods-agent" | "witness")
}

/// The protocol of a port that can be tested: UDP only of DNS servers.
fn transport(protocol: &str, name: &str, number: u16) -> Option<Transport> {
    match protocol {
        "" | "TCP" => Some(Transport::Tcp),
        "UDP" if number == 53 || name == "dns" || name.starts_with("dns-") => Some(Transport::Udp),
        _ => None,
    }
}

impl<'a> Finder<'a> {
    pub fn gap(&mut self, gap: Gap) {
        *self.found.gaps.entry(gap).or_default() += 1;
    }

    fn zones(&mut self) {
        for zone in self.settings.zones.keys() {
            self.found.zones.insert(zone.clone(), BTreeSet::new());
        }
        // Those with targets first: in doubt, rather one target too many.
        let mut zones: Vec<(&String, &Zone)> = self.settings.zones.iter().collect();
        zones.sort_by_key(|(name, zone)| (!zone.targets, *name));
        for namespace in self.inventory.namespaces.values() {
            let name = namespace.metadata.name.as_str();
            let mut of = zones.iter().filter(|(_, zone)| has(&namespace.metadata, &zone.namespace_labels));
            let Some((zone, _)) = of.next() else { continue };
            if of.next().is_some() {
                self.gap(Gap::TwoZones);
            }
            if !is_label(name) {
                self.gap(Gap::Malformed);
                continue;
            }
            self.zone_of.insert(name, zone);
            self.found.zones.entry((*zone).clone()).or_default().insert(name.to_owned());
        }
    }

    /// Adds a target, where it has an address and a port.
    pub fn add(&mut self, mut target: Target) {
        target.ports.sort_unstable();
        // Agents refuse a file with two checks of one identity: the API never tells of two, but whatever it tells.
        let (namespace, label) = (target.namespace.clone(), target.label().to_owned());
        let all = target.ports.len();
        target.ports.retain(|p| self.known.insert((namespace.clone(), label.clone(), p.port, p.transport)));
        (target.ports.len()..all).for_each(|_| self.gap(Gap::Malformed));
        if !is_word(target.label()) {
            return self.gap(Gap::Malformed);
        }
        if target.ports.is_empty() || !target.has_address() {
            return self.gap(Gap::NoAddress);
        }
        for p in &target.ports {
            let at = p.target_port.unwrap_or(p.port);
            self.covered.extend(target.endpoints.iter().map(|ip| (*ip, at, p.transport)));
        }
        self.found.targets.push(target);
    }
}

/// A name with a suffix, of at most 63 bytes: what is longer is cut, and told apart by a hash.
fn bounded(name: &str, suffix: &str) -> String {
    if name.len() + suffix.len() <= MOST_NAME {
        return format!("{name}{suffix}");
    }
    let hash = format!("-{:08x}", hash(&[name]) >> 32);
    let room = MOST_NAME - suffix.len() - hash.len();
    let cut: String = name.chars().filter(char::is_ascii).take(room).collect();
    format!("{cut}{hash}{suffix}")
}

/// A hash that is the same on every machine and in every version.
pub(super) fn hash(parts: &[&str]) -> u64 {
    let mut sha = Sha256::new();
    for part in parts {
        sha.update((part.len() as u64).to_be_bytes());
        sha.update(part);
    }
    sha.finalize().iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests;
