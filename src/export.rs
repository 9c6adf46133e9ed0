//! What people and machines read: all of it from one immutable snapshot, or from what a sweep reported.

pub mod discovery;
pub mod exposition;
pub mod http;
pub mod json;
pub mod log;
pub mod metrics;
pub mod page;
pub mod table;
mod words;

use std::sync::Arc;

use crate::web::live::Status;
use exposition::Exposition;

/// What is said about this run itself, everywhere.
#[derive(Clone, Debug)]
pub struct Run {
    /// The node, as Kubernetes names it.
    pub node: Arc<str>,
    /// The kernel's release.
    pub kernel: Arc<str>,
    /// The kernel gives ICMP detail.
    pub icmp_evidence: bool,
}

/// This program's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Revision of its source.
pub const REVISION: &str = env!("SEGPROBE_REVISION");
/// Version of the compiler that built it.
pub const RUSTVERSION: &str = env!("SEGPROBE_RUSTVERSION");

/// How the web configuration was last read: nothing where there is none.
fn web_configuration(page: &mut Exposition, web: Option<Status>) {
    let Some(Status { successful, succeeded, hashes }) = web else { return };
    let name = "segprobe_web_config_last_reload_successful";
    page.family(name, "gauge", "Whether the last reload of the web configuration was successful.");
    page.sample(name, &[], u8::from(successful));
    let name = "segprobe_web_config_last_reload_success_timestamp_seconds";
    page.family(name, "gauge", "Time of the last successful reload of the web configuration.");
    page.sample(name, &[], succeeded.as_second());
    let name = "segprobe_web_password_hashes_total";
    page.family(name, "counter", "Password hashes that were computed: many mean that somebody guesses.");
    page.sample(name, &[], hashes);
}

#[cfg(test)]
mod tests;
