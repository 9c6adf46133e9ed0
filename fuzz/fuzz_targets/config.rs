//! Whatever a configuration file holds, reading it ends, and every problem is told in one line.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Err(error) = segprobe::config::parse(Path::new("f.yaml"), text) {
        assert!(!error.0.is_empty());
        assert!(error.0.iter().all(|problem| !problem.to_string().contains(char::is_control)));
    }
});
