//! Whatever a container runtime tells in a verbose status, reading it ends, and a path that comes of it is a plain one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use segprobe::inventory::cri::{Network, info::Info};

fuzz_target!(|text: &str| {
    let Ok(info) = Info::read(text) else { return };
    match info.network(&[]) {
        Network::Pod(path) => {
            let path = path.to_str().expect("it came of text");
            assert!(path.starts_with('/') && !path.contains('\0') && path.split('/').all(|part| part != ".."));
        }
        Network::Hidden(why) | Network::Unknown(why) => assert!(!why.contains(char::is_control)),
        Network::Host => {}
    }
});
