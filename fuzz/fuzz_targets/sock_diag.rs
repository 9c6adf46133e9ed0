//! Whatever the answer of NETLINK_SOCK_DIAG holds, reading it ends, and every listener takes bytes of it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use segprobe::vantage::sock_diag::read;

fuzz_target!(|bytes: &[u8]| {
    let mut found = 0;
    let _ = read(bytes, 1, |_| found += 1);
    // A header and a `struct inet_diag_msg` each.
    assert!(found * (16 + 72) <= bytes.len());
});
