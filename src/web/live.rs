//! The web configuration as it is now: read at start, looked at again for ever, and the last good one is what counts.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use axum::http::{HeaderName, HeaderValue};
use jiff::Timestamp;
use rustls::ServerConfig;
use tracing::{error, info};

use super::{
    file::{self, Settings, Source, tls::Clients},
    logins::Logins,
    passwords::Users,
    rate::Bucket,
    tls::server_config,
};
use crate::config::{LoadError, Position, Problem};

/// Changed files are noticed within this time.
const WATCH: Duration = Duration::from_secs(5);
/// What changes is read twice, this far apart: nobody is let in by a file that is just being written.
const SETTLE: Duration = Duration::from_millis(100);
/// Why a reload was tried: the files were looked at.
const WATCHED: &str = "changed file";

/// How HTTP is served now. Clones are the same one.
#[derive(Clone)]
pub struct Web(Arc<Inner>);

struct Inner {
    /// The file; none where nothing was configured.
    path: Option<PathBuf>,
    needs_authentication: bool,
    serving: ArcSwap<Serving>,
    logins: Arc<Logins>,
    tried: Mutex<Tried>,
}

/// What a connection begins with.
#[derive(Clone)]
pub struct ConnectionTls {
    /// Certificate, versions, protocols.
    pub config: Arc<ServerConfig>,
    /// Client certificates are verified: who shows one has proven to be somebody.
    pub verifies: bool,
}

/// One web configuration, built.
#[derive(Default)]
pub struct Serving {
    tls: Option<ConnectionTls>,
    pub(super) users: Option<Arc<Users>>,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    bucket: Option<Mutex<Bucket>>,
    /// It said nothing at all.
    empty: bool,
    /// Of what it was built from.
    digest: [u8; 32],
}

/// How the last try to load ended.
struct Tried {
    problem: Option<String>,
    succeeded: Timestamp,
}

/// How the last reload went, for the metrics.
#[derive(Clone, Copy, Debug)]
pub struct Status {
    /// What the files say is what counts.
    pub successful: bool,
    /// When it last was read successfully.
    pub succeeded: Timestamp,
    /// Password hashes that were computed.
    pub hashes: u64,
}

impl Web {
    /// Plain HTTP for whoever asks.
    pub fn open() -> Self {
        Self::new(None, false, Serving::default())
    }

    /// Reads the file. Where authentication is needed, a file that asks for none is wrong, now and later.
    ///
    /// # Errors
    /// Everything that is wrong with the file, with line and column.
    pub fn load(path: &Path, needs_authentication: bool) -> Result<Self, LoadError> {
        let serving = build(path, file::read(path)?, needs_authentication)?;
        Ok(Self::new(Some(path.to_owned()), needs_authentication, serving))
    }

    fn new(path: Option<PathBuf>, needs_authentication: bool, serving: Serving) -> Self {
        let tried = Mutex::new(Tried { problem: None, succeeded: Timestamp::now() });
        let serving = ArcSwap::from_pointee(serving);
        Self(Arc::new(Inner { path, needs_authentication, serving, logins: Arc::default(), tried }))
    }

    /// TLS for the next connection; none for plain HTTP.
    pub fn tls(&self) -> Option<ConnectionTls> {
        self.0.serving.load().tls.clone()
    }

    /// Whether somebody can prove to be somebody: by a password or a verified client certificate.
    pub fn authenticates(&self) -> bool {
        self.0.serving.load().authenticates()
    }

    /// How the last reload went; none where there is no file.
    pub fn status(&self) -> Option<Status> {
        self.0.path.as_ref()?;
        let tried = self.tried();
        let hashes = self.0.logins.work().done().0;
        Some(Status { successful: tried.problem.is_none(), succeeded: tried.succeeded, hashes })
    }

    /// Reads the files again; what is wrong leaves the old ones in force.
    ///
    /// # Errors
    /// What is wrong, a line each.
    pub fn reload(&self, why: &str) -> Result<(), String> {
        match &self.0.path {
            Some(path) => self.take(path, file::read(path), why),
            None => Ok(()),
        }
    }

    /// Looks at the files for ever.
    pub async fn watch(self) {
        if self.0.path.is_none() {
            return std::future::pending().await;
        }
        let mut watch = tokio::time::interval(WATCH);
        watch.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            watch.tick().await;
            let web = self.clone();
            // Not on a thread of the sweeps: files may hang, and keys take their time.
            let _ = tokio::task::spawn_blocking(move || web.look()).await;
        }
    }

    fn look(&self) {
        let Some(path) = &self.0.path else { return };
        let source = file::read(path);
        let digest = |source: &Result<Source, LoadError>| source.as_ref().ok().map(|source| source.digest);
        if digest(&source) == Some(self.serving().digest) && self.tried().problem.is_none() {
            return;
        }
        std::thread::sleep(SETTLE);
        let again = file::read(path);
        if digest(&again) == digest(&source) {
            let _ = self.take(path, again, WATCHED);
        }
    }

    /// What counts now.
    pub(super) fn serving(&self) -> Arc<Serving> {
        self.0.serving.load_full()
    }

    pub(super) fn logins(&self) -> &Arc<Logins> {
        &self.0.logins
    }

    fn tried(&self) -> MutexGuard<'_, Tried> {
        self.0.tried.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, path: &Path, source: Result<Source, LoadError>, why: &str) -> Result<(), String> {
        let mut tried = self.tried();
        if source.as_ref().is_ok_and(|source| source.digest == self.serving().digest) {
            // What counts stays, with the tokens that are left, and the sessions that may be resumed.
            *tried = Tried { problem: None, succeeded: Timestamp::now() };
            return Ok(());
        }
        let built = source.and_then(|source| {
            if source.empty && !self.0.serving.load().empty {
                let message = "empty, and it was not: is the disk full? To serve plain HTTP to everybody, write {}";
                return Err(Problem::new(path, Position::default(), message).into());
            }
            build(path, source, self.0.needs_authentication)
        });
        match built {
            Ok(serving) => {
                self.0.logins.keep(serving.users.as_deref());
                info!(
                    why,
                    tls = serving.tls.is_some(),
                    authenticates = serving.authenticates(),
                    "web configuration reloaded"
                );
                self.0.serving.store(Arc::new(serving));
                *tried = Tried { problem: None, succeeded: Timestamp::now() };
                Ok(())
            }
            Err(problem) => {
                let problem = problem.to_string();
                if why != WATCHED || tried.problem.as_ref() != Some(&problem) {
                    error!(why, problem, "web configuration not reloaded, the old one stays");
                }
                tried.problem = Some(problem.clone());
                Err(problem)
            }
        }
    }
}

impl Serving {
    fn authenticates(&self) -> bool {
        self.users.is_some() || self.tls.as_ref().is_some_and(|tls| tls.verifies)
    }

    /// Takes a request's token, or tells how long there will be none.
    pub fn take_token(&self, now: Instant) -> Result<(), Duration> {
        let Some(bucket) = &self.bucket else { return Ok(()) };
        bucket.lock().unwrap_or_else(PoisonError::into_inner).take(now)
    }
}

fn build(path: &Path, source: Source, needs_authentication: bool) -> Result<Serving, LoadError> {
    let Source { settings: Settings { tls, http2, headers, users, rate }, digest, empty } = source;
    let verifies = tls.as_ref().is_some_and(|tls| matches!(tls.clients, Clients::Verified { .. }));
    let config = tls.map(|tls| server_config(path, &tls, http2)).transpose()?;
    let tls = config.map(|config| ConnectionTls { config: Arc::new(config), verifies });
    let bucket = rate.map(|rate| Mutex::new(Bucket::new(rate, Instant::now())));
    let serving = Serving { tls, users: users.map(Arc::new), headers, bucket, empty, digest };
    if needs_authentication && !serving.authenticates() {
        let message = "nobody is asked who they are, and the command line opens details beyond loopback; \
            set basic_auth_users, or client_auth_type: RequireAndVerifyClientCert with client_ca_file";
        return Err(Problem::new(path, Position::default(), message).into());
    }
    Ok(serving)
}
