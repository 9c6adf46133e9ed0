//! The document as it is written, with defaults: what serde reads and the JSON Schema describes.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::scalars::{Ip, Located, NodeName, OffOr, OneOrMany, PortEntry, Span, list};
use crate::model::ClosedRule;

/// segprobe's configuration.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "segprobe configuration")]
pub struct Document {
    /// Zones by name.
    pub zones: BTreeMap<String, Located<Zone>>,
    /// What is tested.
    pub boundaries: Located<Vec<Located<Boundary>>>,
    /// What is in the zones.
    #[serde(default, deserialize_with = "list")]
    #[schemars(with = "Vec<Located<Target>>")]
    pub targets: Vec<Located<Target>>,
    /// Further files with targets (YAML or JSON, by their ending), relative to this one; `*` and `?` may stand for parts of a name.
    #[serde(default, deserialize_with = "list")]
    #[schemars(with = "Vec<Located<String>>")]
    pub target_files: Vec<Located<String>>,
    /// The agent's own place in the network.
    #[serde(default)]
    pub vantage: Vantage,
    /// How the pods of this node are found and treated.
    pub pods: Option<Pods>,
    /// Who is known to be allowed to reach a zone: source addresses of the agent, the node's own network, or other pods.
    #[serde(default, deserialize_with = "list")]
    #[schemars(with = "Vec<Located<Witness>>")]
    pub witnesses: Vec<Located<Witness>>,
    /// What the vantage may reach, and what nobody may reach.
    #[serde(default)]
    pub controls: Controls,
    /// The cluster's DNS.
    #[serde(default)]
    pub dns: Dns,
    /// Budgets.
    #[serde(default)]
    pub pace: Pace,
    /// How the nodes of the cluster share the targets, and the DNS servers that are listed by address. Default: every agent
    /// probes all of them in every sweep.
    pub share: Option<Located<Share>>,
    /// Bounds on the number of series in `/metrics`.
    #[serde(default)]
    pub series: Series,
}

/// A set of namespaces of one security level.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Zone {
    /// Kubernetes namespaces.
    #[serde(default)]
    pub namespaces: Vec<Located<String>>,
    /// Labels that pods of these namespaces must have to be in the zone. Default: all pods.
    #[serde(default)]
    pub pod_labels: BTreeMap<String, String>,
}

/// A directed pair of zones.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Boundary {
    /// Unique name: a label of every series.
    pub name: Located<String>,
    /// Zone that the vantage stands in.
    pub from: Located<String>,
    /// Zone of the targets.
    pub to: Located<String>,
    /// What is promised.
    #[serde(default)]
    pub expect: ExpectWord,
    /// Time between the starts of two sweeps.
    #[serde(default = "thirty_seconds")]
    pub interval: Located<Span>,
    /// How TCP is tested.
    #[serde(default)]
    pub tcp: Located<Tcp>,
    /// Which DNS techniques are tested; `off` for none.
    pub dns: Option<Located<OffOr<Techniques>>>,
    /// Whether pods of both zones may share a node: `judge` makes it a `fail`.
    #[serde(default = "off")]
    pub co_residency: Located<ModeWord>,
}

fn off() -> Located<ModeWord> {
    Located { value: ModeWord::Off, at: Default::default() }
}

fn thirty_seconds() -> Located<Span> {
    Located { value: Span(Duration::from_secs(30)), at: Default::default() }
}

/// What a boundary promises.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ExpectWord {
    /// Nothing gets across.
    #[default]
    Blocked,
    /// The way is open.
    Open,
}

/// How TCP is tested.
#[derive(Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tcp {
    /// Time for one connect, at least 2s.
    pub timeout: Located<Span>,
    /// Connects to each address, 1 to 10.
    pub attempts: Located<u32>,
    /// What an RST of an endpoint means where no witness vouches for it.
    pub closed: ClosedRule,
}

impl Default for Tcp {
    fn default() -> Self {
        Self {
            timeout: Located { value: Span(Duration::from_secs(2)), at: Default::default() },
            attempts: Located { value: 2, at: Default::default() },
            closed: ClosedRule::Fail,
        }
    }
}

impl Default for Located<Tcp> {
    fn default() -> Self {
        Self { value: Tcp::default(), at: Default::default() }
    }
}

/// Which DNS techniques are tested, and whether a disclosure is a `fail`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Techniques {
    /// SRV and A wildcards over services and namespaces.
    pub srv_wildcard: ModeWord,
    /// PTR of the targets' addresses, and of `dns.reverse_sweep.ranges`.
    pub reverse_sweep: ModeWord,
    /// AXFR of the zone and the reverse zones. One AXFR can crash CoreDNS up to 1.14.4 on dual stack.
    pub zone_transfer: ModeWord,
    /// A, AAAA and SRV of each known service.
    pub service_lookup: ModeWord,
    /// Which of the zone's namespaces exist.
    pub namespace_oracle: ModeWord,
    /// Which of the targets' pods live where.
    pub pod_oracle: ModeWord,
}

impl Default for Techniques {
    fn default() -> Self {
        use ModeWord::{Judge, Off, Report};
        Self {
            srv_wildcard: Judge,
            reverse_sweep: Judge,
            zone_transfer: Off,
            service_lookup: Report,
            namespace_oracle: Report,
            pod_oracle: Report,
        }
    }
}

/// Whether a technique's disclosure counts.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ModeWord {
    /// A disclosure is a `fail`.
    Judge,
    /// A disclosure is counted and shown, and stays out of verdicts.
    Report,
    /// Not asked.
    Off,
}

/// A service, pod or host of a zone.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// Its zone.
    pub zone: String,
    /// Kubernetes namespace.
    pub namespace: Option<String>,
    /// Kubernetes Service.
    pub service: Option<String>,
    /// Name of a target that is not a Service.
    pub name: Option<String>,
    /// ClusterIPs of the Service.
    #[serde(default)]
    pub cluster_ip: OneOrMany<Ip>,
    /// Addresses of its pods.
    #[serde(default)]
    pub endpoints: OneOrMany<Ip>,
    /// Nodes whose `node_port`s lead to it.
    #[serde(default)]
    pub nodes: OneOrMany<Ip>,
    /// Load balancers and other external addresses, or their DNS names.
    #[serde(default)]
    pub external: OneOrMany<String>,
    /// Another address or DNS name; unused where addresses are listed.
    pub address: Option<String>,
    /// Who answers at `address`: one host, or nobody knows (default).
    pub kind: Option<KindWord>,
    /// TCP ports, and the UDP ports of DNS servers.
    pub ports: Vec<PortEntry>,
}

/// Who answers at an address.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KindWord {
    /// One host: it can prove segmentation.
    Endpoint,
    /// Who knows: it can fail, it never proves.
    Virtual,
}

/// A file with further targets, and what else discovery found.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetFile {
    /// When discovery last saw that the API still says so; absent in files that are written by hand.
    pub heartbeat: Option<Located<String>>,
    /// Namespaces that belong to zones beside those of the configuration.
    pub zones: Option<Located<MoreNamespaces>>,
    /// Negative controls beside those of the configuration.
    pub negative: Option<Located<Vec<Negative>>>,
    /// Nodes that run an agent.
    #[serde(default, deserialize_with = "list")]
    pub nodes: Vec<NodeName>,
    #[serde(deserialize_with = "list")]
    pub targets: Vec<Located<Target>>,
}

/// Namespaces by zone.
pub type MoreNamespaces = BTreeMap<String, Vec<String>>;

/// The same in JSON, read without the YAML parser: fifteen times as fast, for large inventories.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JsonTargetFile<'a> {
    #[serde(borrow)]
    pub heartbeat: Option<&'a RawValue>,
    #[serde(borrow)]
    pub zones: Option<&'a RawValue>,
    #[serde(borrow)]
    pub negative: Option<&'a RawValue>,
    #[serde(default)]
    pub nodes: Vec<NodeName>,
    #[serde(borrow)]
    pub targets: Vec<&'a RawValue>,
}

/// The agent's own place in the network.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Vantage {
    /// Where the sockets of the probes are born.
    #[serde(default)]
    pub mode: Located<VantageWord>,
    /// `source_namespace` label. Default: `--vantage.namespace`.
    pub namespace: Option<Located<String>>,
    /// `source` label. Default: `own`.
    pub identity: Option<Located<String>>,
    /// Source addresses, one of each family at most. Default: the kernel's choice.
    pub source: Option<Located<OneOrMany<Ip>>>,
}

/// Where the sockets of the probes are born.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum VantageWord {
    /// In the agent's own network.
    #[default]
    Own,
    /// In the network namespaces of the pods of the zone `from` on this node. Needs the runtime's socket and CAP_SYS_ADMIN.
    Pods,
}

impl Default for Located<VantageWord> {
    fn default() -> Self {
        Self { value: VantageWord::default(), at: Default::default() }
    }
}

/// How the pods of this node are found and treated.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Pods {
    /// The container runtime's CRI socket.
    pub socket: PathBuf,
    /// Time between two looks at the list of pods.
    pub poll: Located<Span>,
    /// Labels that make no identity of their own, beside the hashes and names that controllers add.
    pub ignore_labels: Vec<String>,
    /// Every pod of an identity speaks within so many sweeps, 1 to 1000.
    pub turn_within: Located<u32>,
    /// Probes a second from one pod, controls and DNS queries included, 1 to 100000.
    pub per_second: Located<u32>,
    /// What is open only while a pod or target is younger than this is no finding, and is reported as `startup`.
    pub startup_window: Located<Span>,
}

impl Default for Pods {
    fn default() -> Self {
        let number = |value| Located { value, at: Default::default() };
        let span = |seconds| Located { value: Span(Duration::from_secs(seconds)), at: Default::default() };
        Self {
            socket: "/run/containerd/containerd.sock".into(),
            poll: span(2),
            ignore_labels: ["app.kubernetes.io/version", "helm.sh/chart"].map(Into::into).into(),
            turn_within: number(10),
            per_second: number(5),
            startup_window: span(10),
        }
    }
}

/// Who is known to be allowed to reach a zone: exactly one of `source`, `node` and `pods`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Witness {
    /// The zone that it may reach.
    pub zone: String,
    /// Source addresses of the agent, one of each family at most.
    pub source: Option<OneOrMany<Ip>>,
    /// `true`: the node's own network, for pods of the zone on this node. The agent must run with `hostNetwork`.
    pub node: Option<bool>,
    /// Pods of the zone on this node that have these labels.
    pub pods: Option<BTreeMap<String, String>>,
}

/// Controls: they tell a blocked path from a broken vantage.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Controls {
    /// What the vantage may reach; at least one of each family and transport that is tested.
    pub positive: Located<Vec<Located<Positive>>>,
    /// Addresses that nobody has.
    pub negative: Vec<Located<Negative>>,
}

impl Default for Controls {
    fn default() -> Self {
        let resolver = || Some("resolver".to_owned());
        let (tcp, udp) = (Positive { tcp: resolver(), udp: None }, Positive { tcp: None, udp: resolver() });
        let positive = [tcp, udp].map(|value| Located { value, at: Default::default() }).into();
        Self { positive: Located { value: positive, at: Default::default() }, negative: Vec::new() }
    }
}

/// A positive control: one of `tcp` and `udp`.
#[derive(Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Positive {
    /// `resolver` (TCP port 53 of the resolver), or `address:port`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp: Option<String>,
    /// A DNS server that the vantage may ask, for targets that are DNS servers: `resolver`, or `address:port`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub udp: Option<String>,
}

/// A negative control.
#[derive(Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Negative {
    /// An address that nobody has, in the targets' range.
    pub tcp: Ip,
    /// The targets' ports.
    pub ports: Vec<u16>,
    /// The targets that it speaks for. Default: all of its family.
    pub range: Option<String>,
}

/// The cluster's DNS.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Dns {
    /// The cluster's zone.
    pub zone: Located<String>,
    /// The servers to test: `system` (those of /etc/resolv.conf; in mode `pods` each pod's own, as the runtime tells them),
    /// `address`, `address:port`, or with a name for the label.
    pub servers: Vec<Located<Server>>,
    /// The server that resolves the names of targets: `system`, `address` or `address:port`.
    pub resolver: Located<String>,
    /// Time for one attempt.
    pub timeout: Located<Span>,
    /// Attempts before a question counts as lost, 1 to 10.
    pub attempts: Located<u32>,
    /// Queries a second to each server, 1 to 1000000.
    pub queries_per_second: Located<u32>,
    /// UDP questions to each server that wait for an answer at the same time, 1 to 1000.
    pub in_flight: Located<u32>,
    /// UDP sockets to each server, 1 to 16: from another source port another replica may answer.
    pub sockets: Located<u32>,
    /// What was denied is asked again after this time, when caches may have been filled by others.
    pub ask_again: Located<Span>,
    /// Names that this vantage may know. Default: `kubernetes.default.svc.` and the zone.
    pub known_names: Option<Vec<Located<String>>>,
    /// Whole ranges for `reverse-sweep`.
    pub reverse_sweep: Option<Located<Reverse>>,
    /// Most disclosed names in the log event of a finding; 0 for none.
    pub names_in_log: Located<u32>,
}

/// Ranges whose every address is looked up, in slices.
#[derive(Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Reverse {
    /// CIDRs: the service range, pod ranges. 16,777,216 addresses at most.
    pub ranges: Vec<String>,
    /// Addresses that are asked for in one sweep.
    pub queries_per_sweep: u32,
}

impl Default for Dns {
    fn default() -> Self {
        let located = |text: &str| Located { value: text.to_owned(), at: Default::default() };
        let number = |value| Located { value, at: Default::default() };
        Self {
            zone: located("cluster.local"),
            servers: vec![Located { value: Server::Plain("system".into()), at: Default::default() }],
            resolver: located("system"),
            timeout: Located { value: Span(Duration::from_secs(2)), at: Default::default() },
            attempts: number(2),
            queries_per_second: number(20),
            in_flight: number(16),
            sockets: number(4),
            ask_again: Located { value: Span(Duration::from_secs(6)), at: Default::default() },
            known_names: None,
            reverse_sweep: None,
            names_in_log: number(3),
        }
    }
}

/// A DNS server.
#[derive(Debug, Deserialize, JsonSchema, Serialize)]
#[serde(untagged, expecting = "expected `system`, an address, or {name, address}")]
pub enum Server {
    /// `system`, or an address.
    Plain(String),
    /// An address with a name for its label.
    Named(NamedServer),
}

/// A DNS server with a name for its label.
#[derive(Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct NamedServer {
    /// The label.
    pub name: String,
    /// `address` or `address:port`.
    pub address: String,
    /// `endpoint` where one pod or host answers there, so that a finding needs fewer clean sweeps to close.
    pub kind: Option<KindWord>,
}

/// Budgets of the agent.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Pace {
    /// Connects in flight, 1 to 65536.
    pub in_flight: Located<u32>,
    /// Connects started a second, 1 to 1000000.
    pub per_second: Located<u32>,
    /// Least time between two attempts at one address.
    pub spacing: Span,
}

impl Default for Pace {
    fn default() -> Self {
        let number = |value| Located { value, at: Default::default() };
        Self { in_flight: number(256), per_second: number(100), spacing: Span(Duration::from_millis(200)) }
    }
}

/// How the nodes of the cluster share the targets: exactly one of `nodes_per_sweep` and `connects_per_second`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// Each address is probed by so many nodes or more in each sweep.
    pub nodes_per_sweep: Option<Located<u32>>,
    /// Each address gets so many connects a second, or fewer, from all nodes together; one node's at least.
    pub connects_per_second: Option<Located<f64>>,
    /// Names of nodes that run an agent, beside those in the target files.
    #[serde(default, deserialize_with = "list")]
    #[schemars(with = "Vec<NodeName>")]
    pub nodes: Vec<NodeName>,
}

/// Bounds on the number of series.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Series {
    /// Up to so many checks, each has series of its own.
    pub every_check: u32,
    /// Past that only `fail` and `inconclusive` ones have, the worst first and at most so many.
    pub worst_checks: u32,
}

impl Default for Series {
    fn default() -> Self {
        Self { every_check: 250, worst_checks: 1000 }
    }
}

/// The JSON Schema of the configuration file.
pub fn json_schema() -> serde_json::Value {
    schemars::schema_for!(Document).to_value()
}
