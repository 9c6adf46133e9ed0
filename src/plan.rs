//! From configuration and inventory to checks. Pure: the same input gives the same plan.

mod cost;
pub mod share;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    config::{Address, Boundary, Config, DnsServer, PositiveControl, Target},
    inventory::stands::{Source, Speakers, Stand},
    model::{
        AddressKind, CheckId, CheckKind, Expect, Family, Identity, Mode, NegativeControl, Transport, VantageMode, Via,
    },
};

pub use cost::Cost;
use share::Share;

/// Everything that will be asked.
#[derive(Debug)]
pub struct Plan {
    /// One for each boundary, in the order of the configuration.
    pub boundaries: Vec<Arc<BoundaryPlan>>,
    /// Who asks what: each boundary from each identity that stands in its zone.
    pub legs: Vec<Arc<Leg>>,
    /// What will not be tested, or cannot be proven, and why.
    pub not_tested: Vec<NotTested>,
    /// The target files that discovery vouches for.
    pub vouching: Arc<[Arc<str>]>,
}

/// What one boundary asks, whoever asks it.
#[derive(Debug)]
pub struct BoundaryPlan {
    /// The boundary's rules.
    pub boundary: Boundary,
    /// Where the sockets of its probes are born.
    pub mode: VantageMode,
    /// Its checks of what can be reached, each with the first source's identity.
    pub reach: Arc<[Check]>,
    /// Namespaces of the zone that is protected.
    pub namespaces: Vec<Arc<str>>,
    /// Known services of that zone: `(namespace, name)`.
    pub services: BTreeSet<(Arc<str>, Arc<str>)>,
    /// Known addresses of that zone and their namespaces.
    pub known_addresses: Arc<BTreeMap<IpAddr, Arc<str>>>,
    /// Known addresses of pods of that zone: `(namespace, address)`.
    pub pods: BTreeSet<(Arc<str>, IpAddr)>,
    /// True where a witness may reach the zone.
    pub witnessed: bool,
    /// How the nodes of the cluster share the addresses; none where each probes all of them.
    pub share: Option<Arc<Share>>,
    /// What of it is not tested, whoever asks.
    pub not_tested: Vec<NotTested>,
}

/// One boundary from one identity.
#[derive(Debug)]
pub struct Leg {
    /// What is asked.
    pub boundary: Arc<BoundaryPlan>,
    /// Who asks.
    pub stand: Stand,
    /// What can be reached; of the node itself, which pods run here.
    pub reach: Arc<[Check]>,
    /// What DNS tells.
    pub dns: Box<[Check]>,
    /// How the nodes of the cluster share the DNS servers that are listed by address; none where each asks all of them.
    pub dns_share: Option<Arc<Share>>,
    /// What its vantages may reach, and what nobody may.
    pub controls: Arc<ControlAddresses>,
    /// What is not tested from here, beside what nobody tests.
    pub not_tested: Vec<NotTested>,
}

/// The two things that a leg asks. Each takes its own time, so that neither waits for the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// What can be reached, and which pods run on this node.
    Reach,
    /// What DNS tells.
    Dns,
}

/// A boundary, the source that it is swept from, and what is asked: what is swept by itself.
pub type Asked = (Arc<str>, Arc<Identity>, Part);

/// What a source may reach, and what nobody may.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ControlAddresses {
    /// Positive controls over TCP.
    pub positive: Vec<SocketAddr>,
    /// The same over UDP: DNS servers that it may ask.
    pub positive_udp: Vec<SocketAddr>,
    /// Negative controls, each also on the ports of the positive controls in its range: a proxy that answers for those would
    /// make an offline vantage look good.
    pub negative: Vec<NegativeControl>,
    /// Servers that resolve the names of targets.
    pub resolver: Vec<SocketAddr>,
}

impl Plan {
    /// The addresses that its endpoints are listed with.
    pub fn endpoints(&self) -> HashSet<IpAddr> {
        self.boundaries.iter().flat_map(|b| b.reach.iter()).flat_map(|check| check.question.endpoints()).collect()
    }

    /// Boundaries of which nothing is tested, and why: a pass of all the others says nothing of them.
    pub fn untested(&self) -> impl Iterator<Item = (&Arc<str>, Option<&NotTested>)> {
        let untested = self.boundaries.iter().filter(|planned| !self.is_tested(planned));
        untested.map(|planned| &planned.boundary.name).map(|name| {
            // The first is the whole reason: others are of single techniques and ways.
            (name, self.not_tested.iter().find(|gap| gap.boundary == *name))
        })
    }

    /// Whether there is a check whose verdict counts; where the configuration has none of that kind, whether there is any. That
    /// two zones share no node is no answer to what can be reached.
    fn is_tested(&self, planned: &Arc<BoundaryPlan>) -> bool {
        let counts = |mode: &Mode| *mode == Mode::Judge;
        let is_judged = !planned.reach.is_empty() || planned.boundary.techniques.iter().any(|(_, mode)| counts(mode));
        let of_it = |leg: &&Arc<Leg>| Arc::ptr_eq(&leg.boundary, planned);
        let mut checks = self.legs.iter().filter(of_it).flat_map(|leg| leg.checks());
        let answers = |check: &Check| counts(&check.mode) && !matches!(check.question, Question::CoResidency);
        checks.any(|check| !is_judged || answers(check))
    }
}

/// One question. No two of a plan share an identity.
#[derive(Clone, Debug)]
pub struct Check {
    /// Its identity, shared with every result of it.
    pub id: Arc<CheckId>,
    /// Whether its verdict counts.
    pub mode: Mode,
    /// How it is asked.
    pub question: Question,
}

/// How a check is asked.
#[derive(Clone, Debug)]
pub enum Question {
    /// Connect to each address at the port, or send it a DNS query over UDP.
    Reach {
        /// Which of the two.
        transport: Transport,
        /// Who answers there.
        kind: AddressKind,
        /// Addresses and names, never empty.
        addresses: Arc<[Address]>,
        /// The port.
        port: u16,
        /// The file whose heartbeat vouches for the addresses, by its place in [`Plan::vouching`]; none where nobody has to.
        vouched_by: Option<u16>,
    },
    /// Enumerate at the server.
    Dns {
        /// The server.
        server: SocketAddr,
        /// Who answers there.
        kind: AddressKind,
    },
    /// Look which pods run on this node.
    CoResidency,
}

impl Question {
    /// Its addresses, where each is one host's own.
    pub fn endpoints(&self) -> impl Iterator<Item = IpAddr> {
        let addresses = match self {
            Self::Reach { kind: AddressKind::Endpoint, addresses, .. } => &**addresses,
            _ => &[],
        };
        addresses.iter().filter_map(|address| match address {
            Address::Ip(ip) => Some(*ip),
            Address::Name(_) => None,
        })
    }

    /// The file whose heartbeat vouches for its addresses.
    pub const fn vouched_by(&self) -> Option<u16> {
        match self {
            Self::Reach { vouched_by, .. } => *vouched_by,
            Self::Dns { .. } | Self::CoResidency => None,
        }
    }

    /// What carries it, where it is whether addresses can be reached.
    pub const fn transport(&self) -> Option<Transport> {
        match self {
            Self::Reach { transport, .. } => Some(*transport),
            Self::Dns { .. } | Self::CoResidency => None,
        }
    }
}

/// Something that a reader could believe to be tested and is not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
pub struct NotTested {
    /// The boundary.
    pub boundary: Arc<str>,
    /// What is not tested or not provable.
    pub what: String,
    /// Why, and what would change it.
    pub why: String,
}

/// Connects to positive controls in one round: 12 in a sweep's two rounds tell 30 % loss each way with 99.98 % certainty.
pub const CONTROL_CONNECTS: usize = 6;

/// In a long sweep the controls are repeated so often: a vantage that goes offline in between is seen.
pub const CONTROLS_EVERY: Duration = Duration::from_secs(10);

/// Makes the plan for a configuration and who can ask.
pub fn plan(config: &Config, stands: &[Stand]) -> Plan {
    // Whoever asks, the targets are the same: where the first is the only one, its checks need no copy.
    let nobody = || Arc::new(Identity { namespace: "".into(), name: "".into() });
    let first = stands.first().map_or_else(nobody, |stand| stand.source.identity.clone());
    let boundaries = config.boundaries.iter().map(|b| Arc::new(boundary_plan(config, b, &first)));
    let vouching = config.heartbeats.iter().map(|heartbeat| heartbeat.file.clone()).collect();
    let empty = Plan { boundaries: boundaries.collect(), legs: Vec::new(), not_tested: Vec::new(), vouching };
    empty.with_stands(config, stands)
}

impl Plan {
    /// The same for others who ask. What is asked from a source that stays is the same in memory, too.
    #[must_use]
    pub fn with_stands(&self, config: &Config, stands: &[Stand]) -> Self {
        let known: HashMap<(&Arc<str>, &Arc<Source>), &Arc<Leg>> =
            self.legs.iter().map(|leg| ((&leg.boundary.boundary.name, &leg.stand.source), leg)).collect();
        let mut legs: Vec<Arc<Leg>> = Vec::new();
        let mut not_tested = Vec::new();
        for planned in &self.boundaries {
            let boundary = &planned.boundary;
            let before = legs.len();
            let here = stands.iter().filter(|s| s.source.zone.as_ref().is_none_or(|zone| *zone == boundary.from));
            for stand in here {
                let leg = match known.get(&(&boundary.name, &stand.source)) {
                    Some(leg) => leg.with_speakers(stand.clone()),
                    None => Leg::new(config, planned, stand.clone()),
                };
                legs.push(Arc::new(leg));
            }
            if legs.len() == before {
                let what = format!("boundary `{}` from this node", boundary.name);
                let why = format!(
                    "no pod of zone `{}` that can be probed from runs here: `segprobe vantages` tells why",
                    boundary.from
                );
                not_tested.push(NotTested { boundary: boundary.name.clone(), what, why });
            }
            not_tested.extend(planned.not_tested.iter().cloned());
            let mut told = BTreeSet::new();
            let of_legs = legs[before..].iter().flat_map(|leg| &leg.not_tested);
            // What is not tested from several identities is told once.
            not_tested.extend(of_legs.filter(|gap| told.insert(*gap)).cloned());
            legs.extend(Leg::of_node(planned).map(Arc::new));
        }
        Self { boundaries: self.boundaries.clone(), legs, not_tested, vouching: self.vouching.clone() }
    }
}

impl BoundaryPlan {
    /// Connects of one place to one address in a sweep, if it is not open.
    pub const fn connects(&self) -> u32 {
        connects(&self.boundary, self.witnessed)
    }
}

impl ControlAddresses {
    fn new(config: &Config, source: &Source) -> Self {
        let resolver = match &config.dns.resolver {
            DnsServer::System => source.system_dns.to_vec(),
            DnsServer::Named(_, address, _) => vec![*address],
        };
        let mut positive: Vec<SocketAddr> = Vec::new();
        let mut positive_udp: Vec<SocketAddr> = Vec::new();
        for (transport, control) in &config.positive {
            let list = match transport {
                Transport::Tcp => &mut positive,
                Transport::Udp => &mut positive_udp,
            };
            match control {
                PositiveControl::Resolver => list.extend(&resolver),
                PositiveControl::Address(address) => list.push(*address),
            }
        }
        // In a pod's network the loopback is the pod itself: reached, it proves nothing of the way out.
        if source.zone.is_some() {
            positive.retain(|control| !control.ip().is_loopback());
            positive_udp.retain(|control| !control.ip().is_loopback());
        }
        let mut negative = config.negative.clone();
        for control in &mut negative {
            let in_range =
                positive.iter().chain(&positive_udp).filter(|p| control.range.contains(&p.ip())).map(|p| p.port());
            control.ports.extend(in_range);
            control.ports.sort_unstable();
            control.ports.dedup();
        }
        Self { positive, positive_udp, negative, resolver }
    }
}

impl Leg {
    fn new(config: &Config, planned: &Arc<BoundaryPlan>, stand: Stand) -> Self {
        let identity = &stand.source.identity;
        let is_own = |check: &Check| Arc::ptr_eq(&check.id.source, identity);
        let reach = if planned.reach.iter().all(is_own) {
            planned.reach.clone()
        } else {
            planned.reach.iter().map(|check| check.asked_by(identity)).collect()
        };
        let controls = ControlAddresses::new(config, &stand.source);
        let mut not_tested = Vec::new();
        families_without_control(&planned.boundary, &reach, &controls, &mut not_tested);
        let dns = dns_checks(config, planned, &stand.source, &mut not_tested);
        let controls = Arc::new(controls);
        let dns_share = config.share.as_ref().filter(|_| !dns.is_empty()).map(|share| {
            let keys = dns.iter().map(|check| {
                if is_shared(&check.question, config) { share::keys(&check.question) } else { Vec::new() }
            });
            Arc::new(Share::new(share, &planned.boundary, planned.connects(), keys))
        });
        Self { boundary: planned.clone(), stand, reach, dns: dns.into(), dns_share, controls, not_tested }
    }

    fn with_speakers(&self, stand: Stand) -> Self {
        let Self { boundary, reach, dns, dns_share, controls, not_tested, .. } = self;
        let (reach, dns, controls) = (reach.clone(), dns.clone(), controls.clone());
        let (boundary, dns_share, not_tested) = (boundary.clone(), dns_share.clone(), not_tested.clone());
        Self { boundary, stand, reach, dns, dns_share, controls, not_tested }
    }

    /// What is asked of the node itself.
    fn of_node(planned: &Arc<BoundaryPlan>) -> Option<Self> {
        let boundary = &planned.boundary;
        let mode = boundary.co_residency?;
        let identity = Arc::new(Identity { namespace: "".into(), name: boundary.from.clone() });
        let id = CheckId {
            boundary: boundary.name.clone(),
            expect: boundary.expect,
            kind: CheckKind::NodeCoResidency,
            source: identity.clone(),
            target_namespace: "".into(),
            target: boundary.to.clone(),
            via: None,
        };
        let source = Source { identity, zone: Some(boundary.from.clone()), system_dns: Box::default() };
        Some(Self {
            boundary: planned.clone(),
            stand: Stand { source: Arc::new(source), speakers: Speakers::Node },
            reach: [Check { id: Arc::new(id), mode, question: Question::CoResidency }].into(),
            dns: Box::default(),
            dns_share: None,
            controls: Arc::default(),
            not_tested: Vec::new(),
        })
    }

    /// All its checks.
    pub fn checks(&self) -> impl Iterator<Item = &Check> {
        self.reach.iter().chain(&self.dns)
    }

    /// The checks of one part.
    pub fn part(&self, part: Part) -> &[Check] {
        match part {
            Part::Reach => &self.reach,
            Part::Dns => &self.dns,
        }
    }

    /// What tells a part of it from all others.
    pub fn asked(&self, part: Part) -> Asked {
        (self.boundary.boundary.name.clone(), self.stand.source.identity.clone(), part)
    }

    /// How a part of it is shared with other nodes; none where all of it is asked in every sweep. What pods run on this node
    /// nobody else can tell.
    pub fn share(&self, part: Part) -> Option<&Arc<Share>> {
        let share = match (part, &self.stand.speakers) {
            (_, Speakers::Node) => None,
            (Part::Reach, _) => self.boundary.share.as_ref(),
            (Part::Dns, _) => self.dns_share.as_ref(),
        };
        share.filter(|share| share.is_partial())
    }

    /// Time between two results of a check of one part, by its index.
    pub fn round(&self, part: Part, check: usize) -> Duration {
        let share = self.share(part).filter(|share| !share.of_check(check).is_empty());
        self.boundary.boundary.interval * share.map_or(1, |share| share.sweeps)
    }

    /// Its parts that ask something.
    pub fn parts(&self) -> impl Iterator<Item = Part> {
        [Part::Reach, Part::Dns].into_iter().filter(|part| !self.part(*part).is_empty())
    }
}

impl Check {
    fn asked_by(&self, source: &Arc<Identity>) -> Self {
        let id = CheckId { source: source.clone(), ..(*self.id).clone() };
        Self { id: Arc::new(id), mode: self.mode, question: self.question.clone() }
    }
}

fn families_without_control(
    boundary: &Boundary,
    reach: &[Check],
    controls: &ControlAddresses,
    not_tested: &mut Vec<NotTested>,
) {
    let mut ways: BTreeSet<(Family, Transport)> = BTreeSet::new();
    for check in reach {
        if let Question::Reach { transport, addresses, .. } = &check.question {
            ways.extend(addresses.iter().filter_map(|address| match address {
                Address::Ip(ip) => Some((Family::of(*ip), *transport)),
                Address::Name(_) => None,
            }));
        }
    }
    for (family, transport) in ways {
        let positive = match transport {
            Transport::Tcp => &controls.positive,
            Transport::Udp => &controls.positive_udp,
        };
        if !positive.iter().any(|p| Family::of(p.ip()) == family) {
            let over = if transport == Transport::Udp { " over UDP" } else { "" };
            let what = format!("{family} targets{over}");
            let why = format!("no positive control of that family{over}: they stay inconclusive");
            not_tested.push(NotTested { boundary: boundary.name.clone(), what, why });
        }
    }
}

fn dns_checks(config: &Config, planned: &BoundaryPlan, source: &Source, not_tested: &mut Vec<NotTested>) -> Vec<Check> {
    let BoundaryPlan { boundary, namespaces, services, known_addresses, pods, .. } = planned;
    let servers = dns_servers(config, &source.system_dns);
    let mut checks = Vec::new();
    for (kind, mode) in &boundary.techniques {
        // Who looks for nothing finds nothing, and that would be a pass without a proof.
        let gap = match kind {
            _ if servers.is_empty() => Some("no DNS server is configured or known"),
            _ if namespaces.is_empty() => Some("the zone has no namespaces"),
            CheckKind::ServiceLookup if services.is_empty() => Some("no target of the zone is a Service"),
            CheckKind::PodOracle if pods.is_empty() => Some("no target of the zone has endpoints"),
            CheckKind::ReverseSweep if known_addresses.is_empty() && config.dns.reverse_ranges.is_empty() => {
                Some("no target of the zone has an address, and no range is configured")
            }
            _ => None,
        };
        match gap {
            Some(why) => not_tested.push(NotTested {
                boundary: boundary.name.clone(),
                what: format!("{kind} of zone `{}`", boundary.to),
                why: why.to_owned(),
            }),
            None => {
                let at = |server| dns_check(boundary, &source.identity, *kind, *mode, server);
                checks.extend(servers.iter().map(at));
            }
        }
    }
    checks
}

fn boundary_plan(config: &Config, boundary: &Boundary, source: &Arc<Identity>) -> BoundaryPlan {
    let mut not_tested = Vec::new();
    let mut note = |what: String, why: &str| {
        not_tested.push(NotTested { boundary: boundary.name.clone(), what, why: why.to_owned() });
    };
    let targets: Vec<&Target> = config.targets.iter().filter(|t| t.zone == boundary.to).collect();
    let mut checks = Vec::with_capacity(targets.len());
    for target in &targets {
        reach_checks(config, boundary, source, target, &mut checks);
        for port in target.ports.iter().filter(|p| p.node_port.is_none() && is_known_by_nodes_alone(target)) {
            note(
                format!("{}:{}", target.name, port.port),
                "only nodes are listed for it, and the port has no `node_port`",
            );
        }
    }
    if targets.is_empty() {
        note(format!("TCP to zone `{}`", boundary.to), "no target is in the zone");
    }
    let witnessed = config.witnesses.iter().any(|w| w.zone == boundary.to);
    if boundary.expect == Expect::Blocked && !targets.is_empty() {
        let alive = format!("that the targets of zone `{}` are alive", boundary.to);
        match config.vantage.mode {
            _ if witnessed => {}
            VantageMode::Own => note(alive, "no witness: blocked is `unverified`"),
            VantageMode::Pods => {
                note(alive, "no witness but the listeners of pods on this node: blocked elsewhere is `unverified`");
            }
        }
        if config.negative.is_empty() {
            note("that nobody answers for everybody".into(), "no negative control is configured");
        }
        note("UDP to the targets".into(), "only TCP and DNS are tested; of UDP services only DNS servers");
    }
    // Only DNS checks ask for services and known addresses.
    let known: &[&Target] = if boundary.techniques.is_empty() { &[] } else { &targets };
    let is_service = |t: &&&Target| t.is_service;
    let services: BTreeSet<_> =
        known.iter().filter(is_service).map(|t| (t.namespace.clone(), t.name.clone())).collect();
    let in_cluster = || known.iter().filter(|t| !t.namespace.is_empty());
    let known_addresses: BTreeMap<_, _> =
        in_cluster().flat_map(|t| addresses_of(t).map(|ip| (ip, t.namespace.clone()))).collect();
    let pods: BTreeSet<_> =
        in_cluster().flat_map(|t| t.endpoints.iter().map(|ip| (t.namespace.clone(), *ip))).collect();
    let is_on = |kind| boundary.techniques.iter().any(|(on, _)| *on == kind);
    if !boundary.techniques.is_empty() && !is_on(CheckKind::ZoneTransfer) {
        note(
            format!("{} of zone `{}`", CheckKind::ZoneTransfer, boundary.to),
            "it is off: one AXFR can crash CoreDNS up to 1.14.4 on dual stack",
        );
    }
    let connects = connects(boundary, witnessed);
    let keys = checks.iter().map(|check| share::keys(&check.question));
    let share = config.share.as_ref().map(|share| Arc::new(Share::new(share, boundary, connects, keys)));
    if let Some(share) = share.as_ref().filter(|_| !targets.is_empty()) {
        not_tested.extend(share.not_tested(boundary));
    }
    BoundaryPlan {
        boundary: boundary.clone(),
        mode: config.vantage.mode,
        share,
        reach: checks.into(),
        namespaces: config.zones.get(&boundary.to).map(|zone| zone.namespaces.clone()).unwrap_or_default(),
        services,
        known_addresses: Arc::new(known_addresses),
        pods,
        witnessed,
        not_tested,
    }
}

/// Connects of one place to one address in a sweep, if it is not open: the attempts, and a witness before and after.
const fn connects(boundary: &Boundary, witnessed: bool) -> u32 {
    boundary.attempts + if witnessed { 2 } else { 0 }
}

/// Addresses that are the target's own; those of nodes are everybody's.
fn addresses_of(target: &Target) -> impl Iterator<Item = IpAddr> {
    let external = target.external.iter().filter_map(|address| match address {
        Address::Ip(ip) => Some(*ip),
        Address::Name(_) => None,
    });
    target.cluster_ips.iter().chain(&target.endpoints).copied().chain(external)
}

fn is_known_by_nodes_alone(target: &Target) -> bool {
    !target.nodes.is_empty()
        && target.cluster_ips.is_empty()
        && target.endpoints.is_empty()
        && target.external.is_empty()
}

fn reach_checks(
    config: &Config,
    boundary: &Boundary,
    source: &Arc<Identity>,
    target: &Target,
    checks: &mut Vec<Check>,
) {
    for port in &target.ports {
        let label: Arc<str> = format!("{}:{}", target.name, port.port).into();
        let asked = match port.transport {
            Transport::Tcp => CheckKind::TcpConnect,
            Transport::Udp => CheckKind::DnsQuery,
        };
        let transport = port.transport;
        let mut add = |via: Via, kind: AddressKind, addresses: Arc<[Address]>, port: u16| {
            if addresses.is_empty() {
                return;
            }
            let id = CheckId {
                boundary: boundary.name.clone(),
                expect: boundary.expect,
                kind: asked,
                source: source.clone(),
                target_namespace: target.namespace.clone(),
                target: label.clone(),
                via: Some(via),
            };
            // ClusterIPs, nodes and load balancers are not given to another as soon as a pod ends.
            let vouched_by = target.vouched_by.filter(|_| via == Via::Endpoint);
            checks.push(Check {
                id: Arc::new(id),
                mode: Mode::Judge,
                question: Question::Reach { transport, kind, addresses, port, vouched_by },
            });
        };
        let ips = |ips: &[IpAddr]| ips.iter().map(|ip| Address::Ip(*ip)).collect::<Arc<[Address]>>();
        let listed = target.cluster_ips.len() + target.endpoints.len() + target.nodes.len() + target.external.len();
        let named = match &target.address {
            _ if listed > 0 => None,
            Some((address, kind)) => Some((address.clone(), *kind)),
            // A Service without any address is known by its name.
            None => {
                let name = format!("{}.{}.svc.{}", target.name, target.namespace, config.dns.zone.to_ascii());
                Some((Address::Name(name.into()), AddressKind::Virtual))
            }
        };
        let via = if target.is_service { Via::Service } else { Via::External };
        match named {
            Some((address, kind)) => add(via, kind, [address].into(), port.port),
            None => {
                add(Via::Service, AddressKind::Virtual, ips(&target.cluster_ips), port.port);
                add(Via::Endpoint, AddressKind::Endpoint, ips(&target.endpoints), port.target_port);
                if let Some(node_port) = port.node_port {
                    add(Via::Nodeport, AddressKind::Virtual, ips(&target.nodes), node_port);
                }
                add(Via::External, AddressKind::Virtual, target.external.as_ref().into(), port.port);
            }
        }
    }
}

/// The servers that are tested, by the name of their label.
fn dns_servers(config: &Config, system_dns: &[SocketAddr]) -> Vec<(Arc<str>, SocketAddr, AddressKind)> {
    let mut servers = Vec::new();
    for server in &config.dns.servers {
        match server {
            DnsServer::System => servers.extend(system_dns.iter().enumerate().map(|(i, address)| {
                let name = if i == 0 { "system".into() } else { format!("system-{}", i + 1).into() };
                (name, *address, AddressKind::Virtual)
            })),
            DnsServer::Named(name, address, kind) => servers.push((name.clone(), *address, *kind)),
        }
    }
    servers
}

/// Whether many nodes ask the same server: of the system's, and of link-local ones as NodeLocal DNSCache, each has its own.
fn is_shared(question: &Question, config: &Config) -> bool {
    let Question::Dns { server, .. } = question else { return false };
    let is_link_local = match server.ip() {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    !is_link_local
        && config.dns.servers.iter().any(|s| matches!(s, DnsServer::Named(_, address, _) if address == server))
}

fn dns_check(
    boundary: &Boundary,
    source: &Arc<Identity>,
    kind: CheckKind,
    mode: Mode,
    (name, server, address_kind): &(Arc<str>, SocketAddr, AddressKind),
) -> Check {
    let id = CheckId {
        boundary: boundary.name.clone(),
        expect: boundary.expect,
        kind,
        source: source.clone(),
        target_namespace: "".into(),
        target: name.clone(),
        via: None,
    };
    Check { id: Arc::new(id), mode, question: Question::Dns { server: *server, kind: *address_kind } }
}

#[cfg(test)]
mod tests;
