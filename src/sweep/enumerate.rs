//! DNS checks of a sweep: each server's techniques in turn, the servers side by side.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use hickory_resolver::proto::rr::RecordType;
use jiff::Timestamp;
use tokio::task::JoinSet;

use super::Sweeper;
use crate::{
    ledger::{CheckResult, DnsEvidence, Evidence},
    model::{CheckId, CheckKind, Mode},
    plan::{BoundaryPlan, Question},
    probe::dns::{self, Question as Asked, Session, Settings, Technique, service_lookup, srv_wildcard},
    verdict::judge_dns,
};

impl Sweeper {
    /// Starts the DNS checks of a boundary; each takes the interval at most.
    pub(super) fn spawn_dns(self: &Arc<Self>, planned: &BoundaryPlan) -> JoinSet<Arc<CheckResult>> {
        let zone = &self.config.dns.zone;
        let inventory = Arc::new(Inventory {
            namespaces: planned.namespaces.as_slice().into(),
            wildcards: srv_wildcard::questions(zone, planned.namespaces.iter().map(|n| &**n)),
            services: service_lookup::questions(zone, planned.services.iter().map(|(ns, s)| (&**ns, &**s))),
            known_addresses: planned.known_addresses.clone(),
        });
        let mut running = JoinSet::new();
        for check in &planned.checks {
            let Question::Dns { server } = check.question else { continue };
            self.progress.plan(1);
            let (sweeper, inventory) = (self.clone(), inventory.clone());
            let (id, mode, interval) = (check.id.clone(), check.mode, planned.boundary.interval);
            running.spawn(async move { sweeper.enumerate(id, mode, server, &inventory, interval).await });
        }
        running
    }

    async fn enumerate(
        &self,
        id: Arc<CheckId>,
        mode: Mode,
        server: SocketAddr,
        inventory: &Inventory,
        interval: Duration,
    ) -> Arc<CheckResult> {
        let config = &self.config.dns;
        let zone = config.zone.clone();
        let settings = Settings {
            timeout: config.timeout,
            attempts: config.attempts,
            deadline: tokio::time::Instant::now() + interval,
        };
        let seen = match self.dns_pace.get(&server) {
            None => Default::default(),
            Some(pace) => {
                let mut session = Session::new(&*self.own, server, zone.clone(), settings, pace);
                let known = |kinds: &[RecordType]| -> Vec<Asked> {
                    let names = config.known_names.iter();
                    names.flat_map(|n| kinds.iter().map(|kind| Asked { name: n.clone(), kind: *kind })).collect()
                };
                let known_addresses = &inventory.known_addresses;
                let technique = match id.kind {
                    CheckKind::ServiceLookup => Technique {
                        questions: &inventory.services,
                        read: &|q, m, seen| service_lookup::read(&zone, q, m, seen),
                        known: &known(&[RecordType::A, RecordType::AAAA, RecordType::SRV]),
                    },
                    _ => Technique {
                        questions: &inventory.wildcards,
                        read: &|q, m, seen| srv_wildcard::read(&zone, known_addresses, q, m, seen),
                        known: &known(&[RecordType::SRV]),
                    },
                };
                dns::enumerate(&mut session, &technique).await
            }
        };
        let reason = judge_dns(&seen, inventory.namespaces.iter().map(|n| &**n));
        let evidence = Evidence::Dns(Box::new(DnsEvidence { server, protected: inventory.namespaces.clone(), seen }));
        self.progress.finish();
        Arc::new(CheckResult { id, mode, reason, evidence, judged: Instant::now(), at: Timestamp::now() })
    }
}

/// What the techniques of a boundary ask about.
struct Inventory {
    namespaces: Arc<[Arc<str>]>,
    wildcards: Vec<Asked>,
    services: Vec<Asked>,
    known_addresses: Arc<HashMap<IpAddr, Arc<str>>>,
}
