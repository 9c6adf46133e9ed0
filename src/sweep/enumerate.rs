//! DNS checks of a sweep: each server's techniques in turn, the servers side by side.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, PoisonError, Weak},
    time::Instant,
};

use jiff::Timestamp;
use tokio::task::JoinSet;

use super::{Sweeper, speakers::Speaker};
use crate::{
    config::DnsConfig,
    ledger::{Carried, CheckResult, DnsEvidence, Evidence},
    model::{AddressKind, CheckId, CheckKind, Mode, Verdict},
    observation::{DnsSeen, Rotation},
    pace::{Pace, Paces},
    plan::{BoundaryPlan, Check, Leg, Question},
    probe::dns::{
        NamespaceOracle, PodOracle, ReverseSweep, Server, ServiceLookup, Settings, SrvWildcard, Technique,
        ZoneTransfer, enumerate,
    },
    verdict::judge_dns,
};

/// The techniques of one boundary, the same for every server and every source.
pub(super) type Techniques = HashMap<CheckKind, Box<dyn Technique>>;

/// What a boundary asks; made once for a plan.
pub(super) fn techniques(planned: &BoundaryPlan, config: &DnsConfig) -> Techniques {
    let on = planned.boundary.techniques.iter();
    on.filter_map(|(kind, _)| Some((*kind, technique(*kind, planned, config)?))).collect()
}

fn technique(kind: CheckKind, planned: &BoundaryPlan, config: &DnsConfig) -> Option<Box<dyn Technique>> {
    let zone = &config.zone;
    let namespaces = || planned.namespaces.iter().map(|namespace| &**namespace);
    let addresses = || planned.known_addresses.keys().copied();
    Some(match kind {
        CheckKind::SrvWildcard => Box::new(SrvWildcard::new(zone, namespaces(), planned.known_addresses.clone())),
        CheckKind::ServiceLookup => Box::new(ServiceLookup::new(zone, planned.services.iter().cloned())),
        CheckKind::NamespaceOracle => Box::new(NamespaceOracle::new(zone, namespaces())),
        CheckKind::PodOracle => Box::new(PodOracle::new(zone, planned.pods.iter().cloned())),
        CheckKind::ZoneTransfer => Box::new(ZoneTransfer::new(zone, addresses())),
        CheckKind::ReverseSweep => {
            let most = u64::from(config.reverse_per_sweep);
            Box::new(ReverseSweep::new(zone, addresses(), &config.reverse_ranges, most))
        }
        CheckKind::TcpConnect | CheckKind::DnsQuery | CheckKind::NodeCoResidency => return None,
    })
}

impl Sweeper {
    /// Starts DNS checks of a leg. They take the interval at most.
    pub(super) fn spawn_dns(
        self: &Arc<Self>,
        leg: &Leg,
        checks: &[&Check],
        speaker: &Arc<Speaker>,
        carried: &Carried,
    ) -> JoinSet<Vec<Arc<CheckResult>>> {
        let mut servers: Vec<(SocketAddr, AddressKind, Vec<Asked>)> = Vec::new();
        for check in checks {
            let Question::Dns { server, kind } = check.question else { continue };
            let lists = carried.dns.get(&check.id).map(|result| result.lists().to_vec()).unwrap_or_default();
            let asked = Asked { id: check.id.clone(), mode: check.mode, lists };
            match servers.iter_mut().find(|(address, _, _)| *address == server) {
                Some((_, _, checks)) => checks.push(asked),
                None => servers.push((server, kind, vec![asked])),
            }
        }
        let mut running = JoinSet::new();
        for (server, kind, checks) in servers {
            self.progress.plan(checks.len());
            let (sweeper, planned, speaker) = (self.clone(), leg.boundary.clone(), speaker.clone());
            let own_namespace = leg.stand.source.identity.namespace.clone();
            running.spawn(async move {
                let seen = sweeper.enumerate(&planned, &speaker, server, &own_namespace, &checks).await;
                let protected: Arc<[Arc<str>]> = planned.namespaces.as_slice().into();
                let judge = |seen: &DnsSeen, gone| judge_dns(seen, protected.iter().map(|ns| &**ns), gone);
                let amiss = seen.iter().any(|seen| judge(seen, false).verdict() == Verdict::Inconclusive);
                let gone = speaker.is_gone(&sweeper, amiss).await;
                let results = checks.into_iter().zip(seen).map(|(Asked { id, mode, .. }, seen)| {
                    let reason = judge(&seen, gone);
                    let (from, protected) = (speaker.pod.clone(), protected.clone());
                    let evidence = Evidence::Dns(Box::new(DnsEvidence { server, kind, from, protected, seen }));
                    sweeper.progress.finish();
                    let (discovered, judged, at) = (false, Instant::now(), Timestamp::now());
                    Arc::new(CheckResult { id, mode, reason, evidence, discovered, judged, at })
                });
                results.collect()
            });
        }
        running
    }

    async fn enumerate(
        &self,
        planned: &BoundaryPlan,
        speaker: &Speaker,
        address: SocketAddr,
        own_namespace: &str,
        checks: &[Asked],
    ) -> Vec<DnsSeen> {
        let (config, now) = (&self.config.dns, tokio::time::Instant::now());
        let interval = planned.boundary.interval;
        let settings = Settings {
            timeout: config.timeout,
            attempts: config.attempts,
            // More would take turns of the pod's pace from what is asked beside DNS.
            sockets: if speaker.pod.is_some() { 1 } else { config.sockets as usize },
            in_flight: config.in_flight as usize,
            ask_again: config.ask_again,
            // What is left is for repeats and controls.
            until: now + interval * 4 / 5,
            deadline: now + interval,
        };
        let pace = self.dns_pace(address, speaker);
        let server = Server {
            vantage: &*speaker.vantage,
            address,
            zone: &config.zone,
            settings,
            pace: &pace,
            known_names: &config.known_names,
            own_namespace,
        };
        let Some(techniques) = self.techniques.get(&planned.boundary.name) else { return Vec::new() };
        let asked = checks.iter().filter_map(|c| Some((&**techniques.get(&c.id.kind)?, c.lists.clone())));
        enumerate(&server, &asked.collect::<Vec<_>>()).await
    }

    /// All that is asked of one server shares its pace; what is asked from a pod, the pod's as well.
    fn dns_pace(&self, server: SocketAddr, speaker: &Speaker) -> Paces {
        let mut paces = self.dns_paces.lock().unwrap_or_else(PoisonError::into_inner);
        let of_server = match paces.get(&server).and_then(Weak::upgrade) {
            Some(pace) => pace,
            None => {
                paces.retain(|_, pace| pace.strong_count() > 0);
                let pace = Arc::new(Pace::per_second(self.config.dns.queries_per_second));
                paces.insert(server, Arc::downgrade(&pace));
                pace
            }
        };
        Paces::new([of_server].into_iter().chain(speaker.pod_pace.clone()))
    }
}

/// A DNS check, and how far its lists were asked.
struct Asked {
    id: Arc<CheckId>,
    mode: Mode,
    lists: Vec<Rotation>,
}
