//! segprobe proves that low-security workloads in a Kubernetes cluster cannot reach high-security services over TCP and
//! cannot enumerate them over DNS. **A pass must be a proof**: "could not connect" is not "blocked".
//!
//! # The way of the data
//!
//! ```text
//! config ─▶ plan ─▶ sweep ─▶ vantage ─▶ probe ─▶ observation ─▶ verdict ─▶ ledger ─▶ export
//!           (pure)           (sockets)  (effects)               (pure)     (snapshot)  (metrics, page, JSON, log, table)
//! ```
//!
//! One direction, no way back. A room imports only from floors below its own:
//!
//! | floor | rooms |
//! |---|---|
//! | 7 | `main.rs`: arguments, exit code |
//! | 6 | [`command`]: one file a subcommand |
//! | 5 | [`sweep`]: schedule, controls, attempts; [`export`]: metrics, HTTP, page, log, table, JSON |
//! | 4 | [`ledger`]: latest results, transitions, findings |
//! | 3 | [`inventory`]: who is where; [`mod@plan`]: configuration to checks; [`probe`]: TCP and DNS; [`lab`]: the demo's lab |
//! | 2 | [`verdict`]: the rules; [`config`]: the document; [`vantage`]: where sockets are born; [`observation`]: what can be seen; [`pace`]: budgets |
//! | 1 | [`model`]: the words; [`cli`]: the command line |
//!
//! `verdict` and `plan` are pure. Only `vantage` makes the sockets of probes. A probe never knows what was expected, and a
//! verdict never knows how it was measured.

pub mod cli;
pub mod command;
pub mod config;
pub mod export;
pub mod inventory;
pub mod lab;
pub mod ledger;
pub mod model;
pub mod observation;
pub mod pace;
pub mod plan;
pub mod probe;
pub mod sweep;
pub mod vantage;
pub mod verdict;
