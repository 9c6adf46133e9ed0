//! Whose sockets speak: the identities of the pods on this node, by zone, and why others are not used.

use std::{collections::BTreeMap, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    cri::{Labels, Network, Sandbox},
    identity::identity_name,
};
use crate::{
    config::{Config, Zone},
    model::{Identity, PodName, Reason, VantageMode},
};

/// An identity, and who can speak for it.
#[derive(Clone, Debug)]
pub struct Stand {
    /// Whom the sockets speak for.
    pub source: Arc<Source>,
    /// Who makes them.
    pub speakers: Speakers,
}

/// Whom sockets speak for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Source {
    /// Its identity.
    pub identity: Arc<Identity>,
    /// The zone that it is in; none where it speaks for every boundary.
    pub zone: Option<Arc<str>>,
    /// The DNS servers that `system` stands for.
    pub system_dns: Box<[SocketAddr]>,
}

/// Who makes the sockets of an identity.
#[derive(Clone, Debug)]
pub enum Speakers {
    /// The agent, in its own network.
    Own,
    /// Pods, in turn. Never empty.
    Pods(Arc<[Arc<Sandbox>]>),
    /// Nobody can, and why.
    Nobody(Reason),
    /// Nobody needs to: what is asked is known of the node.
    Node,
}

impl Speakers {
    /// Whether what was seen from there can be asked again: from the agent's own network (none), or from a pod that is still there.
    pub fn has(&self, from: Option<&PodName>) -> bool {
        match (from, self) {
            (None, _) => true,
            (Some(from), Self::Pods(pods)) => pods.iter().any(|pod| pod.id == from.sandbox),
            (Some(_), _) => false,
        }
    }
}

/// What is known of the pods of this node.
#[derive(Clone, Debug, Default)]
pub struct NodePods {
    /// Every sandbox, in a stable order.
    pub sandboxes: Vec<Arc<Sandbox>>,
    /// When the runtime told last; none before the first time.
    pub listed: Option<Instant>,
    /// Why it did not tell the last time it was asked.
    pub problem: Option<Arc<str>>,
    /// The list is too old to be relied on: there may be pods that nobody knows of.
    pub is_stale: bool,
}

/// What a sandbox is good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Use {
    /// Its identity is probed from. Some of these cannot be entered: see [`unusable`].
    Vantage,
    /// It is in a zone that no boundary starts from: it can only be a witness.
    Protected,
    /// It is not used, and why.
    None(&'static str),
}

impl Stand {
    /// The agent's own network. `system_dns` are the servers that `system` stands for; `namespace` labels it where the
    /// configuration does not.
    pub fn own(config: &Config, system_dns: &[SocketAddr], namespace: &str) -> Self {
        let identity = Identity {
            namespace: config.vantage.namespace.clone().unwrap_or_else(|| namespace.into()),
            name: config.vantage.identity.clone().unwrap_or_else(|| "own".into()),
        };
        let source = Source { identity: Arc::new(identity), zone: None, system_dns: system_dns.into() };
        Self { source: Arc::new(source), speakers: Speakers::Own }
    }
}

/// The zone that a pod is in, by its namespace and labels. One whose labels nobody knows is in the zone of its
/// namespace: odd labels must not hide a pod.
pub fn zone_of<'a>(config: &'a Config, sandbox: &Sandbox) -> Option<&'a Arc<str>> {
    let is_in = |zone: &Zone| {
        zone.namespaces.contains(&sandbox.namespace)
            && sandbox.labels.as_ref().is_none_or(|labels| has_all(labels, &zone.pod_labels))
    };
    config.zones.iter().find(|(_, zone)| is_in(zone)).map(|(name, _)| name)
}

fn has_all(labels: &Labels, wanted: &Labels) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// What a sandbox is good for.
pub fn use_of(config: &Config, sandbox: &Sandbox) -> Use {
    let starts_a_boundary = |zone: &Arc<str>| config.boundaries.iter().any(|b| b.from == *zone);
    match zone_of(config, sandbox) {
        _ if !sandbox.ready => Use::None("its sandbox is not ready"),
        None if config.zones.values().any(|z| z.namespaces.contains(&sandbox.namespace)) => {
            Use::None("its labels are of no zone")
        }
        None => Use::None("its namespace is in no zone"),
        Some(_) if sandbox.network == Network::Host => Use::None("it has the host's network: policies do not bind it"),
        Some(_) if !sandbox.running => Use::None("no container has run in it yet"),
        Some(zone) if starts_a_boundary(zone) => Use::Vantage,
        Some(_) => Use::Protected,
    }
}

/// The network namespace of a sandbox, where the runtime tells it.
pub fn path_of(sandbox: &Sandbox) -> Option<&Path> {
    match &sandbox.network {
        Network::Pod(path) => Some(path),
        _ => None,
    }
}

/// The pod of a zone with these labels that can be entered as a witness: the first of several.
pub fn witness<'a>(config: &Config, node: &'a NodePods, zone: &Arc<str>, labels: &Labels) -> Option<&'a Arc<Sandbox>> {
    let speaks = |s: &&Arc<Sandbox>| {
        s.ready
            && s.running
            && zone_of(config, s) == Some(zone)
            && s.labels.as_ref().is_some_and(|own| has_all(own, labels))
    };
    node.sandboxes.iter().filter(speaks).find(|sandbox| path_of(sandbox).is_some())
}

/// Why no socket can be made in a pod, for all that the runtime tells.
pub fn unusable(sandbox: &Sandbox) -> Option<Reason> {
    match sandbox.network {
        Network::Pod(_) => None,
        Network::Hidden(_) => Some(Reason::VantageUnsupported),
        Network::Host | Network::Unknown(_) => Some(Reason::VantageClosed),
    }
}

/// The identities that are probed from on this node, in the order of their names.
pub fn stands(config: &Config, node: &NodePods) -> Vec<Stand> {
    /// Zone, namespace and name: checks are told apart by these alone, so that two identities must not share them.
    type Key<'a> = (&'a Arc<str>, &'a Arc<str>, Arc<str>);
    let mut identities: BTreeMap<Key<'_>, Vec<Arc<Sandbox>>> = BTreeMap::new();
    if let (VantageMode::Pods, Some(pods)) = (config.vantage.mode, &config.pods) {
        for sandbox in node.sandboxes.iter().filter(|s| use_of(config, s) == Use::Vantage) {
            let Some(zone) = zone_of(config, sandbox) else { continue };
            let name = identity_name(sandbox.labels.as_ref(), &pods.ignore_labels);
            identities.entry((zone, &sandbox.namespace, name)).or_default().push(sandbox.clone());
        }
    }
    let mut stands: Vec<Stand> = identities
        .into_iter()
        .map(|((zone, namespace, name), mut pods)| {
            // The oldest first: what is taken of the first must not change with every new pod.
            pods.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
            let identity = Identity { namespace: namespace.clone(), name };
            let system_dns = pods.iter().map(|pod| dns_servers(pod)).find(|dns| !dns.is_empty()).unwrap_or_default();
            let source = Source { identity: Arc::new(identity), zone: Some(zone.clone()), system_dns };
            Stand { source: Arc::new(source), speakers: Speakers::Pods(pods.into()) }
        })
        .collect();
    if config.vantage.mode == VantageMode::Pods && (node.listed.is_none() || node.is_stale) {
        let mut zones: Vec<&Arc<str>> = config.boundaries.iter().map(|b| &b.from).collect();
        zones.sort_unstable();
        zones.dedup();
        // There may be pods that nobody knows of: that must not look like none.
        stands.extend(zones.into_iter().map(|zone| {
            let identity = Arc::new(Identity { namespace: "".into(), name: "unknown".into() });
            let source = Source { identity, zone: Some(zone.clone()), system_dns: Box::default() };
            Stand { source: Arc::new(source), speakers: Speakers::Nobody(Reason::RuntimeUnreadable) }
        }));
    }
    stands
}

fn dns_servers(sandbox: &Sandbox) -> Box<[SocketAddr]> {
    sandbox.dns.servers.iter().map(|ip| SocketAddr::new(*ip, 53)).collect()
}

/// How long ago a pod was made. Its time stamp is from this node's clock.
pub fn age(sandbox: &Sandbox) -> Duration {
    Duration::try_from(jiff::Timestamp::now().duration_since(sandbox.created)).unwrap_or_default()
}

#[cfg(test)]
mod tests;
