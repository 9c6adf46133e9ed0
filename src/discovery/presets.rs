//! Infrastructure that low pods have no business with.

use std::{collections::BTreeSet, net::IpAddr};

use super::{
    objects::{Inventory, Node, port},
    settings::Preset,
    targets::{Finder, Port, Target, address},
};
use crate::model::AddressKind;

const METADATA: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(169, 254, 169, 254));
const CONTROL_PLANE: [&str; 2] = ["node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"];
/// The port of CoreDNS' metrics, where its slices do not tell.
const COREDNS_METRICS: u16 = 9153;

/// The addresses of a node that pods would use.
pub fn internal_addresses(node: &Node) -> impl Iterator<Item = IpAddr> {
    node.status.addresses.iter().filter(|a| a.r#type == "InternalIP").filter_map(|a| address(&a.address))
}

pub fn find(finder: &mut Finder<'_>) {
    let Some((zone, include)) = &finder.settings.presets else { return };
    for preset in include {
        let target = Target { zone: zone.clone(), name: Some(preset.as_str().into()), ..Target::default() };
        let all_nodes = || finder.inventory.nodes.values();
        let tcp = |ports: &[u16]| ports.iter().map(|port| Port::tcp(*port)).collect();
        let target = match preset {
            Preset::CloudMetadata => {
                let (address, kind) = (Some(METADATA), Some(AddressKind::Endpoint));
                Target { address, kind, ports: tcp(&[80]), ..target }
            }
            Preset::Kubelet => {
                Target { endpoints: all_nodes().flat_map(internal_addresses).collect(), ports: tcp(&[10250]), ..target }
            }
            Preset::Etcd => {
                let is_control_plane =
                    |node: &&Node| CONTROL_PLANE.iter().any(|l| node.metadata.labels.contains_key(*l));
                let endpoints = all_nodes().filter(is_control_plane).flat_map(internal_addresses).collect();
                Target { endpoints, ports: tcp(&[2379, 2380]), ..target }
            }
            Preset::ApiServer => api_server(finder.inventory, target),
            Preset::CorednsMetrics => {
                let (endpoints, metrics) = endpoints(finder.inventory, "kube-system", "kube-dns", "metrics");
                Target { endpoints, ports: tcp(&[metrics.unwrap_or(COREDNS_METRICS)]), ..target }
            }
        };
        // Where the provider runs etcd there is no node to find it on.
        let nowhere = *preset == Preset::Etcd && target.endpoints.is_empty();
        if !nowhere {
            finder.add(target);
        }
    }
}

fn api_server(inventory: &Inventory, target: Target) -> Target {
    let service = inventory.services.get(&("default".to_owned(), "kubernetes".to_owned()));
    let (endpoints, at) = endpoints(inventory, "default", "kubernetes", "https");
    let cluster_ip = service.iter().flat_map(|s| &s.spec.cluster_ips).filter_map(|text| address(text)).collect();
    let number = service.and_then(|s| s.spec.ports.iter().find_map(|p| port(p.port))).unwrap_or(443);
    let ports = vec![Port { target_port: at.filter(|at| *at != number), ..Port::tcp(number) }];
    Target { cluster_ip, endpoints, ports, ..target }
}

/// The endpoints of a Service, and their port of a name.
fn endpoints(inventory: &Inventory, namespace: &str, service: &str, name: &str) -> (BTreeSet<IpAddr>, Option<u16>) {
    let of_service = |s: &&super::objects::EndpointSlice| {
        s.metadata.namespace == namespace
            && s.metadata.labels.get("kubernetes.io/service-name").is_some_and(|of| of == service)
    };
    let slices = || inventory.slices.values().filter(of_service);
    let stays = |e: &&super::objects::Endpoint| e.conditions.terminating != Some(true);
    let addresses = slices().flat_map(|s| &s.endpoints).filter(stays).flat_map(|e| &e.addresses);
    let at = slices().flat_map(|s| &s.ports).find(|p| p.name == name).and_then(|p| p.port).and_then(port);
    (addresses.filter_map(|text| address(text)).collect(), at)
}
