//! The configuration: one YAML document and the target files that it names, checked as a whole before anything is used.
//!
//! [`load`] reads files and gives a [`Config`]; nothing else in the crate sees the document's own types.

mod cross_checks;
mod document;
mod load;
mod scalars;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use hickory_resolver::proto::rr::Name;
use ipnet::IpNet;

pub use cross_checks::{is_dns_name, is_label, is_word};
pub use document::json_schema;
pub use load::{Files, Heartbeat, LoadError, Look, Problem, load, parse, parse_yaml, read_text};
pub use scalars::{Located, Position, Span, is_node_name};

use crate::model::{AddressKind, CheckKind, ClosedRule, Expect, Mode, NegativeControl, Transport, VantageMode};

/// A checked configuration.
#[derive(Debug)]
pub struct Config {
    /// SHA-256 over the contents of all files, in hex: tells two configurations apart.
    pub hash: String,
    /// What it was read from.
    pub source: Arc<Source>,
    /// Zones by name.
    pub zones: BTreeMap<Arc<str>, Zone>,
    /// What is tested.
    pub boundaries: Vec<Boundary>,
    /// What is in the zones.
    pub targets: Vec<Target>,
    /// The target files that discovery vouches for, with its word of when they were read.
    pub heartbeats: Arc<[Heartbeat]>,
    /// Where the agent's own sockets stand.
    pub vantage: VantageConfig,
    /// How the pods of this node are found; none where nothing needs them.
    pub pods: Option<PodsConfig>,
    /// Who is known to be allowed, the best of each zone first.
    pub witnesses: Vec<WitnessConfig>,
    /// Positive controls, and over what.
    pub positive: Vec<(Transport, PositiveControl)>,
    /// Negative controls.
    pub negative: Vec<NegativeControl>,
    /// The cluster's DNS.
    pub dns: DnsConfig,
    /// Budgets.
    pub pace: PaceConfig,
    /// How the nodes of the cluster share the targets; none where every agent probes all of them.
    pub share: Option<ShareConfig>,
    /// Bounds on the number of series.
    pub series: SeriesConfig,
}

/// What a configuration was read from. No key of it holds a secret.
#[derive(Debug, Default)]
pub struct Source {
    /// The configuration file.
    pub path: PathBuf,
    /// Its text.
    pub text: Box<str>,
    /// The target files.
    pub targets: Box<[PathBuf]>,
}

/// Namespaces of one security level, and the pods in them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Zone {
    /// Kubernetes namespaces.
    pub namespaces: Vec<Arc<str>>,
    /// Labels that its pods have.
    pub pod_labels: BTreeMap<Box<str>, Box<str>>,
}

/// A directed pair of zones and what is promised of it.
#[derive(Clone, Debug)]
pub struct Boundary {
    /// Unique name.
    pub name: Arc<str>,
    /// Zone that the vantage stands in.
    pub from: Arc<str>,
    /// Zone of the targets.
    pub to: Arc<str>,
    /// What is promised.
    pub expect: Expect,
    /// Time between the starts of two sweeps.
    pub interval: Duration,
    /// Time for one connect; at least 2 s, because the kernel repeats a SYN after 1 s.
    pub timeout: Duration,
    /// Connects to each address.
    pub attempts: u32,
    /// What an unexplained RST of an endpoint means.
    pub closed: ClosedRule,
    /// DNS techniques that are not off.
    pub techniques: Vec<(CheckKind, Mode)>,
    /// Whether pods of both zones on one node count; none where nobody asks.
    pub co_residency: Option<Mode>,
}

/// A service, pod or host of a zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its zone.
    pub zone: Arc<str>,
    /// Kubernetes namespace; empty outside of the cluster.
    pub namespace: Arc<str>,
    /// The service's or host's name: the first half of the `target` label.
    pub name: Arc<str>,
    /// True where the name is that of a Kubernetes Service, so that DNS may know it.
    pub is_service: bool,
    /// ClusterIPs.
    pub cluster_ips: Box<[IpAddr]>,
    /// Addresses of the pods behind it.
    pub endpoints: Box<[IpAddr]>,
    /// Nodes whose `node_port`s lead to it.
    pub nodes: Box<[IpAddr]>,
    /// Load balancers and other external addresses.
    pub external: Box<[Address]>,
    /// Any other address or name, and who answers there. Unused where addresses are listed.
    pub address: Option<(Address, AddressKind)>,
    /// Ports.
    pub ports: Box<[Port]>,
    /// The heartbeat that vouches for its addresses, by its place in [`Config::heartbeats`]; none where it was written by hand.
    pub vouched_by: Option<u16>,
}

/// A port of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    /// TCP; UDP for a DNS server.
    pub transport: Transport,
    /// The service's port: the second half of the `target` label.
    pub port: u16,
    /// The port of the endpoints.
    pub target_port: u16,
    /// The port of the nodes.
    pub node_port: Option<u16>,
}

/// An address, or a name that is resolved afresh in each sweep.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// An IP address.
    Ip(IpAddr),
    /// An absolute DNS name.
    Name(Arc<str>),
}

/// The agent's own place in the network.
#[derive(Clone, Debug)]
pub struct VantageConfig {
    /// Where the sockets are born.
    pub mode: VantageMode,
    /// `source_namespace` label; the command line's where absent.
    pub namespace: Option<Arc<str>>,
    /// `source` label.
    pub identity: Option<Arc<str>>,
    /// Source addresses; the kernel chooses where empty.
    pub source: Box<[IpAddr]>,
}

/// How the pods of this node are found and treated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodsConfig {
    /// The container runtime's CRI socket.
    pub socket: PathBuf,
    /// Time between two looks at the list of pods.
    pub poll: Duration,
    /// Labels that make no identity of their own.
    pub ignore_labels: BTreeSet<Box<str>>,
    /// Every pod of an identity speaks within so many sweeps.
    pub turn_within: u32,
    /// Probes a second from one pod.
    pub per_second: u32,
    /// What is open only while a pod or target is younger than this is no finding.
    pub startup_window: Duration,
}

/// Who is known to be allowed to reach a zone.
#[derive(Clone, Debug)]
pub struct WitnessConfig {
    /// The zone that it may reach.
    pub zone: Arc<str>,
    /// Who it is.
    pub who: WitnessWho,
}

/// Who vouches, the best first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WitnessWho {
    /// The node's own network, for pods on this node.
    Node,
    /// Pods of the zone on this node with these labels.
    Pods(BTreeMap<Box<str>, Box<str>>),
    /// Source addresses of the agent.
    Source(Box<[IpAddr]>),
}

/// Something that the vantage may reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PositiveControl {
    /// The resolver.
    Resolver,
    /// An address.
    Address(SocketAddr),
}

/// A DNS server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DnsServer {
    /// Those of `/etc/resolv.conf`; in mode `pods` those of each pod, as the runtime tells them.
    System,
    /// A server with a name for its label, and who answers there.
    Named(Arc<str>, SocketAddr, AddressKind),
}

/// The cluster's DNS and how it is asked.
#[derive(Clone, Debug)]
pub struct DnsConfig {
    /// The cluster's zone, absolute.
    pub zone: Name,
    /// The servers that are tested.
    pub servers: Vec<DnsServer>,
    /// The server that resolves targets' names.
    pub resolver: DnsServer,
    /// Time for one attempt.
    pub timeout: Duration,
    /// Attempts before a question counts as lost.
    pub attempts: u32,
    /// Queries a second to each server.
    pub queries_per_second: u32,
    /// UDP questions to one server that wait for an answer at the same time.
    pub in_flight: u32,
    /// UDP sockets to one server: source ports, each of which may lead to another replica.
    pub sockets: u32,
    /// What was denied is asked again after this time.
    pub ask_again: Duration,
    /// Names that this vantage may know: the self-check.
    pub known_names: Vec<Name>,
    /// Ranges whose addresses are asked for by `reverse-sweep`, beside those of the targets.
    pub reverse_ranges: Vec<IpNet>,
    /// Addresses of the ranges that are asked for in one sweep.
    pub reverse_per_sweep: u32,
    /// Most disclosed names in a log event.
    pub names_in_log: u32,
}

/// Budgets of the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PaceConfig {
    /// Connects in flight.
    pub in_flight: u32,
    /// Connects started a second.
    pub per_second: u32,
    /// Least time between two attempts at one address.
    pub spacing: Duration,
}

/// How the nodes of the cluster share the targets.
#[derive(Clone, Debug, PartialEq)]
pub struct ShareConfig {
    /// How much one sweep is to be.
    pub of: ShareOf,
    /// Names of the nodes that run an agent, from the configuration and all target files.
    pub nodes: Vec<Arc<str>>,
    /// This node's name. Files do not know it: whoever runs on it sets it.
    pub own: Arc<str>,
}

/// How much of the work one sweep of all nodes is to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ShareOf {
    /// So many nodes or more probe each address.
    NodesPerSweep(u32),
    /// So many connects a second, or fewer, go to each address from all nodes together; one node's at least.
    ConnectsPerSecond(f64),
}

/// Bounds on the number of series in `/metrics`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeriesConfig {
    /// Up to so many checks, each has series of its own.
    pub every_check: u32,
    /// Past that only `fail` and `inconclusive` ones have, the worst first and at most so many.
    pub worst_checks: u32,
}

#[cfg(test)]
mod tests;
