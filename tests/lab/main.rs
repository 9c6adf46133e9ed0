//! The lab: the whole way from configuration to verdict, against a real kernel. See README.md beside this file.

// Everything here is a test, although no `#[test]` says so: a test may fail by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod alertmanager;
#[path = "../support/cluster_dns.rs"]
mod cluster_dns;
mod dns;
mod dns_targets;
mod dynamic;
mod engine;
#[path = "../support/fake_cri.rs"]
mod fake_cri;
mod netns;
mod network;
mod pods;
mod scenario;
mod servers;
#[path = "../support/skipped.rs"]
mod skipped;
mod stall;

use std::{
    process::ExitCode,
    sync::{Arc, Mutex},
};

use libtest_mimic::{Arguments, Trial};

use network::Network;

/// Trials wait for silent connects most of their time, so many of them fit on a core.
const TRIALS_AT_ONCE: usize = 40;

/// Trials that keep a core busy take turns: others measure losses meanwhile.
static HEAVY: Mutex<()> = Mutex::new(());

use segprobe::lab::Entered;

fn main() -> ExitCode {
    // First of all: the kernel gives a user namespace only to a process with one thread.
    let ready = match segprobe::lab::enter() {
        Ok(Entered::Own) => {
            if let Some(ended) = netns::child() {
                return ended;
            }
            try_everything()
        }
        Ok(Entered::Refused(why)) | Err(why) => Err(format!("no user and network namespace of its own: {why}")),
    };
    if let Err(why) = &ready {
        skipped::skip("lab, all tests (they need ip, nft and user namespaces)", why);
        if skipped::is_required() {
            return ExitCode::FAILURE;
        }
    }
    // The scenarios whose networks change at a moment first, the DNS servers' load last.
    let trials = [
        alertmanager::trials(),
        dynamic::trials(),
        netns::trials(),
        scenario_trials(),
        pods::trials(),
        stall::trials(),
        dns::trials(),
        dns_targets::trials(),
    ];
    let trials = trials.into_iter().flatten();
    let trials = trials.map(|trial| trial.with_ignored_flag(ready.is_err())).collect();
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(TRIALS_AT_ONCE);
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Whether a network and a rule can be made here at all.
fn try_everything() -> Result<(), String> {
    segprobe::vantage::raise_descriptor_limit().map_err(|e| format!("the limit of open descriptors: {e}"))?;
    Network::new()?.router.nft("add table inet lab")
}

fn scenario_trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for (name, scenario) in scenario::load_all() {
        let scenario = Arc::new(scenario);
        for family in &scenario.families {
            for index in 0..scenario.cases.len() {
                let (scenario, family) = (scenario.clone(), *family);
                let trial = format!("{name}::{family}::{}", scenario.cases[index].name.replace(' ', "-"));
                trials
                    .push(Trial::test(trial, move || scenario.run(&scenario.cases[index], family).map_err(Into::into)));
            }
        }
    }
    trials
}
