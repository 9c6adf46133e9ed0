//! Services: at their own addresses, at every endpoint, and on nodes.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{
    super::{
        objects::{Endpoint, EndpointSlice, Service, ServicePort, SlicePort, port},
        presets,
    },
    ByPort, Finder, Gap, Port, Target, address, bounded, has, hash, is_agent, transport,
};
use crate::config::{is_dns_name, is_label};

impl<'a> Finder<'a> {
    /// A Service, at its own addresses and at every endpoint.
    pub(super) fn service(&mut self, service: &'a Service, zone: &str) {
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

        let mut slices = self.slices.get(&(namespace.as_str(), name.as_str())).cloned().unwrap_or_default();
        let all = slices.len();
        slices.retain(|slice| slice.address_type != "FQDN");
        (slices.len()..all).for_each(|_| self.gap(Gap::Malformed));
        let mut endpoints = slices.iter().flat_map(|slice| &slice.endpoints).peekable();
        if endpoints.peek().is_some() && endpoints.all(|e| self.is_in_zone(e, namespace, zone) == Some(false)) {
            // Whoever answers there is not of the zone.
            return;
        }
        for slice in &slices {
            let leads = slice.ports.iter().any(|p| spec.ports.iter().any(|of| is_of(p, of)));
            if !leads && slice.endpoints.iter().any(|endpoint| self.is_in(endpoint, namespace, zone)) {
                self.gap(Gap::UnknownPort);
            }
        }
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
            let nodes = if any_node_port { self.some_nodes(service, &slices, zone) } else { BTreeSet::new() };
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
        for slice in slices {
            let Some(of_port) = slice.ports.iter().find(|p| is_of(p, at)) else { continue };
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
        let labels = &self.settings.zones[zone].pod_labels;
        endpoint.conditions.terminating != Some(true)
            && self.is_in_zone(endpoint, namespace, zone).unwrap_or(labels.is_empty())
    }

    /// Whether an endpoint's pod is of the zone; none where the pod is not known.
    fn is_in_zone(&self, endpoint: &Endpoint, namespace: &str, zone: &str) -> Option<bool> {
        let target = endpoint.target_ref.as_ref().filter(|target| target.kind == "Pod")?;
        let pod = self.inventory.pods.get(&(namespace.to_owned(), target.name.clone()))?;
        Some(has(&pod.metadata, &self.settings.zones[zone].pod_labels) && !is_agent(self.settings, pod))
    }

    /// The nodes that a Service's NodePorts are tried on, the same as long as they exist. Every node treats them alike, but where
    /// it passes them on only to endpoints of its own: then they are tried where there are any.
    fn some_nodes(&self, service: &Service, slices: &[&EndpointSlice], zone: &str) -> BTreeSet<IpAddr> {
        let endpoints = slices.iter().flat_map(|slice| &slice.endpoints);
        let of_zone = endpoints.filter(|endpoint| self.is_in(endpoint, &service.metadata.namespace, zone));
        let mut with: BTreeSet<&str> = of_zone.map(|endpoint| endpoint.node_name.as_str()).collect();
        with.remove("");
        let any = with.is_empty() || service.spec.external_traffic_policy != "Local";
        let of = |node: &str| hash(&[&service.metadata.namespace, &service.metadata.name, node]);
        let nodes = self.inventory.nodes.values().filter(|node| any || with.contains(node.metadata.name.as_str()));
        let mut nodes: Vec<(u64, IpAddr)> = nodes
            .flat_map(|node| {
                let rank = of(&node.metadata.name);
                presets::internal_addresses(node).map(move |ip| (rank, ip))
            })
            .collect();
        nodes.sort_unstable();
        let mut ranks: Vec<u64> = nodes.iter().map(|(rank, _)| *rank).collect();
        ranks.dedup();
        let last = ranks.get(self.settings.nodes_per_node_port.saturating_sub(1)).or(ranks.last()).copied();
        nodes.into_iter().filter(|(rank, _)| last.is_some_and(|last| *rank <= last)).map(|(_, ip)| ip).collect()
    }
}

/// True for what a slice tells of a Service's port.
fn is_of(told: &SlicePort, port: &ServicePort) -> bool {
    told.name == port.name && protocol(&told.protocol) == protocol(&port.protocol)
}

/// TCP where none is told.
fn protocol(told: &str) -> &str {
    if told.is_empty() { "TCP" } else { told }
}
