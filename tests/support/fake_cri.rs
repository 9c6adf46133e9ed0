//! A container runtime to be tested against: it listens on a unix socket, speaks CRI `runtime.v1` over HTTP/2, and tells of the
//! pods that it is given in the words of containerd or CRI-O, or misbehaves as it is told. It starts no pods: a network
//! namespace is a path that the test made, or made up.
//!
//! ```text
//! let mut runtime = FakeCri::start(vec![FakePod { netns: Some(path), ..FakePod::new("shop", "cart-0") }]);
//! // … ask runtime.socket() …
//! runtime.change(|pods| pods[0].ready = false);
//! runtime.misbehave(Method::PodSandboxStatus, Misbehaviour::Stall);
//! runtime.restart();
//! assert_eq!(runtime.calls(Method::ListPodSandbox), 3);
//! ```

#![allow(dead_code, unused_imports, reason = "shared by several test programs, of which each uses a part")]

#[path = "fake_cri/connection.rs"]
mod connection;
#[path = "fake_cri/hostile.rs"]
mod hostile;
#[path = "fake_cri/messages.rs"]
mod messages;
#[path = "fake_cri/pod.rs"]
mod pod;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
};

use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

pub use self::{
    hostile::{Misbehaviour, OnConnect},
    pod::{FakePod, Shape},
};

/// The methods that it knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    Version,
    ListPodSandbox,
    PodSandboxStatus,
    ListContainers,
}

impl Method {
    fn of(path: &str) -> Option<Self> {
        Some(match path.strip_prefix("/runtime.v1.RuntimeService/")? {
            "Version" => Self::Version,
            "ListPodSandbox" => Self::ListPodSandbox,
            "PodSandboxStatus" => Self::PodSandboxStatus,
            "ListContainers" => Self::ListContainers,
            _ => return None,
        })
    }
}

/// What it tells, which the test may change at any moment.
#[derive(Default)]
struct State {
    pods: Vec<FakePod>,
    misbehaviours: HashMap<Method, Misbehaviour>,
    on_connect: Option<OnConnect>,
    calls: HashMap<Method, usize>,
    connections: usize,
    open: usize,
}

type Shared = Arc<Mutex<State>>;

fn lock(state: &Shared) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A runtime, until it is dropped.
pub struct FakeCri {
    directory: TempDir,
    state: Shared,
    running: Option<Running>,
}

struct Running {
    ends: CancellationToken,
    thread: JoinHandle<()>,
}

impl FakeCri {
    /// Listens in a directory of its own.
    pub fn start(pods: Vec<FakePod>) -> Self {
        let directory = tempfile::Builder::new().prefix("fake-cri-").tempdir().unwrap();
        let state = Arc::new(Mutex::new(State { pods, ..State::default() }));
        let mut runtime = Self { directory, state, running: None };
        runtime.resume();
        runtime
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("cri.sock")
    }

    /// Changes its pods; the next answer tells of it.
    pub fn change(&self, change: impl FnOnce(&mut Vec<FakePod>)) {
        change(&mut lock(&self.state).pods);
    }

    /// From the next call of this method on.
    pub fn misbehave(&self, method: Method, how: Misbehaviour) {
        lock(&self.state).misbehaviours.insert(method, how);
    }

    /// From the next connection on.
    pub fn misbehave_on_connect(&self, how: OnConnect) {
        lock(&self.state).on_connect = Some(how);
    }

    pub fn behave(&self) {
        let mut state = lock(&self.state);
        state.misbehaviours.clear();
        state.on_connect = None;
    }

    /// How often a method was called since the start.
    pub fn calls(&self, method: Method) -> usize {
        lock(&self.state).calls.get(&method).copied().unwrap_or(0)
    }

    /// How often somebody connected since the start.
    pub fn connections(&self) -> usize {
        lock(&self.state).connections
    }

    /// How many connections are open.
    pub fn open_connections(&self) -> usize {
        lock(&self.state).open
    }

    /// As after a crash: all connections break, and the socket's file stays.
    pub fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.ends.cancel();
            // Its panic was printed when it happened.
            let _ = running.thread.join();
            lock(&self.state).open = 0;
        }
    }

    /// Listens again, at the same path.
    pub fn resume(&mut self) {
        assert!(self.running.is_none(), "it runs");
        let socket = self.socket();
        let _ = std::fs::remove_file(&socket);
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        listener.set_nonblocking(true).unwrap();
        let (ends, state) = (CancellationToken::new(), self.state.clone());
        let until = ends.clone();
        let thread = std::thread::spawn(move || {
            let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            // What still runs ends with the runtime.
            tokio.block_on(async {
                let listener = UnixListener::from_std(listener).unwrap();
                until.run_until_cancelled(connection::accept(&listener, &state)).await;
            });
        });
        self.running = Some(Running { ends, thread });
    }

    pub fn restart(&mut self) {
        self.stop();
        self.resume();
    }
}

impl Drop for FakeCri {
    fn drop(&mut self) {
        self.stop();
    }
}
