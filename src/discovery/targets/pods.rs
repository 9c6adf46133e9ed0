//! Pods: where no Service leads to them, and where agents run.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{
    super::objects::{Meta, Pod, port},
    ByPort, Finder, Gap, Port, Target, address, bounded, has, in_zones, is_agent, transport,
};
use crate::{config::is_node_name, model::Transport};

impl Finder<'_> {
    /// Pods: at the ports that they declare and no Service leads to, and at those of their nodes.
    pub(super) fn pods(&mut self) {
        let mut workloads: BTreeMap<(&str, String, &str), ByPort> = BTreeMap::new();
        for (pod, zone) in in_zones(&self.inventory.pods, self) {
            let settings = &self.settings.zones[zone];
            let ended = matches!(pod.status.phase.as_str(), "Succeeded" | "Failed");
            let is_other = !has(&pod.metadata, &settings.pod_labels) || is_agent(self.settings, pod);
            if ended || is_other || pod.metadata.deletion_timestamp.is_some() {
                continue;
            }
            let own = self.addresses_of(pod);
            let host = host_addresses(pod);
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
                    at(".host", host_port, transport, &self.on_host(&declared.host_ip, &host));
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
        let mut listed = listed.filter(|text| !text.is_empty()).peekable();
        if listed.peek().is_none() && pod.spec.containers.iter().any(|container| !container.ports.is_empty()) {
            self.gap(Gap::NoAddress);
        }
        let mut ips = BTreeSet::new();
        for text in listed {
            match address(text) {
                Some(ip) => _ = ips.insert(ip),
                None => self.gap(Gap::Malformed),
            }
        }
        ips
    }

    /// The addresses of a node that a port of it is on, as its pod declares it.
    fn on_host(&mut self, declared: &str, host: &BTreeSet<IpAddr>) -> BTreeSet<IpAddr> {
        match (declared.parse::<IpAddr>(), address(declared)) {
            _ if declared.is_empty() => host.clone(),
            (Ok(all), _) if all.is_unspecified() => {
                host.iter().filter(|ip| ip.is_ipv4() == all.is_ipv4()).copied().collect()
            }
            // Nobody gets there but who is on the node.
            (Ok(ip), _) if ip.to_canonical().is_loopback() => BTreeSet::new(),
            (_, Some(ip)) => [ip].into(),
            (_, None) => {
                self.gap(Gap::Malformed);
                BTreeSet::new()
            }
        }
    }

    /// Where agents run: pods of the namespaces that the targets are written into.
    pub(super) fn nodes(&mut self) {
        for namespace in &self.settings.into {
            self.found.nodes.insert(namespace.clone(), BTreeSet::new());
        }
        for pod in self.inventory.pods.values() {
            let node = &pod.spec.node_name;
            // Empty while it waits for one.
            if !is_agent(self.settings, pod) || node.is_empty() {
                continue;
            }
            match self.found.nodes.get_mut(&pod.metadata.namespace).filter(|_| is_node_name(node)) {
                Some(nodes) => _ = nodes.insert(node.clone()),
                None => self.gap(Gap::Malformed),
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

fn host_addresses(pod: &Pod) -> BTreeSet<IpAddr> {
    let listed = pod.status.host_ips.iter().map(|ip| ip.ip.as_str()).chain([pod.status.host_ip.as_str()]);
    listed.filter_map(address).collect()
}

/// What a pod is part of: its name without what is new in each pod.
pub(super) fn workload(pod: &Pod) -> String {
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
