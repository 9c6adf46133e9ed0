//! A Kubernetes API server to be tested against: HTTPS with a certificate authority of its own, lists in pages, watches with
//! bookmarks, and server-side apply of ConfigMaps; or it misbehaves as it is told. It knows as much of the kinds as their paths.
//!
//! ```text
//! let kube = FakeKube::start(vec![json!({"kind": "Namespace", "metadata": {"name": "payments"}})]);
//! // … segprobe discover, with KUBECONFIG = kube.kubeconfig() …
//! kube.put(json!({"kind": "Service", …}));
//! kube.misbehave("services", Verb::Watch, Misbehaviour::Status(410, None));
//! assert_eq!(kube.applied("segprobe", "segprobe-targets-0")["targets.json"], …);
//! ```

#![allow(dead_code, reason = "shared by several tests, of which each uses a part")]

#[path = "fake_kube/answer.rs"]
mod answer;
#[path = "fake_kube/tls.rs"]
mod tls;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use axum::Router;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What is asked of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    List,
    Watch,
    Patch,
}

/// How one request is answered, and only one: the next of its kind is answered well, unless there are more of these.
#[derive(Clone, Debug)]
pub enum Misbehaviour {
    /// An HTTP status, and `Retry-After` in seconds.
    Status(u16, Option<u64>),
    /// An event of type ERROR with this code, after HTTP 200; of a watch.
    ErrorEvent(u16),
    /// The beginning of the answer, and then the connection is cut.
    Cut,
    /// These very bytes instead of what was asked for.
    Bytes(Vec<u8>),
    /// Nothing, for ever.
    Stall,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Asked {
    pub verb: Verb,
    /// `pods`, `services`, and so on.
    pub plural: String,
    pub path: String,
    pub query: HashMap<String, String>,
    pub content_type: String,
    pub authorization: String,
    pub body: Value,
    pub at: Instant,
}

struct Event {
    version: u64,
    kind: &'static str,
    plural: String,
    object: Value,
}

#[derive(Default)]
struct State {
    /// By plural, namespace and name.
    objects: BTreeMap<(String, String, String), Value>,
    version: u64,
    events: Vec<Event>,
    /// What is older is forgotten.
    oldest: u64,
    misbehaviours: HashMap<(String, Verb), VecDeque<Misbehaviour>>,
    /// ConfigMaps that exist: others must not be created.
    config_maps: BTreeMap<(String, String), Value>,
    asked: Vec<Asked>,
    /// Neither events nor bookmarks are told any more, and lists are not answered.
    frozen: bool,
    no_bookmarks: bool,
    /// Kinds that it does not know.
    unknown: Vec<String>,
    page: usize,
}

#[derive(Clone)]
struct Shared {
    state: Arc<Mutex<State>>,
    changed: watch::Sender<u64>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An API server, until it is dropped.
pub struct FakeKube {
    directory: TempDir,
    shared: Shared,
    ends: CancellationToken,
    thread: Option<JoinHandle<()>>,
    pub address: SocketAddr,
}

/// The bearer token that it wants.
pub const TOKEN: &str = "the-token";

impl FakeKube {
    /// Listens on loopback, with these objects and the ConfigMaps of these namespaces.
    pub fn start(objects: Vec<Value>, namespaces: &[&str]) -> Self {
        let directory = tempfile::Builder::new().prefix("fake-kube-").tempdir().unwrap();
        let tls = tls::server(directory.path());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        tls::kubeconfig(directory.path(), address, TOKEN);
        let shared = Shared { state: Arc::default(), changed: watch::Sender::new(0) };
        let ends = CancellationToken::new();
        let (app, until) = (answer::router(shared.clone()), ends.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(until.run_until_cancelled(serve(listener, tls, app)));
        });
        let kube = Self { directory, shared, ends, thread: Some(thread), address };
        {
            let mut state = kube.shared.lock();
            state.page = 2;
            for namespace in namespaces {
                for number in 0..8 {
                    let name = format!("segprobe-targets-{number}");
                    state.config_maps.insert(((*namespace).to_owned(), name), Value::Null);
                }
            }
        }
        objects.into_iter().for_each(|object| kube.put(object));
        kube
    }

    /// A kubeconfig that leads to it.
    pub fn kubeconfig(&self) -> PathBuf {
        self.directory.path().join("kubeconfig")
    }

    /// Adds an object, or changes it.
    pub fn put(&self, object: Value) {
        let key = key(&object);
        let mut state = self.shared.lock();
        let kind = if state.objects.contains_key(&key) { "MODIFIED" } else { "ADDED" };
        state.happens(kind, key, object);
        self.shared.changed.send_replace(state.version);
    }

    /// Deletes an object.
    pub fn delete(&self, object: &Value) {
        let mut state = self.shared.lock();
        let key = key(object);
        let object = state.objects.get(&key).cloned().unwrap();
        state.happens("DELETED", key, object);
        self.shared.changed.send_replace(state.version);
    }

    /// The next request of this verb for this kind is answered so; several are answered in turn.
    pub fn misbehave(&self, plural: &str, verb: Verb, how: Misbehaviour) {
        self.shared.lock().misbehaviours.entry((plural.to_owned(), verb)).or_default().push_back(how);
    }

    /// True when every misbehaviour was had.
    pub fn has_misbehaved(&self) -> bool {
        self.shared.lock().misbehaviours.values().all(VecDeque::is_empty)
    }

    /// Ends all watches, as a server does that is restarted.
    pub fn cut_watches(&self) {
        self.shared.changed.send_replace(u64::MAX);
    }

    /// Forgets what happened: whoever watches from before has to list again.
    pub fn forget(&self) {
        let mut state = self.shared.lock();
        state.version += 10;
        state.oldest = state.version;
        state.events.clear();
    }

    /// Tells nothing any more, or again.
    pub fn freeze(&self, frozen: bool) {
        self.shared.lock().frozen = frozen;
    }

    /// Objects in a page of a list, at most.
    pub fn pages_of(&self, objects: usize) {
        self.shared.lock().page = objects;
    }

    pub fn without_bookmarks(&self) {
        self.shared.lock().no_bookmarks = true;
    }

    pub fn does_not_know(&self, plural: &str) {
        self.shared.lock().unknown.push(plural.to_owned());
    }

    /// Removes or creates a ConfigMap.
    pub fn has_config_map(&self, namespace: &str, name: &str, there: bool) {
        let key = (namespace.to_owned(), name.to_owned());
        let config_maps = &mut self.shared.lock().config_maps;
        if there {
            config_maps.insert(key, Value::Null)
        } else {
            config_maps.remove(&key)
        };
    }

    /// All requests so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.shared.lock().asked.clone()
    }

    /// The target file that was applied to a ConfigMap last; null where none was.
    pub fn applied(&self, namespace: &str, number: usize) -> Value {
        let key = (namespace.to_owned(), format!("segprobe-targets-{number}"));
        let config_map = self.shared.lock().config_maps.get(&key).cloned().unwrap_or_default();
        config_map["targets.json"].as_str().map_or(Value::Null, |text| serde_json::from_str(text).unwrap())
    }

    /// Its text.
    pub fn applied_text(&self, namespace: &str, number: usize) -> Option<String> {
        let key = (namespace.to_owned(), format!("segprobe-targets-{number}"));
        let config_map = self.shared.lock().config_maps.get(&key).cloned().unwrap_or_default();
        config_map["targets.json"].as_str().map(str::to_owned)
    }
}

impl Drop for FakeKube {
    fn drop(&mut self) {
        self.ends.cancel();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl State {
    fn happens(&mut self, kind: &'static str, key: (String, String, String), mut object: Value) {
        self.version += 1;
        if let Some(metadata) = object["metadata"].as_object_mut() {
            metadata.insert("resourceVersion".into(), self.version.to_string().into());
        }
        let plural = key.0.clone();
        if kind == "DELETED" {
            self.objects.remove(&key);
        } else {
            self.objects.insert(key, object.clone());
        }
        self.events.push(Event { version: self.version, kind, plural, object });
    }
}

fn key(object: &Value) -> (String, String, String) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let plural = format!("{}s", text(&object["kind"]).to_lowercase());
    (plural, text(&object["metadata"]["namespace"]), text(&object["metadata"]["name"]))
}

async fn serve(listener: std::net::TcpListener, tls: tokio_rustls::TlsAcceptor, app: Router) {
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let (tls, app) = (tls.clone(), app.clone());
        tokio::spawn(async move {
            // Who does not trust us goes away.
            let Ok(stream) = tls.accept(stream).await else { return };
            let builder = auto::Builder::new(TokioExecutor::new()).http1_only();
            let _ = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(app)).await;
        });
    }
}

/// A bookmark is told so often.
const BOOKMARKS: Duration = Duration::from_secs(1);
