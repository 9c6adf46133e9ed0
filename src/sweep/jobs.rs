//! What is to be tried from one place in one sweep: the checks' addresses, names resolved, and pairs with open findings.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use super::{
    Sweeper,
    attempts::{self, Job},
    nothing_seen,
    speakers::Speaker,
};
use crate::{
    config::Address,
    inventory::resolve::Names,
    ledger::Carried,
    model::AddressKind,
    observation::{AddressSeen, TcpOutcome, TcpSeen},
    pace::Paces,
    plan::{Leg, Question},
};

/// Names resolved at the same time.
const NAMES_AT_ONCE: usize = 8;

impl Sweeper {
    /// One job for each address of each check, names resolved; what has no address is recorded at once.
    pub(super) async fn jobs(
        &self,
        leg: &Leg,
        speaker: &Speaker,
        carried: &Carried,
        per_check: &mut [Vec<AddressSeen>],
    ) -> Vec<Job> {
        let resolved = if speaker.only_pinned { HashMap::new() } else { self.resolve(leg, speaker, carried).await };
        let mut jobs = Vec::new();
        for (index, check) in leg.reach.iter().enumerate() {
            let Question::Reach { transport, kind, addresses, port, .. } = &check.question else { continue };
            let mut complete = true;
            // With each whether it is due.
            let mut ips: Vec<(IpAddr, bool)> = Vec::with_capacity(addresses.len());
            for (i, address) in addresses.iter().enumerate() {
                match address {
                    Address::Ip(ip) => ips.push((*ip, carried.is_due(index, i))),
                    Address::Name(name) => match resolved.get(name) {
                        Some(Ok(found)) => ips.extend(found.iter().map(|ip| (*ip, true))),
                        Some(Err(outcome)) => {
                            complete = false;
                            per_check[index].push(without_address(speaker, *kind, *outcome));
                        }
                        // Not resolved here: it says nothing of the addresses that it gave.
                        None => complete = false,
                    },
                }
            }
            ips.sort_unstable();
            ips.dedup_by_key(|(ip, _)| *ip);
            let pairs = carried.pinned.get(&check.id).map_or(&[][..], Vec::as_slice);
            let from_here = pairs.iter().filter(|pair| pair.from == speaker.pod);
            let open: Vec<SocketAddr> = from_here.map(|pair| pair.address).collect();
            let job = |address, listed, pinned| Job {
                check: index,
                transport: *transport,
                address,
                kind: *kind,
                listed,
                pinned,
            };
            if !speaker.only_pinned {
                jobs.extend(ips.iter().filter_map(|(ip, is_due)| {
                    let address = SocketAddr::new(*ip, *port);
                    let is_open = open.contains(&address);
                    (*is_due || is_open).then(|| job(address, true, is_open))
                }));
            }
            // A name that does not resolve says nothing of its last addresses: they still count as the target's.
            let is_listed = |address: &SocketAddr| ips.binary_search_by_key(&address.ip(), |(ip, _)| *ip).is_ok();
            let others = open.iter().filter(|address| speaker.only_pinned || !is_listed(address));
            jobs.extend(others.map(|address| job(*address, !complete || is_listed(address), true)));
        }
        attempts::order(&mut jobs);
        jobs
    }

    /// All names of the checks that are due, each once.
    async fn resolve(
        &self,
        leg: &Leg,
        speaker: &Speaker,
        carried: &Carried,
    ) -> HashMap<Arc<str>, Result<Vec<IpAddr>, TcpOutcome>> {
        use futures_util::{StreamExt, stream};
        let mut names: Vec<Arc<str>> = Vec::new();
        for (index, check) in leg.reach.iter().enumerate() {
            // Where one of a check's addresses is a name, they are due together.
            if let Question::Reach { addresses, .. } = &check.question
                && carried.is_due(index, 0)
            {
                names.extend(addresses.iter().filter_map(|a| match a {
                    Address::Name(name) => Some(name.clone()),
                    Address::Ip(_) => None,
                }));
            }
        }
        names.sort_unstable();
        names.dedup();
        let (dns, resolver) = (&self.config.dns, &leg.controls.resolver);
        let resolver = if names.is_empty() || resolver.is_empty() {
            None
        } else {
            let pace = Paces::new(speaker.pod_pace.clone());
            // hickory's own set-up does not fail; if it ever does, no name resolves.
            Names::new(speaker.vantage.clone(), resolver, dns.timeout, dns.attempts, pace).ok()
        };
        let lookup = async |name: Arc<str>| {
            let answer = match &resolver {
                Some(names) => names.addresses(&name).await.map_err(|_| TcpOutcome::Unresolved),
                None => Err(TcpOutcome::Unresolved),
            };
            (name, answer)
        };
        stream::iter(names).map(lookup).buffer_unordered(NAMES_AT_ONCE).collect().await
    }
}

/// What is seen of a target whose name gives no address.
fn without_address(speaker: &Speaker, kind: AddressKind, outcome: TcpOutcome) -> AddressSeen {
    let seen = TcpSeen { outcome, icmp: None, errno: None, elapsed_us: 0 };
    AddressSeen { kind, from: speaker.pod.clone(), attempts: [seen].into(), ..nothing_seen() }
}
