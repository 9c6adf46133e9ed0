//! Who vouches that a silent endpoint is alive: the listeners of its pod where it runs here, or whoever may reach it.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
};

use super::{
    Sweeper,
    speakers::{Inside, pod_name},
};
use crate::{
    config::WitnessWho,
    inventory::{
        cri::{Labels, Network, Sandbox},
        stands::{NodePods, path_of, witness, zone_of},
    },
    model::{AddressKind, Expect, Family, Transport, VantageMode, WitnessKind},
    observation::{WitnessSaw, WitnessSeen},
    pace::Paces,
    plan::Leg,
    probe::{Reach, reach},
    vantage::{Listeners, Netns, Own, Vantage},
    verdict::PlaceSeen,
};

/// Somebody who is known to be allowed to reach a zone.
#[derive(Clone)]
pub(super) struct Witness {
    pub by: WitnessKind,
    pub name: Arc<str>,
    pub vantage: Arc<dyn Vantage>,
    /// The pod's own budget, where it is a pod.
    pub pace: Option<Paces>,
    /// The pod, where it is one.
    pub inside: Option<Inside>,
    /// The only addresses that it speaks for; none where it speaks for all.
    pub only: Option<Arc<HashSet<IpAddr>>>,
}

/// All witnesses of a boundary's endpoints in one sweep.
#[derive(Default)]
pub(super) struct Witnesses {
    /// Those who connect, the best first.
    pub connecting: Vec<Witness>,
    /// The pods behind endpoints on this node, with their listeners before the attempts.
    pub tables: HashMap<IpAddr, (Arc<Sandbox>, Arc<Listeners>)>,
}

/// Whom to ask about one address.
pub(super) enum Voucher<'a> {
    Listening(&'a Arc<Sandbox>, Option<bool>),
    Connecting(&'a Witness),
}

impl Witnesses {
    /// Whom to ask: a listener that is there, else who may connect, else the listener's absence. Of a listener of which
    /// nothing can be told nobody else is asked: at a full one a witness would be met with silence, too.
    pub fn of(&self, transport: Transport, kind: AddressKind, address: SocketAddr) -> Option<Voucher<'_>> {
        // A virtual address has many ends, of which the witness would meet any: it cannot vouch for it.
        if kind != AddressKind::Endpoint {
            return None;
        }
        let table = self.tables.get(&address.ip()).filter(|_| transport == Transport::Tcp);
        let listening = table.map(|(sandbox, listeners)| (sandbox, listeners.accepts(address)));
        if let Some((sandbox, said @ (Some(true) | None))) = listening {
            return Some(Voucher::Listening(sandbox, said));
        }
        let speaks = |w: &&Witness| {
            w.only.as_ref().is_none_or(|only| only.contains(&address.ip())) && w.vantage.has(Family::of(address.ip()))
        };
        let connecting = self.connecting.iter().find(speaks).map(Voucher::Connecting);
        connecting.or_else(|| listening.map(|(sandbox, said)| Voucher::Listening(sandbox, said)))
    }

    /// The listeners before and after the attempts, where both are known.
    pub async fn after(&self) -> HashMap<IpAddr, [Arc<Listeners>; 2]> {
        let sandboxes: HashMap<&str, &Arc<Sandbox>> = self.tables.values().map(|(s, _)| (&*s.id, s)).collect();
        let after = listeners(sandboxes.into_values().cloned().collect()).await;
        let after: HashMap<&str, &Arc<Listeners>> = after.iter().map(|(s, listeners)| (&*s.id, listeners)).collect();
        let both = |sandbox: &Sandbox, before: &Arc<Listeners>| {
            let after = after.get(&*sandbox.id)?;
            Some([before.clone(), Arc::clone(after)])
        };
        self.tables.iter().filter_map(|(ip, (sandbox, before))| Some((*ip, both(sandbox, before)?))).collect()
    }
}

impl Voucher<'_> {
    /// Before the attempts. What connects, connects now.
    pub async fn before(&self, transport: Transport, address: &SocketAddr, how: &Reach) -> WitnessSeen {
        let (by, name, before) = match self {
            Self::Listening(sandbox, listening) => {
                let name = pod_name(sandbox).name.clone();
                (WitnessKind::Listening, name, WitnessSaw::Listener { listening: *listening })
            }
            Self::Connecting(witness) => {
                (witness.by, witness.name.clone(), witness.look(transport, address, how).await)
            }
        };
        WitnessSeen { by, name, before, after: None }
    }
}

impl Witness {
    pub fn new(by: WitnessKind, name: Arc<str>, vantage: Arc<dyn Vantage>) -> Self {
        Self { by, name, vantage, pace: None, inside: None, only: None }
    }

    /// What is known of its place: a sidecar there would vouch for the dead, and a pod that ended for nobody.
    pub fn place(&self, sweeper: &Sweeper) -> PlaceSeen {
        let Some(inside) = &self.inside else { return PlaceSeen::default() };
        PlaceSeen { sidecar: inside.sidecar().is_some(), gone: sweeper.is_gone(inside) }
    }

    pub async fn look(&self, transport: Transport, address: &SocketAddr, how: &Reach) -> WitnessSaw {
        if let Some(pace) = &self.pace {
            pace.turn().await;
        }
        WitnessSaw::Connect(reach(transport, &*self.vantage, address, how).await)
    }
}

impl Sweeper {
    /// The witnesses of a leg's endpoints, as they are now.
    pub(super) async fn witnesses(&self, leg: &Leg) -> Witnesses {
        if leg.boundary.boundary.expect == Expect::Open {
            return Witnesses::default();
        }
        let endpoints: HashSet<IpAddr> = leg.reach.iter().flat_map(|check| check.question.endpoints()).collect();
        let node = self.node.as_ref().map(|node| node.borrow().clone()).unwrap_or_default();
        let here = self.pods_here(leg, &node, &endpoints);
        let connecting = self.connecting(leg, &node, &here).await;
        let tables = match self.config.vantage.mode {
            VantageMode::Own => HashMap::new(),
            VantageMode::Pods => {
                let of_each = |(sandbox, listeners): (Arc<Sandbox>, Arc<Listeners>)| {
                    let addresses = sandbox.addresses.clone();
                    addresses.into_iter().map(move |ip| (ip, (sandbox.clone(), listeners.clone())))
                };
                listeners(here).await.into_iter().flat_map(of_each).collect()
            }
        };
        Witnesses { connecting, tables }
    }

    /// Pods of the protected zone on this node that have one of the addresses.
    fn pods_here(&self, leg: &Leg, node: &NodePods, addresses: &HashSet<IpAddr>) -> Vec<Arc<Sandbox>> {
        let is_target = |s: &&Arc<Sandbox>| {
            s.ready
                && s.network != Network::Host
                && s.addresses.iter().any(|ip| addresses.contains(ip))
                && zone_of(&self.config, s) == Some(&leg.boundary.boundary.to)
        };
        node.sandboxes.iter().filter(is_target).cloned().collect()
    }

    async fn connecting(&self, leg: &Leg, node: &NodePods, here: &[Arc<Sandbox>]) -> Vec<Witness> {
        let zone = &leg.boundary.boundary.to;
        let mut connecting = Vec::new();
        for of_zone in self.config.witnesses.iter().filter(|w| w.zone == *zone) {
            connecting.extend(match &of_zone.who {
                WitnessWho::Node if is_pods_own(node) => None,
                WitnessWho::Node => {
                    let only = here.iter().flat_map(|s| s.addresses.iter().copied()).collect();
                    let own = Witness::new(WitnessKind::Node, "this node".into(), Arc::new(Own::new()));
                    Some(Witness { only: Some(Arc::new(only)), ..own })
                }
                WitnessWho::Pods(labels) => self.witness_pod(node, zone, labels).await,
                WitnessWho::Source(source) => {
                    let name = source.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ").into();
                    Some(Witness::new(WitnessKind::Source, name, Arc::new(Own::from_addresses(source))))
                }
            });
        }
        connecting
    }

    async fn witness_pod(&self, node: &NodePods, zone: &Arc<str>, labels: &Labels) -> Option<Witness> {
        let sandbox = witness(&self.config, node, zone, labels)?;
        let inside = self.enter(vec![sandbox.clone()]).await.pop()?.1.ok()?;
        let pace = Some(Paces::new([self.pod_pace(sandbox)]));
        let pod = Witness::new(WitnessKind::Pod, pod_name(sandbox).name.clone(), inside.vantage.clone());
        Some(Witness { pace, inside: Some(inside), ..pod })
    }
}

/// True where the agent itself lives in a pod's network: then it is no node, and may be blocked like any pod.
pub fn is_pods_own(node: &NodePods) -> bool {
    use std::os::unix::fs::MetadataExt;
    let (Ok(own), Ok(addresses)) = (Netns::own(), Own::addresses()) else { return true };
    let leads_here =
        |path: &Path| std::fs::metadata(path).is_ok_and(|file| (file.dev(), file.ino()) == (own.device, own.inode));
    // Its path may not be visible from here. Who has the host's network shares the host's addresses.
    let has_one_of_ours =
        |s: &Sandbox| s.network != Network::Host && s.addresses.iter().any(|ip| addresses.contains(ip));
    node.sandboxes.iter().any(|sandbox| path_of(sandbox).is_some_and(leads_here) || has_one_of_ours(sandbox))
}

/// Reads the listeners of pods. What cannot be entered has none, and no voice.
async fn listeners(sandboxes: Vec<Arc<Sandbox>>) -> Vec<(Arc<Sandbox>, Arc<Listeners>)> {
    let read = |sandbox: Arc<Sandbox>| {
        let netns = Netns::open(path_of(&sandbox)?).ok()?;
        let listeners = Listeners::of(&netns).ok()?;
        Some((sandbox, Arc::new(listeners)))
    };
    let read_all = move || sandboxes.into_iter().filter_map(read).collect();
    tokio::task::spawn_blocking(read_all).await.unwrap_or_default()
}
