//! From what the API tells to targets. Pure: the same objects give the same targets, whatever order they came in.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::IpAddr,
};

use serde::{Serialize, Serializer};
use sha2::{Digest, Sha256};

use super::{
    objects::{Endpoint, EndpointSlice, Inventory, Meta, Objects, Pod, Service, ServicePort, port},
    presets,
    settings::{Settings, Zone},
    unallocated,
};
use crate::{
    config::{is_dns_name, is_label, is_word},
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
        /// A slice whose ports are not told, or are of no port of its Service.
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

    /// A Service, at its own addresses and at every endpoint.
    fn service(&mut self, service: &'a Service, zone: &str) {
        let Service { metadata, spec, status } = service;
        let (namespace, name) = (&metadata.namespace, &metadata.name);
        if !is_label(name) {
            return self.gap(Gap::Malformed);
        }
        if spec.r#type == "ExternalName" {
            return self.gap(Gap::ExternalName);
        }
        let mut whole = Target { zone: zone.into(), namespace: namespace.clone(), ..Target::default() };
        let (mut ips, mut odd) = (&spec.cluster_ips[..], 0);
        if ips.is_empty() {
            ips = std::slice::from_ref(&spec.cluster_ip);
        }
        for text in ips.iter().filter(|text| !text.is_empty() && *text != "None") {
            match address(text) {
                Some(ip) => _ = whole.cluster_ip.insert(ip),
                None => odd += 1,
            }
        }
        let ingress = status.load_balancer.ingress.iter().flat_map(|i| [&i.ip, &i.hostname]);
        for text in spec.external_ips.iter().chain(ingress).filter(|text| !text.is_empty()) {
            match address(text) {
                Some(ip) => _ = whole.external.insert(ip.to_string()),
                None if is_dns_name(text) => _ = whole.external.insert(text.to_ascii_lowercase()),
                None => odd += 1,
            }
        }
        (0..odd).for_each(|_| self.gap(Gap::Malformed));

        let slices = self.slices.get(&(namespace.as_str(), name.as_str())).cloned().unwrap_or_default();
        self.count_endpoints(&slices, zone);
        // Ports that lead to the same endpoints are one target; a port that leads to several of the endpoints' own ports has one
        // target more for each of the others.
        let mut same: BTreeMap<BTreeSet<IpAddr>, Vec<Port>> = BTreeMap::new();
        let mut others: ByPort = BTreeMap::new();
        for service_port in &spec.ports {
            let Some(number) = port(service_port.port) else {
                self.gap(Gap::Malformed);
                continue;
            };
            let Some(transport) = transport(&service_port.protocol, &service_port.name, number) else {
                self.gap(Gap::Protocol);
                continue;
            };
            let mut leads_to = self.leads_to(&slices, service_port, zone);
            // Where most endpoints are; the lowest of several.
            let main = leads_to.iter().max_by_key(|(at, ips)| (ips.len(), std::cmp::Reverse(**at))).map(|(at, _)| *at);
            let endpoints = main.and_then(|at| leads_to.remove(&at)).unwrap_or_default();
            let target_port = main.filter(|at| *at != number);
            let node_port = port(service_port.node_port);
            same.entry(endpoints).or_default().push(Port { port: number, transport, target_port, node_port });
            for (at, ips) in leads_to {
                others.entry((at, transport)).or_default().extend(ips);
            }
        }
        for (endpoints, ports) in same {
            let any_node_port = ports.iter().any(|p| p.node_port.is_some());
            let nodes = if any_node_port { self.some_nodes(namespace, name) } else { BTreeSet::new() };
            self.add(Target { service: Some(name.clone()), endpoints, ports, nodes, ..whole.clone() });
        }
        for ((at, transport), endpoints) in others {
            let name = bounded(name, &format!(".{at}"));
            let ports = vec![Port { transport, ..Port::tcp(at) }];
            let (zone, namespace) = (zone.into(), namespace.clone());
            self.add(Target { zone, namespace, name: Some(name), endpoints, ports, ..Target::default() });
        }
    }

    fn count_endpoints(&mut self, slices: &[&EndpointSlice], zone: &str) {
        for endpoint in slices.iter().flat_map(|slice| &slice.endpoints) {
            // Unknown is to be taken for ready, says the API.
            let ready = endpoint.conditions.ready.unwrap_or(true);
            *self.found.endpoints.entry((zone.to_owned(), ready)).or_default() += 1;
        }
    }

    /// The endpoints that a port leads to, by their own port: a named target port is another in each slice.
    fn leads_to(
        &mut self,
        slices: &[&'a EndpointSlice],
        at: &ServicePort,
        zone: &str,
    ) -> BTreeMap<u16, BTreeSet<IpAddr>> {
        let mut leads_to: BTreeMap<u16, BTreeSet<IpAddr>> = BTreeMap::new();
        let same_protocol =
            |a: &str, b: &str| (if a.is_empty() { "TCP" } else { a }) == (if b.is_empty() { "TCP" } else { b });
        for slice in slices {
            if slice.address_type == "FQDN" {
                self.gap(Gap::Malformed);
                continue;
            }
            let of_port = slice.ports.iter().find(|p| p.name == at.name && same_protocol(&p.protocol, &at.protocol));
            let Some(of_port) = of_port else { continue };
            let Some(number) = of_port.port.and_then(port) else {
                self.gap(Gap::UnknownPort);
                continue;
            };
            for endpoint in &slice.endpoints {
                if !self.is_in(endpoint, &slice.metadata.namespace, zone) {
                    continue;
                }
                // All of them: a client that knows an address needs no order.
                for text in &endpoint.addresses {
                    match address(text) {
                        Some(ip) => _ = leads_to.entry(number).or_default().insert(ip),
                        None => self.gap(Gap::Malformed),
                    }
                }
            }
        }
        leads_to
    }

    /// An endpoint that stays, and is of a pod with the zone's labels. Ready or not: no policy knows of readiness.
    fn is_in(&self, endpoint: &Endpoint, namespace: &str, zone: &str) -> bool {
        if endpoint.conditions.terminating == Some(true) {
            return false;
        }
        let labels = &self.settings.zones[zone].pod_labels;
        labels.is_empty()
            || endpoint.target_ref.as_ref().filter(|target| target.kind == "Pod").is_some_and(|target| {
                let pod = self.inventory.pods.get(&(namespace.to_owned(), target.name.clone()));
                pod.is_some_and(|pod| has(&pod.metadata, labels))
            })
    }

    /// The nodes that a Service's NodePorts are tried on, the same as long as they exist.
    fn some_nodes(&self, namespace: &str, service: &str) -> BTreeSet<IpAddr> {
        let mut nodes: Vec<(u64, IpAddr)> = self
            .inventory
            .nodes
            .values()
            .flat_map(|node| {
                let rank = hash(&[namespace, service, &node.metadata.name]);
                presets::internal_addresses(node).map(move |ip| (rank, ip))
            })
            .collect();
        nodes.sort_unstable();
        let mut ranks: Vec<u64> = nodes.iter().map(|(rank, _)| *rank).collect();
        ranks.dedup();
        let last = ranks.get(self.settings.nodes_per_node_port.saturating_sub(1)).or(ranks.last()).copied();
        nodes.into_iter().filter(|(rank, _)| last.is_some_and(|last| *rank <= last)).map(|(_, ip)| ip).collect()
    }

    /// Pods: at the ports that they declare and no Service leads to, and at those of their nodes.
    fn pods(&mut self) {
        let mut workloads: BTreeMap<(&str, String, &str), ByPort> = BTreeMap::new();
        for (pod, zone) in in_zones(&self.inventory.pods, self) {
            let settings = &self.settings.zones[zone];
            let ended = matches!(pod.status.phase.as_str(), "Succeeded" | "Failed");
            if ended || pod.metadata.deletion_timestamp.is_some() || !has(&pod.metadata, &settings.pod_labels) {
                continue;
            }
            let own = self.addresses_of(pod);
            let host: BTreeSet<IpAddr> = address(&pod.status.host_ip).into_iter().collect();
            let namespace = pod.metadata.namespace.as_str();
            let mut at = |suffix: &str, port: u16, transport, ips: &BTreeSet<IpAddr>| {
                let workload = (namespace, bounded(&workload(pod), suffix), zone);
                workloads.entry(workload).or_default().entry((port, transport)).or_default().extend(ips);
            };
            let suffix = if pod.spec.host_network { ".host" } else { ".pods" };
            let containers = pod.spec.containers.iter().chain(&pod.spec.init_containers);
            for declared in containers.flat_map(|container| &container.ports) {
                let Some(number) = port(declared.container_port) else {
                    self.gap(Gap::Malformed);
                    continue;
                };
                let Some(transport) = transport(&declared.protocol, &declared.name, number) else {
                    self.gap(Gap::Protocol);
                    continue;
                };
                at(suffix, number, transport, &own);
                if let Some(host_port) = port(declared.host_port).filter(|_| !pod.spec.host_network) {
                    let on: BTreeSet<IpAddr> = address(&declared.host_ip).into_iter().collect();
                    at(".host", host_port, transport, if on.is_empty() { &host } else { &on });
                }
            }
            for number in settings.extra_ports.iter().filter(|_| !pod.spec.host_network) {
                at(suffix, *number, Transport::Tcp, &own);
            }
        }
        for ((namespace, name, zone), mut by_port) in workloads {
            for ((number, transport), ips) in &mut by_port {
                ips.retain(|ip| !self.covered.contains(&(*ip, *number, *transport)));
            }
            for (endpoints, ports) in together(by_port) {
                let (zone, namespace, name) = (zone.into(), namespace.into(), Some(name.clone()));
                self.add(Target { zone, namespace, name, endpoints, ports, ..Target::default() });
            }
        }
    }

    fn addresses_of(&mut self, pod: &Pod) -> BTreeSet<IpAddr> {
        let listed = pod.status.pod_ips.iter().map(|ip| ip.ip.as_str()).chain([pod.status.pod_ip.as_str()]);
        let mut ips = BTreeSet::new();
        for text in listed.filter(|text| !text.is_empty()) {
            match address(text) {
                Some(ip) => _ = ips.insert(ip),
                None => self.gap(Gap::Malformed),
            }
        }
        ips
    }

    /// Where agents run: pods of the namespaces that the targets are written into.
    fn nodes(&mut self) {
        for namespace in &self.settings.into {
            self.found.nodes.insert(namespace.clone(), BTreeSet::new());
        }
        for pod in self.inventory.pods.values() {
            let label = |key: &str| pod.metadata.labels.get(key).map_or("", String::as_str);
            let is_agent = label("app.kubernetes.io/name") == "segprobe"
                && matches!(label("app.kubernetes.io/component"), "agent" | "pods-agent" | "witness");
            if let Some(nodes) = self.found.nodes.get_mut(&pod.metadata.namespace)
                && is_agent
                && is_dns_name(&pod.spec.node_name)
            {
                nodes.insert(pod.spec.node_name.clone());
            }
        }
    }
}

/// Ports that have the same addresses, together.
fn together(by_port: ByPort) -> BTreeMap<BTreeSet<IpAddr>, Vec<Port>> {
    let mut same: BTreeMap<BTreeSet<IpAddr>, Vec<Port>> = BTreeMap::new();
    for ((number, transport), ips) in by_port.into_iter().filter(|(_, ips)| !ips.is_empty()) {
        same.entry(ips).or_default().push(Port { transport, ..Port::tcp(number) });
    }
    same
}

/// What a pod is part of: its name without what is new in each pod.
fn workload(pod: &Pod) -> String {
    let Meta { name, labels, owner_references, .. } = &pod.metadata;
    let Some(owner) = owner_references.iter().find(|owner| owner.controller) else { return name.clone() };
    let hash = labels.get("pod-template-hash").map(|hash| format!("-{hash}"));
    match owner.kind.as_str() {
        "ReplicaSet" => hash.and_then(|hash| owner.name.strip_suffix(&hash)).unwrap_or(&owner.name).to_owned(),
        // Those of a CronJob end in the minute that they were made for.
        "Job" => match owner.name.rsplit_once('-') {
            Some((of, minute)) if minute.len() >= 8 && minute.bytes().all(|b| b.is_ascii_digit()) => of.to_owned(),
            _ => owner.name.clone(),
        },
        _ => owner.name.clone(),
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
