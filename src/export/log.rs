//! The log: transitions as structured events, not every probe.

use std::{io, sync::Arc};

use tracing::{info, warn};
use tracing_subscriber::{Layer, filter::LevelFilter, layer::SubscriberExt, registry, util::SubscriberInitExt};

use super::words;
use crate::{
    cli::{LogFormat, LogLevel},
    ledger::{CheckView, Closed, Transition},
    model::{CheckId, PodName, Verdict},
};

/// Sends the log to standard error. Later calls in one process do nothing.
pub fn init(level: LogLevel, format: LogFormat) {
    let level = match level {
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
    };
    // Only our own events: a library's chatter is no operator's business.
    let ours = tracing_subscriber::filter::filter_fn(|metadata| metadata.target().starts_with("segprobe"));
    let layer: Box<dyn Layer<_> + Send + Sync> = match format {
        // Without the module's path, whose key would be `target` as well: that is the check's.
        LogFormat::Logfmt => Box::new(tracing_logfmt::builder().with_target(false).layer().with_writer(io::stderr)),
        LogFormat::Json => {
            let layer = tracing_subscriber::fmt::layer().json().flatten_event(true);
            Box::new(layer.with_target(false).with_writer(io::stderr))
        }
    };
    let _ = registry().with(layer.with_filter(ours).with_filter(level)).try_init();
}

/// Writes what changed, with the evidence of the checks as they are now. Findings are warnings, with at most so many disclosed
/// names.
pub fn transitions(transitions: &[Transition], view: impl Fn(&CheckId) -> Option<CheckView>, most_names: usize) {
    for transition in transitions {
        let (Transition::Opened { id, .. }
        | Transition::Closed { id, .. }
        | Transition::Startup { id, .. }
        | Transition::Changed { id, .. }) = transition;
        let evidence = || view(id).map(|view| words::evidence_with(&view, most_names)).unwrap_or_default();
        let (boundary, check, target, via) = (&*id.boundary, id.kind.as_str(), &*id.target, id.via_str());
        let (namespace, source_namespace, source) = (&*id.target_namespace, &*id.source.namespace, &*id.source.name);
        let text = |address: &Option<std::net::SocketAddr>| address.map(|a| a.to_string()).unwrap_or_default();
        let pod = |from: &Option<Arc<PodName>>| from.as_ref().map(|from| from.name.to_string()).unwrap_or_default();
        match transition {
            Transition::Opened { from, address, reason, .. } => {
                warn!(
                    event = "finding-opened",
                    boundary,
                    check,
                    source_namespace,
                    source,
                    target_namespace = namespace,
                    target,
                    via,
                    pod = pod(from),
                    address = text(address),
                    reason = reason.as_str(),
                    evidence = evidence(),
                    "segmentation breach"
                );
            }
            Transition::Startup { from, address, length, .. } => {
                warn!(
                    event = "startup",
                    boundary,
                    check,
                    source_namespace,
                    source,
                    target_namespace = namespace,
                    target,
                    via,
                    pod = pod(from),
                    address = text(address),
                    open_seconds = length.as_secs_f64(),
                    "open while new"
                );
            }
            Transition::Closed { from, address, closed, after, .. } => {
                let how = match closed {
                    Closed::Resolved => "resolved",
                    Closed::Gone => "gone",
                };
                warn!(
                    event = "finding-closed",
                    boundary,
                    check,
                    source_namespace,
                    source,
                    target_namespace = namespace,
                    target,
                    via,
                    pod = pod(from),
                    address = text(address),
                    how,
                    open_seconds = after.as_secs(),
                    "segmentation breach over"
                );
            }
            Transition::Changed { from, to, .. } => {
                let before = from.map_or("", crate::model::Reason::as_str);
                let verdict = to.verdict().as_str();
                if from.is_none() && to.verdict() == Verdict::Pass {
                    continue;
                }
                info!(
                    event = "changed",
                    boundary,
                    check,
                    source_namespace,
                    source,
                    target_namespace = namespace,
                    target,
                    via,
                    from = before,
                    to = to.as_str(),
                    verdict,
                    evidence = evidence(),
                    "verdict changed"
                );
            }
        }
    }
}
