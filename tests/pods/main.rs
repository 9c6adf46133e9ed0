//! The pods' own vantage, beside the real container runtime: containerd, runc and CNI as a node has them. A trial starts its
//! own node, in namespaces of its own: see `support/containerd.rs`.

// Everything here is a test, although no `#[test]` says so: a test may fail by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cluster;
#[path = "../support/cluster_dns.rs"]
mod cluster_dns;
#[path = "../support/containerd.rs"]
mod containerd;
mod crowd;
mod dns;
mod findings;
mod harness;
mod newcomers;
mod places;
mod privileges;
mod recorded;
mod runtime;
mod scenarios;
#[path = "../support/skipped.rs"]
mod skipped;
mod support;
mod vanishing;
mod witnesses;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};
use nix::sys::stat::{Mode, umask};

/// A trial waits most of its time; what it starts keeps both cores of a small machine busy.
const TRIALS_AT_ONCE: usize = 4;

fn main() -> ExitCode {
    if std::env::var_os(harness::HOLD).is_some() {
        harness::hold_a_node();
    }
    // Plain users read what is written here, whatever the umask of the user who runs the tests is.
    umask(Mode::from_bits_truncate(0o022));
    let missing = containerd::missing();
    if let Some(why) = &missing {
        skipped::skip(
            "pods, all tests (they need root, and Debian's containerd, runc, containernetworking-plugins, nftables, iproute2, gcc)",
            why,
        );
        if skipped::is_required() {
            return ExitCode::FAILURE;
        }
    }
    // The longest first: the others run meanwhile. Whoever looks at the clock comes when the crowd has started.
    let trials = [
        crowd::trials(),
        findings::trials(),
        runtime::trials(),
        vanishing::trials(),
        newcomers::trials(),
        places::trials(),
        witnesses::trials(),
        dns::trials(),
        privileges::trials(),
        scenarios::trials(),
        harness::trials(),
        recorded::trials(),
    ];
    let trials = trials.into_iter().flatten().map(|trial| trial.with_ignored_flag(missing.is_some())).collect();
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(TRIALS_AT_ONCE);
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// A trial that fails by panicking.
fn trial(name: &str, run: fn()) -> Trial {
    Trial::test(name, move || {
        run();
        Ok(())
    })
}
