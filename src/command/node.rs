//! The pods of this node, and the privileges to enter them, for the subcommands that need them.

use std::path::Path;

use tokio::sync::watch;

use super::Failure;
use crate::{
    config::{Config, PodsConfig},
    inventory::{
        cri::{Client, CriError},
        pods::{Pods, look, watch},
        stands::{NodePods, Speakers, Stand, Use, path_of, stands, use_of},
    },
    model::VantageMode,
    vantage::{
        EnterError, Netns,
        privileges::{CapabilitySet, drop_all_but, has_sys_admin},
    },
};

/// The container runtime, asked once.
pub struct Node {
    /// What it told, and will tell while it is watched.
    pub pods: Pods,
    /// Why it did not tell.
    pub problem: Option<CriError>,
    client: Client,
    config: PodsConfig,
    known: watch::Sender<NodePods>,
}

impl Node {
    /// Asks the runtime, where the configuration needs it.
    pub async fn look(config: &Config) -> Option<Self> {
        Self::look_again(config, NodePods::default()).await
    }

    /// The same where something is known already: it stays where the runtime does not tell.
    pub async fn look_again(config: &Config, known: NodePods) -> Option<Self> {
        let config = config.pods.clone()?;
        let mut client = Client::new(&config.socket);
        let (known, pods) = watch::channel(known);
        let problem = look(&mut client, &config, &known).await.err();
        Some(Self { pods, problem, client, config, known })
    }

    /// Tells the user why the runtime did not answer.
    pub fn tell_problem(&self) {
        if let Some(problem) = &self.problem {
            super::complain(problem);
        }
    }

    /// Goes on asking until nobody listens any more.
    pub fn keep_watching(self) -> Pods {
        tokio::spawn(watch(self.client, self.config, self.known));
        self.pods
    }

    /// Who answers at the socket, for people.
    pub async fn version(&mut self) -> Option<String> {
        self.client.version().await.ok().map(|v| format!("{} {}", v.name, v.version))
    }

    /// Whether all is there that the runtime and the pods take: a capability, mounts, no security module in the way.
    ///
    /// # Errors
    /// What is missing, and how it is given. What may pass by itself, as a runtime that restarts, is no error.
    pub fn check(&self, config: &Config) -> Result<(), Failure> {
        let lasts =
            |p: &&CriError| matches!(p, CriError::Absent { .. } | CriError::Denied { .. } | CriError::NotCri { .. });
        if let Some(problem) = self.problem.as_ref().filter(lasts) {
            return Err(Failure::Usage(problem.to_string()));
        }
        if config.vantage.mode == VantageMode::Own {
            return Ok(());
        }
        let node = self.pods.borrow();
        let used = node.sandboxes.iter().filter(|s| matches!(use_of(config, s), Use::Vantage | Use::Protected));
        let tried: Vec<Option<EnterError>> = used.filter_map(|s| Some(try_to_enter(path_of(s)?).err())).collect();
        // These are of the agent itself; others may be of one pod.
        let lasts = |e: &EnterError| matches!(e, EnterError::NotPermitted { .. } | EnterError::NoNamespace { .. });
        let all_failed = tried.iter().all(Option::is_some);
        let fatal = tried.into_iter().flatten().find(|error| all_failed || lasts(error));
        fatal.map_or(Ok(()), |error| Err(Failure::Usage(error.to_string())))
    }
}

/// Enters a namespace and leaves it again.
pub fn try_to_enter(path: &Path) -> Result<(), EnterError> {
    Netns::open(path)?.visit(|| ())
}

/// Who can ask: the agent in its own network, or the identities of this node's pods.
pub fn who_asks(config: &Config, own: &Stand, node: Option<&NodePods>) -> Vec<Stand> {
    match config.vantage.mode {
        VantageMode::Own => vec![own.clone()],
        VantageMode::Pods => stands(config, node.unwrap_or(&NodePods::default())),
    }
}

/// Pods that are probed from on this node.
pub fn speakers(stands: &[Stand]) -> usize {
    let pods = stands.iter().map(|stand| match &stand.speakers {
        Speakers::Pods(pods) => pods.len(),
        _ => 0,
    });
    pods.sum()
}

/// Drops every privilege that the configuration does not need. To be called while the process has one thread.
///
/// # Errors
/// One that it needs is not there.
pub fn least_privilege(config: &Config) -> Result<(), Failure> {
    let needed = match config.vantage.mode {
        VantageMode::Own => CapabilitySet::empty(),
        // Namespaces that the runtime tells by process ids only are in another user's /proc.
        VantageMode::Pods => CapabilitySet::SYS_ADMIN | CapabilitySet::SYS_PTRACE,
    };
    drop_all_but(needed).map_err(Failure::system("drop the capabilities that are not needed"))?;
    can_enter(config)
}

/// # Errors
/// Namespaces are to be entered, and cannot be.
pub fn can_enter(config: &Config) -> Result<(), Failure> {
    if config.vantage.mode == VantageMode::Own || has_sys_admin() {
        return Ok(());
    }
    let message = "vantage.mode pods needs the capability SYS_ADMIN to enter the pods' network namespaces, and the process \
                   does not have it: give it in the container's securityContext (capabilities.add, runAsUser: 0) and start \
                   again, or use mode own";
    Err(Failure::Usage(message.into()))
}
