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

/// What a message that matches the question says. `zone` is the cluster's zone: a negative answer counts as the zone's
/// own only with its SOA and the AA flag.
pub fn classify(zone: &Name, question: &Question, message: &Message) -> ReplyClass {
    match message.metadata.response_code {
        ResponseCode::NoError if answers(question, message) => ReplyClass::Answered,
        ResponseCode::NoError => negative(zone, message, ReplyClass::Nodata),
        ResponseCode::NXDomain => negative(zone, message, ReplyClass::Nxdomain),
        ResponseCode::Refused => ReplyClass::Refused,
        _ => ReplyClass::Servfail,
    }
}

fn answers(question: &Question, message: &Message) -> bool {
    message.answers.iter().any(|r| r.record_type() == question.kind || r.record_type() == RecordType::CNAME)
}

fn negative(zone: &Name, message: &Message, own: ReplyClass) -> ReplyClass {
    match soa_owner(message) {
        None => ReplyClass::Blocked,
        Some(owner) if message.metadata.authoritative && zone.zone_of(owner) => own,
        Some(_) => ReplyClass::Forwarded,
    }
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
