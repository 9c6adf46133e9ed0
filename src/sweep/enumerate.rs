//! DNS checks of a sweep: each server's techniques in turn, the servers side by side.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::task::JoinSet;

use super::Sweeper;
use crate::{
    config::DnsConfig,
    ledger::{Carried, CheckResult, DnsEvidence, Evidence},
    model::{AddressKind, CheckKind},
    observation::Rotation,
    plan::{BoundaryPlan, Check, Question},
    probe::dns::{
        NamespaceOracle, PodOracle, ReverseSweep, Server, ServiceLookup, Settings, SrvWildcard, Technique,
        ZoneTransfer, enumerate,
    },
    verdict::judge_dns,
};

/// The DNS checks of one boundary at one server.
pub(super) struct AtServer {
    address: SocketAddr,
    kind: AddressKind,
    protected: Arc<[Arc<str>]>,
    checks: Vec<(usize, Box<dyn Technique>)>,
}

/// What a boundary asks of each server; made once for a plan.
pub(super) fn at_servers(planned: &BoundaryPlan, config: &DnsConfig) -> Vec<Arc<AtServer>> {
    let mut servers: Vec<AtServer> = Vec::new();
    for (index, check) in planned.checks.iter().enumerate() {
        let Question::Dns { server: address, kind } = check.question else { continue };
        let Some(technique) = technique(check.id.kind, planned, config) else { continue };
        match servers.iter_mut().find(|s| s.address == address) {
            Some(server) => server.checks.push((index, technique)),
            None => {
                let protected = planned.namespaces.as_slice().into();
                servers.push(AtServer { address, kind, protected, checks: vec![(index, technique)] });
            }
        }
    }
    servers.into_iter().map(Arc::new).collect()
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
        CheckKind::TcpConnect | CheckKind::DnsQuery => return None,
    })
}

impl Sweeper {
    /// Starts the DNS checks of a boundary. They take the interval at most.
    pub(super) fn spawn_dns(
        self: &Arc<Self>,
        planned: &BoundaryPlan,
        carried: &Carried,
    ) -> JoinSet<Vec<Arc<CheckResult>>> {
        let mut running = JoinSet::new();
        for at_server in self.dns.get(&planned.boundary.name).into_iter().flatten() {
            let checks: Vec<(Arc<_>, _, Vec<Rotation>)> = at_server
                .checks
                .iter()
                .map(|(index, _)| {
                    let Check { id, mode, .. } = &planned.checks[*index];
                    let lists = carried.dns.get(id).map(|result| result.lists().to_vec()).unwrap_or_default();
                    (id.clone(), *mode, lists)
                })
                .collect();
            self.progress.plan(checks.len());
            let (sweeper, at_server, interval) = (self.clone(), at_server.clone(), planned.boundary.interval);
            running.spawn(async move {
                let lists = checks.iter().map(|(_, _, lists)| lists.clone());
                let seen = sweeper.enumerate(&at_server, lists, interval).await;
                let results = checks.into_iter().zip(seen).map(|((id, mode, _), seen)| {
                    let reason = judge_dns(&seen, at_server.protected.iter().map(|namespace| &**namespace));
                    let AtServer { address: server, kind, ref protected, .. } = *at_server;
                    let protected = protected.clone();
                    let evidence = Evidence::Dns(Box::new(DnsEvidence { server, kind, protected, seen }));
                    sweeper.progress.finish();
                    Arc::new(CheckResult { id, mode, reason, evidence, judged: Instant::now(), at: Timestamp::now() })
                });
                results.collect()
            });
        }
        running
    }

    async fn enumerate(
        &self,
        at_server: &AtServer,
        carried: impl Iterator<Item = Vec<Rotation>>,
        interval: Duration,
    ) -> Vec<crate::observation::DnsSeen> {
        let (config, now) = (&self.config.dns, tokio::time::Instant::now());
        let Some(pace) = self.dns_pace.get(&at_server.address) else { return Vec::new() };
        let settings = Settings {
            timeout: config.timeout,
            attempts: config.attempts,
            sockets: config.sockets as usize,
            in_flight: config.in_flight as usize,
            ask_again: config.ask_again,
            // What is left is for repeats and controls.
            until: now + interval * 4 / 5,
            deadline: now + interval,
        };
        let server = Server {
            vantage: &*self.own,
            address: at_server.address,
            zone: &config.zone,
            settings,
            pace,
            known_names: &config.known_names,
            own_namespace: &self.plan.source.namespace,
        };
        let techniques = at_server.checks.iter().map(|(_, technique)| &**technique);
        enumerate(&server, &techniques.zip(carried).collect::<Vec<_>>()).await
    }
}
