//! The JSON of all checks, for `/api/v1/checks` and `check --output json`, and its schema.

mod check;

use std::{
    io::{self, Write},
    time::Instant,
};

use jiff::Timestamp;
use schemars::{JsonSchema, generate::SchemaSettings};
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::{Run, report::Header};
use crate::{
    ledger::{BoundaryView, CheckView, Snapshot},
    model::{Expect, VantageMode},
    plan::NotTested,
};
use check::Check;

/// Version of the format: raised when a reader of the old one would be misled.
pub const FORMAT: u32 = 1;

/// The result of `segprobe check --output json`, and of an agent's `/api/v1/checks`. Readers ignore fields that they do not know: new
/// ones may come without a new format.
#[derive(Serialize, JsonSchema)]
#[schemars(title = "Report of segprobe")]
pub struct Report<'a> {
    /// Version of this format: raised when a reader of the old one would be misled.
    #[schemars(extend("const" = FORMAT))]
    format: u32,
    #[serde(flatten)]
    header: Header<'a>,
    /// What is not tested, or cannot be proven.
    not_tested: &'a [NotTested],
    /// Every boundary, in the order of the configuration.
    #[serde(serialize_with = "boundaries")]
    #[schemars(with = "Vec<Boundary<'_>>")]
    boundaries: &'a [BoundaryView],
    /// Every check, in the order of their identities.
    #[serde(serialize_with = "checks")]
    #[schemars(with = "Vec<Check<'_>>")]
    checks: (&'a [CheckView], Instant),
}

impl<'a> Report<'a> {
    /// The snapshot as it is served at `now`; serializes straight from it.
    pub fn new(run: &'a Run, snapshot: &'a Snapshot, now: Instant) -> Self {
        Self {
            format: FORMAT,
            header: Header::new(run, snapshot),
            not_tested: &snapshot.not_tested,
            boundaries: &snapshot.boundaries,
            checks: (&snapshot.checks, now),
        }
    }
}

/// Writes the document.
///
/// # Errors
/// What the writer said.
pub fn write(out: &mut impl Write, report: &Report<'_>) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, report)?;
    writeln!(out)
}

/// The document's JSON Schema, from the types that write it.
pub fn schema() -> Value {
    let settings = SchemaSettings::draft2020_12().for_serialize();
    settings.into_generator().into_root_schema_for::<Report<'_>>().to_value()
}

/// A directed pair of zones, and when it was swept.
#[derive(Serialize, JsonSchema)]
struct Boundary<'a> {
    /// Its name.
    name: &'a str,
    /// Zone that the probes come from.
    from: &'a str,
    /// Zone that the targets are in.
    to: &'a str,
    /// What is promised.
    expect: Expect,
    /// Where the sockets of its probes are born.
    vantage: VantageMode,
    /// Seconds between the starts of two sweeps.
    interval_seconds: f64,
    /// Nodes that share the targets: 1 where every agent probes all of them, 0 where it is not known how many there are.
    share_nodes: u32,
    /// Sweeps within which this node probes each target; 0 where it probes none.
    share_sweeps: u32,
    /// Why nothing of it is tested, where that is so: a pass of the others says nothing of it; null where something is.
    untested: Option<&'a str>,
    /// End of the last sweep; null before the first.
    last_completed: Option<Timestamp>,
    /// How long it took, in seconds.
    last_duration_seconds: Option<f64>,
}

fn boundaries<S: Serializer>(boundaries: &[BoundaryView], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(boundaries.iter().map(|b| Boundary {
        name: &b.name,
        from: &b.from,
        to: &b.to,
        expect: b.expect,
        vantage: b.vantage,
        interval_seconds: b.interval.as_secs_f64(),
        share_nodes: b.share_nodes,
        share_sweeps: b.share_sweeps,
        untested: b.untested.as_deref(),
        last_completed: b.completed,
        last_duration_seconds: b.took.map(|t| t.as_secs_f64()),
    }))
}

fn checks<S: Serializer>((checks, now): &(&[CheckView], Instant), serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(checks.iter().map(|view| Check::new(view, *now)))
}
