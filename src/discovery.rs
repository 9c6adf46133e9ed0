//! Discovery: what the Kubernetes API tells, as target files for agents that have no credentials.
//!
//! ```text
//! watch ─▶ inventory ─▶ targets ─▶ chunks ─▶ apply
//! (effects)             (pure)     (pure)    (effects)
//! ```

pub mod api;
pub mod chunks;
pub mod follow;
pub mod objects;
mod presets;
pub mod settings;
pub mod targets;
mod unallocated;
pub mod write;
