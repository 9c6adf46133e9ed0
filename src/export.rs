//! What people and machines read: all of it from one immutable snapshot, or from what a sweep reported.

pub mod access;
pub mod discovery;
pub mod exposition;
pub mod http;
pub mod json;
pub mod junit;
pub mod log;
pub mod markdown;
pub mod metrics;
pub mod page;
mod process;
pub mod report;
pub mod sarif;
pub mod table;
pub mod tap;
mod together;
mod web_configuration;
mod words;

use std::sync::Arc;

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

#[cfg(test)]
mod tests;
