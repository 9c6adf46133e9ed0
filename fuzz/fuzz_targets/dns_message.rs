//! Whatever a DNS server sends, reading it ends, and it is an answer only where it holds one.
#![no_main]

use std::sync::LazyLock;

use hickory_resolver::proto::rr::{Name, RecordType};
use libfuzzer_sys::fuzz_target;
use segprobe::{
    observation::ReplyClass,
    probe::dns::{Question, read_any},
};

static ZONE: LazyLock<Name> = LazyLock::new(|| Name::from_ascii("cluster.local.").expect("a name"));
static QUESTION: LazyLock<Question> = LazyLock::new(|| Question {
    name: Name::from_ascii("any.any.svc.cluster.local.").expect("a name"),
    kind: RecordType::SRV,
});

fuzz_target!(|bytes: &[u8]| {
    if read_any(&ZONE, &QUESTION, bytes) == Some(ReplyClass::Answered) {
        // A response (RFC 1035 section 4.1.1) without error, with at least one answer.
        assert!(bytes[2] & 0x80 != 0 && bytes[3] & 0x0f == 0 && (bytes[6], bytes[7]) != (0, 0));
    }
});
