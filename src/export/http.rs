//! What the HTTP server shows: metrics and health to everybody; what shows the protected zone's inventory, or steers the agent, to
//! whom `access` lets through.

use std::{fmt::Write, sync::Arc, time::Instant};

use arc_swap::ArcSwap;
use axum::{
    Router,
    body::Bytes,
    extract::{RawQuery, Request, State},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{Html, IntoResponse, Response},
    routing::{get, post},
};
use jiff::Timestamp;
use tokio::sync::{Mutex, mpsc, oneshot};

use super::{
    Run,
    access::{Access, Want, guard},
    exposition::Exposition,
    json,
    metrics::Metrics,
    page::{self, Query, Shown},
    together::Together,
};
use crate::{
    config::{Config, SeriesConfig, Source},
    ledger::Ledger,
    model::plain,
};

/// Asks for a reload and says how it went.
pub type ReloadRequest = oneshot::Sender<Result<(), String>>;

/// What is shown of the configuration; it changes at a reload.
#[derive(Debug)]
pub struct Current {
    /// Bounds on series.
    pub series: SeriesConfig,
    /// What it was read from.
    pub source: Arc<Source>,
    /// Its hash.
    pub hash: Box<str>,
}

impl From<&Config> for Current {
    fn from(config: &Config) -> Self {
        Self { series: config.series, source: config.source.clone(), hash: config.hash.as_str().into() }
    }
}

/// What the server shows.
#[derive(Clone)]
pub struct Site {
    /// Results.
    pub ledger: Arc<Ledger>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// The configuration.
    pub current: Arc<ArcSwap<Current>>,
    /// Who speaks.
    pub run: Run,
    /// Path of the metrics.
    pub telemetry_path: Arc<str>,
    /// What is open beyond loopback.
    pub access: Access,
    /// Where reloads are asked for; none where there is nothing to reload.
    pub reload: Option<mpsc::Sender<ReloadRequest>>,
}

/// A site of metrics and health, and nothing that shows or steers: `metrics` gives the page, and `ready` says why it is not.
pub fn bare_site(
    path: &str,
    metrics: impl Fn() -> String + Clone + Send + Sync + 'static,
    ready: impl Fn() -> Result<(), &'static str> + Clone + Send + Sync + 'static,
) -> Router {
    let page = path.to_owned();
    let answer = move || match ready() {
        Ok(()) => (StatusCode::OK, "segprobe is ready.\n".to_owned()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    };
    Router::new()
        .route("/", get(move || async move { page_response(page::bare(&page)) }))
        .merge(scraped(path, metrics))
        .route("/-/healthy", get(healthy))
        .route("/-/ready", get(move || async move { answer() }))
}

/// The metrics: one page for all who ask at once.
fn scraped(path: &str, metrics: impl Fn() -> String + Clone + Send + Sync + 'static) -> Router {
    let together = Together::default();
    let answer = move || async move {
        let page: Bytes = together.next(move || metrics().into()).await;
        ([(header::CONTENT_TYPE, Exposition::CONTENT_TYPE)], page)
    };
    Router::new().route(path, get(answer))
}

async fn healthy() -> &'static str {
    "segprobe is healthy.\n"
}

/// The agent's site.
pub fn router(site: Site) -> Router {
    let (access, shown, together) = (site.access, site.clone(), Together::default());
    let rendering = Arc::new(Mutex::new(()));
    let guarded =
        move |want| middleware::from_fn(move |request: Request, next: Next| guard(access, want, request, next));
    let detail = Router::new()
        .route("/", get(move |State(site): State<Site>, RawQuery(query): RawQuery| landing(site, query, rendering)))
        .route("/api/v1/checks", get(move |State(site): State<Site>| checks(site, together)))
        .route("/config", get(config))
        .route_layer(guarded(Want::Detail));
    let lifecycle = Router::new().route("/-/reload", post(reload)).route_layer(guarded(Want::Lifecycle));
    let path = site.telemetry_path.clone();
    let open = scraped(&path, move || {
        shown.metrics.page(&shown.ledger.snapshot(), shown.current.load().series, Instant::now())
    });
    let ready = get(|| async { "segprobe is ready.\n" });
    open.route("/-/healthy", get(healthy)).route("/-/ready", ready).merge(detail.merge(lifecycle).with_state(site))
}

/// Rendered beside the server's own thread, one at a time: with thousands of checks it takes longer than a scraper should wait.
async fn landing(site: Site, query: Option<String>, rendering: Arc<Mutex<()>>) -> Response {
    let query = Query::parse(&query.unwrap_or_default());
    let (turn, paused) = (rendering.lock_owned().await, query.paused);
    let rendered = tokio::task::spawn_blocking(move || {
        let shown = Shown {
            run: &site.run,
            telemetry_path: &site.telemetry_path,
            snapshot: &site.ledger.snapshot(),
            now: Instant::now(),
            clock: Timestamp::now(),
        };
        let page = page::detail(&shown, &query);
        drop(turn);
        page
    });
    let Ok(page) = rendered.await else { return StatusCode::INTERNAL_SERVER_ERROR.into_response() };
    let mut response = page_response(page);
    if !paused {
        response.headers_mut().insert(header::REFRESH, page::REFRESH_SECONDS.into());
    }
    response
}

/// A page with what keeps browsers from doing more with it than showing it.
fn page_response(page: String) -> Response {
    let headers = [
        (header::CONTENT_SECURITY_POLICY, page::policy()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (headers, Html(page)).into_response()
}

async fn checks(site: Site, together: Together<Result<Bytes, Arc<str>>>) -> Response {
    let report = together.next(move || {
        let report = serde_json::to_vec(&json::Report::new(&site.run, &site.ledger.snapshot(), Instant::now()));
        report.map(Bytes::from).map_err(|error| error.to_string().into())
    });
    match report.await {
        Ok(body) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn config(State(site): State<Site>) -> Response {
    let text = configuration(&site.current.load());
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
}

/// The configuration as it was read, headed by where. No key of it holds a secret.
fn configuration(current: &Current) -> String {
    let (Source { path, text, targets }, hash) = (&*current.source, &current.hash);
    let mut shown = format!("# hash: {hash}\n# file: {}\n", plain(&path.to_string_lossy()));
    for file in targets {
        // Writing to memory does not fail.
        let _ = writeln!(shown, "# target file: {}", plain(&file.to_string_lossy()));
    }
    shown.push_str(text);
    shown
}

async fn reload(State(site): State<Site>) -> Response {
    let gone = || (StatusCode::SERVICE_UNAVAILABLE, "the agent is stopping\n").into_response();
    let (answer, reloaded) = oneshot::channel();
    match &site.reload {
        Some(reload) if reload.send(answer).await.is_ok() => {}
        _ => return gone(),
    }
    match reloaded.await {
        Ok(Ok(())) => "reloaded\n".into_response(),
        Ok(Err(why)) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{why}\n")).into_response(),
        Err(_) => gone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_headed_by_its_files_whatever_their_names() {
        let source = Source {
            path: "a/segprobe.yaml".into(),
            text: "zones: {}\n".into(),
            targets: ["a/t.json".into(), "a/x\nzones: evil".into()].into(),
        };
        let series = SeriesConfig { every_check: 1, worst_checks: 1 };
        let current = Current { series, source: source.into(), hash: "abc".into() };
        let head = "# hash: abc\n# file: a/segprobe.yaml\n# target file: a/t.json\n# target file: a/x\\nzones: evil\n";
        assert_eq!(configuration(&current), format!("{head}zones: {{}}\n"));
    }
}
