//! Who makes the sockets of one sweep: the agent itself, or pods whose network namespaces are entered for the sweep only.

use std::{
    collections::HashMap,
    net::IpAddr,
    path::Path,
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tracing::warn;

use super::Sweeper;
use crate::{
    inventory::{
        cri::Sandbox,
        stands::{NodePods, Speakers, age, path_of, unusable},
    },
    ledger::Carried,
    model::{Expect, PodName, Reason},
    pace::{Pace, Paces},
    plan::Leg,
    vantage::{EnterError, InPod, Listeners, Netns, Vantage},
};

/// A place where sockets of this sweep are born.
pub(super) struct Speaker {
    /// The pod; none for the agent's own network.
    pub pod: Option<Arc<PodName>>,
    pub vantage: Arc<dyn Vantage>,
    /// The pod's own and the agent's budget.
    pub pace: Paces,
    /// The pod's own budget alone.
    pub pod_pace: Option<Arc<Pace>>,
    /// It has no turn, and speaks only where its findings are open.
    pub only_pinned: bool,
    /// A port on which a known sidecar listens.
    pub sidecar: Option<(u16, &'static str)>,
    /// Until then what is open from here may be open only because the pod is new.
    pub new_until: Option<Instant>,
    inside: Option<Inside>,
}

/// A pod that was entered.
#[derive(Clone)]
pub(super) struct Inside {
    pub sandbox: Arc<Sandbox>,
    pub vantage: Arc<InPod>,
    /// None where the kernel does not tell.
    pub listeners: Option<Arc<Listeners>>,
}

/// A pod that cannot speak, and why.
pub(super) struct Mute {
    pub pod: Arc<PodName>,
    pub reason: Reason,
    /// It had no turn: it is missed only where its findings are open.
    pub only_pinned: bool,
}

pub(super) fn pod_name(sandbox: &Sandbox) -> Arc<PodName> {
    let name = format!("{}/{}", sandbox.namespace, sandbox.name).into();
    Arc::new(PodName { sandbox: sandbox.id.clone(), name })
}

impl Sweeper {
    /// Opens what speaks in this sweep: the pods whose turn it is, and those with open findings.
    pub(super) async fn speakers(
        &self,
        leg: &Leg,
        turn: &[Arc<Sandbox>],
        carried: &Carried,
    ) -> (Vec<Speaker>, Vec<Mute>) {
        let Speakers::Pods(pods) = &leg.stand.speakers else {
            return (vec![self.itself()], Vec::new());
        };
        let has_turn = |pod: &Sandbox| turn.iter().any(|t| t.id == pod.id);
        let has_finding = |pod: &Sandbox| {
            let is_from = |from: &Option<Arc<PodName>>| from.as_ref().is_some_and(|f| f.sandbox == pod.id);
            carried.pinned.values().flatten().any(|pair| is_from(&pair.from))
        };
        let speaking = pods.iter().filter(|pod| has_turn(pod) || has_finding(pod)).cloned().collect();
        let (mut speakers, mut mutes) = (Vec::new(), Vec::new());
        for (pod, entered) in self.enter(speaking).await {
            let only_pinned = !has_turn(&pod);
            match entered {
                Ok(inside) => speakers.push(Speaker { only_pinned, ..self.pod(inside) }),
                Err(reason) => mutes.push(Mute { pod: pod_name(&pod), reason, only_pinned }),
            }
        }
        (speakers, mutes)
    }

    /// Opens who asks DNS in this sweep: the pod that has an open finding, else the one whose turn it is.
    pub(super) async fn asker(&self, leg: &Leg, turn: &[Arc<Sandbox>], carried: &Carried) -> Result<Speaker, Mute> {
        let Speakers::Pods(pods) = &leg.stand.speakers else { return Ok(self.itself()) };
        let pinned = carried.dns_from.as_ref().and_then(|from| pods.iter().find(|pod| pod.id == from.sandbox));
        let chosen = pinned.or(turn.first()).unwrap_or(&pods[0]).clone();
        let mut entered = self.enter(vec![chosen.clone()]).await;
        match entered.pop().map(|(_, entered)| entered) {
            Some(Ok(inside)) => Ok(self.pod(inside)),
            Some(Err(reason)) => Err(Mute { pod: pod_name(&chosen), reason, only_pinned: false }),
            None => Err(Mute { pod: pod_name(&chosen), reason: Reason::LocalError, only_pinned: false }),
        }
    }

    fn itself(&self) -> Speaker {
        Speaker {
            pod: None,
            vantage: self.own.clone(),
            pace: Paces::new([self.pace.clone()]),
            pod_pace: None,
            only_pinned: false,
            sidecar: None,
            new_until: None,
            inside: None,
        }
    }

    fn pod(&self, inside: Inside) -> Speaker {
        let pod_pace = self.pod_pace(&inside.sandbox);
        let window = self.config.pods.as_ref().map(|pods| pods.startup_window).unwrap_or_default();
        Speaker {
            pod: Some(pod_name(&inside.sandbox)),
            vantage: inside.vantage.clone(),
            pace: Paces::new([pod_pace.clone(), self.pace.clone()]).in_step(self.began),
            pod_pace: Some(pod_pace),
            only_pinned: false,
            sidecar: inside.sidecar(),
            new_until: new_until(&inside.sandbox, window),
            inside: Some(inside),
        }
    }

    /// Enters pods, each with what keeps it from being entered. On a thread that may wait: a pod can have as many listeners as
    /// it likes.
    pub(super) async fn enter(&self, sandboxes: Vec<Arc<Sandbox>>) -> Vec<(Arc<Sandbox>, Result<Inside, Reason>)> {
        let per_second = self.config.pods.as_ref().map_or(u32::MAX, |pods| pods.per_second);
        let all = move || -> Vec<_> {
            let each = sandboxes.into_iter().map(|sandbox| {
                let entered = path_of(&sandbox).map(|path| enter(&sandbox, path, per_second));
                (sandbox, entered)
            });
            each.collect()
        };
        let entered = tokio::task::spawn_blocking(all).await.unwrap_or_default();
        let judged = entered.into_iter().map(|(sandbox, entered)| {
            let entered = match entered {
                Some(Ok(inside)) => Ok(inside),
                Some(Err(error)) => Err(self.cannot_enter(&sandbox, &error)),
                None => Err(unusable(&sandbox).unwrap_or(Reason::VantageClosed)),
            };
            (sandbox, entered)
        });
        judged.collect()
    }

    /// Tells why once, and not in every sweep.
    fn cannot_enter(&self, sandbox: &Sandbox, error: &EnterError) -> Reason {
        let problem = error.to_string();
        let mut told = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() > MOST_TROUBLES {
            told.clear();
        }
        if told.insert(sandbox.id.clone(), problem.clone()).as_ref() != Some(&problem) {
            warn!(namespace = &*sandbox.namespace, pod = &*sandbox.name, problem, "a pod cannot be probed from");
        }
        match error {
            EnterError::Gone { .. } => Reason::VantageGone,
            _ => Reason::VantageClosed,
        }
    }

    /// A pod has one budget, whichever boundaries are tested from it.
    pub(super) fn pod_pace(&self, sandbox: &Sandbox) -> Arc<Pace> {
        let mut paces = self.pod_paces.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pace) = paces.get(&sandbox.id).and_then(std::sync::Weak::upgrade) {
            return pace;
        }
        paces.retain(|_, pace| pace.strong_count() > 0);
        let per_second = self.config.pods.as_ref().map_or(u32::MAX, |pods| pods.per_second);
        let pace = Arc::new(Pace::per_second(per_second));
        paces.insert(sandbox.id.clone(), Arc::downgrade(&pace));
        pace
    }

    /// Until when each address may be open only because its pod is new: one that runs here, or was listed only lately.
    pub(super) fn new_targets(&self, leg: &Leg) -> HashMap<IpAddr, Instant> {
        let (Some(node), Some(pods)) = (&self.node, &self.config.pods) else { return HashMap::new() };
        // What is promised to be open needs no grace.
        if leg.boundary.boundary.expect == Expect::Open {
            return HashMap::new();
        }
        let until = |since: Instant| Some(since + pods.startup_window).filter(|until| *until > Instant::now());
        let listed = self.listed_since.iter().filter_map(|(ip, since)| Some((*ip, until(*since)?)));
        let mut new: HashMap<IpAddr, Instant> = listed.collect();
        for sandbox in node.borrow().sandboxes.iter().filter(|s| leg.boundary.namespaces.contains(&s.namespace)) {
            if let Some(until) = new_until(sandbox, pods.startup_window) {
                new.extend(sandbox.addresses.iter().map(|ip| (*ip, until)));
            }
        }
        new
    }
}

/// Pods whose trouble is remembered, so that it is told once.
const MOST_TROUBLES: usize = 4_096;

fn new_until(sandbox: &Sandbox, window: Duration) -> Option<Instant> {
    let left = window.checked_sub(age(sandbox))?;
    // A time stamp from the future is a clock that was set, no newborn.
    (sandbox.created <= Timestamp::now()).then(|| Instant::now() + left)
}

/// Opens a pod's network namespace.
fn enter(sandbox: &Arc<Sandbox>, path: &Path, per_second: u32) -> Result<Inside, EnterError> {
    let netns = Netns::open(path)?;
    let listeners = Listeners::of(&netns).ok().map(Arc::new);
    let vantage = Arc::new(InPod::new(netns)?.for_pace(per_second));
    Ok(Inside { sandbox: sandbox.clone(), vantage, listeners })
}

impl Inside {
    /// A port on which a known sidecar listens.
    pub fn sidecar(&self) -> Option<(u16, &'static str)> {
        self.listeners.as_ref()?.sidecars().next()
    }
}

impl Speaker {
    /// True where an address is its own: what it reaches there has not left the pod.
    pub fn is_itself(&self, ip: IpAddr) -> bool {
        self.inside.as_ref().is_some_and(|inside| ip.is_loopback() || inside.sandbox.addresses.contains(&ip))
    }

    /// True where the pod is gone now. If something is `amiss`, which its end would explain, the runtime's next list is
    /// waited for: a pod's network is taken down a moment before its namespace.
    pub async fn is_gone(&self, sweeper: &Sweeper, amiss: bool) -> bool {
        let Some(inside) = &self.inside else { return false };
        if amiss && !sweeper.is_gone(inside) {
            sweeper.next_list().await;
        }
        sweeper.is_gone(inside)
    }
}

impl Sweeper {
    /// True where a pod is gone, by its namespace or by the runtime's word.
    pub(super) fn is_gone(&self, inside: &Inside) -> bool {
        let is_listed = |node: &NodePods| node.sandboxes.iter().any(|s| s.id == inside.sandbox.id && s.ready);
        !inside.vantage.netns().is_there() || self.node.as_ref().is_some_and(|node| !is_listed(&node.borrow()))
    }

    /// Waits until the runtime has told its pods once more, two polls at most.
    async fn next_list(&self) {
        let (Some(node), Some(pods)) = (&self.node, &self.config.pods) else { return };
        let asked = tokio::time::Instant::now();
        let listed = async {
            while node.borrow().listed.is_none_or(|listed| listed <= asked) {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        // Where it does not tell, what is known has to do.
        let _ = tokio::time::timeout(2 * pods.poll, listed).await;
    }
}
