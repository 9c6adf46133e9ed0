//! One sweep of one boundary from one identity: what can be reached (names, controls, attempts, controls, verdicts), or what
//! DNS tells.
//!
//! The sweep sends; what it means is decided by [`crate::verdict`] when everything is in.

mod attempts;
mod controls;
mod enumerate;
mod jobs;
pub mod schedule;
pub mod shares;
mod speakers;
mod turns;
mod witnesses;

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use futures_util::future::join_all;
use jiff::Timestamp;
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config::{Boundary, Config},
    inventory::{
        cri::Sandbox,
        pods::Pods,
        stands::{Speakers, zone_of},
    },
    ledger::{Carried, CheckResult, ControlState, DnsEvidence, Evidence, SweepReport},
    model::{AddressKind, Expect, Family, PodName, Reason, Transport, WitnessKind},
    observation::{AddressSeen, DnsSeen, NodeSeen, TcpOutcome, WitnessSaw},
    pace::Pace,
    plan::{Check, Leg, Part, Plan, Question},
    probe::Reach,
    vantage::{Listeners, Own, Vantage},
    verdict::{Controls, PlaceSeen, TcpRule, judge_address, judge_check, judge_co_residency, judge_witness},
};
use attempts::Attempts;
use speakers::{Mute, Speaker};
pub use turns::{Turns, Waiters};
use witnesses::Witnesses;
pub use witnesses::is_pods_own;

/// Pods of a zone that are named in the evidence of co-residency.
const MOST_NAMED: usize = 3;

/// Everything that sweeps need, made once for a configuration.
pub struct Sweeper {
    /// The configuration.
    pub config: Arc<Config>,
    /// The plan that it was made for. Who asks may be others by now; what is asked is the same.
    pub plan: Arc<Plan>,
    own: Arc<dyn Vantage>,
    node: Option<Pods>,
    in_flight: Arc<Semaphore>,
    pace: Arc<Pace>,
    /// Slow senders are in step since then.
    began: tokio::time::Instant,
    pod_paces: Mutex<HashMap<Arc<str>, Weak<Pace>>>,
    dns_paces: Mutex<HashMap<SocketAddr, Weak<Pace>>>,
    /// By boundary.
    techniques: HashMap<Arc<str>, enumerate::Techniques>,
    troubles: Mutex<HashMap<Arc<str>, String>>,
    listed_since: HashMap<IpAddr, Instant>,
    icmp_evidence: bool,
    progress: Arc<Progress>,
}

/// Each address of a check with what was concluded of it.
type Judged = Box<[(AddressSeen, Reason)]>;

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
    /// Makes vantages and budgets. `node` tells of the pods on this node, where they are needed. Sends nothing.
    pub fn new(config: Arc<Config>, plan: Arc<Plan>, node: Option<Pods>, icmp_evidence: bool) -> Self {
        let own: Arc<dyn Vantage> = if config.vantage.source.is_empty() {
            Arc::new(Own::new())
        } else {
            Arc::new(Own::from_addresses(&config.vantage.source))
        };
        let techniques =
            plan.boundaries.iter().map(|b| (b.boundary.name.clone(), enumerate::techniques(b, &config.dns)));
        Self {
            in_flight: Arc::new(Semaphore::new(config.pace.in_flight as usize)),
            pace: Arc::new(Pace::per_second(config.pace.per_second)),
            began: tokio::time::Instant::now(),
            pod_paces: Mutex::default(),
            dns_paces: Mutex::default(),
            techniques: techniques.collect(),
            troubles: Mutex::default(),
            listed_since: HashMap::new(),
            icmp_evidence,
            progress: Arc::default(),
            own,
            node,
            config,
            plan,
        }
    }

    /// Endpoints that were not listed before a reload, and since when they are: they may be new pods.
    #[must_use]
    pub fn with_new_endpoints(mut self, listed_since: HashMap<IpAddr, Instant>) -> Self {
        self.listed_since = listed_since;
        self
    }

    /// How far the sweeps of this sweeper are.
    pub fn progress(&self) -> Arc<Progress> {
        self.progress.clone()
    }

    /// Sweeps one part of a leg once: from the agent's own network, or from the pods whose `turn` it is and those with open
    /// findings; `carried` is what earlier sweeps left to do.
    pub async fn sweep(
        self: &Arc<Self>,
        leg: &Leg,
        part: Part,
        turn: &[Arc<Sandbox>],
        carried: &Carried,
    ) -> SweepReport {
        let (started, began) = (Timestamp::now(), Instant::now());
        let without_controls = |results| (results, Vec::new());
        let (results, controls) = match (&leg.stand.speakers, part) {
            (Speakers::Nobody(reason), _) => {
                without_controls(leg.part(part).iter().map(|check| unasked(check, None, *reason, carried)).collect())
            }
            (Speakers::Node, _) => {
                without_controls(leg.part(part).iter().map(|check| self.co_residency(leg, check)).collect())
            }
            (Speakers::Own | Speakers::Pods(_), Part::Reach) => Box::pin(self.reach_from_all(leg, turn, carried)).await,
            (Speakers::Own | Speakers::Pods(_), Part::Dns) => {
                without_controls(Box::pin(self.ask_dns(leg, turn, carried)).await)
            }
        };
        let (boundary, source) = (leg.boundary.boundary.name.clone(), leg.stand.source.identity.clone());
        SweepReport { boundary, source, part, started, ended: Instant::now(), took: began.elapsed(), results, controls }
    }

    /// What can be reached, from every speaker at the same time.
    async fn reach_from_all(
        self: &Arc<Self>,
        leg: &Leg,
        turn: &[Arc<Sandbox>],
        carried: &Carried,
    ) -> (Vec<Arc<CheckResult>>, Vec<ControlState>) {
        if carried.is_idle() {
            return (Vec::new(), Vec::new());
        }
        let (speakers, mutes) = self.speakers(leg, turn, carried).await;
        let witnesses = Arc::new(self.witnesses(leg).await);
        let swept = speakers.iter().map(|speaker| Box::pin(self.reach_from(leg, speaker, &witnesses, carried)));
        let (judged, controls): (Vec<Vec<Judged>>, Vec<Vec<ControlState>>) = join_all(swept).await.into_iter().unzip();

        let (now, at) = (Instant::now(), Timestamp::now());
        let mut results = Vec::with_capacity(leg.reach.len());
        for (check, addresses) in leg.reach.iter().zip(merged(&leg.reach, judged, &mutes, carried)) {
            // A check of which nothing was due keeps its verdict.
            if !addresses.is_empty() {
                results.push(Arc::new(CheckResult {
                    id: check.id.clone(),
                    mode: check.mode,
                    reason: judge_check(addresses.iter().map(|(_, reason)| *reason)),
                    evidence: Evidence::Reach(addresses),
                    discovered: check.question.vouched_by().is_some(),
                    judged: now,
                    at,
                }));
            }
        }
        (results, controls.into_iter().flatten().collect())
    }

    /// What DNS tells, to one speaker.
    async fn ask_dns(self: &Arc<Self>, leg: &Leg, turn: &[Arc<Sandbox>], carried: &Carried) -> Vec<Arc<CheckResult>> {
        let is_due =
            |(index, check): &(usize, &Check)| carried.is_due(*index, 0) || carried.dns_open.contains(&check.id);
        let due: Vec<&Check> = leg.dns.iter().enumerate().filter(is_due).map(|(_, check)| check).collect();
        if due.is_empty() {
            return Vec::new();
        }
        match self.asker(leg, turn, carried).await {
            Ok(speaker) => {
                let asked = self.spawn_dns(leg, &due, &Arc::new(speaker), carried);
                asked.join_all().await.into_iter().flatten().collect()
            }
            Err(mute) => due.iter().map(|check| unasked(check, Some(&mute.pod), mute.reason, carried)).collect(),
        }
    }

    /// What can be reached from one place.
    async fn reach_from(
        self: &Arc<Self>,
        leg: &Leg,
        speaker: &Speaker,
        witnesses: &Arc<Witnesses>,
        carried: &Carried,
    ) -> (Vec<Judged>, Vec<ControlState>) {
        let (boundary, checks) = (&leg.boundary.boundary, &*leg.reach);
        if checks.is_empty() {
            return (Vec::new(), Vec::new());
        }
        let make_rounds = |transport: Transport| {
            let reach = self.reach(boundary);
            controls::Rounds::new(speaker, &leg.controls, transport, reach, &witnesses.connecting, checks)
        };
        let mut rounds = Transport::BOTH.map(make_rounds);
        let mut per_check: Vec<Vec<AddressSeen>> = checks.iter().map(|_| Vec::new()).collect();
        let jobs = self.jobs(leg, speaker, carried, &mut per_check).await;
        self.progress.plan(jobs.len());
        run_all(&mut rounds).await;
        let stop = CancellationToken::new();
        let between = rounds.map(|rounds| tokio::spawn(rounds.keep_running(stop.clone())));
        // A sweep that is dropped on its way, as at a reload, must leave nothing running.
        let running = stop.clone().drop_guard();
        let attempts = Attempts {
            from: speaker.pod.clone(),
            vantage: speaker.vantage.clone(),
            sidecar: speaker.sidecar.map(|(port, _)| port),
            witnesses: witnesses.clone(),
            attempts: boundary.attempts,
            reach: self.reach(boundary),
            spacing: self.config.pace.spacing,
            pace: speaker.pace.clone(),
            // What is promised to be open needs no grace.
            new_until: speaker.new_until.filter(|_| boundary.expect == Expect::Blocked),
            new_targets: self.new_targets(leg),
            startup_window: self.config.pods.as_ref().map(|pods| pods.startup_window).unwrap_or_default(),
            in_flight: self.in_flight.clone(),
            progress: self.progress.clone(),
            seen: jobs.iter().map(|_| Mutex::default()).collect(),
            jobs,
        };
        run(attempts, stop, &mut per_check).await;
        drop(running);
        let [udp, tcp] = between;
        rounds = [
            // Without controls nothing is proven: the verdicts become `vantage-offline`.
            udp.await.unwrap_or_else(|_| make_rounds(Transport::Udp)),
            tcp.await.unwrap_or_else(|_| make_rounds(Transport::Tcp)),
        ];
        run_all(&mut rounds).await;
        let listeners = witnesses.after().await;

        let digest = |place: PlaceSeen| {
            Transport::BOTH.map(|transport| {
                let of_transport =
                    checks.iter().zip(&per_check).filter(|(c, _)| c.question.transport() == Some(transport));
                let lost = lost_connects(of_transport.flat_map(|(_, seen)| seen));
                Controls::digest(&rounds[transport as usize].own, &leg.controls.negative, lost, place)
            })
        };
        let mut place = PlaceSeen { sidecar: speaker.sidecar.is_some(), gone: false };
        let mut own_controls = digest(place);
        let amiss = rounds.iter().zip(&own_controls).any(|(r, digested)| r.families().any(|f| !digested.is_proven(f)));
        place.gone = speaker.is_gone(self, amiss).await;
        if place.gone {
            own_controls = digest(place);
        }
        let judged = self.judged(leg, &rounds, &own_controls, &listeners, per_check);
        let source = &leg.stand.source.identity;
        let mut states: Vec<ControlState> =
            rounds.iter().zip(&own_controls).flat_map(|(rounds, own)| rounds.states(source, own)).collect();
        if let Some((port, mesh)) = speaker.sidecar {
            let control = format!("{port} ({mesh})").into();
            states.push(ControlState { source: source.clone(), kind: "sidecar", control, ok: false });
        }
        (judged, states)
    }

    /// What the observations of one place mean.
    fn judged(
        &self,
        leg: &Leg,
        rounds: &[controls::Rounds; 2],
        own_controls: &[Controls; 2],
        listeners: &HashMap<IpAddr, [Arc<Listeners>; 2]>,
        per_check: Vec<Vec<AddressSeen>>,
    ) -> Vec<Judged> {
        let boundary = &leg.boundary.boundary;
        let rule = TcpRule { expect: boundary.expect, closed: boundary.closed };
        let witness_controls = rounds.each_ref().map(|rounds| {
            let digest = |(witness, rounds): &(witnesses::Witness, Vec<_>)| {
                let place = witness.place(self);
                (witness.by, Controls::digest(rounds, &leg.controls.negative, [false; 2], place), place.gone)
            };
            rounds.witnesses.iter().map(digest).collect::<Vec<_>>()
        });
        let judge = |check: &Check, mut seen: AddressSeen| {
            let over = check.question.transport().unwrap_or(Transport::Tcp) as usize;
            if let Some(witness) = seen.witness.as_deref_mut()
                && witness.by == WitnessKind::Listening
                && let Some(address) = seen.address
            {
                let at_both_times = listeners.get(&address.ip());
                let listening = at_both_times.and_then(|[before, after]| after.still_accepts(before, address));
                witness.after = Some(WitnessSaw::Listener { listening });
            }
            let by = seen.witness.as_ref().map(|witness| witness.by);
            // There is one of a kind for each zone.
            let of_witness = witness_controls[over].iter().find(|(kind, ..)| Some(*kind) == by);
            let doubtful = of_witness.is_some_and(|(_, controls, gone)| {
                *gone || seen.address.is_some_and(|address| controls.is_captured(address))
            });
            let says = judge_witness(seen.witness.as_deref(), doubtful);
            let around = match seen.address {
                Some(address) => own_controls[over].around(address, seen.started, seen.ended),
                None => own_controls[over].around_nowhere(),
            };
            let reason = judge_address(rule, &seen, around, says);
            (seen, reason)
        };
        let checks = leg.reach.iter().zip(per_check);
        checks.map(|(check, seen)| seen.into_iter().map(|seen| judge(check, seen)).collect()).collect()
    }

    /// Which pods of the two zones run here: a look at what is known, without a packet.
    fn co_residency(&self, leg: &Leg, check: &Check) -> Arc<CheckResult> {
        let boundary = &leg.boundary.boundary;
        let node = self.node.as_ref().map(|node| node.borrow().clone()).unwrap_or_default();
        let is_known = node.listed.is_some() && !node.is_stale;
        let of = |zone: &Arc<str>| {
            let is_in = |s: &&Arc<Sandbox>| s.ready && s.running && zone_of(&self.config, s) == Some(zone);
            let pods: Vec<&Arc<Sandbox>> = node.sandboxes.iter().filter(is_in).collect();
            let named = pods.iter().take(MOST_NAMED).map(|s| speakers::pod_name(s).name.clone()).collect();
            is_known.then_some((named, pods.len()))
        };
        let seen = NodeSeen { from: of(&boundary.from), to: of(&boundary.to) };
        Arc::new(CheckResult {
            id: check.id.clone(),
            mode: check.mode,
            reason: judge_co_residency(&seen),
            evidence: Evidence::Node(Box::new(seen)),
            discovered: false,
            judged: Instant::now(),
            at: Timestamp::now(),
        })
    }

    /// How this boundary's addresses are tried.
    fn reach(&self, boundary: &Boundary) -> Reach {
        Reach { timeout: boundary.timeout, icmp_evidence: self.icmp_evidence }
    }
}

/// Runs all jobs, or until told to stop.
async fn run(attempts: Attempts, stop: CancellationToken, per_check: &mut [Vec<AddressSeen>]) {
    let (attempts, tasks) = (Arc::new(attempts), TaskTracker::new());
    // In a task of its own: thousands of turns need not go through all that surrounds a sweep.
    let starting = attempts.clone().start(tasks.clone());
    tasks.spawn(async move { stop.run_until_cancelled(starting).await });
    tasks.close();
    tasks.wait().await;
    for (check, seen) in attempts.take_seen() {
        // By exactly one: most checks have one address, and a Vec starts with room for four.
        per_check[check].reserve_exact(1);
        per_check[check].push(seen);
    }
    // The same network gives the same report.
    per_check.iter_mut().for_each(|seen| seen.sort_by_key(|s| s.address));
}

/// The addresses of each check from all speakers, and a word for each that could not speak.
fn merged(checks: &[Check], judged: Vec<Vec<Judged>>, mutes: &[Mute], carried: &Carried) -> Vec<Judged> {
    let mut speakers = judged.into_iter();
    let mut merged = speakers.next().unwrap_or_default();
    // One speaker is the rule, and thousands of checks need no copy.
    merged.resize_with(checks.len(), Box::default);
    for of_speaker in speakers {
        for (all, more) in merged.iter_mut().zip(of_speaker) {
            *all = std::mem::take(all).into_iter().chain(more).collect();
        }
    }
    for mute in mutes {
        let is_pinned = |check: &Check| {
            let mut pairs = carried.pinned.get(&check.id).into_iter().flatten();
            pairs.any(|pair| pair.from.as_ref() == Some(&mute.pod))
        };
        for (_, all) in checks.iter().zip(&mut merged).filter(|(check, _)| !mute.only_pinned || is_pinned(check)) {
            let none = AddressSeen { from: Some(mute.pod.clone()), ..nothing_seen() };
            *all = std::mem::take(all).into_iter().chain([(none, mute.reason)]).collect();
        }
    }
    merged
}

/// The result of a check that nobody could ask. What was known of DNS lists is kept for whoever can.
fn unasked(check: &Check, from: Option<&Arc<PodName>>, reason: Reason, carried: &Carried) -> Arc<CheckResult> {
    let evidence = match check.question {
        Question::Reach { .. } => {
            let none = AddressSeen { from: from.cloned(), ..nothing_seen() };
            Evidence::Reach([(none, reason)].into())
        }
        Question::Dns { server, kind } => {
            let lists = carried.dns.get(&check.id).map(|result| result.lists().to_vec()).unwrap_or_default();
            let (from, protected, seen) = (from.cloned(), Arc::default(), DnsSeen { lists, ..DnsSeen::default() });
            Evidence::Dns(Box::new(DnsEvidence { server, kind, from, protected, seen }))
        }
        Question::CoResidency => Evidence::Node(Box::default()),
    };
    let (id, mode, discovered) = (check.id.clone(), check.mode, check.question.vouched_by().is_some());
    Arc::new(CheckResult { id, mode, reason, evidence, discovered, judged: Instant::now(), at: Timestamp::now() })
}

fn nothing_seen() -> AddressSeen {
    let now = Instant::now();
    AddressSeen {
        address: None,
        kind: AddressKind::Endpoint,
        from: None,
        listed: true,
        attempts: Box::default(),
        startup: None,
        sidecar: None,
        witness: None,
        started: now,
        ended: now,
    }
}

async fn run_all([udp, tcp]: &mut [controls::Rounds; 2]) {
    tokio::join!(udp.run(), tcp.run());
}

/// Of each family: whether a connect that reached an open port showed a lost packet.
fn lost_connects<'a>(seen: impl Iterator<Item = &'a AddressSeen>) -> [bool; 2] {
    let mut lost = [false; 2];
    for seen in seen {
        let Some(address) = seen.address else { continue };
        let witness =
            seen.witness.iter().flat_map(|w| [Some(w.before), w.after]).flatten().filter_map(|saw| match saw {
                WitnessSaw::Connect(seen) => Some(seen),
                WitnessSaw::Listener { .. } => None,
            });
        for connect in witness.chain(seen.attempts.iter().copied()) {
            if connect.outcome == TcpOutcome::Open && connect.lost_a_packet() {
                lost[Family::of(address.ip()) as usize] = true;
            }
        }
    }
    lost
}
