//! From a DNS message to its class: one pure function. What a defence looks like on the wire is in its tests.

use hickory_resolver::proto::{
    op::{Message, ResponseCode},
    rr::{
        Name, RecordType,
        rdata::opt::{EdnsCode, EdnsOption},
    },
};

use super::Question;
use crate::observation::ReplyClass;

/// What a message that matches the question says. `zone` is the cluster's zone: a negative answer is the server's own only
/// with the AA flag and a SOA of that zone, or of the reverse zone that was asked.
pub fn classify(zone: &Name, question: &Question, message: &Message) -> ReplyClass {
    match message.metadata.response_code {
        ResponseCode::NoError if answers(question, message) => ReplyClass::Answered,
        ResponseCode::NoError => negative(zone, question, message, ReplyClass::Nodata),
        ResponseCode::NXDomain => negative(zone, question, message, ReplyClass::Nxdomain),
        ResponseCode::Refused => ReplyClass::Refused,
        // Who is asked for a copy of a zone may say as well that he has none, or that he makes none (RFC 5936 section 2.2.1).
        ResponseCode::NotAuth | ResponseCode::NotImp if question.kind == RecordType::AXFR => ReplyClass::Refused,
        _ => ReplyClass::Servfail,
    }
}

fn answers(question: &Question, message: &Message) -> bool {
    let fits = |kind| match question.kind {
        // A transfer is records of all kinds.
        RecordType::AXFR => true,
        asked => kind == asked || kind == RecordType::CNAME,
    };
    message.answers.iter().any(|r| fits(r.record_type()))
}

fn negative(zone: &Name, question: &Question, message: &Message, own: ReplyClass) -> ReplyClass {
    match soa_owner(message) {
        None => ReplyClass::Blocked,
        Some(owner) if message.metadata.authoritative && is_own(zone, question, owner) => own,
        Some(_) => ReplyClass::Forwarded,
    }
}

fn is_own(zone: &Name, question: &Question, owner: &Name) -> bool {
    // In a reverse zone of its own: below `in-addr.arpa` or `ip6.arpa`, or these themselves.
    zone.zone_of(owner)
        || (question.kind == RecordType::PTR && owner.num_labels() >= 2 && owner.zone_of(&question.name))
}

/// Owner of the SOA in the authority section.
pub fn soa_owner(message: &Message) -> Option<&Name> {
    message.authorities.iter().find(|r| r.record_type() == RecordType::SOA).map(|r| &r.name)
}

/// Info codes of the extended DNS errors (RFC 8914) in the message.
pub fn extended_errors(message: &Message) -> impl Iterator<Item = u16> {
    let options = message.edns.iter().flat_map(|edns| edns.options().get_all(EdnsCode::Unknown(15)));
    options.filter_map(|option| match option {
        EdnsOption::Unknown(15, data) => Some(u16::from_be_bytes([*data.first()?, *data.get(1)?])),
        _ => None,
    })
}
