//! The HTTP server: metrics and health for everybody; what shows the protected zone's inventory, or steers the agent, on
//! the loopback address only.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use arc_swap::ArcSwap;
use axum::{
    Extension, Router,
    extract::{RawQuery, State},
    http::{HeaderMap, StatusCode, header},
    response::{Html, IntoResponse, Response},
    routing::{get, post},
};
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};

use super::{
    Run,
    exposition::Exposition,
    json,
    metrics::Metrics,
    page::{self, Query, Shown},
};
use crate::{
    config::SeriesConfig,
    ledger::Ledger,
    web::{Peer, is_loopback},
};

/// Asks for a reload and says how it went.
pub type ReloadRequest = oneshot::Sender<Result<(), String>>;

/// What the server shows.
#[derive(Clone)]
pub struct Site {
    /// Results.
    pub ledger: Arc<Ledger>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Bounds on series; they change at a reload.
    pub series: Arc<ArcSwap<SeriesConfig>>,
    /// Who speaks.
    pub run: Run,
    /// Path of the metrics.
    pub telemetry_path: Arc<str>,
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
        .route(path, get(move || async move { ([(header::CONTENT_TYPE, Exposition::CONTENT_TYPE)], metrics()) }))
        .route("/-/healthy", get(healthy))
        .route("/-/ready", get(move || async move { answer() }))
}

async fn healthy() -> &'static str {
    "segprobe is healthy.\n"
}

/// The agent's site.
pub fn router(site: Site) -> Router {
    Router::new()
        .route("/", get(landing))
        .route(&site.telemetry_path.clone(), get(metrics))
        .route("/-/healthy", get(healthy))
        .route("/-/ready", get(|| async { "segprobe is ready.\n" }))
        .route("/api/v1/checks", get(checks))
        .route("/-/reload", post(reload))
        .with_state(site)
}

async fn landing(
    State(site): State<Site>,
    Extension(peer): Extension<Peer>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let query = Query::parse(&query.unwrap_or_default());
    let sees = may_see(peer, &headers);
    let page = if sees {
        let shown = Shown {
            run: &site.run,
            telemetry_path: &site.telemetry_path,
            snapshot: &site.ledger.snapshot(),
            now: Instant::now(),
            clock: Timestamp::now(),
        };
        page::detail(&shown, &query)
    } else {
        page::plain_page(&site.telemetry_path)
    };
    let mut response = page_response(page);
    if sees && !query.paused {
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

async fn metrics(State(site): State<Site>) -> Response {
    let text = site.metrics.page(&site.ledger.snapshot(), **site.series.load(), Instant::now());
    ([(header::CONTENT_TYPE, Exposition::CONTENT_TYPE)], text).into_response()
}

async fn checks(State(site): State<Site>, Extension(peer): Extension<Peer>, headers: HeaderMap) -> Response {
    if !may_see(peer, &headers) {
        return refuse();
    }
    let snapshot = site.ledger.snapshot();
    match serde_json::to_vec(&json::Report::new(&site.run, &snapshot, Instant::now())) {
        Ok(body) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn reload(State(site): State<Site>, Extension(peer): Extension<Peer>, headers: HeaderMap) -> Response {
    if !may_see(peer, &headers) {
        return refuse();
    }
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

fn refuse() -> Response {
    let text = "only on the loopback address: `kubectl port-forward` leads there\n";
    (StatusCode::FORBIDDEN, text).into_response()
}

/// A request over loopback that also names it: a web page that points a name of its own here (DNS rebinding) does not.
fn may_see(peer: Peer, headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|h| h.to_str().ok());
    peer.loopback && host.is_none_or(names_loopback)
}

fn names_loopback(host: &str) -> bool {
    if let Ok(address) = host.parse::<SocketAddr>() {
        return is_loopback(address.ip());
    }
    let name = host.rsplit_once(':').map_or(host, |(name, port)| if port.parse::<u16>().is_ok() { name } else { host });
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(is_loopback)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_names_are_loopback() {
        for host in ["localhost", "localhost:11450", "127.0.0.1:11450", "127.0.0.1", "[::1]:11450", "[::1]"] {
            assert!(names_loopback(host), "{host}");
        }
        for host in
            ["evil.example", "evil.example:11450", "127.0.0.1.evil.example", "10.0.0.1:11450", "localhost.evil:1", ""]
        {
            assert!(!names_loopback(host), "{host}");
        }
    }
}
