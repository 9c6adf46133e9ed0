//! Looks at the list of pods every now and then, and tells whoever waits when it changed.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};
use tracing::{info, warn};

use super::{
    cri::{Client, CriError},
    stands::NodePods,
};
use crate::config::PodsConfig;

/// A list this old may lack pods: so many polls, and so long at least.
const STALE_POLLS: u32 = 5;
const STALE_AFTER: Duration = Duration::from_secs(10);

/// What is known of the pods of this node, as it changes.
pub type Pods = watch::Receiver<NodePods>;

/// Asks the runtime once.
///
/// # Errors
/// It did not tell. What was known stays, and how old it is.
pub async fn look(client: &mut Client, config: &PodsConfig, known: &watch::Sender<NodePods>) -> Result<(), CriError> {
    let listed = client.list().await;
    let now = Instant::now();
    let stale_after = STALE_AFTER.max(config.poll * STALE_POLLS);
    known.send_if_modified(|node| match &listed {
        Ok(sandboxes) => {
            let same = node.sandboxes.len() == sandboxes.len()
                && node.sandboxes.iter().zip(sandboxes).all(|(a, b)| Arc::ptr_eq(a, b));
            let changed = !same || node.listed.is_none() || node.is_stale || node.problem.is_some();
            if node.problem.is_some() {
                info!(socket = %config.socket.display(), "the container runtime answers again");
            }
            *node = NodePods { sandboxes: sandboxes.clone(), listed: Some(now), problem: None, is_stale: false };
            changed
        }
        Err(error) => {
            let problem: Arc<str> = error.to_string().into();
            if node.problem.as_ref() != Some(&problem) {
                warn!(problem = &*problem, "the container runtime does not tell its pods");
            }
            let is_stale = node.listed.is_none_or(|listed| now.duration_since(listed) > stale_after);
            let changed = node.problem.is_none() || is_stale != node.is_stale;
            (node.problem, node.is_stale) = (Some(problem), is_stale);
            changed
        }
    });
    listed.map(|_| ())
}

/// Asks the runtime again and again until nobody listens.
pub async fn watch(mut client: Client, config: PodsConfig, known: watch::Sender<NodePods>) {
    let mut ticks = tokio::time::interval(config.poll);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = known.closed() => return,
            // What is wrong is told and kept; the next look may fare better.
            _ = ticks.tick() => drop(look(&mut client, &config, &known).await),
        }
    }
}
