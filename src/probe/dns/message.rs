//! Questions as messages, and which bytes are their answer. Hickory's codec; nothing here sends.

use hickory_resolver::proto::{
    op::{Edns, Message, MessageType, OpCode, Query},
    rr::{DNSClass, Name, RecordType},
};

use super::classify;
use crate::observation::ReplyClass;

/// What EDNS tells the server: as much as CoreDNS grants by default, and no IP fragments.
const UDP_PAYLOAD: u16 = 1232;

/// One question. The name is always absolute.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Question {
    /// The name.
    pub name: Name,
    /// SRV, A, AAAA, PTR, …
    pub kind: RecordType,
}

/// The question as a datagram; none where the name cannot be written, which is not expected.
pub fn packet(id: u16, question: &Question) -> Option<Vec<u8>> {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(question.name.clone(), question.kind));
    let mut edns = Edns::new();
    // DO stays 0: CoreDNS' dnssec plugin turns every denial into NOERROR otherwise.
    edns.set_max_payload(UDP_PAYLOAD).set_version(0);
    message.set_edns(edns);
    message.to_vec().ok()
}

/// What bytes from a server are.
pub(super) enum Read {
    /// The answer.
    Answer(Box<Message>),
    /// An answer that cannot be read.
    Unreadable,
    /// Late, duplicate or forged: the right answer may still come.
    Foreign,
}

/// The id of what may be an answer.
pub(super) fn id_of(bytes: &[u8]) -> Option<u16> {
    bytes.first_chunk::<2>().map(|id| u16::from_be_bytes(*id))
}

/// Only an answer with the query's id and question is one (RFC 5452 section 9.1).
pub(super) fn read(id: u16, question: &Question, bytes: &[u8]) -> Read {
    let is_response = bytes.get(2).is_some_and(|flags| flags & 0x80 != 0);
    if id_of(bytes) != Some(id) || !is_response {
        return Read::Foreign;
    }
    match Message::from_vec(bytes) {
        // A refusal may come without the question (RFC 1035 leaves it open); anything else must repeat it.
        Ok(message) if message.queries.is_empty() && message.answers.is_empty() => Read::Answer(Box::new(message)),
        Ok(message) if repeats(question, &message) => Read::Answer(Box::new(message)),
        Ok(_) => Read::Foreign,
        Err(_) => Read::Unreadable,
    }
}

fn repeats(question: &Question, answer: &Message) -> bool {
    matches!(&answer.queries[..], [told]
        if question.name == told.name && question.kind == told.query_type && told.query_class == DNSClass::IN)
}

/// For the fuzz target and the property tests: whatever the bytes are, reading them ends without harm.
#[doc(hidden)]
pub fn read_any(zone: &Name, question: &Question, bytes: &[u8]) -> Option<ReplyClass> {
    match read(id_of(bytes).unwrap_or_default(), question, bytes) {
        Read::Answer(message) => Some(classify(zone, question, &message)),
        Read::Unreadable => Some(ReplyClass::Malformed),
        Read::Foreign => None,
    }
}
