//! What a sweep costs, before a packet is sent.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use serde::Serialize;

use super::{BoundaryPlan, CONTROL_CONNECTS, CONTROLS_EVERY, ControlAddresses, Leg, Part, Question};
use crate::{
    config::{Address, Config},
    model::{CheckKind, Family, VantageMode},
};

/// What a plan costs before a packet is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cost {
    /// Checks.
    pub checks: usize,
    /// Addresses and ports to connect to; a name counts as one.
    pub addresses: usize,
    /// Those of them that one sweep probes: less than all where nodes share them, and on average.
    pub addresses_per_sweep: usize,
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

impl Leg {
    /// What one sweep of it costs under the configuration's budgets.
    pub fn cost(&self, config: &Config) -> Cost {
        let ControlAddresses { positive, positive_udp, negative, .. } = &*self.controls;
        let (planned, boundary) = (&self.boundary, &self.boundary.boundary);
        let mut addresses = 0;
        let mut names: HashSet<&Arc<str>> = HashSet::new();
        let mut is_used = [false; 2];
        let mut dns_queries = 0;
        let mut dns_seconds: HashMap<SocketAddr, usize> = HashMap::new();
        for check in self.checks() {
            match &check.question {
                Question::Reach { addresses: of, transport, .. } => {
                    addresses += of.len();
                    names.extend(of.iter().filter_map(|address| match address {
                        Address::Name(name) => Some(name),
                        Address::Ip(_) => None,
                    }));
                    is_used[*transport as usize] = true;
                }
                Question::Dns { server, .. } => {
                    let queries = planned.dns_queries(check.id.kind, config);
                    dns_queries += queries;
                    *dns_seconds.entry(*server).or_insert(SHARED_QUERIES) += queries;
                }
                Question::CoResidency => {}
            }
        }
        dns_queries += SHARED_QUERIES * dns_seconds.len();
        let all = addresses;
        let addresses = match self.share(Part::Reach) {
            Some(share) if share.nodes == 0 => 0,
            Some(share) => all.div_ceil(share.sweeps as usize),
            None => all,
        };
        let attempts = planned.connects() as usize;
        let of_pod = config.pods.as_ref().filter(|_| planned.mode == VantageMode::Pods).map(|pods| pods.per_second);
        let slowest = of_pod.unwrap_or(u32::MAX);
        let per_second = config.pace.per_second.min(slowest) as usize;
        let queries_per_second = config.dns.queries_per_second.min(slowest) as usize;
        let in_a_round = |known: &[SocketAddr]| -> usize {
            let of_family = |family: &Family| known.iter().filter(|p| Family::of(p.ip()) == *family).count();
            let of_families = Family::ALL.iter().map(of_family).filter(|count| *count > 0);
            of_families.map(|count| count.max(CONTROL_CONNECTS)).sum()
        };
        let (controls, controls_udp) = (in_a_round(positive), in_a_round(positive_udp));
        let negative: usize = negative.iter().map(|n| n.ports.len()).sum();
        // One round before, one after, and one now and then in between.
        let rounds_in =
            |seconds: u64| 2 + usize::try_from(seconds / CONTROLS_EVERY.as_secs()).unwrap_or(usize::MAX - 2);

        let within = usize::try_from(boundary.interval.as_secs()).unwrap_or(usize::MAX);
        let dns = dns_seconds.values().max().copied().unwrap_or(0).div_ceil(queries_per_second);
        let mut least = dns.min(within);
        if of_pod.is_some() {
            // Everything leaves the pod one after the other: A and AAAA of names, too. Witnesses are elsewhere.
            let probes = addresses * boundary.attempts as usize + 2 * names.len();
            let queries = dns_queries.min(within.saturating_mul(per_second));
            let [udp, tcp] = is_used.map(usize::from);
            let round = tcp * (controls + negative) + udp * controls_udp;
            let with_rounds = |rounds: usize| (probes + queries + rounds * round).div_ceil(per_second);
            least = least.max(with_rounds(rounds_in(with_rounds(2) as u64)));
        } else {
            least = least.max((addresses * attempts).div_ceil(per_second));
        }
        let least = Duration::from_secs(least as u64);
        let rounds = addresses.div_ceil(config.pace.in_flight as usize);
        let silent = boundary.timeout * u32::try_from(attempts * rounds + 2).unwrap_or(u32::MAX);
        let most = least.max(silent);
        let negative = negative * if planned.witnessed { 2 } else { 1 };
        let connects =
            (addresses * attempts).saturating_add(rounds_in(most.as_secs()).saturating_mul(controls + negative));
        Cost {
            checks: self.checks().count(),
            addresses: all,
            addresses_per_sweep: addresses,
            connects,
            dns_queries,
            packets_per_second: 2 * per_second.min(connects) + queries_per_second.min(dns_queries),
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
            CheckKind::TcpConnect | CheckKind::DnsQuery | CheckKind::NodeCoResidency => 0,
        }
    }
}

/// Four controls and four questions for what nobody has.
const SHARED_QUERIES: usize = 8;
