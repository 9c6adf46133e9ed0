//! One sweep of one boundary: names, controls, attempts, controls, verdicts.
//!
//! The sweep sends; what it means is decided by [`crate::verdict`] when everything is in.

mod attempts;
mod controls;
mod enumerate;
pub mod schedule;

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use jiff::Timestamp;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{Address, Boundary, Config},
    inventory::resolve::Names,
    ledger::{Carried, CheckResult, Evidence, SweepReport},
    model::{AddressKind, CheckId, Expect, Family, Transport},
    observation::{AddressSeen, TcpOutcome, TcpSeen},
    pace::Pace,
    plan::{BoundaryPlan, Check, Plan, Question},
    probe::Reach,
    vantage::{Own, Vantage},
    verdict::{Controls, TcpRule, judge_address, judge_check, judge_witness},
};
use attempts::{Attempts, Job, Slot};

/// Names resolved at the same time.
const NAMES_AT_ONCE: usize = 8;

/// Everything that sweeps need, made once for a configuration.
pub struct Sweeper {
    /// The configuration.
    pub config: Arc<Config>,
    /// Its plan.
    pub plan: Arc<Plan>,
    own: Arc<dyn Vantage>,
    witnesses: HashMap<Arc<str>, Witness>,
    names: Option<Names>,
    in_flight: Arc<Semaphore>,
    pace: Arc<Pace>,
    dns_pace: HashMap<SocketAddr, Pace>,
    /// By boundary.
    dns: HashMap<Arc<str>, Vec<Arc<enumerate::AtServer>>>,
    icmp_evidence: bool,
    progress: Arc<Progress>,
}

/// A second vantage, known to be allowed.
#[derive(Clone)]
struct Witness {
    name: Arc<str>,
    vantage: Arc<dyn Vantage>,
}

/// How far the sweeps are: for whoever shows it.
#[derive(Debug, Default)]
pub struct Progress {
    planned: AtomicU64,
    done: AtomicU64,
}

impl Progress {
    /// Addresses and DNS techniques finished, and known of so far.
    pub fn get(&self) -> (u64, u64) {
        (self.done.load(Ordering::Relaxed), self.planned.load(Ordering::Relaxed))
    }

    fn plan(&self, jobs: usize) {
        self.planned.fetch_add(jobs as u64, Ordering::Relaxed);
    }

    fn finish(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }
}

impl Sweeper {
    /// Makes vantages, budgets and resolver. Sends nothing.
    ///
    /// # Errors
    /// The resolver cannot be set up; not expected.
    pub fn new(config: Arc<Config>, plan: Arc<Plan>, icmp_evidence: bool) -> io::Result<Self> {
        let own: Arc<dyn Vantage> = if config.vantage.source.is_empty() {
            Arc::new(Own::new())
        } else {
            Arc::new(Own::from_addresses(&config.vantage.source))
        };
        let witnesses = config.witnesses.iter().map(|w| {
            let name = w.source.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let vantage: Arc<dyn Vantage> = Arc::new(Own::from_addresses(&w.source));
            (w.zone.clone(), Witness { name: name.into(), vantage })
        });
        let names = if plan.resolver.is_empty() {
            None
        } else {
            let names = Names::new(own.clone(), &plan.resolver, config.dns.timeout, config.dns.attempts);
            Some(names.map_err(io::Error::other)?)
        };
        let servers = plan.boundaries.iter().flat_map(|b| &b.checks).filter_map(|check| match check.question {
            Question::Dns { server, .. } => Some((server, Pace::per_second(config.dns.queries_per_second))),
            Question::Reach { .. } => None,
        });
        let of_boundary = |b: &BoundaryPlan| (b.boundary.name.clone(), enumerate::at_servers(b, &config.dns));
        let dns = plan.boundaries.iter().map(of_boundary).collect();
        Ok(Self {
            witnesses: witnesses.collect(),
            names,
            in_flight: Arc::new(Semaphore::new(config.pace.in_flight as usize)),
            pace: Arc::new(Pace::per_second(config.pace.per_second)),
            dns_pace: servers.collect(),
            dns,
            icmp_evidence,
            progress: Arc::default(),
            own,
            config,
            plan,
        })
    }

    /// How far the sweeps of this sweeper are.
    pub fn progress(&self) -> Arc<Progress> {
        self.progress.clone()
    }

    /// Sweeps one boundary once; `carried` is what earlier sweeps left to do.
    pub async fn sweep(self: &Arc<Self>, planned: &BoundaryPlan, carried: &Carried) -> SweepReport {
        let (started, began) = (Timestamp::now(), Instant::now());
        let boundary = &planned.boundary;
        let witness = match boundary.expect {
            Expect::Blocked => self.witnesses.get(&boundary.to).cloned(),
            Expect::Open => None,
        };
        let checks: Vec<&Check> = planned.checks.iter().filter(|c| c.question.transport().is_some()).collect();
        let dns = self.spawn_dns(planned, carried);

        let make_rounds = |transport: Transport| {
            controls::Rounds::new(self, transport, self.reach(boundary), witness.clone(), &checks)
        };
        let mut rounds = Transport::BOTH.map(make_rounds);
        let mut per_check: Vec<Vec<AddressSeen>> = checks.iter().map(|_| Vec::new()).collect();
        if !checks.is_empty() {
            let jobs = self.jobs(&checks, &carried.pinned, &mut per_check).await;
            self.progress.plan(jobs.len());
            run_all(&mut rounds).await;
            let stop = CancellationToken::new();
            let between = rounds.map(|rounds| tokio::spawn(rounds.keep_running(stop.clone())));
            // A sweep that is dropped on its way, as at a reload, must not leave its controls running.
            let running = stop.drop_guard();
            let (done, results) = mpsc::unbounded_channel();
            let attempts = Attempts {
                own: self.own.clone(),
                witness: witness.clone(),
                attempts: boundary.attempts,
                reach: self.reach(boundary),
                spacing: self.config.pace.spacing,
                pace: self.pace.clone(),
                in_flight: self.in_flight.clone(),
                jobs,
                done,
            };
            self.run(attempts, results, &mut per_check).await;
            drop(running);
            let [udp, tcp] = between;
            rounds = [
                // Without controls nothing is proven: the verdicts become `vantage-offline`.
                udp.await.unwrap_or_else(|_| make_rounds(Transport::Udp)),
                tcp.await.unwrap_or_else(|_| make_rounds(Transport::Tcp)),
            ];
            run_all(&mut rounds).await;
        }

        let negative = &self.plan.negative;
        let own_controls = Transport::BOTH.map(|transport| {
            let of_transport = checks.iter().zip(&per_check).filter(|(c, _)| c.question.transport() == Some(transport));
            let lost = lost_connects(of_transport.flat_map(|(_, seen)| seen));
            Controls::digest(&rounds[transport as usize].own, negative, lost)
        });
        let witness_controls = rounds.each_ref().map(|rounds| Controls::digest(&rounds.witness, negative, [false; 2]));
        let rule = TcpRule { expect: boundary.expect, closed: boundary.closed };
        let (judged, at) = (Instant::now(), Timestamp::now());
        let mut results = Vec::with_capacity(planned.checks.len());
        for (check, addresses) in checks.iter().zip(per_check) {
            let over = check.question.transport().unwrap_or(Transport::Tcp) as usize;
            let (own_controls, witness_controls) = (&own_controls[over], &witness_controls[over]);
            let judge = |seen: AddressSeen| {
                let captured = seen.address.is_some_and(|a| witness_controls.is_captured(a));
                let says = judge_witness(seen.witness.as_deref(), captured);
                let around = match seen.address {
                    Some(address) => own_controls.around(address, seen.started, seen.ended),
                    None => own_controls.around_nowhere(),
                };
                let reason = judge_address(rule, &seen, around, says);
                (seen, reason)
            };
            let addresses: Box<[_]> = addresses.into_iter().map(judge).collect();
            results.push(Arc::new(CheckResult {
                id: check.id.clone(),
                mode: check.mode,
                reason: judge_check(addresses.iter().map(|(_, reason)| *reason)),
                evidence: Evidence::Reach(addresses),
                judged,
                at,
            }));
        }
        results.extend(dns.join_all().await.into_iter().flatten());
        let states = rounds.iter().zip(&own_controls).map(|(rounds, own)| rounds.states(&self.plan.source, own));
        let controls = states.flatten().collect();
        let ended = Instant::now();
        SweepReport { boundary: boundary.name.clone(), started, ended, took: began.elapsed(), results, controls }
    }

    /// One job for each address of each check, names resolved; what has no address is recorded at once.
    async fn jobs(
        &self,
        checks: &[&Check],
        pinned: &HashMap<Arc<CheckId>, Vec<SocketAddr>>,
        per_check: &mut [Vec<AddressSeen>],
    ) -> Vec<Job> {
        let resolved = self.resolve(checks).await;
        let mut jobs = Vec::new();
        for (index, check) in checks.iter().enumerate() {
            let Question::Reach { transport, kind, addresses, port } = &check.question else { continue };
            let mut complete = true;
            let mut ips: Vec<IpAddr> = Vec::with_capacity(addresses.len());
            for address in addresses {
                match address {
                    Address::Ip(ip) => ips.push(*ip),
                    Address::Name(name) => match resolved.get(name) {
                        Some(Ok(found)) => ips.extend(found),
                        Some(Err(outcome)) => {
                            complete = false;
                            per_check[index].push(without_address(*kind, *outcome));
                        }
                        None => {}
                    },
                }
            }
            ips.sort_unstable();
            ips.dedup();
            let open: &[SocketAddr] = pinned.get(&check.id).map_or(&[], Vec::as_slice);
            let job = |address, listed, pinned| Job {
                check: index,
                transport: *transport,
                address,
                kind: *kind,
                listed,
                pinned,
            };
            jobs.extend(ips.iter().map(|ip| {
                let address = SocketAddr::new(*ip, *port);
                job(address, true, open.contains(&address))
            }));
            // A name that does not resolve says nothing of its last addresses: they still count as the target's.
            let unlisted = open.iter().filter(|a| ips.binary_search(&a.ip()).is_err());
            jobs.extend(unlisted.map(|address| job(*address, !complete, true)));
        }
        attempts::order(&mut jobs);
        jobs
    }

    /// All names of the checks, each once.
    async fn resolve(&self, checks: &[&Check]) -> HashMap<Arc<str>, Result<Vec<IpAddr>, TcpOutcome>> {
        use futures_util::{StreamExt, stream};
        let mut names: Vec<Arc<str>> = Vec::new();
        for check in checks {
            if let Question::Reach { addresses, .. } = &check.question {
                names.extend(addresses.iter().filter_map(|a| match a {
                    Address::Name(name) => Some(name.clone()),
                    Address::Ip(_) => None,
                }));
            }
        }
        names.sort_unstable();
        names.dedup();
        let lookup = async |name: Arc<str>| {
            let answer = match &self.names {
                Some(names) => names.addresses(&name).await.map_err(|_| TcpOutcome::Unresolved),
                None => Err(TcpOutcome::Unresolved),
            };
            (name, answer)
        };
        stream::iter(names).map(lookup).buffer_unordered(NAMES_AT_ONCE).collect().await
    }

    /// How this boundary's addresses are tried.
    fn reach(&self, boundary: &Boundary) -> Reach {
        Reach { timeout: boundary.timeout, icmp_evidence: self.icmp_evidence }
    }

    /// Runs all jobs under the budgets.
    async fn run(
        &self,
        attempts: Attempts,
        mut results: mpsc::UnboundedReceiver<(usize, AddressSeen)>,
        per_check: &mut [Vec<AddressSeen>],
    ) {
        let attempts = Arc::new(attempts);
        let mut spacing = attempts::Spacing::new(self.config.pace.spacing);
        let mut take = |(check, seen): (usize, AddressSeen)| {
            // By exactly one: most checks have one address, and a Vec starts with room for four.
            per_check[check].reserve_exact(1);
            per_check[check].push(seen);
            self.progress.finish();
        };
        for (index, job) in (0..).zip(&attempts.jobs) {
            spacing.wait(job.address.ip()).await;
            let Ok(place) = self.in_flight.acquire().await else { break };
            self.pace.turn().await;
            tokio::spawn(Slot::new(attempts.clone(), index, place).run());
            while let Ok(result) = results.try_recv() {
                take(result);
            }
        }
        // The channel ends with the last job.
        drop(attempts);
        while let Some(result) = results.recv().await {
            take(result);
        }
        // In the order of addresses, not of answers: the same network gives the same report.
        per_check.iter_mut().for_each(|seen| seen.sort_by_key(|s| s.address));
    }
}

/// What is seen of a target whose name gives no address.
fn without_address(kind: AddressKind, outcome: TcpOutcome) -> AddressSeen {
    let now = Instant::now();
    let seen = TcpSeen { outcome, icmp: None, errno: None, elapsed_us: 0 };
    AddressSeen { address: None, kind, listed: true, attempts: [seen].into(), witness: None, started: now, ended: now }
}

async fn run_all([udp, tcp]: &mut [controls::Rounds; 2]) {
    tokio::join!(udp.run(), tcp.run());
}

/// Of each family: whether a connect that reached an open port showed a lost packet.
fn lost_connects<'a>(seen: impl Iterator<Item = &'a AddressSeen>) -> [bool; 2] {
    let mut lost = [false; 2];
    for seen in seen {
        let Some(address) = seen.address else { continue };
        let witness = seen.witness.iter().flat_map(|w| [Some(w.before), w.after]).flatten();
        for connect in witness.chain(seen.attempts.iter().copied()) {
            if connect.outcome == TcpOutcome::Open && connect.lost_a_packet() {
                lost[Family::of(address.ip()) as usize] = true;
            }
        }
    }
    lost
}
