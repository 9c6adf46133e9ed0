//! The HTTP server: metrics and health for everybody; what shows the protected zone's inventory, or steers the agent, on
//! the loopback address only.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use arc_swap::ArcSwap;
use axum::{
    Extension, Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{Html, IntoResponse, Response},
    routing::{get, post},
};
use tokio::sync::{mpsc, oneshot};

use super::{Run, exposition::Exposition, json, metrics::Metrics, page};
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
        .route("/", get(move || async move { Html(page::bare(&page)) }))
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

async fn landing(State(site): State<Site>, Extension(peer): Extension<Peer>, headers: HeaderMap) -> Response {
    let page = if may_see(peer, &headers) {
        page::detail(&site.telemetry_path, &site.ledger.snapshot(), Instant::now())
    } else {
        page::plain(&site.telemetry_path)
    };
    let policy =
        "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";
    ([(header::CONTENT_SECURITY_POLICY, policy), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")], Html(page))
        .into_response()
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
