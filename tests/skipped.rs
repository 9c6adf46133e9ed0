//! The end of `cargo test`: which tests were skipped, and why. Cargo runs test programs in the order of their names: this one is
//! the last of them.

#[path = "support/skipped.rs"]
#[allow(dead_code, reason = "shared with the programs that skip")]
mod support;

use std::collections::{BTreeMap, BTreeSet};

use libtest_mimic::Arguments;

fn main() {
    // A list of tests, as editors ask for, is no run.
    if Arguments::from_args().list {
        return;
    }
    let mut skipped: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (why, what) in support::take() {
        skipped.entry(why).or_default().insert(what);
    }
    if skipped.is_empty() {
        return println!("\nNothing was skipped.\n");
    }
    println!("\nSkipped, and why:");
    for (why, tests) in &skipped {
        println!("  {why}:");
        tests.iter().for_each(|test| println!("    {test}"));
    }
    println!();
}
