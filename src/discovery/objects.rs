//! What is read of the API's objects: everything else is skipped while the JSON is parsed and never held.
//!
//! Addresses and numbers stay as they came, so that one odd value does not cost its object, nor one odd object the others.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer, de::DeserializeOwned};

use super::settings::Settings;

/// Labels that are read beside those of the zones.
const LABELS: [&str; 6] = [
    "app.kubernetes.io/component",
    "app.kubernetes.io/name",
    "kubernetes.io/service-name",
    "node-role.kubernetes.io/control-plane",
    "node-role.kubernetes.io/master",
    "pod-template-hash",
];

/// Go writes an empty list as `null`.
fn nullable<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// Declares structs of camel-case keys, every one of which may be absent or `null`.
macro_rules! slim {
    ($($(#[$meta:meta])* $name:ident { $($(#[$fmeta:meta])* $field:ident: $type:ty),* $(,)? })*) => { $(
        $(#[$meta])*
        #[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
        #[serde(rename_all = "camelCase", default)]
        pub struct $name { $(
            $(#[$fmeta])*
            #[serde(deserialize_with = "nullable")]
            pub $field: $type,
        )* }
    )* };
}

slim! {
    /// What every object has.
    Meta {
        /// Its name.
        name: String,
        /// Its namespace; empty for what has none.
        namespace: String,
        /// Its labels, as far as they are read: those of [`labels`].
        labels: BTreeMap<String, String>,
        /// The one that keeps it alive.
        owner_references: Vec<Owner>,
        /// Set while it is being deleted.
        deletion_timestamp: Option<String>,
    }
    /// Who made an object.
    Owner {
        /// Such as `ReplicaSet`.
        kind: String,
        /// Its name.
        name: String,
        /// The one that keeps it alive.
        controller: bool,
    }
    /// A Namespace.
    Namespace {
        /// Names and labels.
        metadata: Meta,
    }
    /// A Node.
    Node {
        /// Names and labels.
        metadata: Meta,
        /// Its state.
        status: NodeStatus,
    }
    /// A Node's state.
    NodeStatus {
        /// `InternalIP` and others.
        addresses: Vec<NodeAddress>,
    }
    /// A Node's address.
    NodeAddress {
        /// `InternalIP`, `ExternalIP`, `Hostname`.
        r#type: String,
        /// The address or name.
        address: String,
    }
    /// A Service.
    Service {
        /// Names and labels.
        metadata: Meta,
        /// What it is.
        spec: ServiceSpec,
        /// Its state.
        status: ServiceStatus,
    }
    /// What a Service is.
    ServiceSpec {
        /// `ClusterIP`, `NodePort`, `LoadBalancer` or `ExternalName`.
        r#type: String,
        /// One for each family; `None` where it is headless.
        #[serde(rename = "clusterIPs")]
        cluster_ips: Vec<String>,
        /// The first of them, for what wrote no list.
        #[serde(rename = "clusterIP")]
        cluster_ip: String,
        /// Further addresses, that somebody routes to the nodes.
        #[serde(rename = "externalIPs")]
        external_ips: Vec<String>,
        /// `Local` where a node passes its NodePorts on only to endpoints of its own.
        external_traffic_policy: String,
        /// Its ports.
        ports: Vec<ServicePort>,
    }
    /// A Service's port.
    ServicePort {
        /// Tells the ports of one Service apart, and is theirs in the slices; empty where there is one.
        name: String,
        /// `TCP`, `UDP` or `SCTP`; empty is TCP.
        protocol: String,
        /// The Service's port.
        port: u32,
        /// The port on the nodes.
        node_port: u32,
    }
    /// A Service's state.
    ServiceStatus {
        /// Its load balancers.
        load_balancer: LoadBalancer,
    }
    /// A Service's load balancers.
    LoadBalancer {
        /// Where they listen.
        ingress: Vec<Ingress>,
    }
    /// Where a load balancer listens: one of both.
    Ingress {
        /// Its address.
        ip: String,
        /// Its name.
        hostname: String,
    }
    /// Some of a Service's endpoints, which share their ports.
    EndpointSlice {
        /// Names and labels.
        metadata: Meta,
        /// `IPv4`, `IPv6` or `FQDN`.
        address_type: String,
        /// The endpoints.
        endpoints: Vec<Endpoint>,
        /// Their ports.
        ports: Vec<SlicePort>,
    }
    /// An endpoint.
    Endpoint {
        /// Its addresses, of which clients use the first.
        addresses: Vec<String>,
        /// Its state.
        conditions: Conditions,
        /// Where it runs.
        node_name: String,
        /// What it is.
        target_ref: Option<TargetRef>,
    }
    /// An endpoint's state; absent is unknown.
    Conditions {
        /// It gets traffic.
        ready: Option<bool>,
        /// Its pod is being deleted.
        terminating: Option<bool>,
    }
    /// What an endpoint is.
    TargetRef {
        /// Such as `Pod`.
        kind: String,
        /// Its name.
        name: String,
    }
    /// A port of a slice.
    SlicePort {
        /// The name of the Service's port.
        name: String,
        /// `TCP`, `UDP` or `SCTP`; empty is TCP.
        protocol: String,
        /// The endpoints' port; absent is all of them.
        port: Option<u32>,
    }
    /// A Pod.
    Pod {
        /// Names and labels.
        metadata: Meta,
        /// What it is.
        spec: PodSpec,
        /// Its state.
        status: PodStatus,
    }
    /// What a Pod is.
    PodSpec {
        /// Where it runs.
        node_name: String,
        /// It has the node's own network: no NetworkPolicy binds it.
        host_network: bool,
        /// Its containers.
        containers: Vec<Container>,
        /// Those that run before, of which some stay.
        init_containers: Vec<Container>,
    }
    /// A container.
    Container {
        /// The ports that it says it has.
        ports: Vec<ContainerPort>,
    }
    /// A container's port.
    ContainerPort {
        /// Its name.
        name: String,
        /// `TCP`, `UDP` or `SCTP`; empty is TCP.
        protocol: String,
        /// Its number.
        container_port: u32,
        /// The node's port that leads to it.
        host_port: u32,
        /// The node's address that it is on; all of them where empty.
        #[serde(rename = "hostIP")]
        host_ip: String,
    }
    /// A Pod's state.
    PodStatus {
        /// `Running` and others.
        phase: String,
        /// One for each family.
        #[serde(rename = "podIPs")]
        pod_ips: Vec<PodIp>,
        /// The first of them, for what wrote no list.
        #[serde(rename = "podIP")]
        pod_ip: String,
        /// The node's addresses, one for each family (Kubernetes 1.30 and newer).
        #[serde(rename = "hostIPs")]
        host_ips: Vec<PodIp>,
        /// The first of them.
        #[serde(rename = "hostIP")]
        host_ip: String,
    }
    /// An address of a Pod or its node.
    PodIp {
        /// The address.
        ip: String,
    }
    /// A range of ClusterIPs (Kubernetes 1.33 and newer).
    ServiceCidr {
        /// Names and labels.
        metadata: Meta,
        /// What it is.
        spec: ServiceCidrSpec,
    }
    /// A range of ClusterIPs.
    ServiceCidrSpec {
        /// One for each family.
        cidrs: Vec<String>,
    }
}

/// The labels that are read.
pub fn labels(settings: &Settings) -> BTreeSet<String> {
    let of_zones = settings.zones.values().flat_map(|zone| zone.namespace_labels.keys().chain(zone.pod_labels.keys()));
    of_zones.cloned().chain(LABELS.map(str::to_owned)).collect()
}

impl Meta {
    /// Forgets what is not read: anybody who makes an object may fill it to the megabyte.
    pub fn keep(&mut self, labels: &BTreeSet<String>) {
        self.labels.retain(|key, _| labels.contains(key));
        self.owner_references.retain(|owner| owner.controller);
        self.owner_references.shrink_to_fit();
    }
}

/// Something that the API tells.
pub trait Object: Clone + PartialEq + Default + DeserializeOwned + Send + 'static {
    /// Its kind, in lower case and plural, as in paths and labels.
    const PLURAL: &'static str;
    /// Path of the list of all.
    const PATH: &'static str;
    /// Further conditions of the list.
    const SELECT: &'static str = "";
    /// False where an API server may not know the kind.
    const ALWAYS_THERE: bool = true;
    /// Names and labels.
    fn metadata(&self) -> &Meta;
    /// The same, to change.
    fn metadata_mut(&mut self) -> &mut Meta;
    /// Where the inventory keeps it.
    fn all(inventory: &mut Inventory) -> &mut Objects<Self>;
}

/// Objects by namespace and name: in one order, whatever order they came in.
pub type Objects<T> = BTreeMap<(String, String), T>;

/// All that the API tells.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    /// Namespaces.
    pub namespaces: Objects<Namespace>,
    /// Nodes.
    pub nodes: Objects<Node>,
    /// Services.
    pub services: Objects<Service>,
    /// EndpointSlices.
    pub slices: Objects<EndpointSlice>,
    /// Pods that are not completed.
    pub pods: Objects<Pod>,
    /// Ranges of ClusterIPs.
    pub service_cidrs: Objects<ServiceCidr>,
}

macro_rules! object {
    ($type:ident in $all:ident, $plural:literal at $path:literal $(, $more:item)*) => {
        impl Object for $type {
            const PLURAL: &'static str = $plural;
            const PATH: &'static str = $path;
            $($more)*
            fn metadata(&self) -> &Meta { &self.metadata }
            fn metadata_mut(&mut self) -> &mut Meta { &mut self.metadata }
            fn all(inventory: &mut Inventory) -> &mut Objects<Self> { &mut inventory.$all }
        }
    };
}
object!(Namespace in namespaces, "namespaces" at "/api/v1/namespaces");
object!(Node in nodes, "nodes" at "/api/v1/nodes");
object!(Service in services, "services" at "/api/v1/services");
object!(EndpointSlice in slices, "endpointslices" at "/apis/discovery.k8s.io/v1/endpointslices");
// What is completed has no address any more.
object!(Pod in pods, "pods" at "/api/v1/pods",
    const SELECT: &'static str = "fieldSelector=status.phase%21%3DSucceeded%2Cstatus.phase%21%3DFailed";);
object!(ServiceCidr in service_cidrs, "servicecidrs" at "/apis/networking.k8s.io/v1/servicecidrs",
    const ALWAYS_THERE: bool = false;);

/// A number as a port.
pub fn port(number: u32) -> Option<u16> {
    u16::try_from(number).ok().filter(|port| *port > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_that_are_read_are_kept() {
        let text = "zones: {high: {namespace_labels: {scope: in}, pod_labels: {tier: db}, targets: true}}\ninto: [x]\n";
        let settings = crate::discovery::settings::parse(std::path::Path::new("d.yaml"), text).unwrap();
        let labels = labels(&settings);
        assert!(["scope", "tier"].iter().all(|label| labels.contains(*label)));
        // All that the finders name, as far as one can tell.
        let finders = [
            include_str!("targets.rs"),
            include_str!("targets/pods.rs"),
            include_str!("targets/services.rs"),
            include_str!("presets.rs"),
        ];
        for source in finders {
            for word in source.split('"').filter(|w| w.contains("kubernetes.io/") || w.ends_with("-hash")) {
                assert!(labels.contains(word), "{word} is read and not kept");
            }
        }
    }
}
