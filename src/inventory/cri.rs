//! The pods of this node, as the container runtime tells of them over the Container Runtime Interface (CRI, `runtime.v1`):
//! who they are, and where their network is.
//!
//! A runtime's socket is root on the node, so that its answers are believed; but none of them, however long or odd, may
//! stall, crash or fill the agent, and one odd sandbox does not cost the others.

mod call;
mod error;
pub mod info;
mod messages;
mod sandbox;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt, stream};
use prost::{Message, bytes::Bytes};
use tokio::time::Instant;
use tonic::Code;

use self::{
    call::{Call, Connection, LONGEST_ANSWER, LONGEST_LIST},
    messages::{
        Container, ContainerFilter, ContainerStateValue, ListContainersRequest, ListPodSandboxRequest, ListedSandbox,
        PodSandboxStatusRequest, PodSandboxStatusResponse, RUNNING, VersionRequest, VersionResponse,
    },
    sandbox::{Listed, Told},
};
pub use self::{
    error::CriError,
    info::{Network, PodDns},
    sandbox::{Labels, Sandbox},
};

/// One list with all its calls ends within this.
const LIST: Duration = Duration::from_secs(15);
/// A node with more ready sandboxes than this is not believed; kubelets stop at a few hundred pods.
const MOST_READY: usize = 2_048;
/// Of the others, which stay until somebody deletes their pods, so many are kept for people.
const MOST_ENDED: usize = 1_024;
/// The longest list holds no more sandboxes with an id, a uid and the labels of a kubelet.
const MOST_SANDBOXES: usize = 65_536;
/// Running containers of these.
const MOST_CONTAINERS: usize = 32_768;
/// So many statuses are asked at once: the runtime looks at a process for each.
const AT_ONCE: usize = 4;

const LIST_SANDBOXES: Call = Call { path: "/runtime.v1.RuntimeService/ListPodSandbox", longest: LONGEST_LIST };
const LIST_CONTAINERS: Call = Call { path: "/runtime.v1.RuntimeService/ListContainers", longest: LONGEST_LIST };
const STATUS: Call = Call { path: "/runtime.v1.RuntimeService/PodSandboxStatus", longest: LONGEST_ANSWER };
const VERSION: Call = Call { path: "/runtime.v1.RuntimeService/Version", longest: LONGEST_ANSWER };

/// Who answers at the socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// `containerd`, `cri-o`, …
    pub name: Box<str>,
    /// In the runtime's own form.
    pub version: Box<str>,
}

/// Asks one runtime. Keeps what it was told of the sandboxes that still exist.
pub struct Client {
    socket: PathBuf,
    /// Dropped when it misbehaves; the next call makes another.
    connection: Option<Connection>,
    known: BTreeMap<Arc<str>, Known>,
}

struct Known {
    sandbox: Arc<Sandbox>,
    /// Its status was told and says where its network is: it is not asked again.
    settled: bool,
}

impl Client {
    /// Asks the runtime that listens at this unix socket. Connects with the first call, and again whenever the runtime was
    /// restarted.
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned(), connection: None, known: BTreeMap::new() }
    }

    /// The sandboxes of the node, by namespace, name and age: all that are ready, and some that have ended. A status is asked
    /// once for each that is ready, and again only where its network is [unknown](Network::Unknown); unchanged sandboxes are
    /// the same `Arc` as last time.
    ///
    /// # Errors
    /// The runtime cannot be reached or asked, or tells more than can be believed. A sandbox whose own status fails is told
    /// as unknown.
    pub async fn list(&mut self) -> Result<Vec<Arc<Sandbox>>, CriError> {
        let end = Instant::now() + LIST;
        let listed = self.sandboxes(end).await?;
        let running = self.running(end).await?;
        let told = self.statuses(&listed, end).await;

        let mut before = std::mem::take(&mut self.known);
        let mut sandboxes = Vec::with_capacity(listed.len());
        for listed in listed {
            let known = before.remove(&listed.sandbox.id);
            let kept = known.as_ref().filter(|known| known.holds_for(&listed));
            let (told, settled) = match (told.get(&listed.sandbox.id), kept) {
                (Some(Err(CriError::Failed { code: Code::NotFound, .. })), _) => continue, // it vanished in between
                (Some(Err(error)), _) => (Told::unknown(&error.to_string()), false),
                (Some(Ok(told)), _) => (told.clone(), told.settles()),
                (None, Some(known)) => (Told::of(&known.sandbox), true),
                (None, None) => (Told::unknown(listed.problem.as_deref().unwrap_or("it is not ready")), false),
            };
            let running =
                running.contains(&*listed.sandbox.id) || known.as_ref().is_some_and(|known| known.has_run(&listed));
            let sandbox = listed.told(told, running);
            let sandbox = match known {
                Some(known) if *known.sandbox == sandbox => known.sandbox,
                _ => Arc::new(sandbox),
            };
            self.known.insert(sandbox.id.clone(), Known { sandbox: sandbox.clone(), settled });
            sandboxes.push(sandbox);
        }
        sandboxes.sort_by(|a, b| a.order().cmp(&b.order()));
        Ok(sandboxes)
    }

    /// Name and version of the runtime, for people.
    ///
    /// # Errors
    /// The runtime cannot be reached or asked.
    pub async fn version(&mut self) -> Result<Version, CriError> {
        let answer = self.ask(VERSION, &VersionRequest::default(), Instant::now() + LIST).await?;
        let answer: VersionResponse = self.read(VERSION, &answer)?;
        Ok(Version { name: error::line(&answer.runtime_name), version: error::line(&answer.runtime_version) })
    }

    /// Every ready sandbox once, and as many of the others as are kept.
    async fn sandboxes(&mut self, end: Instant) -> Result<Vec<Listed>, CriError> {
        let answer = self.ask(LIST_SANDBOXES, &ListPodSandboxRequest::default(), end).await?;
        let mut ids = HashSet::new();
        let mut ready = Vec::new();
        let mut ended = BTreeMap::new();
        for item in messages::items(answer, MOST_SANDBOXES).map_err(|why| self.unreadable(LIST_SANDBOXES, &why))? {
            let listed = Listed::new(self.read::<ListedSandbox>(LIST_SANDBOXES, &item)?);
            let id = listed.sandbox.id.clone();
            if !listed.sandbox.ready {
                ended.insert(id, listed);
                // Runtimes list in any order: by their ids the same ones are kept next time.
                if ended.len() > MOST_ENDED {
                    ended.pop_last();
                }
            } else if listed.problem.is_some() || ids.insert(id) {
                if ready.len() == MOST_READY {
                    return Err(self.unreadable(LIST_SANDBOXES, &format!("more than {MOST_READY} ready sandboxes")));
                }
                ready.push(listed);
            }
        }
        ready.extend(ended.into_values().filter(|ended| !ids.contains(&ended.sandbox.id)));
        Ok(ready)
    }

    /// The ids of sandboxes that have a running container.
    async fn running(&mut self, end: Instant) -> Result<HashSet<String>, CriError> {
        let filter = ContainerFilter { state: Some(ContainerStateValue { state: RUNNING }) };
        let answer = self.ask(LIST_CONTAINERS, &ListContainersRequest { filter: Some(filter) }, end).await?;
        let mut running = HashSet::new();
        for item in messages::items(answer, MOST_CONTAINERS).map_err(|why| self.unreadable(LIST_CONTAINERS, &why))? {
            let container: Container = self.read(LIST_CONTAINERS, &item)?;
            // Told again here, because a filter is easily ignored.
            if container.state == RUNNING && container.pod_sandbox_id.len() <= sandbox::LONGEST_NAME {
                running.insert(container.pod_sandbox_id);
            }
        }
        Ok(running)
    }

    /// What the runtime tells of the sandboxes that it must be asked about.
    async fn statuses(&mut self, listed: &[Listed], end: Instant) -> HashMap<Arc<str>, Result<Told, CriError>> {
        let connection = &*self.connection.get_or_insert_with(|| Connection::new(&self.socket));
        let mut calls = Vec::new();
        for listed in listed.iter().filter(|listed| listed.sandbox.ready && listed.problem.is_none()) {
            if !self.known.get(&listed.sandbox.id).is_some_and(|known| known.holds_for(listed)) {
                calls.push(status(connection, &self.socket, listed, end));
            }
        }
        let told: HashMap<_, _> = stream::iter(calls).buffer_unordered(AT_ONCE).collect().await;
        if told.values().any(|told| told.as_ref().is_err_and(CriError::is_of_the_connection)) {
            self.connection = None;
        }
        told
    }

    /// One call, over a new connection where the old one broke: the runtime may have been restarted meanwhile.
    async fn ask(&mut self, call: Call, request: &impl Message, end: Instant) -> Result<Bytes, CriError> {
        let mut reused = self.connection.is_some();
        loop {
            let connection = self.connection.get_or_insert_with(|| Connection::new(&self.socket));
            let answer = connection.call(&self.socket, call, request, end).await;
            if answer.as_ref().is_err_and(CriError::is_of_the_connection) {
                self.connection = None;
                if std::mem::take(&mut reused) && matches!(answer, Err(CriError::Broken { .. })) {
                    continue;
                }
            }
            return answer;
        }
    }

    fn read<M: Message + Default>(&self, call: Call, bytes: &[u8]) -> Result<M, CriError> {
        M::decode(bytes).map_err(|why| self.unreadable(call, &why.to_string()))
    }

    fn unreadable(&self, call: Call, why: &str) -> CriError {
        CriError::unreadable(&self.socket, call.operation(), why)
    }
}

async fn status(
    connection: &Connection,
    socket: &Path,
    listed: &Listed,
    end: Instant,
) -> (Arc<str>, Result<Told, CriError>) {
    let id = listed.sandbox.id.clone();
    let request = PodSandboxStatusRequest { pod_sandbox_id: id.to_string(), verbose: true };
    let answer = connection.call(socket, STATUS, &request, end).await.and_then(|answer| {
        PodSandboxStatusResponse::decode(answer)
            .map_err(|why| CriError::unreadable(socket, STATUS.operation(), &why.to_string()))
    });
    (id, answer.map(|answer| listed.status(answer)))
}

impl Known {
    fn holds_for(&self, listed: &Listed) -> bool {
        self.settled && listed.sandbox.ready && listed.problem.is_none() && self.is_of(listed)
    }

    /// True while it is ready since a container was seen to run in it.
    fn has_run(&self, listed: &Listed) -> bool {
        self.sandbox.running && self.sandbox.ready && listed.sandbox.ready && self.is_of(listed)
    }

    /// False where an id came back with another pod.
    fn is_of(&self, listed: &Listed) -> bool {
        let (old, new) = (&self.sandbox, &listed.sandbox);
        (&old.uid, old.created) == (&new.uid, new.created)
    }
}
