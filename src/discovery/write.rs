//! Writing: what was found into the ConfigMaps, when it changed, and with every heartbeat.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tracing::{error, info, warn};

use super::{
    api::Api,
    chunks::{CHUNKS, Chunk, Chunks, chunks},
    follow::World,
    objects::Inventory,
    settings::Settings,
    targets::{TargetSet, find},
};

/// The key of each ConfigMap.
pub const KEY: &str = "targets.json";
/// A node keeps its share for so long without an agent: a rollout is no reason to share anew.
const NODE_GRACE: Duration = Duration::from_secs(300);
/// What failed is written again after this time.
const AGAIN: Duration = Duration::from_secs(5);
/// Bytes a second that heartbeats may make the API server send to all kubelets together.
const MOST_BYTES_PER_SECOND: u64 = 20_000_000;

/// The name of a chunk's ConfigMap.
pub fn config_map(number: usize) -> String {
    format!("segprobe-targets-{number}")
}

/// What was found and written, for whoever watches.
#[derive(Clone, Debug, Default)]
pub struct Written {
    /// What was found last.
    pub set: Arc<TargetSet>,
    /// By namespace: the chunks as they should be.
    pub chunks: BTreeMap<String, Chunks>,
    /// When all that had to be written last was, by namespace.
    pub applied: BTreeMap<String, Timestamp>,
    /// The oldest heartbeat that stands; none until all ConfigMaps are written.
    pub heartbeat: Option<Timestamp>,
    /// ConfigMaps whose last write failed: they hold what they held before.
    pub failing: usize,
    /// Time between two heartbeats, as the number of nodes and targets allows.
    pub interval: Duration,
    /// Writes that failed.
    pub errors: u64,
}

/// Writes what a world tells, and tells how that goes.
pub struct Writer {
    settings: Settings,
    written: Mutex<Written>,
}

/// The ConfigMaps by namespace and number.
type Places = BTreeMap<(String, usize), Place>;

/// How it stands with one ConfigMap.
#[derive(Default)]
struct Place {
    /// What it is known to hold.
    stands: Option<(Chunk, Timestamp)>,
    /// The last write failed, and the next comes then: the others do not wait for it, nor it for them.
    again: Option<Instant>,
}

/// Nodes with an agent, and when it was last seen.
type Agents = BTreeMap<(String, String), Instant>;

impl Writer {
    /// A writer that has written nothing.
    pub fn new(settings: Settings) -> Self {
        let written = Written { interval: settings.heartbeat, ..Written::default() };
        Self { settings, written: Mutex::new(written) }
    }

    /// How it stands.
    pub fn written(&self) -> Written {
        self.state().clone()
    }

    fn state(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes for ever.
    pub async fn keep_writing(&self, api: &Api, world: &World) {
        let (mut places, mut agents) = (Places::new(), Agents::new());
        let mut beat = Instant::now();
        loop {
            // Nothing is written before everything is known: targets that are not seen yet would look as if they were gone.
            let mut next = Instant::now() + self.state().interval;
            if let Some(as_of) = world.as_of() {
                self.find(world, &mut agents);
                let is_due = Instant::now() >= beat;
                self.write(api, &mut places, as_of, is_due).await;
                if is_due {
                    beat = Instant::now() + self.state().interval;
                }
                next = places.values().filter_map(|place| place.again).fold(beat, Instant::min);
            }
            tokio::select! {
                () = tokio::time::sleep_until(next.into()) => {}
                () = world.changed() => tokio::time::sleep(self.settings.settle).await,
            }
        }
    }

    /// Finds the targets and spreads them.
    fn find(&self, world: &World, agents: &mut Agents) {
        let set = world.with(|inventory| {
            let mut set = find(&self.settings, inventory);
            keep_nodes(&mut set, inventory, agents, Instant::now());
            set
        });
        // Where no agents are installed there is nobody to write for.
        let exists = |namespace: &&String| {
            let key = (String::new(), (*namespace).clone());
            world.with(|inventory| inventory.namespaces.contains_key(&key))
        };
        let spread = |namespace: &String| (namespace.clone(), chunks(&set, namespace));
        let chunks: BTreeMap<String, Chunks> = self.settings.into.iter().filter(exists).map(spread).collect();
        if chunks.is_empty() {
            warn!(
                into = self.settings.into.join(" "),
                "none of the namespaces to write into exists: apply the agents' manifests, or change `into`"
            );
        }
        let set = Arc::new(set);
        let mut state = self.state();
        let left_out = chunks.values().map(|c| c.left_out).max().unwrap_or_default();
        if left_out != state.chunks.values().map(|c| c.left_out).max().unwrap_or_default() {
            match chunks.values().find_map(|c| c.first_left_out.as_ref()) {
                Some((namespace, name)) => error!(
                    left_out,
                    first = format!("{namespace}/{name}"),
                    "targets do not fit into {CHUNKS} ConfigMaps and are not tested; give fewer namespaces the zone's label, or list them in target files"
                ),
                None => info!("all targets fit again"),
            }
        }
        if set.gaps != state.set.gaps {
            let gaps: Vec<String> = set.gaps.iter().map(|(gap, count)| format!("{gap}={count}")).collect();
            info!(gaps = gaps.join(" "), targets = set.targets.len(), "found");
        }
        let bytes = |c: &Chunks| c.chunks.iter().map(|c| c.bytes() as u64).sum::<u64>();
        let nodes = |namespace: &String| set.nodes.get(namespace).map_or(0, BTreeSet::len) as u64;
        let load = chunks.iter().map(|(namespace, chunks)| bytes(chunks) * nodes(namespace)).sum();
        (state.interval, state.set, state.chunks) = (interval(self.settings.heartbeat, load), set, chunks);
    }

    /// Writes what changed, or everything where a heartbeat is due and there is one; and what failed, when its time has come.
    async fn write(&self, api: &Api, places: &mut Places, as_of: Timestamp, is_due: bool) {
        let wanted = self.state().chunks.clone();
        places.retain(|(namespace, _), _| wanted.contains_key(namespace));
        for (namespace, chunks) in &wanted {
            let (mut good, mut wrote) = (true, false);
            for (number, chunk) in chunks.chunks.iter().enumerate() {
                let place = places.entry((namespace.clone(), number)).or_default();
                // Where the API has said nothing since, the heartbeat ages.
                let is_wanted = match (&place.stands, place.again) {
                    (_, Some(again)) => Instant::now() >= again,
                    (Some((stands, heartbeat)), None) => stands != chunk || is_due && *heartbeat < as_of,
                    (None, None) => true,
                };
                if is_wanted {
                    wrote = true;
                    self.apply(api, namespace, number, place, (chunk, as_of)).await;
                }
                good &= place.again.is_none();
            }
            if good && wrote {
                self.state().applied.insert(namespace.clone(), Timestamp::now());
            }
        }
        let standing: Option<Vec<_>> = places.values().map(|place| place.stands.as_ref().map(|(_, at)| *at)).collect();
        let mut state = self.state();
        state.heartbeat = standing.and_then(|all| all.into_iter().min());
        state.failing = places.values().filter(|place| place.again.is_some()).count();
    }

    async fn apply(&self, api: &Api, namespace: &str, number: usize, place: &mut Place, what: (&Chunk, Timestamp)) {
        let (name, (chunk, as_of)) = (config_map(number), what);
        match api.apply(namespace, &name, KEY, &chunk.text(Some(as_of))).await {
            Ok(()) => *place = Place { stands: Some((chunk.clone(), as_of)), again: None },
            Err(error) => {
                place.again = Some(Instant::now() + error.retry_after().unwrap_or_default().max(AGAIN));
                self.state().errors += 1;
                let remedy = match &error {
                    error if error.is(403) || error.is(404) => {
                        "; it must exist already, with the right to patch it: apply the agents' manifests again"
                    }
                    _ => "",
                };
                warn!(error = format!("apply ConfigMap {namespace}/{name}: {error}{remedy}"), "not written");
            }
        }
    }
}

/// Heartbeats go to every node with everything that they vouch for: with many of both they come less often.
fn interval(asked: Duration, load: u64) -> Duration {
    asked.max(Duration::from_secs(load / MOST_BYTES_PER_SECOND))
}

/// Adds nodes whose agent was there a moment ago.
fn keep_nodes(set: &mut TargetSet, inventory: &Inventory, agents: &mut Agents, now: Instant) {
    for (namespace, nodes) in &set.nodes {
        agents.extend(nodes.iter().map(|node| ((namespace.clone(), node.clone()), now)));
    }
    agents.retain(|(_, node), seen| {
        let exists = inventory.nodes.contains_key(&(String::new(), node.clone()));
        exists && now.saturating_duration_since(*seen) < NODE_GRACE
    });
    for (namespace, node) in agents.keys() {
        if let Some(nodes) = set.nodes.get_mut(namespace) {
            nodes.insert(node.clone());
        }
    }
}

/// All ConfigMaps as YAML, without heartbeats, for a repository.
pub fn manifests(settings: &Settings, inventory: &Inventory) -> (String, TargetSet, usize) {
    let set = find(settings, inventory);
    let (mut text, mut left_out) = (String::new(), 0);
    for namespace in &settings.into {
        let chunks = chunks(&set, namespace);
        left_out = left_out.max(chunks.left_out);
        for (number, chunk) in chunks.chunks.iter().enumerate() {
            let name = config_map(number);
            text.push_str(&format!(
                "---\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\n  namespace: {namespace}\ndata:\n  {KEY}: |\n"
            ));
            for line in chunk.text(None).lines() {
                text.push_str("    ");
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    (text, set, left_out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::objects::Node;

    #[test]
    fn heartbeats_are_a_bounded_load() {
        let asked = Duration::from_secs(60);
        assert_eq!(interval(asked, 0), asked);
        // 200 KB to 500 nodes, 2 MB to 5,000.
        assert_eq!(interval(asked, 200_000 * 500), asked);
        assert_eq!(interval(asked, 2_000_000 * 5_000), Duration::from_secs(500));
    }

    #[test]
    fn a_rollout_leaves_the_nodes_as_they_are() {
        let mut inventory = Inventory::default();
        inventory.nodes.insert((String::new(), "n1".into()), Node::default());
        let with = |nodes: &[&str]| TargetSet {
            nodes: [("segprobe".to_owned(), nodes.iter().map(|n| (*n).to_owned()).collect())].into(),
            ..TargetSet::default()
        };
        let (mut agents, start) = (Agents::new(), Instant::now());
        let mut after = |seconds, nodes: &[&str], inventory: &Inventory| {
            let mut set = with(nodes);
            keep_nodes(&mut set, inventory, &mut agents, start + Duration::from_secs(seconds));
            set.nodes["segprobe"].iter().cloned().collect::<Vec<_>>()
        };
        assert_eq!(after(0, &["n1"], &inventory), ["n1"]);
        assert_eq!(after(299, &[], &inventory), ["n1"]);
        assert_eq!(after(301, &[], &inventory), [""; 0]);
        // A node that is gone is gone at once.
        assert_eq!(after(400, &["n1"], &inventory), ["n1"]);
        assert_eq!(after(401, &[], &Inventory::default()), [""; 0]);
    }
}
