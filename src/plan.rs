//! From configuration and inventory to checks. Pure: the same input gives the same plan.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use serde::Serialize;

use crate::{
    config::{Address, Boundary, Config, DnsServer, PositiveControl, Target},
    model::{AddressKind, CheckId, CheckKind, Expect, Family, Identity, Mode, NegativeControl, Transport, Via},
};

/// Everything that will be asked.
#[derive(Debug)]
pub struct Plan {
    /// One for each boundary, in the order of the configuration.
    pub boundaries: Vec<BoundaryPlan>,
    /// The identity that the agent's own sockets speak for.
    pub source: Arc<Identity>,
    /// Positive controls of the own vantage over TCP.
    pub positive: Vec<SocketAddr>,
    /// The same over UDP: DNS servers that it may ask.
    pub positive_udp: Vec<SocketAddr>,
    /// Negative controls, each also on the ports of the positive controls in its range: a proxy that answers for those would
    /// make an offline vantage look good.
    pub negative: Vec<NegativeControl>,
    /// Servers that resolve the names of targets.
    pub resolver: Vec<SocketAddr>,
    /// What will not be tested, or cannot be proven, and why.
    pub not_tested: Vec<NotTested>,
}

/// The checks of one boundary and what they share.
#[derive(Debug)]
pub struct BoundaryPlan {
    /// The boundary's rules.
    pub boundary: Boundary,
    /// Its checks; no two share an identity.
    pub checks: Vec<Check>,
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
}

/// One question.
#[derive(Debug)]
pub struct Check {
    /// Its identity, shared with every result of it.
    pub id: Arc<CheckId>,
    /// Whether its verdict counts.
    pub mode: Mode,
    /// How it is asked.
    pub question: Question,
}

/// How a check is asked.
#[derive(Debug)]
pub enum Question {
    /// Connect to each address at the port, or send it a DNS query over UDP.
    Reach {
        /// Which of the two.
        transport: Transport,
        /// Who answers there.
        kind: AddressKind,
        /// Addresses and names, never empty.
        addresses: Box<[Address]>,
        /// The port.
        port: u16,
    },
    /// Enumerate at the server.
    Dns {
        /// The server.
        server: SocketAddr,
        /// Who answers there.
        kind: AddressKind,
    },
}

impl Question {
    /// What carries it, where it is whether addresses can be reached.
    pub const fn transport(&self) -> Option<Transport> {
        match self {
            Self::Reach { transport, .. } => Some(*transport),
            Self::Dns { .. } => None,
        }
    }
}

/// Something that a reader could believe to be tested and is not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NotTested {
    /// The boundary.
    pub boundary: Arc<str>,
    /// What is not tested or not provable.
    pub what: String,
    /// Why, and what would change it.
    pub why: String,
}

/// What a plan costs before a packet is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Cost {
    /// Checks.
    pub checks: usize,
    /// Addresses and ports to connect to; a name counts as one.
    pub addresses: usize,
    /// Connects of one sweep if nothing is open, controls and witnesses included.
    pub connects: usize,
    /// DNS queries of one sweep if none is lost.
    pub dns_queries: usize,
    /// Packets a second at the most: connects repeat their SYN once within 2 s.
    pub packets_per_second: usize,
    /// Seconds that the DNS queries of one server take at its pace; what does not fit into a sweep goes on in the next.
    pub dns_seconds: u64,
    /// Seconds for one sweep if every address answers at once.
    pub least_seconds: u64,
    /// Seconds for one sweep if every address is silent.
    pub most_seconds: u64,
}

/// Connects to positive controls in one round: 12 in a sweep's two rounds tell 30 % loss each way with 99.98 % certainty.
pub const CONTROL_CONNECTS: usize = 6;

/// In a long sweep the controls are repeated so often: a vantage that goes offline in between is seen.
pub const CONTROLS_EVERY: Duration = Duration::from_secs(10);

/// Makes the plan. `system_dns` are the servers that `system` stands for; `namespace` labels the own vantage where the
/// configuration does not.
pub fn plan(config: &Config, system_dns: &[SocketAddr], namespace: &str) -> Plan {
    let source = Arc::new(Identity {
        namespace: config.vantage.namespace.clone().unwrap_or_else(|| namespace.into()),
        name: config.vantage.identity.clone().unwrap_or_else(|| "own".into()),
    });
    let resolver = match &config.dns.resolver {
        DnsServer::System => system_dns.to_vec(),
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
    let mut negative = config.negative.clone();
    for control in &mut negative {
        let in_range =
            positive.iter().chain(&positive_udp).filter(|p| control.range.contains(&p.ip())).map(|p| p.port());
        control.ports.extend(in_range);
        control.ports.sort_unstable();
        control.ports.dedup();
    }
    let mut not_tested = Vec::new();
    let boundaries = config
        .boundaries
        .iter()
        .map(|b| boundary_plan(config, b, &source, system_dns, [&positive_udp, &positive], &mut not_tested));
    Plan { boundaries: boundaries.collect(), source, positive, positive_udp, negative, resolver, not_tested }
}

fn boundary_plan(
    config: &Config,
    boundary: &Boundary,
    source: &Arc<Identity>,
    system_dns: &[SocketAddr],
    positive: [&[SocketAddr]; 2],
    not_tested: &mut Vec<NotTested>,
) -> BoundaryPlan {
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
    let mut ways: BTreeSet<(Family, Transport)> = BTreeSet::new();
    for check in &checks {
        if let Question::Reach { transport, addresses, .. } = &check.question {
            ways.extend(addresses.iter().filter_map(|address| match address {
                Address::Ip(ip) => Some((Family::of(*ip), *transport)),
                Address::Name(_) => None,
            }));
        }
    }
    for (family, transport) in ways {
        if !positive[transport as usize].iter().any(|p| Family::of(p.ip()) == family) {
            let over = if transport == Transport::Udp { " over UDP" } else { "" };
            note(
                format!("{family} targets{over}"),
                &format!("no positive control of that family{over}: they stay inconclusive"),
            );
        }
    }
    let witness = config.witnesses.iter().find(|w| w.zone == boundary.to);
    if boundary.expect == Expect::Blocked && !targets.is_empty() {
        if witness.is_none() {
            note(
                format!("that the targets of zone `{}` are alive", boundary.to),
                "no witness: blocked is `unverified`",
            );
        }
        if config.negative.is_empty() {
            note("that nobody answers for everybody".into(), "no negative control is configured");
        }
        note("UDP to the targets".into(), "only TCP and DNS are tested; of UDP services only DNS servers");
    }
    let namespaces = config.zones.get(&boundary.to).cloned().unwrap_or_default();
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
    let servers = dns_servers(config, system_dns);
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
            Some(why) => note(format!("{kind} of zone `{}`", boundary.to), why),
            None => checks.extend(servers.iter().map(|server| dns_check(boundary, source, *kind, *mode, server))),
        }
    }
    let is_on = |kind| boundary.techniques.iter().any(|(on, _)| *on == kind);
    if !boundary.techniques.is_empty() && !is_on(CheckKind::ZoneTransfer) {
        note(
            format!("{} of zone `{}`", CheckKind::ZoneTransfer, boundary.to),
            "it is off: one AXFR can crash CoreDNS up to 1.14.4 on dual stack",
        );
    }
    BoundaryPlan {
        boundary: boundary.clone(),
        checks,
        namespaces,
        services,
        known_addresses: Arc::new(known_addresses),
        pods,
        witnessed: witness.is_some(),
    }
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
        let mut add = |via: Via, kind: AddressKind, addresses: Box<[Address]>, port: u16| {
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
            checks.push(Check {
                id: Arc::new(id),
                mode: Mode::Judge,
                question: Question::Reach { transport, kind, addresses, port },
            });
        };
        let ips = |ips: &[IpAddr]| ips.iter().map(|ip| Address::Ip(*ip)).collect::<Box<[Address]>>();
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
                add(Via::External, AddressKind::Virtual, target.external.clone(), port.port);
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

impl BoundaryPlan {
    /// What one sweep of this boundary costs under the configuration's budgets.
    pub fn cost(&self, config: &Config, positive: &[SocketAddr], negative: &[NegativeControl]) -> Cost {
        let mut addresses = 0;
        let mut dns_queries = 0;
        let mut dns_seconds: HashMap<SocketAddr, usize> = HashMap::new();
        for check in &self.checks {
            match &check.question {
                Question::Reach { addresses: of, .. } => addresses += of.len(),
                Question::Dns { server, .. } => {
                    let queries = self.dns_queries(check.id.kind, config);
                    dns_queries += queries;
                    *dns_seconds.entry(*server).or_insert(SHARED_QUERIES) += queries;
                }
            }
        }
        dns_queries += SHARED_QUERIES * dns_seconds.len();
        let witness = if self.witnessed { 2 } else { 0 };
        let attempts = self.boundary.attempts as usize + witness;
        let per_second = config.pace.per_second as usize;
        let paced = (addresses * attempts).div_ceil(per_second);
        let dns = dns_seconds.values().max().copied().unwrap_or(0).div_ceil(config.dns.queries_per_second as usize);
        let rounds = addresses.div_ceil(config.pace.in_flight as usize);
        let silent = self.boundary.timeout * u32::try_from(attempts * rounds + 2).unwrap_or(u32::MAX);
        let within = usize::try_from(self.boundary.interval.as_secs()).unwrap_or(usize::MAX);
        let least = Duration::from_secs(paced.max(dns.min(within)) as u64);
        let most = least.max(silent);
        let of_family = |family: &Family| positive.iter().filter(|p| Family::of(p.ip()) == *family).count();
        let of_families = Family::ALL.iter().map(of_family).filter(|count| *count > 0);
        let controls: usize = of_families.map(|count| count.max(CONTROL_CONNECTS)).sum();
        let negative: usize = negative.iter().map(|n| n.ports.len()).sum();
        let negative = negative * if self.witnessed { 2 } else { 1 };
        // One round before, one after, and one now and then in between.
        let rounds = 2 + usize::try_from(most.as_secs() / CONTROLS_EVERY.as_secs()).unwrap_or(usize::MAX - 2);
        let connects = (addresses * attempts).saturating_add(rounds.saturating_mul(controls + negative));
        Cost {
            checks: self.checks.len(),
            addresses,
            connects,
            dns_queries,
            packets_per_second: 2 * per_second.min(connects)
                + (config.dns.queries_per_second as usize).min(dns_queries),
            dns_seconds: dns as u64,
            least_seconds: least.as_secs(),
            most_seconds: most.as_secs(),
        }
    }
}

impl BoundaryPlan {
    /// Questions of one technique in a sweep, over both transports, with its self-check.
    fn dns_queries(&self, kind: CheckKind, config: &Config) -> usize {
        let (namespaces, names) = (self.namespaces.len(), config.dns.known_names.len());
        let ranges = config.dns.reverse_per_sweep as usize;
        match kind {
            CheckKind::SrvWildcard => 2 * (18 + 9 * namespaces + names),
            CheckKind::ServiceLookup => 2 * 3 * (self.services.len() + namespaces + names),
            CheckKind::NamespaceOracle => 2 * 4 * (1 + namespaces + names),
            CheckKind::PodOracle => 2 * (2 * (1 + namespaces) + self.pods.len() + 1),
            CheckKind::ReverseSweep => 2 * (self.known_addresses.len() + 2 * names) + ranges,
            CheckKind::ZoneTransfer => 4 + 3 * self.known_addresses.len().min(20) + names,
            CheckKind::TcpConnect | CheckKind::DnsQuery => 0,
        }
    }
}

/// Four controls and four questions for what nobody has.
const SHARED_QUERIES: usize = 8;

#[cfg(test)]
mod tests;
